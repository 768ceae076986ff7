//! The listener over real sockets.

use std::net::SocketAddr;

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
    time::Instant,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<Drained>,
}

fn limits() -> Limits {
    Limits {
        max_connections: 100,
        max_connections_per_network: 0,
        max_header_bytes: MAX_HEADER_BYTES,
        header_timeout: Duration::from_millis(300),
        idle_timeout: PATIENCE,
        write_timeout: PATIENCE,
        flow_timeout: PATIENCE,
        drain_timeout: Duration::from_secs(5),
    }
}

async fn start(router: Router, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve(listener, router.into(), limits, None, stop.clone()));
    Server { address, stop, ended }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) -> Drained {
        self.stop.cancel();
        timeout(PATIENCE, self.ended).await.expect("the listener ends").unwrap()
    }
}

/// All that comes until the peer closes.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the peer closes");
    // A reset is a close, too.
    let _ = read;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut byte = [0];
        let read = timeout(PATIENCE, stream.read(&mut byte)).await.expect("an answer").unwrap();
        assert_eq!(read, 1, "closed after {text:?}");
        text.push(char::from(byte[0]));
    }
    text
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let server = start(hello(), limits()).await;
    let url = format!("http://{}/", server.address);
    let http1 = reqwest::get(&url).await.unwrap();
    assert_eq!((http1.version(), http1.text().await.unwrap().as_str()), (reqwest::Version::HTTP_11, "hello"));
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!(frame[3], 4, "SETTINGS come first");
    assert_eq!(server.stop().await, Drained::Clean);
}

