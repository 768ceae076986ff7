//! The keys of one issuer, kept fresh.
//!
//! One task per issuer reads the set: at the start, every ten minutes or as `Cache-Control` says within 5 to 15, and at
//! once when a JWT names a key that is unknown. It alone reads, so there is one fetch at a time, and a caller that
//! leaves breaks none off. What unknown keys may cost is bounded: a fetch for their sake at most every 30 s, and none
//! for a kid that a fetch did not bring a moment ago.
//!
//! A set that cannot be read leaves the last one in force, for an hour. Then its keys are retired, and JWTs of this
//! issuer are refused until it answers again. What a set that was read does not have is retired at once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jsonwebtoken::Algorithm;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, interval, sleep_until, timeout_at},
};

use super::{
    AuthError,
    fetch::{FetchError, Origin},
    jwks::Jwks,
    keys::{Key, KeySet},
};
use crate::metrics;

/// Kids remembered as unknown; more push out the oldest.
const MAX_MISSING: usize = 128;

/// How often things happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Between fetches of a URL that says nothing of it.
    pub usual: Duration,
    /// What it may say, at least and at most.
    pub least: Duration,
    pub most: Duration,
    /// Between readings of a file, which costs nobody anything.
    pub file: Duration,
    /// Between fetches while they fail.
    pub retry: Duration,
    /// Between fetches for the sake of unknown keys.
    pub cooldown: Duration,
    /// A kid that a fetch did not bring is not fetched for during this time. Long enough that a client with an old JWT
    /// does not use up what others may need, short enough for a key that is used before it is published.
    pub missing: Duration,
    /// Keys that could not be read again serve this long.
    pub stale: Duration,
    /// Between looks at the age of the keys.
    pub look: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            usual: minutes(10),
            least: minutes(5),
            most: minutes(15),
            file: minutes(1),
            retry: Duration::from_secs(30),
            cooldown: Duration::from_secs(30),
            missing: minutes(1),
            stale: minutes(60),
            look: Duration::from_secs(5),
        }
    }
}

pub(super) struct Source {
    /// The name in logs and metrics.
    issuer: String,
    origin: Origin,
    algorithms: Vec<Algorithm>,
    timing: Timing,
    /// Sent anew with every attempt, so that whoever waits for one hears of it.
    held: watch::Sender<Held>,
    demand: Mutex<Demand>,
    wanted: Notify,
}

#[derive(Default)]
struct Held {
    keys: KeySet,
    /// When they were last read.
    read_at: Option<Instant>,
}

/// What unknown kids ask for. Locked before `held` is sent to, and never across a wait.
#[derive(Default)]
struct Demand {
    /// A fetch is under way, or about to begin.
    fetching: bool,
    /// When the last fetch for the sake of an unknown kid was asked for.
    asked_at: Option<Instant>,
    missing: VecDeque<(Box<str>, Instant)>,
}

impl Source {
    pub(super) fn new(issuer: String, origin: Origin, algorithms: Vec<Algorithm>, timing: Timing) -> Self {
        // The task begins with a fetch: whoever comes earlier waits for that one.
        let demand = Demand { fetching: true, ..Demand::default() };
        Self {
            issuer,
            origin,
            algorithms,
            timing,
            held: watch::Sender::default(),
            demand: Mutex::new(demand),
            wanted: Notify::new(),
        }
    }

