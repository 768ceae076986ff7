//! What holds after every test, for everything in the partition.

use std::collections::{BTreeMap, BTreeSet};

use cota::{
    ledger::{keys::member, wire::Record},
    quota::{BudgetId, Entry, Line, OutboxId, ReservationId, State, UserId},
};

use crate::case::Case;

type Named = BTreeMap<(UserId, ReservationId), Record>;

fn after<'a>(key: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = key.windows(mark.len()).position(|window| window == mark)?;
    Some(&key[at + mark.len()..])
}

fn owner(bytes: &[u8]) -> UserId {
    UserId(uuid::Uuid::from_slice(&bytes[..16]).unwrap())
}

fn sum<'a>(budget: BudgetId, lines: impl Iterator<Item = &'a Line>) -> i64 {
    lines.filter(|line| line.budget == budget).map(|line| line.amount).sum()
}

impl Case {
    pub async fn check(mut self) {
        let dump = self.dump().await;
        let keys: Vec<Vec<u8>> = dump.into_iter().map(|(key, _)| key).collect();
        let (records, unreadable) = self.all_records(&keys).await;
        let entries = self.outbox().await;
        self.check_budgets(&keys, &records, &entries).await;
        self.check_ages(&records, &entries).await;
        let pending = records.iter().filter(|(_, record)| record.state == State::Pending);
        let expected: BTreeSet<_> = pending.map(|((user, id), _)| member(*user, id)).collect();
        let index: BTreeSet<_> = self.index().await.into_iter().filter(|m| !unreadable.contains(m)).collect();
        assert_eq!(index, expected, "the expiry index lists the pending records");
    }

    /// Every record, and the members of those whose format is unknown.
    async fn all_records(&mut self, keys: &[Vec<u8>]) -> (Named, BTreeSet<Vec<u8>>) {
        let (mut records, mut unreadable) = (Named::new(), BTreeSet::new());
        for name in keys.iter().filter_map(|key| after(key, b"}:r:")) {
            let (user, id) =
                (owner(name), ReservationId::new(std::str::from_utf8(&name[17..]).unwrap()).unwrap());
            let key = self.keys.record(user, &id);
            let bytes: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut self.redis).await.unwrap();
            match Record::decode(&bytes) {
                Ok(record) => drop(records.insert((user, id), record)),
                Err(_) => drop(unreadable.insert(member(user, &id))),
            }
        }
        (records, unreadable)
    }

    /// held = Σ lines of the pending records that count; spent = what was loaded and acked, and the outbox.
    async fn check_budgets(&mut self, keys: &[Vec<u8>], records: &Named, entries: &[Entry]) {
        let epoch = self.meta("ep").await;
        for user in keys.iter().filter_map(|key| after(key, b"}:b:")).map(owner) {
            let budget = self.budget(user).await.unwrap();
            if Some(budget.epoch.to_string()) != epoch {
                continue;
            }
            let balance = BudgetId::Balance(user);
            let counted = |r: &&Record| r.state == State::Pending && Some(r.epoch.to_string()) == epoch;
            let held = sum(balance, records.values().filter(counted).flat_map(|r| &r.lines));
            let waiting = sum(balance, entries.iter().flat_map(|e| &e.lines));
            let spent = self.flushed.get(&user).copied().unwrap_or_default() + waiting;
            assert_eq!(i128::from(budget.held), i128::from(held), "held by {user}");
            assert_eq!(i128::from(budget.spent), i128::from(spent), "spent by {user}");
        }
    }

    /// A record ages when, and only when, it is finished and nothing of it waits for Postgres.
    async fn check_ages(&mut self, records: &Named, entries: &[Entry]) {
        let waiting: BTreeSet<OutboxId> = entries.iter().map(|entry| entry.outbox_id).collect();
        for ((user, id), record) in records {
            let stays = record.state == State::Pending
                || record.booked.iter().any(|b| waiting.contains(&b.outbox_id));
            let ttl = self.record_ttl(*user, id).await;
            assert_eq!(ttl == -1, stays, "{id} has a ttl of {ttl} ms: {record:?}");
        }
    }
}
