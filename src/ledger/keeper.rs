//! The keeper: holds each gate of this replica against what Postgres says, and starts recoveries.
//!
//! It looks at `partitions` several times a second. A partition that recovers: gate shut, ring written to the ledger,
//! once per epoch. One that is open: the gate opens only when Redis agrees on epoch, run id and count. A Redis that
//! has restarted, lost keys or gone back means a new epoch; there is no "it looks unharmed, go on".

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    gate::Doubt,
    outbox::Outbox,
    recovery::Recovery,
    session::{CallError, SharedSession},
    shard::{Shard, Shards},
};
use crate::{
    config::{LedgerConfig, millis},
    metrics,
    quota::{Entry, PartitionId},
    store::{Booker, Booking, PartitionRow, PartitionState, ReplicaId, Store, StoreError},
};

const HEARTBEAT: Duration = Duration::from_millis(500);

/// A replica that was not seen for this long is not waited for.
pub const LIVE_WITHIN: Duration = Duration::from_millis(2_000);

/// A replica that was not seen for this long will not come back; one that does registers anew.
const DEAD_AFTER: Duration = Duration::from_secs(600);

/// Ring entries of one SQL transaction.
const RING_PAGE: usize = 2_000;

/// Used memory above this share of the limit refuses reserves, so that settles keep their room.
const MEMORY_SHARE: f64 = 0.9;

/// See the module.
pub struct Keeper {
    pub shards: Arc<Shards>,
    pub store: Store,
    pub redis: Arc<SharedSession>,
    pub outbox: Outbox,
    pub replica: ReplicaId,
    pub config: LedgerConfig,
    /// The epoch for which each partition's ring was last written.
    pub reported: Mutex<HashMap<PartitionId, u64>>,
    /// Partitions this replica is recovering now.
    pub recovering: Mutex<Vec<PartitionId>>,
    /// How far Postgres has known each partition's outbox to be booked; it never falls.
    pub booked_up_to: Mutex<HashMap<PartitionId, u64>>,
}

