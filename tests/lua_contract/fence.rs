//! fence: closes the partition for a recovery.

use std::collections::BTreeMap;

use cota::ledger::wire::Status;

use crate::{
    case::Case,
    ops::{debit, reserve},
    support::partition::Head,
};

fn closed(epoch: &str, sq: &str, oq: &str) -> BTreeMap<String, String> {
    let fields = [("st", "recovering"), ("ep", epoch), ("sq", sq), ("oq", oq), ("ri", "")];
    fields.into_iter().map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

async fn newer(p: &mut Case, epoch: u64, current: i64) {
    let before = (p.dump().await, p.all_meta().await);
    assert_eq!(p.fence(epoch).await, [1, current]);
    assert_eq!((p.dump().await, p.all_meta().await), before, "an overtaken attempt changes nothing");
}

contract! {
    fn it_closes_and_keeps_the_counts(p) {
        p.grant(100, 0).await;
        p.apply(&[debit(1, 5), debit(2, 5)]).await.answers();
        assert_eq!(p.fence(2).await, [0, 3, 2, 2]);
        assert_eq!(p.all_meta().await, closed("2", "3", "2"));
    }

    fn nobody_is_served_afterwards(p) {
        p.grant(100, 0).await;
        p.fence(2).await;
        for epoch in [1, 2] {
            let head = Head { epoch, ..p.head() };
            assert_eq!(p.refuses(&head, reserve(1, 1)).await, (2, Some(2)));
        }
    }

    fn it_works_without_any_key(p) {
        p.command(&[b"FLUSHALL"]).await;
        assert_eq!(p.fence(7).await, [0, 0, 0, 0]);
        assert_eq!(p.all_meta().await, closed("7", "0", "0"));
        assert_eq!(p.dump().await, []);
    }

    fn an_older_attempt_is_overtaken(p) {
        p.fence(5).await;
        newer(p, 4, 5).await;
    }

    fn an_attempt_repeated_is_fine(p) {
        p.fence(5).await;
        let before = p.all_meta().await;
        assert_eq!(p.fence(5).await, [0, 0, 0, 0]);
        assert_eq!(p.all_meta().await, before);
    }

    fn a_newer_attempt_overtakes(p) {
        p.fence(5).await;
        assert_eq!(p.fence(6).await[0], 0);
        assert_eq!(p.all_meta().await, closed("6", "0", "0"));
    }

    fn an_attempt_that_has_opened_is_over(p) {
        p.recover(5).await;
        newer(p, 5, 5).await;
    }

    fn the_epoch_that_is_open_cannot_be_fenced_with_itself(p) {
        newer(p, 1, 1).await;
        p.grant(100, 0).await;
        p.ok(reserve(1, 1)).await;
    }

    fn epochs_are_compared_as_numbers(p) {
        p.fence(9).await;
        assert_eq!(p.fence(10).await[0], 0);
        newer(p, 9, 10).await;
    }

    fn the_last_id_of_the_stream_counts_also_after_its_ack(p) {
        p.grant(100, 0).await;
        p.apply(&[debit(1, 5), debit(2, 5), debit(3, 5)]).await.answers();
        assert_eq!(p.flush_all().await, 3);
        assert_eq!(p.outbox().await, []);
        assert_eq!(p.fence(2).await, [0, 4, 3, 3]);
    }

    fn the_last_id_of_the_stream_may_be_above_the_count(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let key = p.keys.outbox();
        p.command(&[b"XADD", &key, b"9007199254740000-5", b"d", b"x"]).await;
        p.command(&[b"XDEL", &key, b"9007199254740000-5"]).await;
        assert_eq!(p.fence(2).await, [0, 2, 1, 9_007_199_254_740_000]);
    }

    fn it_keeps_outbox_records_and_balances(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(debit(2, 5)).await;
        let before = p.dump().await;
        p.fence(2).await;
        assert_eq!(p.dump().await, before);
    }

    fn a_recovery_begun_anew_still_ends(p) {
        p.grant(100, 0).await;
        p.fence(2).await;
        p.recover(3).await;
        p.unchanged(reserve(1, 1), Status::Cold).await;
    }
}
