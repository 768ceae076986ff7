//! A load of calls that goes on through faults, as gateways would make it: every call is repeated with the same id
//! until it has a definite answer.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use cota::{
    ledger::{Ledger, Refusal},
    quota::{Charge, Debit, Reserve, Settle, UserId},
};
use futures_util::future::join_all;

use super::world::{PATIENCE, World, deadline, id, tokens, until};

/// What a load has done so far.
#[derive(Default)]
pub struct Load {
    stop: AtomicBool,
    pub acked: AtomicU64,
    pub refused: AtomicU64,
}

impl Load {
    /// Runs workers over these users until [`Load::stop`]; odd ones debit, even ones reserve and settle.
    pub async fn run(&self, world: &World, users: &[UserId], workers: usize) {
        join_all((0..workers).map(|worker| self.work(world, users, worker))).await;
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits until so many more calls were acked.
    pub async fn progress(&self, more: u64) {
        let target = self.acked.load(Ordering::SeqCst) + more;
        until("the load goes on", async || self.acked.load(Ordering::SeqCst) >= target).await;
    }

    async fn work(&self, world: &World, users: &[UserId], worker: usize) {
        let mut n = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let user = users[(worker + n) % users.len()];
            let name = format!("w{worker}-{n}");
            let amount = (n % 9) as u64;
            world.journal.lock().unwrap().asked.insert((user, id(&name)));
            let charged = if worker.is_multiple_of(3) {
                self.debit(world, worker + n, user, &name, amount).await
            } else {
                self.reserve_and_settle(world, worker + n, user, &name, amount).await
            };
            if charged {
                let before = world.journal.lock().unwrap().acked.insert((user, id(&name)), amount);
                assert_eq!(before, None);
                self.acked.fetch_add(1, Ordering::SeqCst);
            } else {
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
            n += 1;
        }
    }

    async fn debit(&self, world: &World, turn: usize, user: UserId, name: &str, amount: u64) -> bool {
        let ask =
            Debit { id: id(name), charge: Charge::Tokens(tokens(amount)), model: None, request_id: None };
        definite(world, turn, async |ledger| ledger.debit(user, ask.clone(), deadline()).await.map(drop))
            .await
            .is_ok()
    }

    async fn reserve_and_settle(
        &self,
        world: &World,
        turn: usize,
        user: UserId,
        name: &str,
        amount: u64,
    ) -> bool {
        let ask = Reserve { id: id(name), tokens: tokens(10), model: None, ttl_seconds: 600, metadata: None };
        let reserved = definite(world, turn, async |ledger| {
            ledger.reserve(user, ask.clone(), deadline()).await.map(drop)
        })
        .await;
        if reserved.is_err() {
            return false;
        }
        let ask =
            Settle { id: id(name), charge: Charge::Tokens(tokens(amount)), model: None, request_id: None };
        let settled = definite(world, turn + 1, async |ledger| {
            ledger.settle(user, ask.clone(), deadline()).await.map(drop)
        })
        .await;
        settled.unwrap_or_else(|refusal| panic!("{name} was reserved, so it must settle: {refusal:?}"));
        true
    }
}

/// Repeats a call on one live replica after the other until its answer is definite.
async fn definite(
    world: &World,
    turn: usize,
    call: impl AsyncFn(Ledger) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    for attempt in turn.. {
        let ledger = world.ledger_at(attempt);
        match call(ledger).await {
            Err(Refusal::Unavailable { .. } | Refusal::Overloaded) => {
                assert!(tokio::time::Instant::now() < give_up, "no definite answer");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
    unreachable!("attempts do not end")
}