/// What Redis makes of a partition that Postgres calls open.
#[derive(Debug, PartialEq, Eq)]
pub enum Health {
    Fine(Arc<str>),
    /// No answer, or one between two lives: look again.
    Unclear,
    Lost(&'static str),
    /// Redis is in a later epoch: a recovery has begun after the row was read, or Postgres has gone back. Under the
    /// lock it can only be the latter.
    Later,
    /// Postgres has gone back: it lacks what left the outbox of this life.
    WentBack,
}

impl Keeper {
    pub async fn run(self: Arc<Self>, stop: CancellationToken, tasks: TaskTracker) {
        let mut ticks = tokio::time::interval(millis(self.config.poll_interval_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next_heartbeat = Instant::now();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if Instant::now() >= next_heartbeat {
                next_heartbeat = Instant::now() + HEARTBEAT;
                self.heartbeat().await;
            }
            self.check_server().await;
            let looked = Instant::now();
            let rows = self.store.partitions().await;
            metrics::postgres_look(rows.is_ok(), looked.elapsed());
            match rows {
                Ok(rows) => self.tend_all(rows, &stop, &tasks).await,
                // The hot path needs no Postgres: gates stay as they are.
                Err(error) => tracing::warn!(%error, "partitions cannot be read"),
            }
        }
        if let Err(error) = self.store.retire_replica(self.replica).await {
            tracing::warn!(%error, "this replica could not be taken off the list");
        }
    }

    /// Says that this replica lives, and takes those off the list that died without a word.
    async fn heartbeat(&self) {
        let beat = async {
            self.store.heartbeat(self.replica).await?;
            self.store.remove_dead_replicas(DEAD_AFTER).await
        };
        if let Err(error) = beat.await {
            tracing::warn!(%error, "no heartbeat");
        }
    }

    async fn tend_all(
        self: &Arc<Self>,
        rows: Vec<PartitionRow>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        for row in rows.into_iter().filter(|row| usize::from(row.id.0) < self.shards.len()) {
            let partition = row.id;
            if !self.tend(row).await && self.claim(partition) {
                let (keeper, stop) = (Arc::clone(self), stop.clone());
                tasks.spawn(async move {
                    stop.run_until_cancelled(keeper.recover(partition)).await;
                    keeper.unclaim(partition);
                });
            }
        }
    }

    /// A restarted server shows here also when no call is made; and so does a short memory.
    async fn check_server(&self) {
        let info = self.redis.server_info().await;
        metrics::redis_state(info.as_ref().ok().map(|info| (info.used_memory, info.max_memory)));
        let Ok(info) = info else { return };
        let short = info.max_memory > 0 && info.used_memory as f64 > info.max_memory as f64 * MEMORY_SHARE;
        for shard in self.shards.iter() {
            shard.note_memory(short);
            if let Some(pass) = shard.gate.pass().filter(|pass| pass.run_id != info.run_id) {
                shard.gate.doubt(&pass, Doubt::Recheck);
            }
        }
    }

    /// False when the partition needs a recovery.
    async fn tend(&self, row: PartitionRow) -> bool {
        let shard = self.shards.get(row.id);
        if self.has_fallen(&row) && !self.note_gone_back(shard, &row).await {
            return true;
        }
        if row.state == PartitionState::Recovering {
            self.report_ring(shard, row.epoch).await;
            return false;
        }
        if row.went_back || shard.gate.doubted(row.epoch) == Some(Doubt::Lost) {
            return false;
        }
        let serves =
            |pass: super::gate::Pass| pass.epoch == row.epoch && row.run_id.as_deref() == Some(&*pass.run_id);
        if shard.gate.pass().is_some_and(serves) {
            return true;
        }
        match self.diagnose(shard, &row).await {
            Health::Fine(run_id) => {
                shard.gate.open(row.epoch, run_id, row.high_water);
                true
            }
            Health::Unclear => true,
            Health::Lost(why) => {
                tracing::warn!(partition = row.id.0, epoch = row.epoch, why, "the partition must recover");
                false
            }
            Health::Later => false,
            Health::WentBack => !self.note_gone_back(shard, &row).await,
        }
    }

    /// Whether Postgres knows less of what was booked than it did: a server that lagged has taken over, or it was
    /// restored under way.
    fn has_fallen(&self, row: &PartitionRow) -> bool {
        let mut booked = self.booked_up_to.lock().unwrap_or_else(PoisonError::into_inner);
        let known = booked.entry(row.id).or_default();
        let has_fallen = row.outbox_high_water < *known;
        *known = row.outbox_high_water.max(*known);
        has_fallen
    }

    /// Marks the partition, so that its recovery makes up for what Postgres lost; false when that did not work.
    async fn note_gone_back(&self, shard: &Shard, row: &PartitionRow) -> bool {
        if let Err(error) = self.store.note_gone_back(row.id).await {
            tracing::warn!(%error, partition = row.id.0, "Postgres has gone back, which cannot be noted");
            return false;
        }
        tracing::error!(
            partition = row.id.0,
            epoch = row.epoch,
            "Postgres has gone back to an earlier state"
        );
        self.booked_up_to
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(row.id, row.outbox_high_water);
        if let Some(pass) = shard.gate.pass() {
            shard.gate.doubt(&pass, Doubt::Lost);
        }
        true
    }

    /// Holds what Redis says against the row, over a connection that is fresh when it has to be.
    async fn diagnose(&self, shard: &Shard, row: &PartitionRow) -> Health {
        for fresh in [false, true] {
            if fresh {
                self.redis.reconnect().await;
            }
            match self.diagnose_once(shard, row).await {
                Ok(Health::Lost(_) | Health::Later) if !fresh => {}
                Ok(health) => return health,
                Err(_) => return Health::Unclear,
            }
        }
        Health::Unclear
    }

    async fn diagnose_once(&self, shard: &Shard, row: &PartitionRow) -> Result<Health, CallError> {
        let server = self.redis.server_info().await?.run_id;
        if row.run_id.as_deref() != Some(&*server) {
            return Ok(Health::Lost("another Redis server, or a restarted one"));
        }
        let page = self.outbox.read(shard.id, 1, None).await?;
        if page.epoch > row.epoch {
            return Ok(Health::Later);
        }
        if page.epoch < row.epoch || !page.open {
            return Ok(Health::Lost("Redis does not know this epoch"));
        }
        let (epoch, high_water) = shard.gate.known();
        let seen = if epoch == row.epoch { high_water.max(row.high_water) } else { row.high_water };
        if page.sequence < seen {
            return Ok(Health::Lost("Redis has gone back"));
        }
        if page.acked_up_to > row.outbox_high_water {
            return Ok(self.look_again(row.id, page.acked_up_to, server).await);
        }
        Ok(Health::Fine(server))
    }

    /// Entries leave the outbox after their commit, so a row that is read later must know of them.
    async fn look_again(&self, partition: PartitionId, acked: u64, server: Arc<str>) -> Health {
        let Ok(rows) = self.store.partitions().await else { return Health::Unclear };
        match rows.iter().find(|row| row.id == partition) {
            Some(row) if row.outbox_high_water >= acked => Health::Fine(server),
            _ => Health::WentBack,
        }
    }

    /// Closes the gate and writes the ring to the ledger, once for each recovery.
    pub async fn report_ring(&self, shard: &Shard, epoch: u64) {
        let (high_water, entries) = shard.gate.close(epoch);
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner).get(&shard.id).copied();
        if reported == Some(epoch) {
            return;
        }
        match self.write_ring(shard.id, epoch, high_water, &entries).await {
            Ok(Booking::Booked(_)) | Ok(Booking::Fenced) => {
                self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(shard.id, epoch);
            }
            Ok(Booking::Busy) => {}
            Err(error) => tracing::warn!(%error, partition = shard.id.0, "the ring cannot be written"),
        }
    }

