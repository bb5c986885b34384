//! Whether the account of memory knows what peers make the broker allocate, in bytes.
//!
//! A process of its own, in which one test runs at a time, since an allocator counts for all threads.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where, and fail"
)]
#![allow(
    clippy::print_stdout,
    reason = "the figures, for whoever changes a constant that was measured"
)]

use std::{alloc::System, future, net::SocketAddr, time::Duration};

use fanfare::{
    broker::{Broker, Limits},
    server::{Server, ServerConfig},
};
use parking_lot::Mutex;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

#[path = "it/attack.rs"]
#[allow(dead_code, reason = "other tests use what is not used here")]
mod attack;

use attack::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, stream};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Far above what any test takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What glibc's allocator takes beside what it is asked for.
const ALLOCATION_BYTES: usize = 16;
/// What may be allocated uncounted, once: tables, and what is made when it is first used.
const UNCOUNTED_BYTES_MAX: usize = 64 * 1024;
const CONNECTIONS: usize = 10;
const STREAMS: usize = 200;
/// Connections of peers that open no stream.
const CONNECTIONS_ALONE: usize = 100;

fn bytes_in_use() -> usize {
    let stats = ALLOCATOR.stats();
    let live = stats.allocations - stats.deallocations;
    stats.bytes_allocated - stats.bytes_deallocated + live * ALLOCATION_BYTES
}

/// What one peer says on a connection, beside the preface and its settings.
struct Said {
    settings: Vec<u8>,
    frames: Vec<u8>,
    streams: usize,
    is_http1: bool,
}

impl Said {
    /// One request on each of many streams; `ends` says how much of it comes.
    fn requests(block: &[u8], first: &[u8], flags: u8, body: &[u8]) -> Self {
        let mut frames = Vec::new();
        for index in 0..STREAMS {
            let block = if index == 0 { first } else { block };
            frames.extend(frame(HEADERS, END_HEADERS | flags, stream(index), block));
            if !body.is_empty() {
                frames.extend(frame(DATA, END_STREAM, stream(index), body));
            }
        }
        Self {
            settings: Vec::new(),
            frames,
            streams: STREAMS,
            is_http1: false,
        }
    }

    fn connections(&self) -> usize {
        if self.streams == 0 {
            CONNECTIONS_ALONE
        } else {
            CONNECTIONS
        }
    }

    fn frames(frames: Vec<u8>) -> Self {
        Self {
            settings: Vec::new(),
            frames,
            streams: 0,
            is_http1: false,
        }
    }

    fn http1(text: &str) -> Self {
        Self {
            is_http1: true,
            ..Self::frames(text.as_bytes().to_vec())
        }
    }
}

fn http(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x86];
    block.extend([0x04, u8::try_from(path.len()).unwrap()]);
    block.extend(path.as_bytes());
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;
/// Enters `aaa: b` into the table, where it is the newest.
const ENTERED: &[u8] = b"\x40\x03aaa\x01b";
const NEWEST: u8 = 0x80 | 62;

/// As many fields as a request may have, each a single byte.
fn with_many_fields(block: &[u8]) -> (Vec<u8>, Vec<u8>) {
    const FIELDS: usize = 430;
    let rest = [block, &[NEWEST; FIELDS]].concat();
    let first = [block, ENTERED, &[NEWEST; FIELDS - 1]].concat();
    (rest, first)
}

/// The same with fields that are all different.
fn with_different_fields(block: &[u8]) -> Vec<u8> {
    let fields = (0..400_u32).flat_map(|field| {
        let letter = |at: u32| b'a' + (field / 20_u32.pow(at) % 20) as u8;
        [0, 3, letter(0), letter(1), letter(2), 1, b'x']
    });
    block.iter().copied().chain(fields).collect()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn open_streams(address: SocketAddr) -> usize {
    let metrics = get(address, "/metrics").await;
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix("fanfare_streams "));
    value.unwrap().parse().unwrap()
}

/// Lets peers say each of these in turn, and compares what was allocated with what was counted.
#[track_caller]
fn check(cases: impl IntoIterator<Item = (String, Said)>) {
    let _alone = ONE_AT_A_TIME.lock();
    let cases = cases.into_iter();
    let wrong: Vec<_> = cases
        .filter_map(|(title, said)| compare(&title, &said))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is wrong with the account, if anything is.
fn compare(title: &str, said: &Said) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (allocated, counted) = runtime.block_on(async {
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let mut config = ServerConfig::default();
        config.listen.set_port(0);
        let server = Server::bind(config, broker.clone()).await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(server.run(future::pending()));
        timeout(PATIENCE, measure(&broker, address, said))
            .await
            .unwrap()
    });
    let each = said.connections() * said.streams.max(1);
    let figures = format!(
        "{title}: {allocated} bytes allocated, {} each; {counted} counted, {} each",
        allocated / each,
        counted / each
    );
    println!("{figures}");
    let is_enough = allocated <= counted + counted / 10 + UNCOUNTED_BYTES_MAX;
    // The account is of memory, and not of fears.
    let is_too_much = counted > 3 * allocated + UNCOUNTED_BYTES_MAX;
    (!is_enough || is_too_much).then_some(figures)
}

async fn measure(broker: &Broker, address: SocketAddr, said: &Said) -> (usize, usize) {
    // What is made once is there.
    converse(address, said).await;
    while open_streams(address).await > 0 {}
    settled(broker).await;
    let (allocated, counted) = settled(broker).await;
    let mut held = Vec::new();
    for _ in 0..said.connections() {
        held.push(converse(address, said).await);
    }
    while open_streams(address).await < said.connections() * said.streams {}
    let after = settled(broker).await;
    (
        after.0.saturating_sub(allocated),
        after.1.saturating_sub(counted),
    )
}

