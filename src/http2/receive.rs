//! What comes from the peer: bytes to frames, and DATA to its streams.
//!
//! A frame is read where it was received; what of it came first is kept until the rest is there. DATA is not
//! kept: each part of it goes to its stream as it comes.

use std::time::Duration;

use bytes::BytesMut;

use super::{
    connection::{Begun, Failure},
    fields::HeaderBlock,
    frame::{FRAME_BYTES_MAX, FrameHead, HEADER_BYTES, Reason, flag, kind},
    state::State,
};

/// DATA of fewer bytes than gRPC's own prefix moves nothing on.
const DATA_BYTES_MIN: usize = 5;

/// What has come in part.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    /// The beginning of a frame.
    part: BytesMut,
    data: Option<Data>,
    pub(super) block: Option<HeaderBlock>,
    /// The peer has said its settings, which come first.
    has_settings: bool,
}

/// DATA that is still coming.
#[derive(Clone, Copy, Debug)]
struct Data {
    stream: u32,
    /// The rest of the payload, padding included.
    left: usize,
    /// How much of it is padding, once that is known.
    padding: Option<usize>,
    is_last: bool,
    /// Nobody wants it.
    is_stray: bool,
}

impl Arriving {
    /// What is kept of a frame or a header block that goes on, as allocated.
    pub(super) fn bytes(&self) -> usize {
        let block = self.block.as_ref().map_or(0, HeaderBlock::bytes);
        self.part.capacity() + block
    }
}

