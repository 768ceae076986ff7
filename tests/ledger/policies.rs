//! What happens in each case of the policy table, seen from outside.

use std::time::Duration;

use cota::{
    ledger::Refusal,
    quota::{Charge, Extend, Flags, Kind, State, Usage},
};

use crate::support::world::{World, deadline, id, tokens, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_charges_what_was_used_and_gives_back_the_rest() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    let held = world.reserve(user, "a", 100).await.unwrap();
    assert_eq!((held.subject.state, held.subject.tokens, held.replayed), (State::Pending, 100, false));
    assert_eq!(world.balance(user).await, (900, 100, 0));
    let settled = world.settle(user, "a", 40).await.unwrap();
    assert_eq!(
        (settled.subject.tokens, settled.subject.kind, settled.subject.flags),
        (40, Kind::Settle, Flags(0))
    );
    assert_eq!(world.balance(user).await, (960, 0, 40));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_reserved_is_charged_in_full_and_the_next_reserve_waits_for_credit() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 60).await.unwrap();
    let settled = world.settle(user, "a", 160).await.unwrap();
    assert!(settled.subject.flags.contains(Flags::OVERAGE));
    assert_eq!(world.balance(user).await, (-60, 0, 160));
    let refused = world.reserve(user, "b", 1).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Insufficient { short } if short[0].available == -60), "{refused:?}");
    world.credit(user, 61, "more").await;
    assert!(world.ledger().sync_now(user, deadline()).await);
    world.reserve(user, "b", 1).await.unwrap();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_usage_charges_what_was_held() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 30).await.unwrap();
    let settled = world.settle_on(0, user, "a", Charge::Unknown).await.unwrap();
    assert_eq!(settled.subject.tokens, 30);
    assert!(settled.subject.flags.contains(Flags::ESTIMATED));
    assert!(world.settle_on(0, user, "a", Charge::Unknown).await.unwrap().replayed);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explicit_zero_charges_nothing_and_is_recorded() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 30).await.unwrap();
    assert_eq!(world.settle(user, "a", 0).await.unwrap().subject.tokens, 0);
    assert_eq!(world.balance(user).await, (100, 0, 0));
    world.check().await;
    let partition = world.partitions.of(user);
    let (rows, _) = world.store.transactions_of(partition, user, &id("a")).await.unwrap().unwrap();
    assert_eq!((rows.len(), rows[0].tokens), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_input_and_output_together() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    world.reserve(user, "a", 30).await.unwrap();
    let usage =
        Usage { input_tokens: tokens(10), output_tokens: tokens(7), cached_input_tokens: Some(tokens(3)) };
    let settled = world.settle_on(0, user, "a", Charge::Usage(usage)).await.unwrap();
    assert_eq!(settled.subject.tokens, 17);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_with_the_first_facts_and_other_numbers_are_refused() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    let first = world.reserve(user, "a", 100).await.unwrap();
    let again = world.reserve(user, "a", 100).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.subject, first.subject);
    assert_eq!(world.reserve(user, "a", 99).await.unwrap_err(), Refusal::Mismatch);
    let first = world.settle(user, "a", 10).await.unwrap();
    let again = world.settle(user, "a", 10).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.subject, first.subject);
    assert_eq!(world.settle(user, "a", 11).await.unwrap_err(), Refusal::Mismatch);
    assert_eq!(world.reserve(user, "a", 100).await.unwrap_err(), Refusal::Finished { state: State::Settled });
    assert_eq!(world.balance(user).await, (990, 0, 10));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_gives_everything_back_once() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 40).await.unwrap();
    world.reserve(user, "other", 10).await.unwrap();
    assert!(!world.release(user, "a").await.unwrap().replayed);
    assert!(world.release(user, "a").await.unwrap().replayed);
    assert_eq!(world.balance(user).await, (90, 10, 0), "the other hold is untouched (case 27)");
    assert_eq!(world.settle(user, "a", 1).await.unwrap_err(), Refusal::Finished { state: State::Released });
    assert_eq!(world.reserve(user, "a", 40).await.unwrap_err(), Refusal::Finished { state: State::Released });
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_before_its_reserve_refuses_it() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.release(user, "late").await.unwrap();
    assert_eq!(
        world.reserve(user, "late", 1).await.unwrap_err(),
        Refusal::Finished { state: State::Released }
    );
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_of_an_unknown_id_is_refused_and_changes_nothing() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    assert_eq!(world.settle(user, "nobody", 10).await.unwrap_err(), Refusal::ReservationNotFound);
    assert_eq!(world.balance(user).await, (100, 0, 0));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_expires_by_itself_and_a_late_settle_is_charged_once() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve_on(0, user, "a", 100, 1).await.unwrap();
    world.reserve_on(0, user, "b", 1, 60).await.unwrap_err();
    until("the hold has expired", async || world.balance(user).await == (100, 0, 0)).await;
    let state = world.ledger().reservation(user, id("a"), deadline()).await.unwrap().state;
    assert_eq!(state, State::Expired);
    for replayed in [false, true, true] {
        let settled = world.settle(user, "a", 40).await.unwrap();
        assert_eq!(
            (settled.subject.tokens, settled.replayed),
            (40, replayed),
            "case 23: the same answer, no error loop"
        );
        assert!(settled.subject.flags.contains(Flags::LATE));
    }
    assert_eq!(world.balance(user).await, (60, 0, 40));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_charged_at_expiry_and_a_later_settle_corrects_it() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve_on(0, user, "a", 50, 1).await.unwrap();
    let ask = Extend { id: id("a"), tokens: None, ttl_seconds: None, used_tokens: Some(tokens(30)) };
    let extended = world.ledger().extend(user, ask.clone(), deadline()).await.unwrap();
    assert_eq!((extended.subject.used_tokens, extended.replayed), (30, false));
    assert!(world.ledger().extend(user, ask, deadline()).await.unwrap().replayed);
    until("the progress is charged", async || world.balance(user).await == (70, 0, 30)).await;
    let settled = world.settle(user, "a", 20).await.unwrap();
    assert_eq!((settled.subject.tokens, settled.subject.kind), (20, Kind::Correction));
    assert_eq!(world.balance(user).await, (80, 0, 20));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn extend_raises_and_never_lowers() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 50).await.unwrap();
    let ask = |n| Extend { id: id("a"), tokens: Some(tokens(n)), ttl_seconds: None, used_tokens: None };
    assert_eq!(world.ledger().extend(user, ask(80), deadline()).await.unwrap().subject.tokens, 80);
    assert_eq!(world.ledger().extend(user, ask(60), deadline()).await.unwrap().subject.tokens, 80);
    let refused = world.ledger().extend(user, ask(101), deadline()).await.unwrap_err();
    assert!(matches!(refused, Refusal::Insufficient { .. }), "{refused:?}");
    assert_eq!(world.balance(user).await, (20, 80, 0));
    let unknown = Extend { id: id("nobody"), tokens: None, ttl_seconds: Some(5), used_tokens: None };
    assert_eq!(
        world.ledger().extend(user, unknown, deadline()).await.unwrap_err(),
        Refusal::ReservationNotFound
    );
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debit_is_charged_once_by_id() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    assert!(!world.debit(user, "d", 30).await.unwrap().replayed);
    assert!(world.debit(user, "d", 30).await.unwrap().replayed);
    assert_eq!(world.debit(user, "d", 31).await.unwrap_err(), Refusal::Mismatch);
    assert_eq!(world.balance(user).await, (70, 0, 30));
    world.debit(user, "e", 100).await.unwrap();
    assert_eq!(world.balance(user).await.0, -30, "usage that has happened is charged");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_tokens_may_be_reserved_when_broke() {
    let world = World::start(1).await;
    let user = world.user(0).await;
    world.reserve(user, "free", 0).await.unwrap();
    assert!(matches!(world.reserve(user, "paid", 1).await.unwrap_err(), Refusal::Insufficient { .. }));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_belongs_to_its_user() {
    let world = World::start(1).await;
    let (a, b) = (world.user(100).await, world.user(100).await);
    world.reserve(a, "same", 10).await.unwrap();
    assert_eq!(world.settle(b, "same", 10).await.unwrap_err(), Refusal::ReservationNotFound);
    world.reserve(b, "same", 20).await.unwrap();
    assert_eq!(world.balance(a).await, (90, 10, 0));
    assert_eq!(world.balance(b).await, (80, 20, 0));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_and_forgotten_settle_is_answered_by_postgres() {
    let world = World::with(1, |config| config.ledger.retention_seconds = 1).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 10).await.unwrap();
    let first = world.settle(user, "a", 10).await.unwrap();
    let mut redis = world.redis_connection().await;
    let key = world.keys(user).record(user, &id("a"));
    until("Redis has forgotten it", async || {
        !redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut redis).await.unwrap()
    })
    .await;
    let again = world.settle(user, "a", 10).await.unwrap();
    assert!(again.replayed);
    assert_eq!((again.subject.id, again.subject.tokens), (first.subject.id, 10));
    assert_eq!(world.settle(user, "a", 9).await.unwrap_err(), Refusal::Mismatch);
    let state = world.ledger().reservation(user, id("a"), deadline()).await.unwrap().state;
    assert_eq!(state, State::Settled);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_reservations_are_listed_by_id() {
    let world = World::start(1).await;
    let (user, other) = (world.user(100).await, world.user(100).await);
    for name in ["c", "a", "b", "gone"] {
        world.reserve(user, name, 1).await.unwrap();
    }
    world.reserve(other, "z", 1).await.unwrap();
    world.release(user, "gone").await.unwrap();
    let names =
        |list: Vec<cota::quota::Reservation>| list.into_iter().map(|r| r.id.to_string()).collect::<Vec<_>>();
    let all = world.ledger().pending(user, None, 10, deadline()).await.unwrap();
    assert_eq!(names(all), ["a", "b", "c"]);
    let page = world.ledger().pending(user, Some(id("a")), 1, deadline()).await.unwrap();
    assert_eq!(names(page), ["b"]);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_abandoned_holds_come_back() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    let reserves = (0..1_000).map(|n| {
        let world = &world;
        async move { world.reserve_on(0, user, &format!("r{n}"), 1, 1).await.unwrap() }
    });
    futures_util::future::join_all(reserves).await;
    until("all have expired (case 16)", async || world.balance(user).await == (1_000, 0, 0)).await;
    let pending = world.ledger().pending(user, None, 10, deadline()).await.unwrap();
    assert_eq!(pending, []);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_counts_what_is_due_as_expired() {
    // ◆ Reader and writer agree: no sweeper runs here before the denial is answered.
    let world = World::with(1, |config| config.ledger.sweep_interval_ms = 3_600_000).await;
    let user = world.user(10).await;
    world.reserve_on(0, user, "a", 10, 1).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        let mut n = 0;
        while world.reserve_on(0, user, &format!("b{n}"), 10, 60).await.is_err() {
            n += 1;
        }
    })
    .await
    .unwrap();
    assert_eq!(world.balance(user).await, (0, 10, 0));
    world.check().await;
}
