//! Chains: the operations of one account in a batch call, in order whatever happens in the middle.

use cota::{
    ledger::{Done, Outcome, Refusal},
    quota::{Ask, Charge, Debit, Extend, ReservationId, Reserve, Settle, State, UserId},
};
use futures_util::future::join_all;

use crate::{
    faults::ProxiedRedis,
    support::{
        proxy::Mode,
        world::{World, deadline, id, tokens, until},
    },
};

fn reserve(name: &str, n: u64) -> Ask {
    Ask::Reserve(Reserve { id: id(name), tokens: tokens(n), model: None, ttl_seconds: 600, metadata: None })
}

fn settle(name: &str, n: u64) -> Ask {
    Ask::Settle(Settle { id: id(name), charge: Charge::Tokens(tokens(n)), model: None, request_id: None })
}

fn debit(name: &str, n: u64) -> Ask {
    Ask::Debit(Debit { id: id(name), charge: Charge::Tokens(tokens(n)), model: None, request_id: None })
}

fn extend(name: &str, n: u64) -> Ask {
    Ask::Extend(Extend { id: id(name), tokens: Some(tokens(n)), ttl_seconds: None, used_tokens: None })
}

fn release(name: &str) -> Ask {
    Ask::Release(id(name))
}

/// One word per answer, replays in capitals.
fn word(answer: &Result<Done, Refusal>) -> &'static str {
    match answer {
        Ok(Done::Held(receipt)) if receipt.replayed => "HELD",
        Ok(Done::Held(_)) => "held",
        Ok(Done::Charged(receipt)) if receipt.replayed => "CHARGED",
        Ok(Done::Charged(_)) => "charged",
        Err(refusal) => refusal.as_str(),
    }
}

/// Runs one chain on the first replica.
async fn chain_of(world: &World, user: UserId, asks: Vec<Ask>) -> Vec<Result<Done, Refusal>> {
    let ledger = world.ledger();
    ledger.begin(vec![(user, asks)], deadline()).await.remove(0).run().await
}

/// Runs a chain on the first replica, notes what it acked, and says how each operation was answered.
async fn run(world: &World, user: UserId, asks: Vec<Ask>) -> Vec<&'static str> {
    let ids: Vec<ReservationId> = asks.iter().map(|ask| ask.id().clone()).collect();
    let answers = chain_of(world, user, asks).await;
    assert_eq!(answers.len(), ids.len());
    let mut journal = world.journal.lock().unwrap();
    for (id, answer) in ids.into_iter().zip(&answers) {
        journal.asked.insert((user, id.clone()));
        if let Ok(Done::Charged(receipt)) = answer {
            journal.acked.insert((user, id), receipt.subject.tokens);
        }
    }
    answers.iter().map(word).collect()
}

