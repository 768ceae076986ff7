//! Waiting for `/readyz`.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::CliError;

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the service is ready.
pub async fn wait(address: SocketAddr) -> Result<(), CliError> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if timeout(Duration::from_secs(1), is_ready(address)).await.is_ok_and(|ready| ready.unwrap_or(false))
        {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(CliError::Dev("the service did not become ready; --log info says why".into()))
}

async fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200") && answer.contains("\"ready\""))
}
