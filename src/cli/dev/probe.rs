//! Whether the service says that it is ready.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

const PAUSE: Duration = Duration::from_millis(20);
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Asks `/readyz` until it answers 200.
pub(super) async fn until_ready(address: SocketAddr) {
    while !matches!(timeout(ANSWER_PATIENCE, is_ready(address)).await, Ok(Ok(true))) {
        sleep(PAUSE).await;
    }
}

/// One request by hand: a client library for one status line is not worth its weight.
async fn is_ready(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
