//! The head of apply, sync, load and peek: is this the partition's life that the caller means?

use cota::ledger::scripts::{self, Script};

use crate::{
    case::Case,
    ops::{debit, reserve},
    support::partition::{Applied, Head, text},
};

const UNINIT: i64 = 1;
const CLOSED: i64 = 2;
const EPOCH: i64 = 3;
const ROLLBACK: i64 = 4;

/// A script, its keys and its arguments.
type Call<'a> = (&'a Script, &'a [Vec<u8>], &'a [Vec<u8>]);

/// Every script with the head refuses this caller with this code, and changes nothing.
async fn all_refuse(p: &mut Case, head: Head, code: i64, number: Option<i64>) {
    assert_eq!(p.refuses(&head, reserve(1, 1)).await, (code, number), "apply");
    let before = (p.dump().await, p.all_meta().await);
    let caller = [text(head.epoch), text(head.high_water), text(&head.run_id)];
    let sync = [&caller[..], &p.sync_args(500, 9, 9, true)[3..]].concat();
    let load = [&caller[..], &p.load_args(500, 9, 9, true, 50)[3..]].concat();
    let budget = p.budget_keys(0);
    let peek = [p.keys.meta(), p.keys.expiry(), budget[1].clone()];
    let calls: [Call<'_>; 3] = [
        (&scripts::SYNC, &budget, &sync),
        (&scripts::LOAD, &budget, &load),
        (&scripts::PEEK, &peek, &caller),
    ];
    for (script, keys, args) in calls {
        let reply = p.numbers(script, keys, args).await;
        assert_eq!(reply, [code].into_iter().chain(number).collect::<Vec<_>>(), "{}", script.name);
    }
    assert_eq!((p.dump().await, p.all_meta().await), before, "a refusal changes not even the meta hash");
}

contract! {
    fn without_a_meta_hash_it_is_uninit(p) {
        p.grant(100, 0).await;
        let key = p.keys.meta();
        p.command(&[b"DEL", &key]).await;
        let head = p.head();
        all_refuse(p, head, UNINIT, None).await;
    }

    fn after_flushall_it_is_uninit(p) {
        p.grant(100, 0).await;
        p.command(&[b"FLUSHALL"]).await;
        let head = p.head();
        all_refuse(p, head, UNINIT, None).await;
    }

    fn while_recovering_it_is_closed(p) {
        p.grant(100, 0).await;
        p.fence(2).await;
        let head = p.head();
        all_refuse(p, head, CLOSED, Some(2)).await;
    }

    fn while_recovering_it_is_closed_to_the_new_epoch_too(p) {
        p.grant(100, 0).await;
        p.fence(2).await;
        let head = Head { epoch: 2, ..p.head() };
        all_refuse(p, head, CLOSED, Some(2)).await;
    }

    fn an_older_epoch_is_refused(p) {
        p.grant(100, 0).await;
        p.recover(2).await;
        let head = Head { epoch: 1, ..p.head() };
        all_refuse(p, head, EPOCH, Some(2)).await;
    }

    fn a_newer_epoch_is_refused(p) {
        p.grant(100, 0).await;
        let head = Head { epoch: 2, ..p.head() };
        all_refuse(p, head, EPOCH, Some(1)).await;
    }

    fn another_run_id_is_refused(p) {
        p.grant(100, 0).await;
        let head = Head { run_id: "another".into(), ..p.head() };
        all_refuse(p, head, EPOCH, Some(1)).await;
    }

    fn fewer_mutations_than_the_caller_has_seen_are_a_rollback(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 1)).await;
        let head = Head { high_water: 3, ..p.head() };
        all_refuse(p, head, ROLLBACK, Some(2)).await;
    }

    fn exactly_as_many_are_none(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 1)).await;
        let head = Head { high_water: 2, ..p.head() };
        let Applied::Done { sq, .. } = p.apply_with(&head, &[debit(2, 1)]).await else { panic!("refused") };
        assert_eq!(sq, 3);
    }

    fn more_than_the_caller_has_seen_are_none(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 1)).await;
        let head = Head { high_water: 1, ..p.head() };
        assert_eq!(p.apply_with(&head, &[debit(2, 1)]).await.answers().len(), 1);
    }

    fn the_epoch_is_said_before_a_rollback(p) {
        p.grant(100, 0).await;
        let head = Head { epoch: 2, high_water: 1_000, ..p.head() };
        all_refuse(p, head, EPOCH, Some(1)).await;
    }

    fn counts_are_exact_near_2_to_the_53(p) {
        p.grant(100, 0).await;
        let base = (1_u64 << 53) - 10;
        p.set_meta("sq", base).await;
        p.set_meta("oq", base).await;
        let head = Head { high_water: base, ..p.head() };
        let Applied::Done { sq, .. } = p.apply_with(&head, &[debit(1, 1), debit(2, 1)]).await else {
            panic!("refused")
        };
        assert_eq!((sq, p.meta("sq").await), (base + 2, Some("9007199254740984".into())));
        let ids: Vec<u64> = p.outbox().await.iter().map(|entry| entry.outbox_id.sequence).collect();
        assert_eq!(ids, [base + 1, base + 2]);
        let head = Head { high_water: base + 3, ..p.head() };
        assert_eq!(p.refuses(&head, debit(3, 1)).await, (ROLLBACK, Some((base + 2) as i64)));
    }

    fn the_reply_echoes_the_nonce_and_the_clock(p) {
        p.grant(100, 0).await;
        let head = Head { nonce: 4_611_686_018_427_387_903, ..p.head() };
        let Applied::Done { now_ms, .. } = p.apply_with(&head, &[debit(1, 1)]).await else {
            panic!("refused")
        };
        assert_eq!(p.entry().await.at_ms, now_ms);
    }
}
