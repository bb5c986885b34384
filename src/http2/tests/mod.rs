//! A connection, spoken to in frames that are written and read by hand.

mod bodies;
mod cutting;
mod errors;
mod halves;
mod heads;
mod leaks;
mod leaving;
mod windows;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    Broken, Config, Connection, Failure, Inbound, Outbound, Reason, Request,
    frame::{flag, kind},
};

const STREAM_WINDOW: u32 = 20_000;
const CONNECTION_WINDOW: u32 = 70_000;
const UNSENT_MAX: usize = 10_000;
const STREAMS_MAX: usize = 4;

const CONFIG: Config = Config {
    streams_max: STREAMS_MAX,
    stream_window_bytes: STREAM_WINDOW,
    connection_window_bytes: CONNECTION_WINDOW,
    header_list_bytes_max: 4_096,
    unsent_bytes_max: UNSENT_MAX,
};

/// `POST http:/`, each as an entry of the table that all know.
const POST: &[u8] = &[0x83, 0x86, 0x84];

const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[self.payload.len() - 4..].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let entry =
        |(setting, value): &(u16, u32)| [&setting.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = entries.iter().flat_map(entry).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A request that goes on.
fn headers(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, POST)
}

/// All of a request.
fn last_headers(stream: u32) -> Vec<u8> {
    let flags = flag::END_HEADERS | flag::END_STREAM;
    frame(kind::HEADERS, flags, stream, POST)
}

/// The end of a request.
fn trailers(stream: u32) -> Vec<u8> {
    let flags = flag::END_HEADERS | flag::END_STREAM;
    frame(kind::HEADERS, flags, stream, &field("x", "y"))
}

fn data(stream: u32, content: &[u8]) -> Vec<u8> {
    frame(kind::DATA, 0, stream, content)
}

fn last_data(stream: u32, content: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flag::END_STREAM, stream, content)
}

fn reset(stream: u32, reason: Reason) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes())
}

fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A field that is said in full; names and values are short.
fn field(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [vec![0], string(name), string(value)].concat()
}

/// Takes frames apart.
fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(9);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (payload, rest) = rest.split_at(length as usize);
        frames.push(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..].try_into().unwrap()),
            payload: payload.to_vec(),
        });
        bytes = rest;
    }
    frames
}

/// Knows that it was woken.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    /// Whether it was woken since the last time.
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// The peer of a connection, and whoever serves it.
struct Peer {
    connection: Connection,
    requests: Vec<Request>,
}

impl Peer {
    /// Settings were said and acknowledged.
    fn new() -> Self {
        Self::with(CONFIG)
    }

    fn with(config: Config) -> Self {
        let mut peer = Self {
            connection: Connection::new(config),
            requests: Vec::new(),
        };
        peer.say(&settings(&[]));
        peer.hear();
        peer
    }

    fn try_say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let requests = &mut self.requests;
        let began = |request| requests.push(request);
        self.connection.receive(bytes, Duration::ZERO, began)
    }

    #[track_caller]
    fn say(&mut self, bytes: &[u8]) {
        self.try_say(bytes).unwrap();
    }

    /// All that is to be sent.
    fn hear(&mut self) -> Vec<Frame> {
        let out = self.connection.with_out(bytes::BytesMut::split);
        frames(&out)
    }

    /// Begins a request, and returns its halves.
    #[track_caller]
    fn begin(&mut self, bytes: &[u8]) -> (Inbound, Outbound) {
        self.say(bytes);
        let request = self.requests.pop().expect("it has begun");
        (request.head.into_body(), request.answer)
    }
}

fn poll_data(inbound: &Inbound) -> Poll<Option<Result<Bytes, Broken>>> {
    inbound.poll_data(&mut Context::from_waker(Waker::noop()))
}

fn poll_send(outbound: &mut Outbound, data: &mut Bytes) -> Poll<Result<(), Broken>> {
    outbound.poll_send(&mut Context::from_waker(Waker::noop()), data)
}

fn poll_done(connection: &Connection) -> bool {
    connection
        .poll_done(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A body, and how it ended; `None` if more is to come.
type Read = (Vec<u8>, Option<Result<(), Broken>>);

fn read(inbound: &Inbound) -> Read {
    let mut body = Vec::new();
    loop {
        match poll_data(inbound) {
            Poll::Ready(Some(Ok(data))) => body.extend(data),
            Poll::Ready(Some(Err(broken))) => return (body, Some(Err(broken))),
            Poll::Ready(None) => return (body, Some(Ok(()))),
            Poll::Pending => return (body, None),
        }
    }
}

fn send_head(outbound: &mut Outbound, is_whole: bool) -> Result<(), Broken> {
    outbound.send_head(StatusCode::OK, &HeaderMap::new(), is_whole)
}

#[track_caller]
fn check_frames(heard: &[Frame], expected: &[Vec<u8>]) {
    assert_eq!(heard, frames(&expected.concat()));
}
