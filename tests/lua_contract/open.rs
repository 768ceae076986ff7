//! open: ends a recovery.

use crate::{
    case::Case,
    ops::{debit, reserve},
    support::partition::{Applied, Head},
};

const LOST: i64 = 5;

async fn lost(p: &mut Case, epoch: u64) {
    let before = (p.dump().await, p.all_meta().await);
    assert_eq!(p.open(epoch, 99, true).await, [LOST]);
    assert_eq!((p.dump().await, p.all_meta().await), before);
}

contract! {
    fn it_opens_with_base_run_id_and_time(p) {
        p.begin_recovery(2).await;
        let opened = p.open(2, 5_000_000, true).await;
        let meta = p.all_meta().await;
        let ra = opened[1].to_string();
        let expected =
            [("st", "open"), ("ep", "2"), ("sq", "5000000"), ("oq", "5000000"), ("ri", "run"), ("ra", &ra)];
        assert_eq!(meta, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    fn it_serves_from_then_on_and_counts_from_the_base(p) {
        p.begin_recovery(2).await;
        p.open(2, 5_000_000, true).await;
        p.grant(100, 0).await;
        let Applied::Done { sq, .. } = p.apply(&[reserve(1, 1), debit(2, 1)]).await else {
            panic!("refused")
        };
        assert_eq!(sq, 5_000_003);
        assert_eq!(p.entry().await.outbox_id.sequence, 5_000_002);
    }

    fn a_caller_of_the_epoch_before_is_refused(p) {
        p.grant(100, 0).await;
        p.recover(2).await;
        let head = Head { epoch: 1, ..p.head() };
        assert_eq!(p.refuses(&head, reserve(1, 1)).await, (3, Some(2)));
    }

    fn a_first_opening_notes_no_recovery(p) {
        p.begin_recovery(2).await;
        p.open(2, 0, false).await;
        assert_eq!(p.meta("ra").await, None);
    }

    fn a_later_opening_without_loss_keeps_the_time_of_the_last_recovery(p) {
        p.recover(2).await;
        let at = p.meta("ra").await;
        p.begin_recovery(3).await;
        p.open(3, 9_000_000, false).await;
        assert!(at.is_some());
        assert_eq!(p.meta("ra").await, at);
    }

    fn an_older_attempt_cannot_open(p) {
        p.fence(2).await;
        p.fence(3).await;
        lost(p, 2).await;
        assert_eq!(p.open(3, 10, true).await[0], 0);
    }

    fn an_attempt_that_never_fenced_cannot_open(p) {
        p.fence(2).await;
        lost(p, 3).await;
    }

    fn nobody_opens_twice(p) {
        p.recover(2).await;
        lost(p, 2).await;
    }

    fn nobody_opens_what_was_never_fenced(p) {
        lost(p, 1).await;
    }

    fn nobody_opens_what_was_lost_since(p) {
        p.fence(2).await;
        p.command(&[b"FLUSHALL"]).await;
        lost(p, 2).await;
    }

    fn outbox_ids_go_on_above_everything_before(p) {
        p.grant(100, 0).await;
        p.apply(&[debit(1, 1), debit(2, 1)]).await.answers();
        p.recover(2).await;
        p.grant(100, 2).await;
        p.ok(debit(3, 1)).await;
        assert_eq!(p.entry().await.outbox_id.sequence, 2_000_001);
    }

    fn the_base_is_exact_near_2_to_the_53(p) {
        p.begin_recovery(2).await;
        p.open(2, 9_007_199_254_740_000, true).await;
        p.grant(100, 0).await;
        p.ok(debit(1, 1)).await;
        assert_eq!(p.entry().await.outbox_id.sequence, 9_007_199_254_740_001);
        assert_eq!(p.meta("sq").await.unwrap(), "9007199254740002");
    }
}
