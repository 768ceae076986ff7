//! Latency of a reserve under an open load: calls start when they are due, whether or not earlier ones were answered,
//! and are timed from when they were due. A closed loop would wait with the service and not see its pauses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    AnyError,
    accounts::{self, MANY},
    figures::Figures,
    stack::Stack,
};

const ROUNDS: u32 = 3;
const SECONDS: u64 = 5;
const CONNECTIONS: u64 = 64;
/// Of the calls per second that a closed loop reaches.
const LOAD: f64 = 0.5;
const FEW: u64 = 1_000;
const MILLION: u64 = 1_000_000;
/// PINGs per second beside the load.
const PINGS: f64 = 200.0;

pub async fn measure(figures: &mut Figures) -> Result<(), AnyError> {
    let stack = Stack::start().await?;
    accounts::create(&stack).await?;
    let load = Load::new(&stack)?;
    let rate = LOAD * load.closed(MANY).await?;
    eprintln!("latency at {rate:.0} reserves/s");
    let mut few = Vec::new();
    for _ in 0..ROUNDS {
        let (p99, ping) = load.beside_pings(&stack, FEW, rate).await?;
        few.push(p99);
        figures.add("p99_vs_ping", p99 / ping);
    }
    accounts::fill_redis(&stack, MILLION).await?;
    for few in few {
        let (p99, _) = load.beside_pings(&stack, MILLION, rate).await?;
        figures.add("p99_1m_vs_1k_accounts", p99 / few);
    }
    stack.stop().await
}

/// Makes reserves over keep-alive connections of its own; ids never repeat.
struct Load {
    address: String,
    jwt: String,
    next: Arc<AtomicU64>,
}

impl Load {
    fn new(stack: &Stack) -> Result<Self, AnyError> {
        let address = stack.facts.url.strip_prefix("http://").ok_or("no http URL")?.to_owned();
        Ok(Self { address, jwt: stack.facts.gateway_jwt.clone(), next: Arc::default() })
    }

    /// Calls per second when each connection waits for its answer.
    async fn closed(&self, accounts: u64) -> Result<f64, AnyError> {
        let took = Duration::from_secs(SECONDS);
        let waits = self.run(accounts, took, |_| Instant::now()).await?;
        Ok(waits.len() as f64 / took.as_secs_f64())
    }

    /// p99 of reserves at so many a second, and of PINGs made meanwhile, in seconds.
    async fn beside_pings(&self, stack: &Stack, accounts: u64, rate: f64) -> Result<(f64, f64), AnyError> {
        let (took, start) = (Duration::from_secs(SECONDS), Instant::now());
        let due = move |nth: u64| start + Duration::from_secs_f64(nth as f64 / rate);
        let (reserves, pings) =
            tokio::join!(self.run(accounts, took, due), ping(&stack.facts.redis_url, took));
        Ok((p99(reserves?), p99(pings?)))
    }

    /// Seconds from when each call was due to its answer.
    async fn run<D>(&self, accounts: u64, took: Duration, due: D) -> Result<Vec<f64>, AnyError>
    where
        D: Fn(u64) -> Instant + Copy + Send + 'static,
    {
        let (end, nth) = (Instant::now() + took, Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut connection = Connection::open(&self.address, &self.jwt).await?;
            let (next, nth) = (Arc::clone(&self.next), Arc::clone(&nth));
            tasks.spawn(async move {
                let mut waits = Vec::new();
                loop {
                    let due = due(nth.fetch_add(1, Ordering::Relaxed));
                    if due.max(Instant::now()) >= end {
                        return Ok::<_, AnyError>(waits);
                    }
                    sleep_until(due).await;
                    connection.reserve(accounts, next.fetch_add(1, Ordering::Relaxed)).await?;
                    waits.push(due.elapsed().as_secs_f64());
                }
            });
        }
        let mut waits = Vec::new();
        while let Some(done) = tasks.join_next().await {
            waits.extend(done??);
        }
        Ok(waits)
    }
}

/// PINGs through the same client library, on a connection of their own; seconds each took.
async fn ping(url: &str, took: Duration) -> Result<Vec<f64>, AnyError> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let (start, mut waits) = (Instant::now(), Vec::new());
    while start.elapsed() < took {
        let due = start + Duration::from_secs_f64(waits.len() as f64 / PINGS);
        sleep_until(due).await;
        redis::cmd("PING").query_async::<String>(&mut connection).await?;
        waits.push(due.elapsed().as_secs_f64());
    }
    Ok(waits)
}

fn p99(mut waits: Vec<f64>) -> f64 {
    waits.sort_by(f64::total_cmp);
    waits.get(waits.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// One keep-alive connection, written by hand: a client library would cost more than the service.
struct Connection {
    stream: TcpStream,
    head: String,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str, jwt: &str) -> Result<Self, AnyError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "host: {address}\r\nauthorization: Bearer {jwt}\r\ncontent-type: application/json\r\ncontent-length: "
        );
        Ok(Self { stream, head, buffer: Vec::new() })
    }

    async fn reserve(&mut self, accounts: u64, number: u64) -> Result<(), AnyError> {
        // A multiplicative hash walks through all accounts in no order.
        let user = accounts::user(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % accounts);
        let body = format!(r#"{{"id":"l-{number}","tokens":1,"model":"gpt-5"}}"#);
        let request = format!(
            "POST /v1/users/{user}/reservations HTTP/1.1\r\n{}{}\r\n\r\n{body}",
            self.head,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the service closed a connection".into());
            }
            if is_whole(&self.buffer) {
                break;
            }
        }
        if self.buffer.starts_with(b"HTTP/1.1 201 ") {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&self.buffer).into_owned().into())
    }
}

/// Whether head and body have arrived.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let length = String::from_utf8_lossy(&answer[..head])
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head + 4 + length)
}
