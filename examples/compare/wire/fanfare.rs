//! gRPC over HTTP/2, as much of it as a client of three methods needs. The Go reference has two of them,
//! with messages that are a part of ours, as a service of another name.
//!
//! Headers that the server sends are not decoded: a call has succeeded if it was answered with a
//! message before its end. Our own are the same for each call of a connection, so that from the second
//! on they are references into HPACK's dynamic table, as any client sends them. Frames are no larger
//! than the protocol's default, in both directions, which is what most clients advertise.

use anyhow::{bail, ensure};
use fanfare::wire::pb;
use prost::Message as _;

use super::{
    Codec, Heard, Stamp, Template, Traffic,
    http2::{
        FRAME_BYTES_MAX, Frame, HEADER_BYTES, INITIAL_WINDOW_SIZE, LATER_HEADERS, PREFACE,
        each_message, first_headers, flag, grpc, kind, number, put_header, put_window_update,
    },
};

/// How messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Publish,
    PublishStream,
}

/// What the server may send ahead on one stream, and on the connection.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// What HTTP/2 begins with.
const DEFAULT_WINDOW_BYTES: u32 = 65_535;

/// What the streams of a connection are for; all are for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Subscribe,
    Publish(Method),
}

#[derive(Debug)]
pub(super) struct Fanfare {
    traffic: Traffic,
    service: &'static str,
    purpose: Purpose,
    /// A request to publish, with gRPC's prefix.
    publish: Template,
    /// What a delivery of ours has before its payload.
    payload_key: Vec<u8>,
    streams: Vec<Stream>,
    streams_opened: u32,
    answered: u64,
    greeted: bool,
    /// What the server lets us send: on the connection, on a new stream, on the publisher's stream.
    send_window: i64,
    stream_window_initial: i64,
    stream_window: i64,
    /// Bytes received that the server has not been told of.
    unacknowledged: u32,
    /// Where in the output an open DATA frame begins.
    open_frame: Option<usize>,
}

/// A stream that lasts.
#[derive(Debug, Default)]
struct Stream {
    unacknowledged: u32,
    /// The beginning of a message.
    partial: Vec<u8>,
}

impl Fanfare {
    pub(super) fn new(traffic: Traffic, service: &'static str) -> Self {
        let request = pb::PublishRequest {
            topic: traffic.topic(),
            payload: vec![0; traffic.size].into(),
            ..Default::default()
        };
        // PublishStreamRequest has the same fields.
        let bytes = grpc(&request);
        let payload_at = bytes.len() - traffic.size;
        let payload_only = pb::SubscribeResponse {
            payload: vec![0; traffic.size].into(),
            ..Default::default()
        };
        let payload_only = payload_only.encode_to_vec();
        Self {
            traffic,
            service,
            purpose: Purpose::Publish(traffic.method),
            publish: Template::new(&bytes[..payload_at], traffic.size, b""),
            payload_key: payload_only[..payload_only.len() - traffic.size].to_vec(),
            streams: Vec::new(),
            streams_opened: 0,
            answered: 0,
            greeted: false,
            send_window: i64::from(DEFAULT_WINDOW_BYTES),
            stream_window_initial: i64::from(DEFAULT_WINDOW_BYTES),
            stream_window: i64::from(DEFAULT_WINDOW_BYTES),
            unacknowledged: 0,
            open_frame: None,
        }
    }

    /// Opens the next stream; returns its id.
    fn open(&mut self, out: &mut Vec<u8>) -> u32 {
        let id = self.streams_opened * 2 + 1;
        self.streams_opened += 1;
        let method = match self.purpose {
            Purpose::Subscribe => "Subscribe",
            Purpose::Publish(Method::Publish) => "Publish",
            Purpose::Publish(Method::PublishStream) => "PublishStream",
        };
        let block = match id {
            1 => first_headers(self.service, method),
            _ => LATER_HEADERS.to_vec(),
        };
        put_header(out, block.len(), kind::HEADERS, flag::END_HEADERS, id);
        out.extend_from_slice(&block);
        id
    }

    fn publish_unary(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
        let length = self.publish.bytes.len();
        if self.send_window < length as i64 {
            return false;
        }
        self.send_window -= length as i64;
        let id = self.open(out);
        put_header(out, length, kind::DATA, flag::END_STREAM, id);
        self.publish.put(stamp, out);
        true
    }

    /// Fills DATA frames with as many messages as fit, as clients do that have more than one at hand.
    fn publish_streaming(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
        let length = self.publish.bytes.len();
        if self.send_window.min(self.stream_window) < length as i64 {
            return false;
        }
        if self.streams.is_empty() {
            self.open(out);
            self.streams.push(Stream::default());
        }
        let is_full = self
            .open_frame
            .is_some_and(|at| out.len() - at - HEADER_BYTES + length > FRAME_BYTES_MAX);
        if is_full {
            self.seal(out);
        }
        if self.open_frame.is_none() {
            self.open_frame = Some(out.len());
            put_header(out, 0, kind::DATA, 0, 1);
        }
        self.send_window -= length as i64;
        self.stream_window -= length as i64;
        self.publish.put(stamp, out);
        true
    }

