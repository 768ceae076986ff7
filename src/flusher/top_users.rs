//! The users that settle most, for `/metrics/users`: at most so many, whoever else there is.
//!
//! Fed with what the flusher has written. A user's score is what it settled, halved every [`HALF_LIFE`]; the highest
//! scores are shown. What is written for a user while it is shown counts to its own series, everything else to
//! `_other`: so no series ever goes back, and all together are all that was written, as long as nobody leaves the page.
//!
//! Memory is bounded: scores are kept for [`SCORES_PER_SHOWN`] times as many users as are shown, the highest. Who is
//! forgotten and comes again starts from the highest score that was forgotten (as in the space-saving algorithm), so
//! that a busy user among many rises to the top, however it is mixed with the others.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    config::MetricsConfig,
    metrics::{UserRow, render_users},
    quota::{Entry, PartitionId, UserId},
};

/// After this long without use, a score is worth half.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// Scores are halved in steps no finer than this.
const FADE_STEP: Duration = Duration::from_secs(1);

/// So many times more users have a score than are shown.
const SCORES_PER_SHOWN: usize = 4;

/// At least so many users have a score.
const LEAST_SCORES: usize = 256;

/// A user that is shown is replaced only by one whose score is as many times higher: lists that flicker cannot be read.
const BONUS: f64 = 1.25;

/// See the module.
pub struct TopUsers {
    most: usize,
    idle: Duration,
    state: Mutex<State>,
}

struct State {
    shown: HashMap<UserId, Tally>,
    others: Tally,
    scores: HashMap<UserId, Score>,
    /// The highest score that was forgotten.
    floor: f64,
    faded_at: Instant,
    /// Per partition: the epoch, and the highest outbox sequence that was counted in it. A flush that is repeated counts
    /// once.
    counted: HashMap<PartitionId, (u64, u64)>,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    tokens: u64,
    transactions: u64,
    last_at_ms: u64,
}

struct Score {
    value: f64,
    used_at: Instant,
    last_at_ms: u64,
}

impl Tally {
    fn add(&mut self, more: Self) {
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.transactions += more.transactions;
        self.last_at_ms = self.last_at_ms.max(more.last_at_ms);
    }
}

impl TopUsers {
    pub fn new(config: &MetricsConfig) -> Self {
        let state = State {
            shown: HashMap::new(),
            others: Tally::default(),
            scores: HashMap::new(),
            floor: 0.0,
            faded_at: Instant::now(),
            counted: HashMap::new(),
        };
        let idle = Duration::from_secs(config.top_users_idle_seconds);
        Self { most: config.top_users, idle, state: Mutex::new(state) }
    }

    /// Counts entries that Postgres has now, read in this epoch.
    pub fn count(&self, partition: PartitionId, epoch: u64, entries: &[Entry], now: Instant) {
        let mut state = self.state();
        let fresh = state.fresh(partition, epoch, entries);
        let mut sums: HashMap<UserId, Tally> = HashMap::new();
        for entry in fresh {
            // A correction may give back; a counter cannot.
            let tokens = entry.tokens.max(0).unsigned_abs();
            let tally = Tally { tokens, transactions: 1, last_at_ms: entry.at_ms };
            sums.entry(entry.user).or_default().add(tally);
        }
        state.fade(now);
        let mut sums: Vec<(UserId, Tally)> = sums.into_iter().collect();
        // Where there is room for some of them only, it is for the largest.
        sums.sort_unstable_by_key(|(user, sum)| (Reverse(sum.tokens), *user));
        for (user, sum) in sums {
            state.score(user, sum, now);
            if let Some(tally) = state.shown.get_mut(&user) {
                tally.add(sum);
            } else if state.shown.len() < self.most {
                state.shown.insert(user, sum);
            } else {
                state.others.add(sum);
            }
        }
        state.forget((self.most * SCORES_PER_SHOWN).max(LEAST_SCORES));
    }

