//! Who was refused what, on its way to the audit log: counted here, and written down now and then.
//!
//! A caller can make refusals as fast as it can call, and the log keeps every row for ever. So what one caller tries on
//! one route and user is one row per interval with the number of calls, a caller has at most [`PER_CALLER`] rows, a
//! process at most [`PER_INTERVAL`]; whatever is beyond is one row with its number.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::jwt::Principal;
use crate::{
    quota::UserId,
    store::{Actor, Refused, Store},
};

/// How often refusals are written down.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Rows of one caller in an interval.
const PER_CALLER: usize = 5;

/// Rows of an interval, but for the one of all others.
const PER_INTERVAL: usize = 20;

/// What stands for the route of calls beyond the bounds.
const OTHERS: &str = "others";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    caller: Principal,
    user: Option<UserId>,
    route: String,
}

#[derive(Default)]
struct Counts {
    calls: HashMap<Key, u64>,
    others: u64,
}

/// Refusals since the last interval.
#[derive(Default)]
pub struct Refusals(Mutex<Counts>);

impl Refusals {
    /// Counts a refused call. `route` is method and pattern, never a path as it was sent.
    pub fn note(&self, caller: &Principal, user: Option<UserId>, route: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Key { caller: caller.clone(), user, route };
        if let Some(calls) = counts.calls.get_mut(&key) {
            *calls += 1;
            return;
        }
        let own = counts.calls.keys().filter(|known| known.caller == key.caller).count();
        if counts.calls.len() < PER_INTERVAL && own < PER_CALLER {
            counts.calls.insert(key, 1);
        } else {
            counts.others += 1;
        }
    }

    /// What was counted, to be written; the count begins anew.
    fn take(&self) -> Vec<Refused> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut refused: Vec<Refused> = counts
            .calls
            .into_iter()
            .map(|(Key { caller, user, route }, calls)| {
                let actor = Actor::Caller { subject: caller.subject, role: caller.role };
                Refused { actor, user, route, calls }
            })
            .collect();
        if counts.others > 0 {
            let (actor, route) = (Actor::Service("cota"), OTHERS.to_owned());
            refused.push(Refused { actor, user: None, route, calls: counts.others });
        }
        refused
    }

    /// Writes them down every [`INTERVAL`], and what is left at the end.
    pub async fn keep(&self, store: &Store, stop: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.tick().await;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.write(store).await;
        }
        self.write(store).await;
    }

    async fn write(&self, store: &Store) {
        let refused = self.take();
        if refused.is_empty() {
            return;
        }
        if let Err(error) = store.record_refused(&refused).await {
            // Not kept: a second try could put them on record twice, and memory would grow while Postgres is away.
            let calls: u64 = refused.iter().map(|refused| refused.calls).sum();
            tracing::error!(%error, calls, "refused calls are missing from the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    #[test]
    fn rows_are_bounded_and_no_call_is_lost() {
        let refusals = Refusals::default();
        let caller = |name: &str| Principal { subject: name.into(), role: Role::User };
        for n in 0..1_000 {
            refusals.note(&caller("a"), Some(UserId::generate()), format!("GET /{n}"));
            refusals.note(&caller("b"), None, "GET /same".into());
        }
        let rows = refusals.take();
        assert_eq!(rows.len(), PER_CALLER + 1 + 1);
        assert_eq!(rows.iter().map(|row| row.calls).sum::<u64>(), 2_000);
        for n in 0..1_000 {
            refusals.note(&caller(&n.to_string()), None, "GET /same".into());
        }
        let rows = refusals.take();
        assert_eq!(rows.len(), PER_INTERVAL + 1);
        assert_eq!(rows.iter().map(|row| row.calls).sum::<u64>(), 1_000);
        assert_eq!(refusals.take(), []);
    }
}
