//! ack: entries leave by exact id only, and records age only when nothing of them is left.

use cota::{
    ledger::scripts,
    quota::{Entry, OutboxId},
};

use crate::{
    ops::{Tweak, debit, expire, reserve, settle},
    support::partition::{rid, text, user},
};

fn another_nonce(entry: &Entry) -> Entry {
    let outbox_id = OutboxId { nonce: entry.outbox_id.nonce + 1, ..entry.outbox_id };
    Entry { outbox_id, ..entry.clone() }
}

contract! {
    fn it_deletes_the_entry_and_starts_the_retention(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        assert_eq!(p.flush_all().await, 1);
        assert_eq!(p.outbox().await, []);
        p.assert_ttl(1, 1_800_000).await;
    }

    fn twice_deletes_nothing_more(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        p.ok(debit(2, 5)).await;
        let entries = p.outbox().await;
        assert_eq!(p.flush(&entries[..1]).await, 1);
        assert_eq!(p.flush(&entries[..1]).await, 0);
        assert_eq!(p.outbox().await, entries[1..]);
        assert_eq!(p.ttl(2).await, -1);
    }

    fn an_id_with_another_nonce_deletes_nothing(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let entry = p.entry().await;
        let before = p.dump().await;
        assert_eq!(p.flush(&[another_nonce(&entry)]).await, 0);
        assert_eq!(p.dump().await, before);
        assert_eq!(p.ttl(1).await, -1, "what waits for Postgres does not age");
    }

    fn an_id_with_another_sequence_deletes_nothing(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let mut entry = p.entry().await;
        entry.outbox_id.sequence += 1;
        assert_eq!(p.flush(&[entry]).await, 0);
        assert_eq!((p.outbox().await.len(), p.ttl(1).await), (1, -1));
    }

    fn the_smallest_and_the_largest_nonce_are_exact_ids_too(p) {
        p.grant(100, 0).await;
        for (id, nonce) in [(1, 0), (2, (1 << 62) - 1)] {
            let head = crate::support::partition::Head { nonce, ..p.head() };
            p.apply_with(&head, &[debit(id, 5)]).await.answers();
        }
        let mut wrong = p.outbox().await;
        wrong[0].outbox_id.nonce = 1;
        wrong[1].outbox_id.nonce -= 1;
        assert_eq!(p.flush(&wrong).await, 0);
        assert_eq!(p.flush_all().await, 2);
    }

    fn an_entry_whose_record_is_gone_leaves_all_the_same(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let key = p.keys.record(user(0), &rid(1));
        p.command(&[b"DEL", &key]).await;
        assert_eq!(p.flush_all().await, 1);
        assert_eq!(p.ttl(1).await, -2, "nothing is made of it");
    }

    fn an_expired_record_ages_for_the_long_retention(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        p.ok(expire(1)).await;
        assert_eq!(p.flush_all().await, 1);
        p.assert_ttl(1, 86_400_000).await;
    }

    fn a_batch_of_many_accounts(p) {
        p.grant(100, 0).await;
        p.load(1, 100, 0).await;
        p.ok(debit(1, 5)).await;
        p.ok(debit(1, 6).of(1)).await;
        p.ok(debit(2, 7)).await;
        assert_eq!(p.flush_all().await, 3);
        p.assert_ttl(1, 1_800_000).await;
        p.assert_ttl(2, 1_800_000).await;
        assert!(p.record_ttl(user(1), &rid(1)).await > 0);
    }

    fn out_of_order(p) {
        p.grant(100, 0).await;
        for id in 1..=3 {
            p.ok(debit(id, 5)).await;
        }
        let entries = p.outbox().await;
        assert_eq!(p.flush(&entries[1..2]).await, 1);
        assert_eq!(p.outbox().await, [entries[0].clone(), entries[2].clone()]);
    }

    fn nothing_to_ack_is_nothing(p) {
        assert_eq!(p.flush(&[]).await, 0);
    }

    fn a_partition_without_an_outbox(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let entries = p.outbox().await;
        p.command(&[b"FLUSHALL"]).await;
        assert_eq!(p.ack(&entries).await, 0);
        assert_eq!(p.dump().await, []);
    }

    fn a_pending_record_of_the_same_id_does_not_age(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let entry = p.entry().await;
        let key = p.keys.record(user(0), &rid(1));
        p.command(&[b"DEL", &key]).await;
        p.ok(reserve(1, 30)).await;
        assert_eq!(p.flush(&[entry]).await, 1);
        assert_eq!(p.ttl(1).await, -1);
    }

    fn a_record_of_an_unknown_format_is_left_alone(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        p.plant_unknown_format(1).await;
        assert_eq!(p.flush_all().await, 1);
        assert_eq!(p.ttl(1).await, -1);
    }

    fn it_touches_neither_counts_nor_balances(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        let (meta, balance) = (p.all_meta().await, p.balance().await);
        p.flush_all().await;
        assert_eq!((p.all_meta().await, p.balance().await), (meta, balance));
    }

    fn it_works_while_recovering(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        p.fence(2).await;
        assert_eq!(p.flush_all().await, 1);
    }

    fn as_many_as_the_service_sends_in_one_call(p) {
        p.grant(1_000, 0).await;
        for page in 0..5 {
            let ops: Vec<_> = (0..50).map(|n| debit(50 * page + n, 1)).collect();
            p.apply(&ops).await.answers();
        }
        assert_eq!(p.flush_all().await, 250);
        p.assert_ttl(249, 1_800_000).await;
    }

    fn the_retentions_are_the_callers(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let entries = p.outbox().await;
        let keys = [p.keys.outbox(), p.keys.record(user(0), &rid(1))];
        let args = [text(7_200_000), text(1), text(entries[0].outbox_id)];
        p.call(&scripts::ACK, &keys, &args).await;
        p.flushed.insert(user(0), 5);
        p.assert_ttl(1, 7_200_000).await;
    }
}
