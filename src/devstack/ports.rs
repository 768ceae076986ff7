//! Loopback ports for servers that are about to start.

use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt;

/// Below the kernel's range for outgoing connections (from 32768 on Linux), above the well-known servers.
const RANGE: std::ops::Range<u16> = 15_000..30_000;

/// A port that nobody listens on now. Another may take it before the caller does: the caller tries again.
pub(super) fn free_port() -> std::io::Result<u16> {
    let mut last = None;
    for _ in 0..100 {
        let port = rand::rng().random_range(RANGE);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}
