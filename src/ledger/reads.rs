//! Reading: balances and reservations. Reader and writer agree: what is due is swept before it is answered.

use std::collections::BTreeSet;

use redis::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Account, Ledger, Outcome, Refusal,
    calls::{Definite, RETRY_PAUSE},
    cold::Loading,
    gate::Pass,
    keys::parse_member,
    loader::{doubt, head_args},
    lookup::{self, Found},
    scripts,
    shard::Shard,
    sweeper,
    wire::{Answer, Record, Status},
};
use crate::quota::{BudgetId, Reservation, ReservationId, State, UserId};

const UNAVAILABLE: Refusal = Refusal::Unavailable { outcome: Outcome::None };

/// Members of one step through the expiry index.
const SCAN_STEP: &[u8] = b"1000";

/// An account that Redis has.
#[derive(Clone, Copy, Debug)]
pub struct Warmth {
    pub account: Account,
    /// Of the account's partition, whoever they are of; read after the account.
    pub outbox_entries: u64,
}

impl Ledger {
    /// Balance and state of an account.
    ///
    /// # Errors
    /// `UserNotFound` or `Unavailable`.
    pub async fn account(&self, user: UserId, deadline: Instant) -> Result<Account, Refusal> {
        let answer = self.look(user, None, deadline).await?.answer;
        Ok(Account { balance: answer.balance, suspended: answer.suspended })
    }

