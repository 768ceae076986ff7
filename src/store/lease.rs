//! One pooled connection for the length of one call.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, pool::PoolConnection};

use super::StoreError;

/// Runs `work` on a pooled connection and ends within `limit`, whatever the network does.
///
/// A connection goes back to the pool only when its last statement got a definite answer. After a time-out, a
/// broken link or a caller that left, nobody knows what is still on its way over it, and the pool's own test on
/// return could hang for ever on a dead link: such a connection is closed hard, and the server rolls back.
///
/// The work owns its lease instead of borrowing a connection, since a future that is general over the lifetime of a
/// borrow cannot be shown to be `Send`.
pub(super) async fn run<T, E>(
    pool: &PgPool,
    waiting: &Waiting,
    limit: Duration,
    work: impl AsyncFnOnce(Lease) -> Result<T, E>,
) -> Result<T, StoreError>
where
    E: Into<StoreError>,
{
    let place = waiting.enter();
    let connection = pool.acquire().await.map_err(StoreError::from_acquire)?;
    drop(place);
    settle(connection, limit, work).await
}

/// As [`run`], within a SQL transaction that `begin` starts and that is rolled back at the end: for reads. The work
/// begins none of its own.
pub(super) async fn run_within<T, E>(
    pool: &PgPool,
    waiting: &Waiting,
    limit: Duration,
    begin: String,
    work: impl AsyncFnOnce(Lease) -> Result<T, E>,
) -> Result<T, StoreError>
where
    E: Into<StoreError>,
{
    let place = waiting.enter();
    let connection = pool.acquire().await.map_err(StoreError::from_acquire)?;
    drop(place);
    let within = async |mut lease: Lease| {
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *lease).await?;
        let returned = lease.to.clone();
        let result = work(lease).await.map_err(Into::into);
        let Some(mut lease) = returned.lease_again() else { return result };
        sqlx::raw_sql("ROLLBACK").execute(&mut *lease).await?;
        result
    };
    settle(connection, limit, within).await
}

async fn settle<T, E>(
    connection: PoolConnection<Postgres>,
    limit: Duration,
    work: impl AsyncFnOnce(Lease) -> Result<T, E>,
) -> Result<T, StoreError>
where
    E: Into<StoreError>,
{
    let returned = Returned::default();
    let lease = Lease { connection: Some(connection), to: returned.clone() };
    let result = match tokio::time::timeout(limit, work(lease)).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(StoreError::Unknown("the call timed out".into())),
    };
    if !matches!(result, Err(StoreError::Unknown(_))) {
        returned.give_back(limit);
    }
    result
}

/// How many calls wait for a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// One call that waits; it no longer does when this is dropped, by whatever way.
struct Place<'a>(&'a AtomicUsize);

impl Waiting {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Place<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(&self.0)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connection of one call.
pub(super) struct Lease {
    connection: Option<PoolConnection<Postgres>>,
    to: Returned,
}

impl Deref for Lease {
    type Target = PgConnection;

    #[expect(clippy::expect_used, reason = "only the drop takes the connection out")]
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("a lease has a connection")
    }
}

impl DerefMut for Lease {
    #[expect(clippy::expect_used, reason = "only the drop takes the connection out")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a lease has a connection")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.to.put(self.connection.take());
    }
}

/// Where a connection is between the end of the work and the verdict on it. What nobody takes out is closed hard: the
/// socket closes without a word.
#[derive(Clone, Default)]
struct Returned(Arc<Slot>);

#[derive(Default)]
struct Slot(Mutex<Option<PoolConnection<Postgres>>>);

impl Returned {
    /// The connection once more, when the work is done with it.
    fn lease_again(&self) -> Option<Lease> {
        let connection = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        connection.map(|connection| Lease { connection: Some(connection), to: self.clone() })
    }

    fn put(&self, connection: Option<PoolConnection<Postgres>>) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Hands the connection to the pool, beside the caller's way. The pool tests it first and waits for the answer for
    /// ever; a link that dies just then would take a place in the pool along, so that the test is bounded here.
    fn give_back(&self, limit: Duration) {
        let connection = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut connection) = connection {
            tokio::spawn(tokio::time::timeout(limit, connection.return_to_pool()));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(connection) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop(connection.detach());
        }
    }
}
