//! Acts: what people and the service do to accounts and configuration.

use std::{cell::RefCell, sync::Arc};

use serde_json::Value;
use sqlx::PgConnection;

use super::{
    ACTS,
    chain::{self, Content, hex},
};
use crate::{
    config::Role,
    crypto::{Indexed, Keyring},
    quota::UserId,
    store::StoreError,
};

/// Whoever acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A caller of the API, by the subject of its JWT.
    Caller { subject: Arc<str>, role: Role },
    /// The service by itself, or somebody at its command line.
    Service(&'static str),
}

/// What was done; the words are in the log for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Action {
    UserCreated,
    UserChanged,
    UserSuspended,
    UserResumed,
    UserDeleted,
    /// A purchase, bonus, renewal or adjustment; `data` has the grant's `grant_id`, `kind` and `tokens`.
    GrantMade,
    /// `data` says in `what` which configuration.
    ConfigurationChanged,
    AccessRefused,
}

impl Action {
    pub(in crate::store) fn as_str(self) -> &'static str {
        match self {
            Self::UserCreated => "user.created",
            Self::UserChanged => "user.changed",
            Self::UserSuspended => "user.suspended",
            Self::UserResumed => "user.resumed",
            Self::UserDeleted => "user.deleted",
            Self::GrantMade => "grant.made",
            Self::ConfigurationChanged => "configuration.changed",
            Self::AccessRefused => "access.refused",
        }
    }
}

/// One act.
#[derive(Clone, Debug)]
pub(in crate::store) struct Act {
    pub action: Action,
    pub user: Option<UserId>,
    /// Ids, numbers and names of settings. Never an address, a name or another text about a person: the log cannot
    /// forget.
    pub data: Value,
}

tokio::task_local! {
    static CALLER: CallerCell;
}

/// Holds the caller of the request that runs, once it is known.
#[derive(Default)]
struct CallerCell(RefCell<Option<Actor>>);

/// Runs a request; what it does to the store is on record as its caller's, as soon as [`caller_known`] said who that is.
/// Passed along this way and not as a parameter, since it is needed at the two ends of every use case and by nothing
/// between them.
pub async fn with_caller<T>(request: impl Future<Output = T>) -> T {
    CALLER.scope(CallerCell::default(), request).await
}

/// Says who makes the request that runs; outside of one nothing happens.
pub fn caller_known(subject: &Arc<str>, role: Role) {
    let caller = Actor::Caller { subject: Arc::clone(subject), role };
    // Outside of a request there is nobody to remember.
    let _ = CALLER.try_with(|cell| *cell.0.borrow_mut() = Some(caller));
}

impl Actor {
    /// The caller of the request that runs; else the service itself.
    fn current() -> Self {
        let caller = CALLER.try_with(|cell| cell.0.borrow().clone()).ok().flatten();
        caller.unwrap_or(Self::Service("cota"))
    }

    fn role(&self) -> &'static str {
        match self {
            Self::Caller { role, .. } => role_name(*role),
            Self::Service(_) => "service",
        }
    }

    /// The subject; of one that is an address only what tells it from others, since the log cannot forget.
    fn name(&self, keyring: &Keyring) -> String {
        match self {
            Self::Caller { subject, .. } if subject.contains('@') => {
                let index =
                    keyring.index(Indexed { table: "audit_log", column: "actor" }, subject.as_bytes());
                format!("hmac:{}", hex(&index[..16]))
            }
            Self::Caller { subject, .. } => subject.replace('\0', "\u{fffd}"),
            Self::Service(name) => (*name).to_owned(),
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Gateway => "gateway",
        Role::Admin => "admin",
    }
}

/// Puts an act on record, as its actor's. The last statement of its SQL transaction: all acts wait for the lock it takes.
pub(in crate::store) async fn record(
    connection: &mut PgConnection,
    keyring: &Keyring,
    act: Act,
) -> Result<(), StoreError> {
    record_all(connection, keyring, &[(Actor::current(), act)]).await
}

/// As [`record`], for acts that were done together; none is nothing to do.
pub(in crate::store) async fn record_together(
    connection: &mut PgConnection,
    keyring: &Keyring,
    acts: Vec<Act>,
) -> Result<(), StoreError> {
    if acts.is_empty() {
        return Ok(());
    }
    let actor = Actor::current();
    let acts: Vec<_> = acts.into_iter().map(|act| (actor.clone(), act)).collect();
    record_all(connection, keyring, &acts).await
}

/// Puts acts of several actors on record, in their order.
pub(in crate::store) async fn record_all(
    connection: &mut PgConnection,
    keyring: &Keyring,
    acts: &[(Actor, Act)],
) -> Result<(), StoreError> {
    let texts: Vec<_> = acts.iter().map(|(actor, act)| (actor.name(keyring), act.data.to_string())).collect();
    let link = chain::next(connection, ACTS).await?;
    let at_us = link.at_us;
    let rows: Vec<Content<'_>> = acts
        .iter()
        .zip(&texts)
        .map(|((actor, act), (name, data))| Content {
            at_us,
            actor: name,
            actor_role: actor.role(),
            action: act.action.as_str(),
            user: act.user.map(|user| user.0),
            data,
        })
        .collect();
    chain::append(connection, link, &rows).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_act_is_its_callers_within_the_request_alone() {
        let subject: Arc<str> = "admin-1".into();
        let caller = Actor::Caller { subject: Arc::clone(&subject), role: Role::Admin };
        let (one, two) = tokio::join!(
            with_caller(async {
                assert_eq!(Actor::current(), Actor::Service("cota"), "not known yet");
                caller_known(&subject, Role::Admin);
                tokio::task::yield_now().await;
                Actor::current()
            }),
            with_caller(async {
                tokio::task::yield_now().await;
                Actor::current()
            })
        );
        assert_eq!((one, two), (caller, Actor::Service("cota")));
        caller_known(&subject, Role::Admin);
        assert_eq!(Actor::current(), Actor::Service("cota"));
    }

    #[test]
    fn a_subject_that_is_an_address_is_not_on_record() {
        let keyring = Keyring::of(&Keyring::generate("test").unwrap()).unwrap();
        let of = |subject: &str| Actor::Caller { subject: subject.into(), role: Role::User }.name(&keyring);
        assert_eq!(of("admin-1"), "admin-1");
        let hidden = of("ana@b.co");
        assert!(hidden.starts_with("hmac:") && !hidden.contains("ana"), "{hidden}");
        assert_eq!(hidden, of("ana@b.co"));
        assert_ne!(hidden, of("eva@b.co"));
    }
}
