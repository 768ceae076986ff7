//! What a receiver's name stands for, judged at the moment of connecting.
//!
//! The client connects to the very addresses that were judged here, and asks no second time: a name that stands for
//! something public when it is looked at and for something inside when it is used (DNS rebinding) leads nowhere.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::target::Rules;

/// Tells what a name stands for.
pub trait Lookup: Send + Sync + 'static {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the system.
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Why a name gives no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the name is not known: {0}")]
    Unknown(#[from] io::Error),
    #[error("the name stands for an address that is not allowed")]
    Refused,
}

/// Gives the client addresses that it may connect to, or none.
pub struct Guarded<L> {
    lookup: Arc<L>,
    rules: Rules,
}

impl<L> Guarded<L> {
    pub fn new(lookup: L, rules: Rules) -> Self {
        Self { lookup: Arc::new(lookup), rules }
    }
}

impl<L: Lookup> Resolve for Guarded<L> {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, rules) = (Arc::clone(&self.lookup), self.rules.clone());
        Box::pin(async move {
            let found = lookup.lookup(name.as_str().to_owned()).await.map_err(Unusable::Unknown)?;
            // One that leads inside spoils them all: nobody needs both.
            if found.is_empty() || !found.iter().all(|address| rules.admits(*address)) {
                return Err(Unusable::Refused.into());
            }
            // The port is that of the URL.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
