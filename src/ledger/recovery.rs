//! One recovery attempt of one partition (`protocol.md` §5), run under the recovery lock.
//!
//! Every attempt has its own epoch, committed first; it is the fence token, so an attempt that was overtaken can
//! change nothing. Every step is idempotent; any failure means: again from the start, in a new epoch. Steps:
//! 0 new epoch in Postgres · 1 fence Redis · 2 wait for the witnesses of live replicas · 3 drain the outbox, and
//! after a restore of Postgres make up for what it lost ([`super::restored`]) ·
//! 4 carry pending reservations over, loading their budgets · 5 base above all counts ever seen · 6 open Redis ·
//! 7 open Postgres. Then the gates open.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use redis::Value;
use tokio::time::{Instant, sleep};

use super::{
    keeper::{Keeper, LIVE_WITHIN},
    keys::parse_member,
    restored::MakeUp,
    scripts,
    session::{CallError, Reply},
    shard::Shard,
    wire::Record,
};
use crate::{
    config::millis,
    quota::{BudgetId, Kind, ReservationId, State, UserId},
    store::{Booker, Booking, LedgerRow, Loaded, StoreError},
};

/// Outbox entries of one SQL transaction.
const DRAIN_PAGE: usize = 1_000;

/// Pending reservations of one `carry` call.
const CARRY_PAGE: usize = 200;

/// Members of one reading of the expiry index.
const INDEX_PAGE: usize = 5_000;

/// After this step Postgres refuses ring writes.
const STEP_WITNESSES_DONE: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Redis(#[from] CallError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another recovery has taken over")]
    Overtaken,
    #[error("Redis answered what the scripts do not say")]
    Malformed,
}

/// See the module.
pub struct Recovery<'a> {
    pub keeper: &'a Keeper,
    pub shard: &'a Shard,
}

/// What the fence found.
struct Fenced {
    epoch: u64,
    run_id: Arc<str>,
    sequence: u64,
    outbox_sequence: u64,
}

fn number(n: u64) -> Vec<u8> {
    n.to_string().into_bytes()
}

/// Fields of a reply whose first is 0; a first field of 1 or 5 says that another recovery has taken over.
fn fields(reply: Reply) -> Result<Vec<Value>, RecoveryError> {
    match reply.value {
        Value::Array(fields) => match fields.first() {
            Some(Value::Int(0)) => Ok(fields),
            Some(Value::Int(1 | 5)) => Err(RecoveryError::Overtaken),
            _ => Err(RecoveryError::Malformed),
        },
        _ => Err(RecoveryError::Malformed),
    }
}