    /// Who is shown now, the busiest first, and `_other`.
    pub fn rows(&self, now: Instant) -> Vec<UserRow> {
        let mut state = self.state();
        state.fade(now);
        state.choose(self.most, self.idle, now);
        let score = |user: &UserId| state.scores.get(user).map_or(0.0, |score| score.value);
        let mut shown: Vec<(&UserId, &Tally)> = state.shown.iter().collect();
        shown.sort_by(|a, b| score(b.0).total_cmp(&score(a.0)).then(a.0.cmp(b.0)));
        let row = |id, tally: &Tally| UserRow {
            id,
            tokens: tally.tokens,
            transactions: tally.transactions,
            last_at_ms: tally.last_at_ms,
        };
        let rows = shown.into_iter().map(|(user, tally)| row(user.to_string(), tally));
        rows.chain(std::iter::once(row("_other".to_owned(), &state.others))).collect()
    }

    /// The page `/metrics/users`.
    pub fn render(&self) -> String {
        render_users(&self.rows(Instant::now()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic under the lock leaves behind is a batch counted in part.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The entries that were not counted before. Within an epoch, sequences only rise.
    fn fresh<'e>(&mut self, partition: PartitionId, epoch: u64, entries: &'e [Entry]) -> Vec<&'e Entry> {
        let counted = self.counted.entry(partition).or_default();
        if counted.0 != epoch {
            *counted = (epoch, 0);
        }
        let before = counted.1;
        let fresh = entries.iter().filter(|entry| entry.outbox_id.sequence > before).collect();
        counted.1 = entries.iter().map(|entry| entry.outbox_id.sequence).fold(before, u64::max);
        fresh
    }

    fn fade(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.faded_at);
        if elapsed < FADE_STEP {
            return;
        }
        self.faded_at = now;
        let factor = 0.5_f64.powf(elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.floor *= factor;
        self.scores.values_mut().for_each(|score| score.value *= factor);
    }

    fn score(&mut self, user: UserId, sum: Tally, now: Instant) {
        let floor = self.floor;
        let score = self.scores.entry(user).or_insert(Score { value: floor, used_at: now, last_at_ms: 0 });
        // Free models count, too.
        score.value += (sum.tokens + sum.transactions) as f64;
        score.used_at = now;
        score.last_at_ms = score.last_at_ms.max(sum.last_at_ms);
    }

    /// Keeps the highest scores, once there are twice as many: so that it costs little per user.
    fn forget(&mut self, most: usize) {
        if self.scores.len() < 2 * most {
            return;
        }
        let mut values: Vec<f64> = self.scores.values().map(|score| score.value).collect();
        let (_, floor, _) = values.select_nth_unstable_by(most, |a, b| b.total_cmp(a));
        self.floor = *floor;
        let above = values.iter().filter(|value| **value > self.floor).count();
        let mut ties = most - above.min(most);
        self.scores.retain(|_, score| {
            let tie = score.value == self.floor && ties > 0;
            ties -= usize::from(tie);
            tie || score.value > self.floor
        });
    }

    /// Drops who is idle, and shows the highest scores.
    fn choose(&mut self, most: usize, idle: Duration, now: Instant) {
        self.scores.retain(|_, score| now.saturating_duration_since(score.used_at) < idle);
        let rank = |(user, score): (&UserId, &Score)| {
            let bonus = if self.shown.contains_key(user) { BONUS } else { 1.0 };
            (score.value * bonus, *user, score.last_at_ms)
        };
        let mut ranked: Vec<(f64, UserId, u64)> = self.scores.iter().map(rank).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked.truncate(most);
        let mut shown = std::mem::take(&mut self.shown);
        self.shown = ranked
            .into_iter()
            .map(|(_, user, last_at_ms)| {
                // A newcomer's series starts at zero: what it used before is in `_other`.
                let tally = shown.remove(&user).unwrap_or(Tally { last_at_ms, ..Tally::default() });
                (user, tally)
            })
            .collect();
    }
}

#[cfg(test)]
mod tests;