/// Changes the account's policy without a word to the replicas; Redis has it.
async fn change_policy(world: &World) {
    world.sql("UPDATE user_accounts SET policy_version = policy_version + 1, version = version + 1").await;
    until("Redis has the policy", async || world.store.unsynced(100).await.unwrap().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_stale_policy_waits_for_it() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    let chain = |n: usize| {
        let (a, b) = (format!("a{n}"), format!("b{n}"));
        vec![
            debit(&format!("d{n}"), 1),
            reserve(&a, 20),
            extend(&a, 30),
            settle(&a, 5),
            reserve(&b, 10),
            release(&b),
        ]
    };
    let answers = ["charged", "held", "held", "charged", "held", "held"];
    for n in 0..4 {
        assert_eq!(run(&world, user, chain(n)).await, answers, "policy {n}");
        change_policy(&world).await;
    }
    assert_eq!(world.balance(user).await, (76, 0, 24));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_denial_waits_for_the_sweep() {
    let world = World::with(1, |config| config.ledger.sweep_interval_ms = 3_600_000).await;
    let user = world.user(10).await;
    let held = world.reserve_on(0, user, "old", 10, 1).await.unwrap().subject;
    until("it is due", async || jiff::Timestamp::now().as_millisecond() as u64 > held.expires_at_ms).await;
    let chain = vec![
        reserve("a", 10),
        settle("a", 4),
        reserve("b", 7),
        debit("d", 6),
        reserve("c", 1),
        release("old"),
    ];
    let answers = run(&world, user, chain).await;
    assert_eq!(answers, ["held", "charged", "denied", "charged", "denied", "finished"]);
    assert_eq!(world.balance(user).await, (0, 0, 10));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_id_that_postgres_is_asked_for_waits_for_its_answer() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    let chain = vec![
        settle("nobody", 1),
        reserve("nobody", 5),
        settle("nobody", 2),
        extend("none", 9),
        reserve("none", 5),
        release("none"),
    ];
    let answers = run(&world, user, chain).await;
    assert_eq!(answers, ["unknown_id", "held", "charged", "unknown_id", "held", "held"]);
    assert_eq!(world.balance(user).await, (98, 0, 2));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_longer_than_a_call_stays_in_order() {
    for max_batch in [1, 7, 64] {
        let world = World::with(1, |config| config.ledger.max_batch = max_batch).await;
        let user = world.user(10).await;
        let mut chain = Vec::new();
        for n in 0..100 {
            let name = format!("r{n}");
            chain.extend([reserve(&name, 10), reserve(&format!("x{n}"), 1), release(&name)]);
        }
        let answers = run(&world, user, chain).await;
        for three in answers.chunks(3) {
            assert_eq!(three, ["held", "denied", "held"], "calls of {max_batch}");
        }
        world.check().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_gets_through_where_its_operations_would_singly() {
    // One waiting reserve per user, and queues shorter than the chain.
    let world = World::with(1, |config| {
        config.ledger.reserves_per_user = 1;
        config.ledger.reserve_queue = 2;
        config.ledger.settle_queue = 8;
    })
    .await;
    let user = world.user(1_000).await;
    let mut chain = Vec::new();
    for n in 0..20 {
        let name = format!("r{n}");
        chain.extend([reserve(&name, 10), settle(&name, 1), debit(&format!("d{n}"), 1)]);
    }
    for answers in run(&world, user, chain).await.chunks(3) {
        assert_eq!(answers, ["held", "charged", "charged"]);
    }
    assert_eq!(world.balance(user).await, (960, 0, 40));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_call_is_run_again_where_that_cannot_show() {
    let proxied = ProxiedRedis::start().await;
    let world = &proxied.world;
    let user = world.user(100).await;
    assert_eq!(run(world, user, vec![reserve("a", 10), reserve("b", 10)]).await, ["held", "held"]);
    for round in 0..5 {
        proxied.proxy.set(Mode::CutReply);
        let cuts = proxied.proxy.cuts();
        let (d, r) = (format!("d{round}"), format!("r{round}"));
        let chain =
            vec![settle("a", 3), debit(&d, 2), release("b"), reserve(&r, 1), reserve(&format!("{r}x"), 1)];
        let (answers, ()) = tokio::join!(run(world, user, chain), async {
            until("replies were cut", async || proxied.proxy.cuts() > cuts + 2).await;
            proxied.proxy.set(Mode::Pass);
        });
        let done = answers.iter().map(|answer| answer.to_lowercase()).collect::<Vec<_>>();
        assert_eq!(done, ["charged", "charged", "held", "held", "held"], "{answers:?}");
    }
    assert_eq!(world.balance(user).await, (77, 10, 13));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_call_whose_second_run_would_show_is_unknown_and_what_comes_later_is_not_run() {
    let proxied = ProxiedRedis::with(|config| config.ledger.max_batch = 4).await;
    let world = &proxied.world;
    let user = world.user(10).await;
    world.reserve(user, "warm", 0).await.unwrap();
    // A second run of the call would admit b: a has been released by then.
    let chain = || vec![reserve("a", 10), reserve("b", 10), release("a"), debit("d", 1), debit("e", 1)];
    proxied.proxy.set(Mode::CutReply);
    let answers = chain_of(world, user, chain()).await;
    proxied.proxy.set(Mode::Pass);
    let unavailable = |outcome| Err(Refusal::Unavailable { outcome });
    let (unknown, none) = (unavailable(Outcome::Unknown), unavailable(Outcome::None));
    assert_eq!(answers, [unknown.clone(), unknown.clone(), unknown.clone(), unknown, none]);
    world.all_open().await;
    // The caller repeats, and learns: the first run had its effect, once.
    let again = run(world, user, chain()).await;
    assert_eq!(again, ["finished", "denied", "HELD", "CHARGED", "charged"]);
    assert_eq!(world.balance(user).await, (8, 0, 2));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_of_one_account_against_changes_of_its_policy() {
    let world = World::start(2).await;
    let user = world.user(1_000_000).await;
    let work = |worker: usize| {
        let world = &world;
        async move {
            for n in 0..30 {
                let (a, b, d) =
                    (format!("a{worker}-{n}"), format!("b{worker}-{n}"), format!("d{worker}-{n}"));
                let chain = vec![
                    reserve(&a, 10),
                    extend(&a, 20),
                    debit(&d, 1),
                    settle(&a, 15),
                    reserve(&b, 5),
                    release(&b),
                    reserve(&b, 5),
                    settle(&a, 15),
                ];
                let answers = run(world, user, chain).await;
                let expected = ["held", "held", "charged", "charged", "held", "held", "finished", "CHARGED"];
                assert_eq!(answers, expected, "worker {worker}, chain {n}");
            }
        }
    };
    tokio::join!(join_all((0..4).map(work)), async {
        for _ in 0..20 {
            change_policy(&world).await;
        }
    });
    assert_eq!(world.balance(user).await, (1_000_000 - 4 * 30 * 16, 0, 4 * 30 * 16));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_reservation_in_the_middle_says_so() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    let held = world.reserve_on(0, user, "old", 10, 1).await.unwrap().subject;
    until("it is due", async || jiff::Timestamp::now().as_millisecond() as u64 > held.expires_at_ms).await;
    let asks = vec![extend("old", 20), settle("old", 7), settle("old", 7), release("old")];
    let answers = chain_of(&world, user, asks).await;
    assert_eq!(answers[0], Err(Refusal::Finished { state: State::Expired }));
    assert_eq!(answers[1..].iter().map(word).collect::<Vec<_>>(), ["charged", "CHARGED", "finished"]);
    world.journal.lock().unwrap().acked.insert((user, id("old")), 7);
    world.check().await;
}