#[tokio::test]
async fn who_sends_no_whole_head_is_cut_off() {
    let server = start(hello(), limits()).await;
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = server.connect().await;
        stream.write_all(start.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(!answer.contains("hello"), "{start:?}: {answer}");
    }
    assert_eq!(server.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start(hello(), limits()).await;
    for head in [
        format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(MAX_HEADER_BYTES)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(MAX_HEADERS + 1)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(MAX_HEADER_BYTES)),
    ] {
        let mut stream = server.connect().await;
        // The server may close before it has taken it all.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = read_all(&mut stream).await;
        assert!(!answer.contains("hello"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_past_the_cap_wait_for_a_place() {
    let limits = Limits { max_connections: 1, header_timeout: PATIENCE, ..limits() };
    let server = start(hello(), limits).await;
    let mut first = server.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut first, "hello").await;
    let mut second = server.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(early.is_err(), "served beyond the cap");
    drop(first);
    read_until(&mut second, "hello").await;
    server.stop().await;
}

/// A route that says when it was reached and answers when told.
fn gated() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inner_reached, inner_go) = (Arc::clone(&reached), Arc::clone(&go));
    let handler = move || {
        let (reached, go) = (Arc::clone(&inner_reached), Arc::clone(&inner_go));
        async move {
            reached.notify_one();
            go.notified().await;
            "done"
        }
    };
    (Router::new().route("/", post(handler)), reached, go)
}

#[tokio::test]
async fn a_shutdown_lets_running_requests_finish_and_idle_connections_go() {
    let (router, reached, go) = gated();
    let server = start(router, Limits { header_timeout: PATIENCE, ..limits() }).await;
    let mut idle = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    timeout(PATIENCE, reached.notified()).await.unwrap();
    server.stop.cancel();
    assert_eq!(read_all(&mut idle).await, "");
    go.notify_one();
    assert!(read_all(&mut busy).await.ends_with("done"));
    assert!(TcpStream::connect(server.address).await.is_err(), "still listening");
    assert_eq!(server.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_shutdown_cuts_off_what_outlives_its_time() {
    let (router, reached, _go) = gated();
    let server = start(router, Limits { drain_timeout: Duration::from_millis(100), ..limits() }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    timeout(PATIENCE, reached.notified()).await.unwrap();
    assert_eq!(server.stop().await, Drained::Cut);
    assert_eq!(read_all(&mut busy).await, "");
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_connection_may_rest_longer_than_a_head_may_take() {
    let idle_timeout = Duration::from_millis(900);
    let server = start(hello(), Limits { idle_timeout, ..limits() }).await;
    let mut resting = server.connect().await;
    resting.write_all(REQUEST).await.unwrap();
    read_until(&mut resting, "hello").await;
    let rest = Instant::now();
    assert_eq!(read_all(&mut resting).await, "");
    // Milliseconds are cut off where they are counted.
    assert!(rest.elapsed() >= idle_timeout - Duration::from_millis(2), "{:?}", rest.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn once_begun_a_head_has_its_own_time_however_its_bytes_drip() {
    let server = start(hello(), limits()).await;
    let mut dripping = server.connect().await;
    dripping.write_all(REQUEST).await.unwrap();
    read_until(&mut dripping, "hello").await;
    let begun = Instant::now();
    let (mut answers, mut drops) = dripping.into_split();
    let drip = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for byte in b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
            ticks.tick().await;
            if drops.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    let mut heard = Vec::new();
    tokio::select! {
        () = drip => {}
        read = timeout(PATIENCE, answers.read_to_end(&mut heard)) => drop(read.expect("the peer closes")),
    }
    assert!(begun.elapsed() >= limits().header_timeout && begun.elapsed() < limits().idle_timeout);
    assert!(!String::from_utf8_lossy(&heard).contains("hello"));
    server.stop().await;
}

/// More than the buffers of two sockets hold.
fn large() -> Router {
    let body = bytes::Bytes::from(vec![b'x'; 64 << 20]);
    Router::new().route("/", get(move || std::future::ready(body.clone())))
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_cut_off_and_who_takes_it_slowly_is_not() {
    let write_timeout = Duration::from_millis(500);
    let server = start(large(), Limits { write_timeout, ..limits() }).await;
    let mut slow = server.connect().await;
    slow.write_all(REQUEST).await.unwrap();
    let (begun, mut taken, mut chunk) = (Instant::now(), 0, vec![0; 8 << 20]);
    let mut ticks = tokio::time::interval(write_timeout / 5);
    while taken < 64 << 20 {
        ticks.tick().await;
        let read = timeout(PATIENCE, slow.read(&mut chunk)).await.unwrap().unwrap();
        assert_ne!(read, 0, "cut off after {taken} bytes");
        taken += read;
    }
    assert!(begun.elapsed() > write_timeout, "too fast to show anything");
    let mut stalled = server.connect().await;
    stalled.write_all(REQUEST).await.unwrap();
    // The first byte shows that the answer is under way; the shutdown then waits for it, and must not for ever.
    stalled.read_exact(&mut [0]).await.unwrap();
    assert_eq!(server.stop().await, Drained::Clean);
    assert!(read_all(&mut stalled).await.len() < 64 << 20, "the whole answer came");
}

/// An answer that says something every 50 ms, for ever.
fn endless() -> Router {
    let handler = || {
        let ticks = tokio::time::interval(Duration::from_millis(50));
        let pieces = futures_util::stream::unfold(ticks, |mut ticks| async move {
            ticks.tick().await;
            Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(b":\n\n")), ticks))
        });
        std::future::ready(axum::body::Body::from_stream(pieces))
    };
    Router::new().route("/", get(handler))
}

/// `GET /` over HTTP/2, with room for so many bytes of the answer.
async fn ask_over_http2(server: &Server, window: u8) -> TcpStream {
    let mut stream = server.connect().await;
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, /* INITIAL_WINDOW_SIZE */ 0, 4, 0, 0, 0, window]);
    // HEADERS that end the stream: GET, http, and the path / from the static table.
    request.extend([0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84]);
    stream.write_all(&request).await.unwrap();
    stream
}

#[tokio::test]
async fn a_stream_lasts_as_long_as_its_peer_asks_for_more() {
    let flow_timeout = Duration::from_millis(400);
    let limits = Limits {
        flow_timeout,
        write_timeout: Duration::from_millis(100),
        header_timeout: PATIENCE,
        ..limits()
    };
    let server = start(endless(), limits).await;
    // Far longer than any answer may take, on both protocols.
    let mut listening = server.connect().await;
    listening.write_all(REQUEST).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < 3 * flow_timeout {
        read_until(&mut listening, ":\n\n").await;
    }
    drop(listening);
    // Its window is shut after two pieces; it answers pings, and takes all that it may.
    let mut shut = ask_over_http2(&server, 6).await;
    let begun = Instant::now();
    read_all(&mut shut).await;
    assert!(begun.elapsed() >= flow_timeout, "{:?}", begun.elapsed());
    server.stop().await;
}

#[tokio::test]
async fn a_network_past_its_share_is_turned_away_at_once() {
    let limits = Limits { max_connections_per_network: 1, header_timeout: PATIENCE, ..limits() };
    let server = start(hello(), limits).await;
    let mut first = server.connect().await;
    first.write_all(REQUEST).await.unwrap();
    read_until(&mut first, "hello").await;
    assert_eq!(read_all(&mut server.connect().await).await, "");
    // The one that is in stays in, and leaves room when it goes.
    first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut first).await.ends_with("hello"));
    let give_up = Instant::now() + PATIENCE;
    loop {
        let mut next = server.connect().await;
        let _ = next.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        if read_all(&mut next).await.ends_with("hello") {
            break;
        }
        assert!(Instant::now() < give_up, "its place was not given back");
    }
    server.stop().await;
}
