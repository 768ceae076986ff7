//! Finding hours in which a user uses more than is ordinary for it, while they run.
//!
//! Every so often one replica looks at all users who used much lately: at the hour that runs by their clock and, for a
//! while after its end, at the one before, whose last use arrives late. What an hour has to use more than does not change
//! while it runs, so it is remembered. That the same hour is flagged once is seen to by Postgres.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Accounts, usage, users::UserError};
use crate::{
    config::{UsageConfig, millis},
    metrics,
    quota::{
        UserId,
        anomaly::{Baseline, Hour},
    },
    store::{Anomaly, BusyUser, NewAnomaly, Store, StoreError, Task},
};

/// How long after its end an hour is still looked at.
const AFTER_END: SignedDuration = SignedDuration::from_mins(5);
/// Further back no hour that is looked at begins.
const LOOK_BACK: SignedDuration = SignedDuration::from_mins(80);
/// Users of one round: their past is read at once, up to 2,688 quarter hours each.
const ROUND: u32 = 100;

impl Accounts {
    /// A user's anomalies newest first, before `before`, at most `limit`.
    pub async fn anomalies_of(
        &self,
        user: UserId,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Anomaly>, UserError> {
        let found = self.store.anomalies_of(user, before, limit).await?;
        if found.is_empty() && before.is_none() && self.store.user(user).await?.is_none() {
            return Err(UserError::NotFound);
        }
        Ok(found)
    }

    /// Those of all users.
    pub async fn anomalies(&self, before: Option<Uuid>, limit: u32) -> Result<Vec<Anomaly>, StoreError> {
        self.store.anomalies(before, limit).await
    }
}

/// What is known of an hour.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// The past says too little.
    NoBaseline,
    Threshold(i64, Baseline),
    Flagged,
}

/// See the module.
pub struct Watch {
    store: Store,
    interval: Duration,
    min_tokens: i64,
    known: HashMap<(UserId, Timestamp), Known>,
}

/// An hour to be judged.
struct Case {
    user: UserId,
    zone: Arc<(String, TimeZone)>,
    hour: Hour,
    tokens: i64,
}

impl Watch {
    pub fn new(store: Store, config: &UsageConfig) -> Self {
        Self {
            store,
            interval: millis(config.anomaly_interval_ms),
            min_tokens: i64::try_from(config.anomaly_min_tokens).unwrap_or(i64::MAX).max(1),
            known: HashMap::new(),
        }
    }

    /// Looks again and again until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match stop.run_until_cancelled(self.turn(Timestamp::now())).await {
                None | Some(Ok(0)) => {}
                Some(Ok(found)) => metrics::anomalies(found),
                Some(Err(error)) => tracing::warn!(%error, "anomalies cannot be looked for"),
            }
        }
    }

    /// Looks once, unless another replica does; says how many hours were flagged.
    async fn turn(&mut self, now: Timestamp) -> Result<usize, StoreError> {
        let Some(lock) = self.store.try_lock_task(Task::Anomalies).await? else { return Ok(0) };
        let found = self.look(now).await;
        lock.release().await;
        found
    }

    /// Looks at all users as of `now`; says how many hours were flagged.
    ///
    /// # Errors
    /// When Postgres does not answer; what was flagged by then stays.
    pub async fn look(&mut self, now: Timestamp) -> Result<usize, StoreError> {
        let since = now.checked_sub(LOOK_BACK).unwrap_or(Timestamp::UNIX_EPOCH);
        self.known.retain(|(_, hour), _| *hour >= since);
        let (mut found, mut after) = (0, None);
        loop {
            let users = self.store.busy_users(since, self.min_tokens, after, ROUND).await?;
            let Some(last) = users.last() else { return Ok(found) };
            after = Some(last.user);
            found += self.judge(users, now).await?;
        }
    }

    async fn judge(&mut self, users: Vec<BusyUser>, now: Timestamp) -> Result<usize, StoreError> {
        let cases: Vec<Case> = users
            .into_iter()
            .flat_map(|user| cases(user, now))
            .filter(|case| case.tokens >= self.min_tokens)
            .filter(|case| !matches!(self.known.get(&(case.user, case.hour.start)), Some(Known::Flagged)))
            .collect();
        self.learn(&cases).await?;
        let found: Vec<NewAnomaly> = cases
            .iter()
            .filter_map(|case| match self.known.get(&(case.user, case.hour.start)) {
                Some(Known::Threshold(threshold, baseline)) if case.tokens > *threshold => Some(NewAnomaly {
                    user: case.user,
                    time_zone: case.zone.0.clone(),
                    hour: case.hour.start,
                    tokens: case.tokens,
                    threshold: *threshold,
                    baseline: *baseline,
                }),
                _ => None,
            })
            .collect();
        let new = self.store.flag_anomalies(&found).await?;
        for anomaly in found {
            self.known.insert((anomaly.user, anomaly.hour), Known::Flagged);
        }
        Ok(new)
    }

    /// Finds out what hours have to use more than that were not seen before.
    async fn learn(&mut self, cases: &[Case]) -> Result<(), StoreError> {
        let unknown: Vec<&Case> =
            cases.iter().filter(|case| !self.known.contains_key(&(case.user, case.hour.start))).collect();
        let Some(from) = unknown.iter().map(|case| case.hour.past_start).min() else { return Ok(()) };
        let to = unknown.iter().map(|case| case.hour.past_end).max().unwrap_or(from);
        let users: BTreeSet<UserId> = unknown.iter().map(|case| case.user).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        let past = self.store.usage_by_quarter(&users, from, to).await?;
        for case in unknown {
            let quarters: Vec<(Timestamp, i64)> = past
                .get(&case.user)
                .into_iter()
                .flatten()
                .filter(|(at, _)| (case.hour.past_start..case.hour.past_end).contains(at))
                .copied()
                .collect();
            let known = match case.hour.baseline(&case.zone.1, &quarters) {
                Some(baseline) => Known::Threshold(baseline.threshold(self.min_tokens), baseline),
                None => Known::NoBaseline,
            };
            self.known.insert((case.user, case.hour.start), known);
        }
        Ok(())
    }
}

/// The hour that runs by the user's clock, and the one before while it is looked at.
fn cases(busy: BusyUser, now: Timestamp) -> Vec<Case> {
    let zone = Arc::new(usage::zone(busy.time_zone));
    let before = now.checked_sub(AFTER_END).unwrap_or(now);
    let mut hours = vec![Hour::at(now, &zone.1), Hour::at(before, &zone.1)];
    hours.dedup();
    let case = |hour: Hour| {
        let end = hour.start.checked_add(SignedDuration::from_hours(1)).unwrap_or(Timestamp::MAX);
        let within = busy.quarters.iter().filter(|(at, _)| (hour.start..end).contains(at));
        Case { user: busy.user, zone: zone.clone(), hour, tokens: within.map(|(_, tokens)| tokens).sum() }
    };
    hours.into_iter().map(case).collect()
}
