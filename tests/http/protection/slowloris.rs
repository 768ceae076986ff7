//! Thousands of sockets that send a byte a second.

use std::time::Duration;

use reqwest::{Client, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval, sleep},
};

use crate::support::{
    service::{Service, send},
    world::PATIENCE,
};

/// How many; `COTA_TEST_SLOW_SOCKETS` for another number. Both ends are this process', so it takes twice as many files.
fn sockets() -> usize {
    std::env::var("COTA_TEST_SLOW_SOCKETS").map_or(1_000, |text| text.parse().expect("a number"))
}

/// Opens a socket and drips a head into it until the server lets go; how long that took.
async fn drip(address: std::net::SocketAddr) -> Duration {
    let stream = TcpStream::connect(address).await.unwrap();
    let opened = Instant::now();
    let (mut answers, mut requests) = stream.into_split();
    let drip = async {
        let mut ticks = interval(Duration::from_secs(1));
        for byte in b"GET /v1/users HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
            ticks.tick().await;
            if requests.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let mut heard = Vec::new();
    tokio::select! {
        () = drip => {}
        _ = answers.read_to_end(&mut heard) => {}
        () = sleep(PATIENCE) => {}
    }
    opened.elapsed()
}

/// Calls one after the other, each on a connection of its own as new customers would come, for so long or as long as
/// `goes_on`; their durations, sorted.
async fn healthy(service: &Service, calls: usize, goes_on: impl Fn() -> bool) -> Vec<Duration> {
    let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let mut took = Vec::new();
    while took.len() < calls || goes_on() {
        let url = format!("http://{}/healthz", service.http);
        let started = Instant::now();
        assert_eq!(send(client.request(Method::GET, url)).await.status, 200);
        took.push(started.elapsed());
    }
    took.sort();
    took
}

fn percentile(took: &[Duration], percent: usize) -> Duration {
    took[(took.len() - 1) * percent / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_sockets_are_cut_and_nobody_else_waits_for_them() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let before = healthy(&service, 500, || false).await;
    let mut slow = JoinSet::new();
    for _ in 0..sockets() {
        slow.spawn(drip(service.http));
    }
    let ended = std::sync::atomic::AtomicBool::new(false);
    let cut = async {
        let lives = slow.join_all().await;
        ended.store(true, std::sync::atomic::Ordering::SeqCst);
        lives
    };
    let goes_on = || !ended.load(std::sync::atomic::Ordering::SeqCst);
    let (mut lives, during) = tokio::join!(cut, healthy(&service, 500, goes_on));
    lives.sort();
    let longest = lives[lives.len() - 1];
    println!(
        "{} slow sockets lived {:?} to {longest:?}; healthy p50 and p99 {:?} and {:?} before, {:?} and {:?} during",
        lives.len(),
        lives[0],
        percentile(&before, 50),
        percentile(&before, 99),
        percentile(&during, 50),
        percentile(&during, 99),
    );
    assert!(longest <= Duration::from_secs(10), "one lived {longest:?}");
    assert!(lives[0] >= Duration::from_secs(2), "cut after {:?}: not by the timeout", lives[0]);
    // Wide, for a machine that does other things too; sockets that hold anybody up do it for seconds.
    let bound = percentile(&before, 99) * 5 + Duration::from_millis(100);
    assert!(percentile(&during, 99) <= bound, "{:?} > {bound:?}", percentile(&during, 99));
    service.reserve(user, "after", 10).await.is(201);
    service.finish().await;
}
