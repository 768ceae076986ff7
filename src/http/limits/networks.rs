//! Networks that fail to authenticate.
//!
//! Guessing JWTs is hopeless, but each guess costs a check of a signature; what is bounded here is that work, and the
//! noise in the log. So only failures count, and only a JWT that would have to be checked is ever held up: one that
//! was seen to be valid is taken from memory whatever its neighbours do, at no cost. And a settle, debit or release is
//! always checked, since a refusal would lose usage; a failure of it counts like any other.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use axum::http::HeaderMap;
use governor::Quota;
use ipnet::IpNet;

use super::keyed::{Keyed, MAX_KEYS, Wait};

/// What is counted as one client: a /24 of IPv4, a /64 of IPv6. Whoever has one address there has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    V4([u8; 3]),
    V6([u16; 4]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The socket's other end, as a request's extension. Set by the listener.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Budgets of failures.
pub struct Networks {
    failures: Option<Keyed>,
    trusted_proxies: Vec<IpNet>,
}

const FORWARDED: &str = "x-forwarded-for";

impl Networks {
    /// `failures_per_minute` 0: no limit.
    pub fn new(failures_per_minute: u32, trusted_proxies: Vec<IpNet>) -> Self {
        let quota = NonZeroU32::new(failures_per_minute).and_then(|most| {
            Quota::with_period(Duration::from_secs(60) / most.get()).map(|quota| quota.allow_burst(most))
        });
        Self { failures: quota.map(|quota| Keyed::new(quota, MAX_KEYS)), trusted_proxies }
    }

    /// Whether a JWT of this client is still to be checked.
    ///
    /// # Errors
    /// When its network has spent its failures.
    pub fn admits(&self, peer: Option<Peer>, headers: &HeaderMap) -> Result<(), Wait> {
        self.failures.as_ref().map_or(Ok(()), |failures| failures.look(self.network(peer, headers)))
    }

    /// Counts a failed authentication.
    pub fn failed(&self, peer: Option<Peer>, headers: &HeaderMap) {
        if let Some(failures) = &self.failures {
            // Spent already: then it is refused from now on, which is all that counting is for.
            let _ = failures.take(self.network(peer, headers));
        }
    }

    pub fn keyed(&self) -> Option<&Keyed> {
        self.failures.as_ref()
    }

    /// The socket's other end; behind a trusted proxy the address that this proxy saw, which is the last one: those
    /// before it are whatever the client wrote.
    fn network(&self, peer: Option<Peer>, headers: &HeaderMap) -> Network {
        let peer = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |Peer(address)| address.to_canonical());
        if !self.trusted_proxies.iter().any(|proxies| proxies.contains(&peer)) {
            return peer.into();
        }
        let last = headers.get_all(FORWARDED).iter().next_back().and_then(|value| value.to_str().ok());
        let seen = last.and_then(|list| list.rsplit(',').next()).and_then(|hop| hop.trim().parse().ok());
        seen.unwrap_or(peer).into()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn peer(address: &str) -> Option<Peer> {
        Some(Peer(address.parse().unwrap()))
    }

    #[test]
    fn neighbours_are_one_client() {
        let network = |address: &str| Network::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(network("192.0.2.1"), network("192.0.2.254"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.7"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }

    #[test]
    fn failures_are_counted_by_network_and_refuse_only_it() {
        let networks = Networks::new(2, Vec::new());
        let none = HeaderMap::new();
        for address in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(networks.admits(peer(address), &none), Ok(()));
            networks.failed(peer(address), &none);
        }
        let Err(Wait(seconds)) = networks.admits(peer("192.0.2.3"), &none) else { panic!("still admitted") };
        assert!((1..=31).contains(&seconds), "{seconds}");
        assert_eq!(networks.admits(peer("192.0.3.1"), &none), Ok(()));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let networks = Networks::new(0, Vec::new());
        networks.failed(peer("192.0.2.1"), &HeaderMap::new());
        assert!(networks.keyed().is_none() && networks.admits(None, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_its_own_word() {
        let networks = Networks::new(1, vec!["10.0.0.0/8".parse().unwrap()]);
        for (from, forwarded, seen) in [
            ("10.1.2.3", &["192.0.2.1"][..], "192.0.2.1"),
            ("::ffff:10.1.2.3", &["192.0.2.1"], "192.0.2.1"),
            ("10.1.2.3", &["198.51.100.1, 192.0.2.1"], "192.0.2.1"),
            ("10.1.2.3", &["198.51.100.1", "192.0.2.1"], "192.0.2.1"),
            ("10.1.2.3", &["198.51.100.1, nonsense"], "10.1.2.3"),
            ("10.1.2.3", &["192.0.2.1,"], "10.1.2.3"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("203.0.113.1", &["192.0.2.1"], "203.0.113.1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED, HeaderValue::from_static(value));
            }
            let expected = Network::from(seen.parse::<IpAddr>().unwrap());
            assert_eq!(networks.network(peer(from), &headers), expected, "{from} {forwarded:?}");
        }
    }
}
