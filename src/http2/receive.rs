//! What comes from the peer: bytes to frames, and DATA to its streams.
//!
//! A frame is read where it was received; what of it came first is kept until the rest is there. DATA is not
//! kept: each part of it goes to its stream as it comes.

use bytes::BytesMut;

use super::{
    connection::{Begun, Failure},
    fields::HeaderBlock,
    frame::{FRAME_BYTES_MAX, FrameHead, HEADER_BYTES, Reason, flag, kind},
    state::{State, Stream},
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
    /// Requests that have begun and were not shown yet.
    pub(super) begun: Vec<Begun>,
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
    /// What nobody is to read of it. It is given back when the frame has come in full, so that windows are
    /// opened alike however it is cut.
    unwanted: usize,
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
    /// Takes what came.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            if let Some(data) = self.arriving.data {
                bytes = self.take_data(data, bytes)?;
                continue;
            }
            if !self.arriving.part.is_empty() {
                bytes = self.take_part(bytes)?;
                continue;
            }
            let Some((head, rest)) = FrameHead::read(bytes).zip(bytes.get(HEADER_BYTES..)) else {
                self.arriving.part.extend_from_slice(bytes);
                return Ok(());
            };
            self.check_head(head)?;
            if head.kind == kind::DATA {
                bytes = rest;
                self.begin_data(head)?;
                continue;
            }
            let Some((payload, rest)) = rest.split_at_checked(head.length) else {
                self.arriving.part.extend_from_slice(bytes);
                return Ok(());
            };
            self.take_frame(head, payload)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Completes the frame that has begun, as far as it goes; returns what follows.
    fn take_part<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Failure> {
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
            self.begin_data(head)?;
        } else if part.len() == HEADER_BYTES + head.length {
            let frame = std::mem::take(part);
            self.take_frame(head, &frame[HEADER_BYTES..])?;
        }
        Ok(rest)
    }

    fn take_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
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
        if asks_for_nothing {
            self.charge()?;
        }
        match head.kind {
            kind::HEADERS => self.take_headers(head, payload),
            kind::CONTINUATION => self.take_continuation(head, payload),
            kind::PRIORITY => self.take_priority(head, payload),
            kind::RST_STREAM => self.take_reset(head, payload),
            kind::SETTINGS => self.take_settings(head, payload),
            kind::PUSH_PROMISE => Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a client promises nothing",
            )),
            kind::PING => self.take_ping(head, payload),
            kind::GOAWAY => self.take_goaway(head, payload),
            kind::WINDOW_UPDATE => self.take_window_update(head, payload),
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

    fn begin_data(&mut self, head: FrameHead) -> Result<(), Failure> {
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
                self.fault(head.stream, Reason::STREAM_CLOSED)?;
            } else if stream.receive_window < 0 {
                self.fault(head.stream, Reason::FLOW_CONTROL_ERROR)?;
            } else {
                is_stray = false;
            }
        } else {
            self.stray_bytes_max -= length;
            if self.stray_bytes_max < 0 {
                return Err(Failure::because(
                    Reason::STREAM_CLOSED,
                    "more for streams that are over than their windows had left",
                ));
            }
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
            unwanted: 0,
            is_last,
            is_stray,
        };
        if !has_padding {
            self.count_content(data)?;
        }
        if data.left == 0 {
            return self.end_data(data);
        }
        self.arriving.data = Some(data);
        Ok(())
    }

    /// Counts all the content that a frame has, once that is known, towards what was said to come; and the
    /// frame, where that is nothing that would move anything on.
    fn count_content(&mut self, data: Data) -> Result<(), Failure> {
        let content = data.left - data.padding.unwrap_or_default();
        if content < DATA_BYTES_MIN && (data.is_stray || !data.is_last) {
            self.charge()?;
        }
        let stream = self.streams.get_mut(&data.stream);
        let stream = stream.filter(|stream| wants(stream, data));
        if let Some(left) = stream.and_then(|stream| stream.body_left.as_mut()) {
            match left.checked_sub(content as u64) {
                Some(less) => *left = less,
                None => return self.fault(data.stream, Reason::PROTOCOL_ERROR),
            }
        }
        Ok(())
    }

    /// Takes what has come of a frame's DATA; returns what follows.
    fn take_data<'b>(&mut self, mut data: Data, bytes: &'b [u8]) -> Result<&'b [u8], Failure> {
        let (mut come, rest) = bytes.split_at(data.left.min(bytes.len()));
        if data.padding.is_none() {
            let padding = usize::from(come[0]);
            come = &come[1..];
            data.left -= 1;
            data.unwanted = 1;
            if padding > data.left {
                return Err(Failure::because(
                    Reason::PROTOCOL_ERROR,
                    "more padding than payload",
                ));
            }
            data.padding = Some(padding);
            self.count_content(data)?;
        }
        let content_left = data.left.saturating_sub(data.padding.unwrap_or_default());
        let content = come.len().min(content_left);
        data.left -= come.len();
        data.unwanted += come.len();
        if content > 0 && self.put_inbound(data, &come[..content]) {
            data.unwanted -= content;
        }
        if data.left == 0 {
            self.arriving.data = None;
            self.end_data(data)?;
        } else {
            self.arriving.data = Some(data);
        }
        Ok(rest)
    }

    /// Has a stream's reader get what has come; false if there is none who wants it.
    fn put_inbound(&mut self, data: Data, content: &[u8]) -> bool {
        let stream = self.streams.get_mut(&data.stream);
        let Some(stream) = stream.filter(|stream| wants(stream, data)) else {
            return false;
        };
        stream.inbound.extend_from_slice(content);
        let capacity = stream.inbound.capacity();
        self.inbound_bytes += capacity - stream.counted;
        stream.counted = capacity;
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        true
    }

    fn end_data(&mut self, data: Data) -> Result<(), Failure> {
        if data.unwanted > 0 {
            self.release_of(data.stream, data.unwanted);
        }
        if data.is_last && !data.is_stray {
            self.end_request(data.stream)?;
        }
        Ok(())
    }

    /// The peer has said all of its request.
    pub(super) fn end_request(&mut self, id: u32) -> Result<(), Failure> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_open) else {
            return Ok(());
        };
        if stream.has_reader && stream.body_left.is_some_and(|left| left > 0) {
            return self.fault(id, Reason::PROTOCOL_ERROR);
        }
        stream.has_ended = true;
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        self.settle(id);
        Ok(())
    }
}

/// Whether anybody is to read this.
fn wants(stream: &Stream, data: Data) -> bool {
    !data.is_stray && stream.is_open && stream.has_reader
}