async fn converse(address: SocketAddr, said: &Said) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    if said.is_http1 {
        socket.write_all(&said.frames).await.unwrap();
        return socket;
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    socket.write_all(preface).await.unwrap();
    let settings = frame(SETTINGS, 0, 0, &said.settings);
    socket.write_all(&settings).await.unwrap();
    socket.write_all(&said.frames).await.unwrap();
    socket
}

/// What is allocated and what is counted, once both stay as they are.
async fn settled(broker: &Broker) -> (usize, usize) {
    let now = || (bytes_in_use(), broker.snapshot().memory_bytes);
    let mut before = now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let after = now();
        if after.0.abs_diff(before.0) < 4_096 && after.1 == before.1 {
            return after;
        }
        before = after;
    }
}

const PUBLISH: &str = "/pubsub.v1.PubSubService/Publish";
const PUBLISH_STREAM: &str = "/pubsub.v1.PubSubService/PublishStream";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// A message of no bytes.
const EMPTY: &[u8] = &[0; 5];

#[test]
fn a_call_counts_for_what_it_holds() {
    let unfinished = [PUBLISH, PUBLISH_STREAM, WATCH, REFLECTION].map(|path| {
        let block = attack::grpc_request(path);
        (path.to_owned(), Said::requests(&block, &block, 0, &[]))
    });
    let watch = attack::grpc_request(WATCH);
    let post = http(POST, "/v1/topics/x");
    let events = http(GET, "/v1/events?topic=x");
    let others = [
        ("a Watch", Said::requests(&watch, &watch, 0, EMPTY)),
        ("half a POST", Said::requests(&post, &post, 0, &[])),
        ("events", Said::requests(&events, &events, END_STREAM, &[])),
    ];
    let others = others.map(|(title, said)| (title.to_owned(), said));
    check(unfinished.into_iter().chain(others));
}

#[test]
fn the_fields_of_a_request_count_as_long_as_they_are_held() {
    let many = |title: &str, block: &[u8], body: &[u8]| {
        let (rest, first) = with_many_fields(block);
        let said = Said::requests(&rest, &first, 0, body);
        (format!("{title}, many fields"), said)
    };
    let mut cases = Vec::new();
    for path in [PUBLISH, PUBLISH_STREAM, WATCH, REFLECTION] {
        let block = attack::grpc_request(path);
        cases.push(many(path, &block, &[]));
        let block = with_different_fields(&block);
        let said = Said::requests(&block, &block, 0, &[]);
        cases.push((format!("{path}, different fields"), said));
    }
    cases.push(many("a Watch", &attack::grpc_request(WATCH), EMPTY));
    cases.push(many("half a POST", &http(POST, "/v1/topics/x"), &[]));
    check(cases);
}

#[test]
fn answers_that_nobody_takes_count() {
    let block = http(GET, "/metrics");
    let mut said = Said::requests(&block, &block, END_STREAM, &[]);
    // INITIAL_WINDOW_SIZE
    said.settings = vec![0, 4, 0, 0, 0, 0];
    let metrics = ("metrics".to_owned(), said);
    // `file_containing_symbol: "pubsub.v1.PubSubService"`
    let asked = [b"\0\0\0\0\x19\x22\x17", &b"pubsub.v1.PubSubService"[..]].concat();
    let block = attack::grpc_request(REFLECTION);
    let mut said = Said::requests(&block, &block, 0, &asked);
    said.settings = vec![0, 4, 0, 0, 0, 0];
    check([metrics, ("reflection".to_owned(), said)]);
}

#[test]
fn what_came_in_part_counts() {
    let mut half_a_frame = frame(attack::UNKNOWN, 0, 0, &[0; 16_384]);
    half_a_frame.truncate(16_000);
    let mut half_a_block = frame(HEADERS, 0, 1, &[0; 16_384]);
    half_a_block.extend(frame(CONTINUATION, 0, 1, &[0; 16_000]));
    half_a_block.extend(&frame(CONTINUATION, 0, 1, &[0; 16_384])[..16_000]);
    check([
        ("half a frame".to_owned(), Said::frames(half_a_frame)),
        ("half a header block".to_owned(), Said::frames(half_a_block)),
    ]);
}

#[test]
fn connections_of_http1_count_for_what_they_hold() {
    let long = "x".repeat(15_000);
    let fields: String = (0..95).map(|field| format!("x-{field}: y\r\n")).collect();
    let half_a_post = "POST /v1/topics/t HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n";
    let cases = [
        ("idle", "GET /health HTTP/1.1\r\nhost: t\r\n\r\n".to_owned()),
        (
            "events",
            "GET /v1/events?topic=t HTTP/1.1\r\nhost: t\r\n\r\n".to_owned(),
        ),
        (
            "half a head",
            format!("GET /health HTTP/1.1\r\nhost: t\r\nx: {long}"),
        ),
        ("half a request", format!("{half_a_post}\r\n12345")),
        (
            "half a request, many fields",
            format!("{half_a_post}{fields}\r\n12345"),
        ),
        (
            "half a request, long field",
            format!("{half_a_post}x: {long}\r\n\r\n12345"),
        ),
    ];
    check(cases.map(|(title, text)| (format!("HTTP/1.1, {title}"), Said::http1(&text))));
}

#[test]
fn a_full_table_counts() {
    let mut block = http(GET, "/health");
    for field in 0..116_u8 {
        let name = [b'a' + field % 26, b'a' + field / 26];
        block.extend([0x40, 2, name[0], name[1], 1, b'x']);
    }
    let frames = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    check([("a table of tiny entries".to_owned(), Said::frames(frames))]);
}