    /// The key for a JWT with these in its header.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, AuthError> {
        let held = self.held.borrow();
        let is_fresh = held.read_at.is_some_and(|at| at.elapsed() <= self.timing.stale);
        if is_fresh { held.keys.find(kid, algorithm) } else { Err(AuthError::NoKeys) }
    }

    /// Waits, until then at most, for a fetch that may bring the key which [`Self::find`] did not find; at once when
    /// there is nothing to wait for. The caller looks again.
    pub(super) async fn look_for(&self, kid: Option<&str>, algorithm: Algorithm, until: Instant) {
        // A fetch that was under way may have read the set before the key was in it; so one more may follow.
        for under_way_may_be_older in [true, false] {
            let Some((mut attempts, begun_for_us)) = self.ask(kid, algorithm) else { return };
            if timeout_at(until, attempts.changed()).await.is_err() || self.find(kid, algorithm).is_ok() {
                return;
            }
            if begun_for_us || !under_way_may_be_older {
                return self.demand().remember_missing(kid.unwrap_or(""), Instant::now());
            }
        }
    }

    /// Joins the fetch that is under way, or has one begun if that is allowed; `true` when it was begun for this kid.
    fn ask(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<(watch::Receiver<Held>, bool)> {
        let now = Instant::now();
        let mut demand = self.demand();
        let begins = !demand.fetching;
        if begins {
            let cools = demand.asked_at.is_some_and(|at| now < at + self.timing.cooldown);
            let lacks = demand.lacks(kid.unwrap_or(""), now, self.timing.missing);
            // It may just have come.
            if cools || lacks || self.find(kid, algorithm).is_ok() {
                return None;
            }
            (demand.fetching, demand.asked_at) = (true, Some(now));
            self.wanted.notify_one();
        }
        // Under the lock: an attempt that ends from now on is news to this receiver.
        Some((self.held.subscribe(), begins))
    }

    fn demand(&self) -> MutexGuard<'_, Demand> {
        // Whole at every point, so what a panic left behind is good.
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the keys fresh. Runs for ever, once.
    pub(super) async fn keep(&self) {
        let mut due = Instant::now();
        let mut looks = interval(self.timing.look);
        loop {
            tokio::select! {
                () = sleep_until(due) => due = self.attempt().await,
                () = self.wanted.notified() => {
                    // A fetch that was due at the same moment may have done it already.
                    if self.demand().fetching {
                        due = self.attempt().await;
                    }
                }
                _ = looks.tick() => self.look_at_age(),
            }
        }
    }

    /// Reads the set once; says when to do it again.
    async fn attempt(&self) -> Instant {
        self.demand().fetching = true;
        let (jwks, verdict) = match self.read().await {
            Ok((jwks, max_age)) => (Some(jwks), Ok(max_age)),
            Err(error) => (None, Err(error)),
        };
        let changed = self.take(jwks);
        let (outcome, pause) = match verdict {
            Ok(max_age) => (if changed { "changed" } else { "unchanged" }, self.pause(max_age)),
            Err(error) => {
                tracing::warn!(issuer = self.issuer, origin = %self.origin, %error, "key set not read");
                ("failed", self.timing.retry)
            }
        };
        metrics::jwks_refresh(&self.issuer, outcome);
        Instant::now() + pause
    }

    async fn read(&self) -> Result<(Jwks, Option<Duration>), AttemptError> {
        let document = self.origin.read().await?;
        Ok((Jwks::parse(&document.body, &self.algorithms)?, document.max_age))
    }

    /// Ends an attempt: what was read is in force, and whoever waits hears of it. Whether anything has changed.
    fn take(&self, jwks: Option<Jwks>) -> bool {
        let mut changed = false;
        let mut demand = self.demand();
        self.held.send_modify(|held| {
            let Some(Jwks { keys, skipped }) = jwks else { return };
            let first = held.read_at.is_none();
            let (added, retired) = held.keys.replace(keys);
            held.read_at = Some(Instant::now());
            changed = first || added + retired > 0;
            if changed {
                let keys = held.keys.len();
                tracing::info!(issuer = self.issuer, keys, added, retired, ?skipped, "key set read");
            }
            if changed && held.keys.len() == 0 {
                tracing::error!(issuer = self.issuer, "the key set has no key that can be used");
            }
        });
        demand.fetching = false;
        drop(demand);
        self.look_at_age();
        changed
    }

    fn pause(&self, max_age: Option<Duration>) -> Duration {
        match self.origin {
            Origin::File(_) => self.timing.file,
            Origin::Url(_) => {
                max_age.map_or(self.timing.usual, |age| age.clamp(self.timing.least, self.timing.most))
            }
        }
    }

    /// Retires keys that are too old, and tells the metrics.
    fn look_at_age(&self) {
        let (keys, age) = {
            let held = self.held.borrow();
            (held.keys.len(), held.read_at.map(|at| at.elapsed()))
        };
        let too_old = age.is_some_and(|age| age > self.timing.stale);
        if too_old && keys > 0 {
            self.held.send_if_modified(|held| {
                held.keys.replace(Vec::new());
                // Nobody waits for this.
                false
            });
            tracing::error!(issuer = self.issuer, ?age, "keys too old: JWTs of this issuer are refused");
            metrics::jwks_refresh(&self.issuer, "expired");
        }
        metrics::jwks_keys(&self.issuer, if too_old { 0 } else { keys }, age);
    }
}

impl Demand {
    fn remember_missing(&mut self, kid: &str, now: Instant) {
        self.missing.retain(|(known, _)| **known != *kid);
        if self.missing.len() == MAX_MISSING {
            self.missing.pop_front();
        }
        self.missing.push_back((kid.into(), now));
    }

    fn lacks(&mut self, kid: &str, now: Instant, memory: Duration) -> bool {
        self.missing.retain(|(_, at)| now < *at + memory);
        self.missing.iter().any(|(known, _)| **known == *kid)
    }
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("it is no key set: {0}")]
    Parse(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kids_are_remembered_as_missing_for_a_while_and_not_too_many_of_them() {
        let (start, memory) = (Instant::now(), Duration::from_secs(60));
        let mut demand = Demand::default();
        for n in 0..MAX_MISSING {
            demand.remember_missing(&n.to_string(), start);
        }
        assert!(demand.lacks("0", start, memory) && !demand.lacks("x", start, memory));
        // Again is no entry of its own; one more than fit pushes out the oldest, which is now the second.
        demand.remember_missing("0", start + memory / 2);
        demand.remember_missing("x", start + memory / 2);
        assert_eq!(demand.missing.len(), MAX_MISSING);
        assert!(demand.lacks("0", start, memory) && demand.lacks("x", start, memory));
        assert!(!demand.lacks("1", start, memory) && demand.lacks("2", start, memory));
        assert!(!demand.lacks("2", start + memory, memory) && demand.lacks("0", start + memory, memory));
        assert_eq!(demand.missing.len(), 2);
    }

    #[test]
    fn a_url_may_say_how_long_its_keys_do_within_bounds_and_a_file_may_not() {
        let pause = |origin, max_age: Option<u64>| {
            let source = Source::new(String::new(), origin, Vec::new(), Timing::default());
            source.pause(max_age.map(Duration::from_secs)).as_secs()
        };
        for (said, seconds) in [(None, 600), (Some(0), 300), (Some(420), 420), (Some(86_400), 900)] {
            assert_eq!(pause(Origin::Url("https://one.example/".parse().unwrap()), said), seconds);
            assert_eq!(pause(Origin::File("jwks.json".into()), said), 60);
        }
    }
}