    fn frame(
        &mut self,
        frame: Frame<'_>,
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        match frame.kind {
            kind::DATA => self.data(frame, heard, out),
            kind::HEADERS => self.headers(frame, heard),
            kind::RST_STREAM => bail!("the server reset stream {}", frame.stream),
            kind::GOAWAY => bail!("the server said GOAWAY"),
            kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                for setting in frame.payload.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        let size = i64::from(number(&setting[2..]));
                        self.stream_window += size - self.stream_window_initial;
                        self.stream_window_initial = size;
                    }
                }
                put_header(out, 0, kind::SETTINGS, flag::ACK, 0);
                heard.ready += u64::from(!self.greeted);
                self.greeted = true;
                Ok(())
            }
            kind::PING if frame.flags & flag::ACK == 0 => {
                put_header(out, frame.payload.len(), kind::PING, flag::ACK, 0);
                out.extend_from_slice(frame.payload);
                Ok(())
            }
            kind::WINDOW_UPDATE => {
                let increment = i64::from(number(frame.payload));
                match frame.stream {
                    0 => self.send_window += increment,
                    _ => self.stream_window += increment,
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn headers(&mut self, frame: Frame<'_>, heard: &mut Heard) -> anyhow::Result<()> {
        let ends = frame.flags & flag::END_STREAM != 0;
        match self.purpose {
            Purpose::Subscribe => {
                ensure!(!ends, "the server ended a subscription");
                heard.ready += 1;
            }
            Purpose::Publish(Method::Publish) if ends => {
                heard.acked += 1;
                ensure!(heard.acked <= self.answered, "the server refused a publish");
            }
            Purpose::Publish(Method::PublishStream) if ends => {
                bail!("the server ended PublishStream");
            }
            Purpose::Publish(_) => {}
        }
        Ok(())
    }

    fn data(
        &mut self,
        frame: Frame<'_>,
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        ensure!(frame.flags & flag::PADDED == 0, "padding is not read");
        let length = frame.payload.len() as u32;
        self.unacknowledged += length;
        if self.unacknowledged > CONNECTION_WINDOW_BYTES / 2 {
            put_window_update(out, 0, self.unacknowledged);
            self.unacknowledged = 0;
        }
        if self.purpose == Purpose::Publish(Method::Publish) {
            self.answered += u64::from(length > 0);
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(frame.stream as usize / 2) else {
            bail!("data came on stream {}, which was not opened", frame.stream);
        };
        stream.unacknowledged += length;
        if stream.unacknowledged > STREAM_WINDOW_BYTES / 2 {
            put_window_update(out, frame.stream, stream.unacknowledged);
            stream.unacknowledged = 0;
        }
        let (purpose, payload_key, size) = (self.purpose, &self.payload_key, self.traffic.size);
        each_message(&mut stream.partial, frame.payload, |message| {
            if purpose != Purpose::Subscribe {
                heard.acked = acknowledged(message)?;
                return Ok(());
            }
            // The broker puts the payload last.
            if let Some((before, payload)) =
                message.split_at_checked(message.len().saturating_sub(size))
                && payload.len() == size
                && before.ends_with(payload_key)
            {
                heard.deliver(payload);
                return Ok(());
            }
            bail!("a response carries none of our messages: a loss was told")
        })
    }
}

impl Codec for Fanfare {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        put_header(out, 6, kind::SETTINGS, 0, 0);
        out.extend_from_slice(&INITIAL_WINDOW_SIZE.to_be_bytes());
        out.extend_from_slice(&STREAM_WINDOW_BYTES.to_be_bytes());
        put_window_update(out, 0, CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES);
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        self.purpose = Purpose::Subscribe;
        let request = grpc(&pb::SubscribeRequest {
            topic: self.traffic.topic(),
            ..Default::default()
        });
        let id = self.open(out);
        self.streams.push(Stream::default());
        put_header(out, request.len(), kind::DATA, flag::END_STREAM, id);
        out.extend_from_slice(&request);
    }

    fn publish(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
        match self.traffic.method {
            Method::Publish => self.publish_unary(stamp, out),
            Method::PublishStream => self.publish_streaming(stamp, out),
        }
    }

    fn seal(&mut self, out: &mut [u8]) {
        if let Some(at) = self.open_frame.take() {
            let length = (out.len() - at - HEADER_BYTES) as u32;
            out[at..at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
        }
    }

    fn read(
        &mut self,
        bytes: &[u8],
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> anyhow::Result<usize> {
        let mut taken = 0;
        while let Some((frame, length)) = Frame::first(&bytes[taken..]) {
            self.frame(frame, heard, out)?;
            taken += length;
        }
        Ok(taken)
    }
}

/// How many messages of a stream are answered.
fn acknowledged(response: &[u8]) -> anyhow::Result<u64> {
    let response = pb::PublishStreamResponse::decode(response)?;
    if let Some(rejection) = response.rejections.first() {
        bail!("the server rejected a message: {}", rejection.message);
    }
    Ok(response.position)
}
