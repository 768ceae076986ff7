//! Callers that mean harm: bounded in what they take, cut off in time, and nobody else notices.

mod bombs;
mod callers;
mod http2;
mod networks;
mod room;
mod slowloris;
mod start;
mod tls;

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::world::PATIENCE;

/// Sends what it can of these bytes and returns what the server says until it closes.
async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let (mut answers, mut requests) = TcpStream::connect(address).await.unwrap().into_split();
    let mut heard = Vec::new();
    let send = async {
        // The server may close before it has taken it all.
        let _ = requests.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = send => {}
        // Reset instead of closed is as good.
        read = timeout(PATIENCE, answers.read_to_end(&mut heard)) => drop(read.expect("the server closes")),
    }
    String::from_utf8_lossy(&heard).into_owned()
}
