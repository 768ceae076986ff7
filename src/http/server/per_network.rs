//! How many connections each network has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::http::limits::networks::Network;

/// Counts connections by network, if there is a limit: at most as many entries as there are connections.
pub struct PerNetwork {
    most: usize,
    open: Arc<Mutex<HashMap<Network, usize>>>,
}

/// The place of one connection, until it is dropped.
pub struct Share {
    network: Network,
    /// Absent where nothing is counted.
    open: Option<Arc<Mutex<HashMap<Network, usize>>>>,
}

impl PerNetwork {
    /// `most` 0: no limit.
    pub fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A place, if this network has one left.
    pub fn enter(&self, network: Network) -> Option<Share> {
        if self.most == 0 {
            return Some(Share { network, open: None });
        }
        let mut open = lock(&self.open);
        let connections = open.entry(network).or_insert(0);
        if *connections >= self.most {
            return None;
        }
        *connections += 1;
        Some(Share { network, open: Some(Arc::clone(&self.open)) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(open) = &self.open else { return };
        let mut open = lock(open);
        if let Some(connections) = open.get_mut(&self.network) {
            *connections -= 1;
            if *connections == 0 {
                open.remove(&self.network);
            }
        }
    }
}

/// Numbers alone: a panic elsewhere leaves them whole.
fn lock(open: &Mutex<HashMap<Network, usize>>) -> MutexGuard<'_, HashMap<Network, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn network(address: &str) -> Network {
        Network::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_network_has_so_many_connections_and_no_trace_is_left_of_them() {
        let networks = PerNetwork::new(2);
        let first = networks.enter(network("192.0.2.1")).unwrap();
        let second = networks.enter(network("192.0.2.2")).unwrap();
        assert!(networks.enter(network("192.0.2.3")).is_none());
        let other = networks.enter(network("192.0.3.1")).unwrap();
        drop(first);
        let third = networks.enter(network("192.0.2.3")).unwrap();
        drop((second, third, other));
        assert!(lock(&networks.open).is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let networks = PerNetwork::new(0);
        let shares: Vec<_> = (0..100).filter_map(|_| networks.enter(network("192.0.2.1"))).collect();
        assert_eq!((shares.len(), lock(&networks.open).len()), (100, 0));
    }
}
