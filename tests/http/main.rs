//! The API through real sockets, against the whole service over both real stores; a file per resource. The invariants
//! are asserted after every test that moves tokens. Numbers like "case 101" are those of the field reports the tests
//! were distilled from.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod alerts;
mod audit;
mod bad_input;
mod batch;
mod batch_twins;
mod credits;
mod debits;
mod emails;
mod events;
mod health;
mod history;
mod identity;
mod metrics;
mod notifier;
mod openapi;
mod personal;
mod profiles;
mod protection;
mod renewals;
mod reports;
mod reservations;
mod shutdown;
mod slow;
mod tokens;
mod tracing;
mod usage;
mod user_health;
mod users;
mod walk;
mod watch;
mod webhooks;