    /// Balance and state of an account that Redis has, and how many entries wait in its partition's outbox; `None` for
    /// a cold one, which stays cold.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn warmth(&self, user: UserId, deadline: Instant) -> Result<Option<Warmth>, Refusal> {
        let shard = self.calls.shards().of(user);
        let pass = shard.gate.wait_open(deadline).await.ok_or(UNAVAILABLE)?;
        let asked = async {
            let definite = self.peek(shard, pass, user, None).await?;
            let reply = self.calls.redis().command("XLEN", &[&shard.keys.outbox()]).await.ok()?;
            let waiting: u64 = redis::from_redis_value(reply.value).ok()?;
            Some((definite.answer, waiting))
        };
        let asked = timeout_at(deadline, asked).await.ok().flatten();
        let (answer, outbox_entries) = asked.ok_or(UNAVAILABLE)?;
        let account = Account { balance: answer.balance, suspended: answer.suspended };
        Ok((answer.status != Status::Cold).then_some(Warmth { account, outbox_entries }))
    }

    /// A reservation, from Redis or, once its retention has passed, what the ledger keeps of it.
    ///
    /// # Errors
    /// `ReservationNotFound`, `UserNotFound` or `Unavailable`.
    pub async fn reservation(
        &self,
        user: UserId,
        id: ReservationId,
        deadline: Instant,
    ) -> Result<Reservation, Refusal> {
        loop {
            let definite = self.look(user, Some(&id), deadline).await?;
            if let Some(record) = definite.answer.record {
                return Ok(record.reservation(id, definite.pass.epoch, definite.now_ms));
            }
            let shard = self.calls.shards().of(user);
            match lookup::find(&self.store, shard, &definite, (user, &id), deadline).await? {
                Found::Charged { transaction, .. } | Found::Expired { transaction, .. } => {
                    return Ok(lookup::reservation(id, transaction));
                }
                Found::Nothing => return Err(Refusal::ReservationNotFound),
                Found::OtherLife if Instant::now() < deadline => sleep(RETRY_PAUSE).await,
                Found::OtherLife => return Err(UNAVAILABLE),
            }
        }
    }

    /// Pending reservations by id, those after `after`, at most `limit`.
    ///
    /// The expiry index is walked in steps that leave room for other calls between them; its size, not the account's,
    /// decides how long this takes.
    ///
    /// # Errors
    /// `UserNotFound` or `Unavailable`.
    pub async fn pending(
        &self,
        user: UserId,
        after: Option<ReservationId>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<Reservation>, Refusal> {
        let definite = self.look(user, None, deadline).await?;
        let shard = self.calls.shards().of(user);
        let walk = async {
            let ids = self.pending_ids(shard, user, after).await?;
            let ids: Vec<ReservationId> = ids.into_iter().take(limit).collect();
            self.records(shard, user, ids, &definite).await
        };
        timeout_at(deadline, walk).await.ok().flatten().ok_or(UNAVAILABLE)
    }

    async fn pending_ids(
        &self,
        shard: &Shard,
        user: UserId,
        after: Option<ReservationId>,
    ) -> Option<BTreeSet<ReservationId>> {
        let pattern = glob_prefix(user.0.as_bytes());
        let (key, mut cursor, mut ids) = (shard.keys.expiry(), b"0".to_vec(), BTreeSet::new());
        loop {
            let args: [&[u8]; 6] = [&key, &cursor, b"MATCH", &pattern, b"COUNT", SCAN_STEP];
            let reply = self.calls.redis().command("ZSCAN", &args).await.ok()?;
            let (next, found): (Vec<u8>, Vec<(Vec<u8>, f64)>) = redis::from_redis_value(reply.value).ok()?;
            let found = found.iter().filter_map(|(name, _)| parse_member(name)).map(|(_, id)| id);
            ids.extend(found.filter(|id| after.as_ref().is_none_or(|after| id > after)));
            if next == b"0" {
                return Some(ids);
            }
            cursor = next;
        }
    }

    async fn records(
        &self,
        shard: &Shard,
        user: UserId,
        ids: Vec<ReservationId>,
        definite: &Definite,
    ) -> Option<Vec<Reservation>> {
        if ids.is_empty() {
            return Some(Vec::new());
        }
        let keys: Vec<Vec<u8>> = ids.iter().map(|id| shard.keys.record(user, id)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let reply = self.calls.redis().command("MGET", &keys).await.ok()?;
        let records: Vec<Option<Vec<u8>>> = redis::from_redis_value(reply.value).ok()?;
        let reservation = |(id, bytes): (ReservationId, Option<Vec<u8>>)| {
            Some(Record::decode(&bytes?).ok()?.reservation(id, definite.pass.epoch, definite.now_ms))
        };
        let pending = |reservation: &Reservation| reservation.state == State::Pending;
        Some(ids.into_iter().zip(records).filter_map(reservation).filter(pending).collect())
    }

    /// Peeks until nothing is due and the account is warm.
    async fn look(
        &self,
        user: UserId,
        id: Option<&ReservationId>,
        deadline: Instant,
    ) -> Result<Definite, Refusal> {
        let shard = self.calls.shards().of(user);
        loop {
            let pass = shard.gate.wait_open(deadline).await.ok_or(UNAVAILABLE)?;
            let again = match timeout_at(deadline, self.peek(shard, pass, user, id)).await {
                Err(_) => return Err(UNAVAILABLE),
                Ok(None) => false,
                Ok(Some(definite)) if definite.answer.status == Status::Cold => {
                    let load = self.calls.cold().load(shard, &definite.pass, user);
                    match timeout_at(deadline, load).await {
                        Ok(Loading::UnknownUser) => return Err(Refusal::UserNotFound),
                        Ok(Loading::Loaded) => true,
                        Ok(Loading::Busy) | Err(_) => false,
                    }
                }
                Ok(Some(definite)) if definite.answer.due => {
                    timeout_at(deadline, sweeper::sweep(&self.calls, shard)).await.is_ok()
                }
                Ok(Some(definite)) => return Ok(definite),
            };
            if Instant::now() >= deadline {
                return Err(UNAVAILABLE);
            }
            if !again {
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn peek(
        &self,
        shard: &Shard,
        pass: Pass,
        user: UserId,
        id: Option<&ReservationId>,
    ) -> Option<Definite> {
        let mut keys =
            vec![shard.keys.meta(), shard.keys.expiry(), shard.keys.budget(BudgetId::Balance(user))];
        keys.extend(id.map(|id| shard.keys.record(user, id)));
        let reply =
            self.calls.redis().call_on(Some(&pass.run_id), &scripts::PEEK, &keys, &head_args(&pass)).await;
        let fields = match reply.ok()?.value {
            Value::Array(fields) => fields,
            _ => return None,
        };
        match fields.as_slice() {
            [Value::Int(0), Value::Int(sequence), Value::Int(now_ms), Value::BulkString(packed)] => {
                let answer = Answer::decode(packed).ok()?;
                let now_ms = now_ms.unsigned_abs();
                shard.gate.admit(&pass, sequence.unsigned_abs(), Vec::new()).then_some(Definite {
                    answer,
                    pass,
                    now_ms,
                })
            }
            [Value::Int(code), ..] => {
                doubt(shard, &pass, *code);
                None
            }
            _ => None,
        }
    }
}

/// A glob that matches exactly what starts with these bytes.
fn glob_prefix(bytes: &[u8]) -> Vec<u8> {
    let escaped = bytes.iter().flat_map(|byte| match byte {
        b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-' => vec![b'\\', *byte],
        byte => vec![*byte],
    });
    escaped.chain(*b"*").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::keys::member;

    #[test]
    fn the_bytes_of_an_account_are_no_pattern() {
        assert_eq!(glob_prefix(b"a*?[\\"), b"a\\*\\?\\[\\\\*");
        let user = UserId::generate();
        assert!(member(user, &ReservationId::generate()).starts_with(user.0.as_bytes()));
    }
}