    async fn write_ring(
        &self,
        partition: PartitionId,
        epoch: u64,
        high_water: u64,
        entries: &[Entry],
    ) -> Result<Booking, StoreError> {
        let mut pages: Vec<&[Entry]> = entries.chunks(RING_PAGE).collect();
        let last_page = pages.pop().unwrap_or_default();
        for page in pages {
            let by = Booker::Witness { replica: self.replica, last: false };
            let booking = self.store.book(partition, epoch, by, page, high_water).await?;
            if !matches!(booking, Booking::Booked(_)) {
                return Ok(booking);
            }
        }
        let by = Booker::Witness { replica: self.replica, last: true };
        self.store.book(partition, epoch, by, last_page, high_water).await
    }

    fn claim(&self, partition: PartitionId) -> bool {
        let mut recovering = self.recovering.lock().unwrap_or_else(PoisonError::into_inner);
        let free = !recovering.contains(&partition);
        if free {
            recovering.push(partition);
        }
        free
    }

    fn unclaim(&self, partition: PartitionId) {
        self.recovering.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| *p != partition);
    }

    /// Recovers a partition, if it still needs it and nobody else does.
    async fn recover(&self, partition: PartitionId) {
        let lock = match self.store.try_lock_recovery(partition).await {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "no recovery without Postgres");
                return;
            }
        };
        match self.still_needed(partition).await {
            Ok(false) => {}
            Ok(true) => {
                let started = Instant::now();
                let recovery = Recovery { keeper: self, shard: self.shards.get(partition) };
                match recovery.run().await {
                    Ok(epoch) => {
                        let seconds = started.elapsed().as_secs_f64();
                        metrics::recovered(started.elapsed());
                        tracing::info!(partition = partition.0, epoch, seconds, "recovered");
                    }
                    Err(error) => {
                        metrics::recovery_failed();
                        tracing::warn!(partition = partition.0, %error, "a recovery will start over");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "partitions cannot be read"),
        }
        lock.release().await;
    }

    /// Under the lock: no other recovery runs, so what is wrong now is wrong.
    async fn still_needed(&self, partition: PartitionId) -> Result<bool, StoreError> {
        let rows = self.store.partitions().await?;
        let Some(row) = rows.into_iter().find(|row| row.id == partition) else { return Ok(false) };
        let shard = self.shards.get(partition);
        let is_lost = shard.gate.doubted(row.epoch) == Some(Doubt::Lost);
        if row.state == PartitionState::Recovering || row.went_back || is_lost {
            return Ok(true);
        }
        match self.diagnose(shard, &row).await {
            Health::Fine(_) | Health::Unclear => Ok(false),
            Health::Lost(_) => Ok(true),
            Health::Later | Health::WentBack => Ok(self.note_gone_back(shard, &row).await),
        }
    }
}
