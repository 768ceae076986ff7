//! What happens to accounts, as it happens.
//!
//! **How a change gets here.** Any replica may settle for a user, so a replica asks: several times a second, once for each
//! user that somebody watches here, Redis for the balance (the ledger's own answer, as exact as that of `GET …/tokens`)
//! and Postgres, in one query for all of them, whether there are new events. What it costs is bounded by the number of
//! users that are watched, and nothing can be missed: a balance is a state, of which the last one counts, and events are
//! read from the table after the last one that was sent.
//!
//! **What a slow reader costs.** Nothing is queued for anyone: a stream that is ready for more looks at the balance as it
//! is by then, and reads the next events from Postgres. One that is never ready is cut by the listener
//! ([`crate::http::server`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{LiveConfig, millis},
    ledger::{Account, Ledger, Refusal},
    metrics,
    quota::UserId,
    store::{Store, StoreError},
};

/// Balances that are asked for at a time.
const AT_ONCE: usize = 32;

/// How long one balance is waited for: the next round asks again.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is known of a watched user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// As Redis had it last; `None` until it was asked.
    pub account: Option<Account>,
    /// The id of the last event.
    pub last_event: i64,
    /// There is no such user any more.
    pub gone: bool,
}

/// There is no room for another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The user has as many as it may.
    OfUser,
    /// This replica has as many as it may.
    InAll,
}

/// The users that are watched on this replica; cheap to clone.
#[derive(Clone)]
pub struct Live(Arc<Hub>);

struct Hub {
    store: Store,
    ledger: Ledger,
    config: LiveConfig,
    watched: Mutex<Watched>,
    somebody: Notify,
    /// Ends all streams.
    closing: CancellationToken,
}

#[derive(Default)]
struct Watched {
    streams: usize,
    users: HashMap<UserId, User>,
}

struct User {
    streams: usize,
    seen: watch::Sender<Seen>,
}

/// One stream; its place is free again when it is dropped.
pub struct Watch {
    hub: Arc<Hub>,
    pub user: UserId,
    pub seen: watch::Receiver<Seen>,
}

impl Hub {
    /// A panic under the lock leaves the counts as they were.
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// `closing` ends all streams.
    pub fn new(store: Store, ledger: Ledger, config: LiveConfig, closing: CancellationToken) -> Self {
        let (watched, somebody) = (Mutex::default(), Notify::new());
        Self(Arc::new(Hub { store, ledger, config, watched, somebody, closing }))
    }

    /// Watches a user from now on.
    ///
    /// # Errors
    /// When there is no room for one more.
    pub fn watch(&self, user: UserId) -> Result<Watch, Full> {
        let mut watched = self.0.watched();
        if watched.streams >= self.0.config.max_streams {
            return Err(Full::InAll);
        }
        let entry =
            watched.users.entry(user).or_insert_with(|| User { streams: 0, seen: watch::Sender::default() });
        if entry.streams >= self.0.config.max_streams_per_user {
            return Err(Full::OfUser);
        }
        entry.streams += 1;
        let seen = entry.seen.subscribe();
        watched.streams += 1;
        self.0.somebody.notify_one();
        Ok(Watch { hub: Arc::clone(&self.0), user, seen })
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.0.watched().streams
    }

    /// Done once all streams are to end.
    pub async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// How long a stream lasts at most.
    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.0.config.max_seconds)
    }

    /// Asks what there is of all who are watched, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                let next = Instant::now() + millis(self.0.config.interval_ms);
                let users = self.users();
                metrics::live_streams(self.streams());
                if users.is_empty() {
                    self.0.somebody.notified().await;
                    continue;
                }
                tokio::join!(self.look_at_events(&users), self.look_at_balances(&users));
                sleep_until(next).await;
            }
        })
        .await;
    }

    fn users(&self) -> Vec<UserId> {
        self.0.watched().users.keys().copied().collect()
    }

    /// Changes what is seen of a user, if somebody still watches it; wakes its streams if that is new.
    fn tell(&self, user: UserId, change: impl Fn(&mut Seen)) {
        if let Some(entry) = self.0.watched().users.get(&user) {
            entry.seen.send_if_modified(|seen| {
                let before = *seen;
                change(seen);
                *seen != before
            });
        }
    }

    async fn look_at_events(&self, users: &[UserId]) {
        match self.0.store.last_events(users).await {
            Ok(last) => {
                let last: HashMap<UserId, i64> = last.into_iter().collect();
                for user in users {
                    self.tell(*user, |seen| match last.get(user) {
                        Some(id) => seen.last_event = *id,
                        None => seen.gone = true,
                    });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "events cannot be looked for");
                sleep(PATIENCE).await;
            }
        }
    }

    async fn look_at_balances(&self, users: &[UserId]) {
        let asked = stream::iter(users.iter().copied());
        asked
            .for_each_concurrent(AT_ONCE, |user| async move {
                match self.0.ledger.account(user, Instant::now() + PATIENCE).await {
                    Ok(account) => self.tell(user, |seen| seen.account = Some(account)),
                    Err(Refusal::UserNotFound) => self.tell(user, |seen| seen.gone = true),
                    // The next round asks again; until then the last one stands.
                    Err(_) => {}
                }
            })
            .await;
    }

    /// The id of the user's last event; `None` when there is no such user.
    pub async fn last_event(&self, user: UserId) -> Result<Option<i64>, StoreError> {
        Ok(self.0.store.last_events(&[user]).await?.first().map(|(_, id)| *id))
    }
}

impl Watch {
    pub fn store(&self) -> &Store {
        &self.hub.store
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.hub.watched();
        watched.streams -= 1;
        if let Some(entry) = watched.users.get_mut(&self.user) {
            entry.streams -= 1;
            if entry.streams == 0 {
                watched.users.remove(&self.user);
            }
        }
    }
}