impl State {
    /// Takes what came at `now`; requests that begin in it are added to `begun`.
    pub(super) fn receive(
        &mut self,
        mut bytes: &[u8],
        now: Duration,
        begun: &mut Vec<Begun>,
    ) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if let Some(data) = self.arriving.data {
                bytes = self.take_data(data, bytes, now)?;
                continue;
            }
            if !self.arriving.part.is_empty() {
                bytes = self.take_part(bytes, now, begun)?;
                continue;
            }
            let Some((head, rest)) = FrameHead::read(bytes).zip(bytes.get(HEADER_BYTES..)) else {
                self.arriving.part.extend_from_slice(bytes);
                return Ok(());
            };
            self.check_head(head)?;
            if head.kind == kind::DATA {
                bytes = rest;
                self.begin_data(head, now)?;
                continue;
            }
            let Some((payload, rest)) = rest.split_at_checked(head.length) else {
                self.arriving.part.extend_from_slice(bytes);
                return Ok(());
            };
            self.take_frame(head, payload, now, begun)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Completes the frame that has begun, as far as it goes; returns what follows.
    fn take_part<'b>(
        &mut self,
        bytes: &'b [u8],
        now: Duration,
        begun: &mut Vec<Begun>,
    ) -> Result<&'b [u8], Failure> {
        let part = &mut self.arriving.part;
        let wanted = match FrameHead::read(part) {
            None => HEADER_BYTES,
            Some(head) => HEADER_BYTES + head.length,
        };
        let (more, rest) = bytes.split_at((wanted - part.len()).min(bytes.len()));
        part.extend_from_slice(more);
        if part.len() < wanted {
            return Ok(rest);
        }
        let head = FrameHead::read(part).expect("it has come");
        self.check_head(head)?;
        let part = &mut self.arriving.part;
        if head.kind == kind::DATA {
            *part = BytesMut::new();
            self.begin_data(head, now)?;
        } else if part.len() == HEADER_BYTES + head.length {
            let frame = std::mem::take(part);
            self.take_frame(head, &frame[HEADER_BYTES..], now, begun)?;
        }
        Ok(rest)
    }

    fn take_frame(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        now: Duration,
        begun: &mut Vec<Begun>,
    ) -> Result<(), Failure> {
        if self.arriving.block.is_some() != (head.kind == kind::CONTINUATION) {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a header block is to come in one go",
            ));
        }
        let asks_for_nothing = match head.kind {
            kind::HEADERS | kind::CONTINUATION => payload.is_empty(),
            _ => true,
        };
        if asks_for_nothing && !self.allowance.take_frame(now) {
            return Err(Failure::flood());
        }
        match head.kind {
            kind::HEADERS => self.take_headers(head, payload, now, begun),
            kind::CONTINUATION => self.take_continuation(head, payload, now, begun),
            kind::PRIORITY => self.take_priority(head, payload, now),
            kind::RST_STREAM => self.take_reset(head, payload),
            kind::SETTINGS => self.take_settings(head, payload),
            kind::PUSH_PROMISE => Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a client promises nothing",
            )),
            kind::PING => self.take_ping(head, payload),
            kind::GOAWAY => self.take_goaway(head, payload),
            kind::WINDOW_UPDATE => self.take_window_update(head, payload, now),
            // To be ignored (section 5.5).
            _ => Ok(()),
        }
    }

    fn check_head(&mut self, head: FrameHead) -> Result<(), Failure> {
        if head.length > FRAME_BYTES_MAX {
            return Err(Failure::because(
                Reason::FRAME_SIZE_ERROR,
                "a frame that is too large",
            ));
        }
        let comes_first = head.kind == kind::SETTINGS && !head.has(flag::ACK);
        self.arriving.has_settings |= comes_first;
        if !self.arriving.has_settings {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a connection that does not begin with settings",
            ));
        }
        Ok(())
    }

    /// Whether the peer may speak of this stream: one that it has opened at some time.
    pub(super) fn check_known(&self, stream: u32) -> Result<(), Failure> {
        if stream == 0 || stream.is_multiple_of(2) || stream > self.last_stream {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a frame for a stream that was never opened",
            ));
        }
        Ok(())
    }

    fn begin_data(&mut self, head: FrameHead, now: Duration) -> Result<(), Failure> {
        if self.arriving.block.is_some() {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a header block is to come in one go",
            ));
        }
        self.check_known(head.stream)?;
        let is_last = head.has(flag::END_STREAM);
        let length = head.length as i64;
        self.receive_window -= length;
        if self.receive_window < 0 {
            return Err(Failure::because(
                Reason::FLOW_CONTROL_ERROR,
                "more than the connection's window",
            ));
        }
        let stream = self.streams.get_mut(&head.stream);
        let mut is_stray = true;
        if let Some(stream) = stream.filter(|stream| stream.is_open) {
            stream.receive_window -= length;
            if stream.has_ended {
                self.fault(head.stream, Reason::STREAM_CLOSED, now)?;
            } else if stream.receive_window < 0 {
                self.fault(head.stream, Reason::FLOW_CONTROL_ERROR, now)?;
            } else {
                is_stray = false;
            }
        }
        let is_moot = is_stray || !is_last;
        if head.length < DATA_BYTES_MIN && is_moot && !self.allowance.take_frame(now) {
            return Err(Failure::flood());
        }
        let has_padding = head.has(flag::PADDED);
        if has_padding && head.length == 0 {
            return Err(Failure::because(
                Reason::FRAME_SIZE_ERROR,
                "padding of no length",
            ));
        }
        let data = Data {
            stream: head.stream,
            left: head.length,
            padding: (!has_padding).then_some(0),
            is_last,
            is_stray,
        };
        if data.left == 0 {
            return self.end_data(data, now);
        }
        self.arriving.data = Some(data);
        Ok(())
    }

    /// Takes what has come of a frame's DATA; returns what follows.
    fn take_data<'b>(
        &mut self,
        mut data: Data,
        bytes: &'b [u8],
        now: Duration,
    ) -> Result<&'b [u8], Failure> {
        let (come, rest) = bytes.split_at(data.left.min(bytes.len()));
        let mut come = come;
        let mut taken = 0;
        if data.padding.is_none() {
            let padding = usize::from(come[0]);
            (come, taken) = (&come[1..], 1);
            data.left -= 1;
            if padding > data.left {
                return Err(Failure::because(
                    Reason::PROTOCOL_ERROR,
                    "more padding than payload",
                ));
            }
            data.padding = Some(padding);
        }
        let content_left = data.left.saturating_sub(data.padding.unwrap_or_default());
        let content = come.len().min(content_left);
        taken += come.len() - content;
        data.left -= come.len();
        // What is no content is out of the way at once.
        let unwanted = if self.wants(data) {
            self.put_inbound(data.stream, &come[..content], now)?;
            taken
        } else {
            taken + content
        };
        if unwanted > 0 {
            self.release_of(data.stream, unwanted);
        }
        if data.left == 0 {
            self.arriving.data = None;
            self.end_data(data, now)?;
        } else {
            self.arriving.data = Some(data);
        }
        Ok(rest)
    }

    fn wants(&self, data: Data) -> bool {
        let stream = self.streams.get(&data.stream);
        !data.is_stray && stream.is_some_and(|stream| stream.is_open && stream.has_reader)
    }

    fn put_inbound(&mut self, id: u32, content: &[u8], now: Duration) -> Result<(), Failure> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if let Some(left) = &mut stream.body_left {
            match left.checked_sub(content.len() as u64) {
                Some(less) => *left = less,
                None => {
                    self.release(content.len());
                    return self.fault(id, Reason::PROTOCOL_ERROR, now);
                }
            }
        }
        let stream = self.streams.get_mut(&id).expect("it was there");
        stream.inbound.extend_from_slice(content);
        let capacity = stream.inbound.capacity();
        self.inbound_bytes += capacity - stream.counted;
        stream.counted = capacity;
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn end_data(&mut self, data: Data, now: Duration) -> Result<(), Failure> {
        if data.is_last && !data.is_stray {
            self.end_request(data.stream, now)?;
        }
        Ok(())
    }

    /// The peer has said all of its request.
    pub(super) fn end_request(&mut self, id: u32, now: Duration) -> Result<(), Failure> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_open) else {
            return Ok(());
        };
        if stream.has_reader && stream.body_left.is_some_and(|left| left > 0) {
            return self.fault(id, Reason::PROTOCOL_ERROR, now);
        }
        stream.has_ended = true;
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        self.settle(id);
        Ok(())
    }
}