impl Recovery<'_> {
    /// Runs all steps; returns the new epoch.
    pub async fn run(&self) -> Result<u64, RecoveryError> {
        let store = &self.keeper.store;
        let in_redis = self.keeper.outbox.peek(self.shard.id).await?;
        let epoch = store.begin_recovery(self.shard.id, in_redis.epoch, in_redis.acked_up_to).await?;
        let epoch = epoch.ok_or(RecoveryError::Overtaken)?;
        let fenced = self.fence(epoch).await?;
        self.keeper.report_ring(self.shard, epoch).await;
        self.wait_for_witnesses(epoch).await?;
        if !store.advance(self.shard.id, epoch, STEP_WITNESSES_DONE).await? {
            return Err(RecoveryError::Overtaken);
        }
        self.drain(&fenced).await?;
        MakeUp { recovery: self, epoch, outbox_sequence: fenced.outbox_sequence }.run().await?;
        self.carry(&fenced).await?;
        let base = store.set_base(self.shard.id, epoch, fenced.sequence, fenced.outbox_sequence).await?;
        let base = base.ok_or(RecoveryError::Overtaken)?;
        // The first epoch opens a new deployment: there is nothing it could have lost.
        let recovered = number(u64::from(epoch > 1));
        let args = [number(epoch), number(base), fenced.run_id.as_bytes().to_vec(), recovered];
        fields(self.call(&fenced, &scripts::OPEN, &[self.shard.keys.meta()], &args).await?)?;
        if !store.open(self.shard.id, epoch, &fenced.run_id, base).await? {
            return Err(RecoveryError::Overtaken);
        }
        self.shard.gate.open(epoch, fenced.run_id, base);
        Ok(epoch)
    }

    async fn call(
        &self,
        fenced: &Fenced,
        script: &scripts::Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Reply, RecoveryError> {
        Ok(self.keeper.redis.call_on(Some(&fenced.run_id), script, keys, args).await?)
    }

    async fn fence(&self, epoch: u64) -> Result<Fenced, RecoveryError> {
        let keys = [self.shard.keys.meta(), self.shard.keys.outbox()];
        let reply = self.keeper.redis.call(&scripts::FENCE, &keys, &[number(epoch)]).await?;
        let run_id = Arc::clone(&reply.run_id);
        match fields(reply)?.as_slice() {
            [_, Value::Int(sq), Value::Int(oq), Value::Int(last)] => Ok(Fenced {
                epoch,
                run_id,
                sequence: sq.unsigned_abs(),
                outbox_sequence: oq.unsigned_abs().max(last.unsigned_abs()),
            }),
            _ => Err(RecoveryError::Malformed),
        }
    }

    /// Until every live replica has written its ring, or the wait is over: a replica that is late then runs its
    /// settles again.
    async fn wait_for_witnesses(&self, epoch: u64) -> Result<(), RecoveryError> {
        let deadline = Instant::now() + millis(self.keeper.config.witness_wait_ms);
        loop {
            let live = self.keeper.store.live_replicas(LIVE_WITHIN).await?;
            let written = self.keeper.store.witness_reports(self.shard.id, epoch).await?;
            if live.is_subset(&written) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    partition = self.shard.id.0,
                    epoch,
                    "a recovery goes on without some witnesses"
                );
                return Ok(());
            }
            self.keeper.report_ring(self.shard, epoch).await;
            sleep(Duration::from_millis(25)).await;
        }
    }

    async fn drain(&self, fenced: &Fenced) -> Result<(), RecoveryError> {
        loop {
            let page = self.keeper.outbox.read(self.shard.id, DRAIN_PAGE, None).await?;
            if page.open || page.epoch != fenced.epoch {
                return Err(RecoveryError::Overtaken);
            }
            if page.entries.is_empty() {
                return Ok(());
            }
            let by = Booker::Recovery;
            match self
                .keeper
                .store
                .book(self.shard.id, fenced.epoch, by, &page.entries, page.sequence)
                .await?
            {
                Booking::Booked(_) => self.keeper.outbox.ack(self.shard.id, &page.entries).await?,
                Booking::Busy => sleep(Duration::from_millis(10)).await,
                Booking::Fenced => return Err(RecoveryError::Overtaken),
            }
        }
    }

    async fn carry(&self, fenced: &Fenced) -> Result<(), RecoveryError> {
        let mut loaded = HashSet::new();
        let members = self.members().await?;
        for page in members.chunks(CARRY_PAGE) {
            self.carry_page(fenced, page, &mut loaded).await?;
        }
        Ok(())
    }

    /// The whole expiry index; nothing changes it while the partition is closed.
    async fn members(&self) -> Result<Vec<Vec<u8>>, RecoveryError> {
        let mut members = Vec::new();
        loop {
            let (first, last) = (members.len(), members.len() + INDEX_PAGE - 1);
            let (first, last) = (number(first as u64), number(last as u64));
            let reply =
                self.keeper.redis.command("ZRANGE", &[&self.shard.keys.expiry(), &first, &last]).await?;
            let page: Vec<Vec<u8>> =
                redis::from_redis_value(reply.value).map_err(|_| RecoveryError::Malformed)?;
            if page.is_empty() {
                return Ok(members);
            }
            members.extend(page);
        }
    }

    async fn carry_page(
        &self,
        fenced: &Fenced,
        members: &[Vec<u8>],
        loaded: &mut HashSet<UserId>,
    ) -> Result<(), RecoveryError> {
        let names: Vec<(UserId, ReservationId)> = members.iter().filter_map(|m| parse_member(m)).collect();
        let rows = self.keeper.store.rows_of_many(&names).await?;
        let mut ledger: HashMap<(UserId, ReservationId), Vec<LedgerRow>> = HashMap::new();
        for row in rows {
            ledger.entry((row.user, row.reservation.clone())).or_default().push(row);
        }
        let mut users: Vec<UserId> =
            names.iter().map(|(user, _)| *user).filter(|u| loaded.insert(*u)).collect();
        users.sort_unstable();
        users.dedup();
        self.load(fenced, &users).await?;

        let records = self.records(&names).await?;
        let mut keys = vec![self.shard.keys.meta(), self.shard.keys.expiry()];
        let mut args = vec![number(fenced.epoch)];
        args.extend(self.keeper.outbox.retention().iter().cloned());
        for (name, record) in names.iter().zip(records) {
            let lines = record.map(|record| record.lines).unwrap_or_default();
            let (verdict, charged) = verdict(ledger.get(name).map_or(&[], Vec::as_slice));
            keys.push(self.shard.keys.record(name.0, &name.1));
            keys.extend(lines.iter().map(|line| self.shard.keys.budget(line.budget)));
            args.push(carry_item(verdict, charged, lines.len(), &super::keys::member(name.0, &name.1)));
        }
        fields(self.call(fenced, &scripts::CARRY, &keys, &args).await?)?;
        Ok(())
    }

    async fn records(&self, names: &[(UserId, ReservationId)]) -> Result<Vec<Option<Record>>, RecoveryError> {
        let keys: Vec<Vec<u8>> = names.iter().map(|(user, id)| self.shard.keys.record(*user, id)).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let reply = self.keeper.redis.command("MGET", &keys).await?;
        let records: Vec<Option<Vec<u8>>> =
            redis::from_redis_value(reply.value).map_err(|_| RecoveryError::Malformed)?;
        // One of an unknown format is left as it is, for a version that knows it.
        Ok(records.into_iter().map(|bytes| Record::decode(&bytes?).ok()).collect())
    }

    /// Budgets of pending reservations are loaded now, so that their holds have a place.
    async fn load(&self, fenced: &Fenced, users: &[UserId]) -> Result<(), RecoveryError> {
        let states = self.keeper.store.load_for_recovery(self.shard.id, fenced.epoch, users).await?;
        for Loaded { state, spent, .. } in states.ok_or(RecoveryError::Overtaken)? {
            let keys = [self.shard.keys.meta(), self.shard.keys.budget(BudgetId::Balance(state.user))];
            let args = [
                number(fenced.epoch),
                number(0),
                Vec::new(),
                number(state.granted),
                number(state.version),
                number(state.policy_version),
                number(u64::from(state.suspended)),
                number(spent),
            ];
            fields(self.call(fenced, &scripts::LOAD, &keys, &args).await?)?;
        }
        Ok(())
    }
}

/// What the ledger knows of a reservation that Redis calls pending, and what it has been charged.
fn verdict(rows: &[LedgerRow]) -> (State, u64) {
    let charged = rows.iter().map(|row| row.tokens).sum::<i64>().max(0).unsigned_abs();
    match rows {
        [] => (State::Pending, 0),
        rows if rows.iter().all(|row| row.kind == Kind::Expiry) => (State::Expired, charged),
        _ => (State::Settled, charged),
    }
}

fn carry_item(verdict: State, charged: u64, lines: usize, member: &[u8]) -> Vec<u8> {
    let verdict = match verdict {
        State::Settled => 1,
        State::Expired => 2,
        State::Pending | State::Released => 0,
    };
    let mut item = vec![verdict];
    item.extend_from_slice(&charged.to_be_bytes());
    item.extend_from_slice(&[lines as u8, member.len() as u8]);
    item.extend_from_slice(member);
    item
}
