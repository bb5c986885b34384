//! What HTTP/2 asks of a server, section by section: RFC 9113, and RFC 7541 for its header blocks. Spoken in
//! frames made by hand over a socket, to the front door as users meet it.
//!
//! A line of a table is a case: its section, what the peer does, the frames by which it does so, and what
//! must come of it. Each case has a connection of its own, on which settings were exchanged before.
//! Where an RFC leaves a choice, the case says what the broker does.

/// A table: the section, what the peer does, the steps by which it does so, and what must come of it.
macro_rules! cases {
    ($($section:literal $what:literal: $steps:expr => $must:expr;)+) => {
        vec![$(Case { section: $section, what: $what, steps: Vec::from($steps), must: $must }),+]
    };
}

mod compression;
mod connection;
mod frames;
mod messages;
mod peer;
mod streams;
mod windows;

use self::peer::{Peer, is_ok};
use crate::{
    attack::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    raw::{PREFACE, PUBLISH},
    support::{Running, message, within},
};

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 0x8;
const HAS_PRIORITY: u8 = 0x20;
/// A header block in one frame, and a request in one frame.
const WHOLE: u8 = END_HEADERS | END_STREAM;
/// The bit in front of a stream's number, or of a window's.
const RESERVED: u32 = 1 << 31;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

const PUBLISH_STREAM: &str = "/pubsub.v1.PubSubService/PublishStream";
/// The largest payload of a frame (section 4.2).
const FRAME_BYTES_MAX: usize = 16_384;

/// Asked after all that a case says, so that its answer comes after what is answered to that.
const STILL_THERE: [u8; 8] = *b"anybody?";
/// The stream of a request that is made last, to see that others are served.
const LAST: u32 = 0x7fff_ffff;

/// What a case does.
#[derive(Clone, Debug)]
enum Step {
    Say(Vec<u8>),
    /// Waits until the broker has said its last on this stream.
    HearEnd(u32),
    /// Waits until so many bytes of an answer's body have come on this stream.
    HearBytes(u32, usize),
    /// Waits until the broker has reset this stream.
    HearReset(u32),
}

use Step::{HearBytes, HearEnd, HearReset};

/// What comes of it.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// The connection ends, with this code.
    End(u32),
    /// It ends without a word.
    Close,
    /// A stream, of this number, is reset with this code, and nothing else is.
    Reset(u32, u32),
    /// Nothing is wrong with it, and all that is answered is answered well.
    Pass,
    /// The first stream's request is answered in full, with this status, as are all others.
    Answer(u16),
    /// The first stream's call is answered in full, and all went well.
    Succeed,
    /// The first stream's answer has come in DATA of these sizes so far.
    Send(&'static [usize]),
}

use Must::{Answer, Close, End, Pass, Reset, Send, Succeed};

#[derive(Debug)]
struct Case {
    section: &'static str,
    what: &'static str,
    steps: Vec<Step>,
    must: Must,
}

/// Tries each case, and tells of all that fail.
async fn check(cases: Vec<Case>) {
    check_from(opening(), cases).await;
}

/// The same where the peer begins with other words than it should.
async fn check_from(opening: Vec<u8>, cases: Vec<Case>) {
    let broker = Running::start().await;
    let mut failures = String::new();
    for case in cases {
        let mut peer = Peer::connect(broker.address, &opening).await;
        if let Err(heard) = peer.try_case(&case.steps, case.must).await {
            let Case {
                section,
                what,
                must,
                ..
            } = case;
            failures += &format!("\n{section} {what}: must {must:?}, but {heard:?}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// What each connection begins with: the preface, settings, and that the broker's were seen.
fn opening() -> Vec<u8> {
    let settings = [
        attack::frame(SETTINGS, 0, 0, &[]),
        attack::frame(SETTINGS, ACK, 0, &[]),
    ];
    [PREFACE, &settings.concat()].concat()
}

/// What follows in the case.
fn then(mut before: Vec<Step>, after: impl IntoIterator<Item = Step>) -> Vec<Step> {
    before.extend(after);
    before
}

/// Any frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Step {
    Step::Say(attack::frame(kind, flags, stream, payload))
}

/// A frame's head alone, of a payload that does not come.
fn head_of(bytes: usize, kind: u8, flags: u8, stream: u32) -> Step {
    let mut frame = attack::frame(kind, flags, stream, &vec![0; bytes]);
    frame.truncate(9);
    Step::Say(frame)
}

fn headers(flags: u8, stream: u32, block: &[u8]) -> Step {
    frame(HEADERS, flags, stream, block)
}

fn continuation(flags: u8, stream: u32, block: &[u8]) -> Step {
    frame(CONTINUATION, flags, stream, block)
}

fn data(flags: u8, stream: u32, content: &[u8]) -> Step {
    frame(DATA, flags, stream, content)
}

fn priority(stream: u32, payload: &[u8]) -> Step {
    frame(PRIORITY, 0, stream, payload)
}

fn reset(stream: u32, code: u32) -> Step {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn settings(entries: &[(u16, u32)]) -> Step {
    let entry =
        |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = entries.iter().flat_map(entry).collect();
    frame(SETTINGS, 0, 0, &payload)
}

fn ping(flags: u8, stream: u32, payload: &[u8]) -> Step {
    frame(PING, flags, stream, payload)
}

fn goaway(stream: u32, code: u32) -> Step {
    let payload = [[0; 4], code.to_be_bytes()].concat();
    frame(GOAWAY, 0, stream, &payload)
}

fn window_update(stream: u32, bytes: u32) -> Step {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A field that is said in full, and enters no table.
fn field(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], string(name), string(value)].concat()
}

const METHOD_GET: u8 = 0x82;
const SCHEME_HTTP: u8 = 0x86;

/// `GET /health`.
fn get() -> Vec<u8> {
    [
        &[METHOD_GET, SCHEME_HTTP],
        &field(":path", "/health")[..],
        &field(":authority", "a"),
    ]
    .concat()
}

/// The same, and more fields.
fn get_with(fields: &[Vec<u8>]) -> Vec<u8> {
    [get(), fields.concat()].concat()
}

/// A call whose request goes on, on the first stream; it is not answered before that has ended.
fn open() -> Step {
    headers(END_HEADERS, 1, &attack::grpc_request(PUBLISH_STREAM))
}

/// The head of a call to publish, which is answered once its request has ended.
fn publish(stream: u32) -> Step {
    headers(END_HEADERS, stream, &attack::grpc_request(PUBLISH))
}

/// What a call to publish says.
fn body() -> Vec<u8> {
    crate::raw::frame(&message("t", "hello")).to_vec()
}
