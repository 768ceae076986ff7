//! The ledger whole: policies, races, cold loads, grants and faults, over both real stores. Numbers like "case 16" are
//! those of the field reports the tests were distilled from.

#[path = "../support/mod.rs"]
mod support;

mod chains;
mod cold;
mod failover;
mod faults;
mod grants;
mod lanes;
mod policies;
mod races;
mod recovery;
mod renewals;
mod reports;
mod tls;
mod went_back;
