//! Cold accounts on their way from Postgres to Redis.
//!
//! An operation that finds its account cold asks here, and waits. One task does all loads of a replica: no account is
//! loaded twice at once, what was noted in Postgres reaches Redis although whoever asked for it has left, and a storm
//! of first uses costs a few SQL transactions, not one each.
//!
//! An account that was handed over some time ago, and that Redis does not have now, has been lost: then its partition
//! must recover, since what it has spent is not all in the ledger. One that was handed over just now may still be on
//! its way, from another replica.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use redis::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::RETRY_PAUSE,
    gate::{Doubt, Pass},
    loader::{Loader, Push, load_args},
    scripts,
    shard::{Shard, Shards},
};
use crate::{
    metrics,
    quota::{BudgetId, PartitionId, UserId},
    store::{Loaded, Store},
};

/// How long an account may be on its way to Redis.
const LOSS_AFTER: Duration = Duration::from_secs(3);

/// Accounts of one SQL transaction and one pipeline.
const PAGE: usize = 200;

/// Who may wait at once; more are told to try again.
const MAX_WAITING: usize = 20_000;

/// What came of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// Redis has it; run the operation again.
    Loaded,
    /// Not now; try again.
    Busy,
    UnknownUser,
}

/// An account someone waits for.
struct Wanted {
    partition: PartitionId,
    pass: Pass,
    user: UserId,
    reply: oneshot::Sender<Loading>,
}

/// Handle for asking; cheap to clone.
#[derive(Clone)]
pub struct ColdLoads {
    wanted: mpsc::Sender<Wanted>,
}

/// The task behind it.
pub struct ColdLoadTask {
    wanted: mpsc::Receiver<Wanted>,
    shards: Arc<Shards>,
    store: Store,
    loader: Loader,
}

impl ColdLoads {
    pub fn new(shards: Arc<Shards>, store: Store, loader: Loader) -> (Self, ColdLoadTask) {
        let (sender, wanted) = mpsc::channel(MAX_WAITING);
        (Self { wanted: sender }, ColdLoadTask { wanted, shards, store, loader })
    }

    /// Gives Redis an account it did not have in this life of the partition. Safe to drop: the load goes on.
    pub async fn load(&self, shard: &Shard, pass: &Pass, user: UserId) -> Loading {
        let (reply, loading) = oneshot::channel();
        let wanted = Wanted { partition: shard.id, pass: pass.clone(), user, reply };
        if self.wanted.try_send(wanted).is_err() {
            return Loading::Busy;
        }
        loading.await.unwrap_or(Loading::Busy)
    }
}

impl ColdLoadTask {
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let mut page = Vec::new();
            let received = stop.run_until_cancelled(self.wanted.recv_many(&mut page, PAGE)).await;
            if received.unwrap_or(0) == 0 {
                return;
            }
            for wanted in by_life(page) {
                self.load(wanted).await;
            }
        }
    }

    /// Loads accounts of one life. Who is not told is told to try again, by the end of its channel.
    async fn load(&self, wanted: Vec<Wanted>) {
        let Some(Wanted { partition, pass, .. }) = wanted.first() else { return };
        let (shard, pass) = (self.shards.get(*partition), pass.clone());
        let users: Vec<UserId> = wanted.iter().map(|w| w.user).collect::<HashSet<_>>().into_iter().collect();
        let accounts = match self.store.load_cold(shard.id, pass.epoch, &users).await {
            Ok(Some(accounts)) => accounts,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "cold accounts cannot be loaded");
                return;
            }
        };
        let known: HashSet<UserId> = accounts.iter().map(|account| account.state.user).collect();
        let (before, fresh): (Vec<_>, Vec<_>) = accounts.iter().partition(|a| a.handed_over.is_some());
        let mut warm = HashSet::new();
        if self.hand_over(shard, &pass, &fresh).await {
            warm.extend(fresh.iter().map(|account| account.state.user));
        }
        for account in before {
            if self.is_there(shard, &pass, account).await {
                warm.insert(account.state.user);
            }
        }
        for Wanted { user, reply, .. } in wanted {
            let loading = match (known.contains(&user), warm.contains(&user)) {
                (false, _) => Loading::UnknownUser,
                (true, true) => Loading::Loaded,
                (true, false) => Loading::Busy,
            };
            // Whoever has left will ask again, or not.
            let _ = reply.send(loading);
        }
    }

    /// Whether Redis has an account that it was handed before; says so if it was lost.
    async fn is_there(&self, shard: &Shard, pass: &Pass, account: &Loaded) -> bool {
        match self.loader.push(shard, &account.state).await {
            Push::Done => true,
            Push::Absent if account.handed_over.is_some_and(|age| age >= LOSS_AFTER) => {
                metrics::cold_loads("lost", 1);
                tracing::error!(partition = shard.id.0, "Redis has lost an account it was given");
                shard.gate.doubt(pass, Doubt::Lost);
                false
            }
            Push::Absent | Push::Failed => false,
        }
    }

    /// Gives Redis what has just been noted as given; tries for as long as nobody takes it for lost.
    async fn hand_over(&self, shard: &Shard, pass: &Pass, accounts: &[&Loaded]) -> bool {
        if accounts.is_empty() {
            return true;
        }
        let give_up = Instant::now() + LOSS_AFTER;
        while Instant::now() < give_up {
            if self.hand_over_once(shard, pass, accounts).await {
                metrics::cold_loads("loaded", accounts.len() as u64);
                return true;
            }
            if shard.gate.pass().is_none_or(|now| now.epoch != pass.epoch || now.run_id != pass.run_id) {
                return false;
            }
            sleep(RETRY_PAUSE).await;
        }
        false
    }

    async fn hand_over_once(&self, shard: &Shard, pass: &Pass, accounts: &[&Loaded]) -> bool {
        let calls = accounts.iter().map(|account| {
            let keys = [shard.keys.meta(), shard.keys.budget(BudgetId::Balance(account.state.user))];
            (keys, load_args(pass, account))
        });
        match self.loader.redis().call_each_on(&pass.run_id, &scripts::LOAD, calls).await {
            Ok(replies) => {
                replies.into_iter().all(|reply: Value| self.loader.admitted(shard, pass, reply).is_some())
            }
            Err(error) => {
                tracing::warn!(%error, "cold accounts cannot be handed to Redis");
                false
            }
        }
    }
}

/// One group for each life of a partition.
fn by_life(page: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut lives: HashMap<(u16, u64, Arc<str>), Vec<Wanted>> = HashMap::new();
    for wanted in page {
        let life = (wanted.partition.0, wanted.pass.epoch, Arc::clone(&wanted.pass.run_id));
        lives.entry(life).or_default().push(wanted);
    }
    lives.into_values().collect()
}
