//! Header blocks: what begins a request, and what ends one.

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};

use super::{
    connection::{Begun, Failure},
    frame::{self, FrameHead, Reason, flag, kind, read_31_bits, unpad},
    head::Head,
    hpack::{Block, BlockError},
    state::State,
};

/// A header block as it is sent may be larger than the fields that a request may have: names repeat, and
/// padding and tables cost. What is larger than this stands for nothing that would be answered.
const BLOCK_BYTES_MAX: usize = 32 * 1024;
/// Frames that one header block may come in.
const BLOCK_FRAMES_MAX: usize = 32;
/// A list of fields so many times the limit is no mistake.
const BOMB_FACTOR: usize = 4;
/// A header block that goes on.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    stream: u32,
    is_last: bool,
    bytes: BytesMut,
    frames: usize,
}

impl HeaderBlock {
    /// What came of it, as allocated.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl State {
    pub(super) fn take_headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        if head.stream.is_multiple_of(2) {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "headers on a stream that no client has",
            ));
        }
        let padding_bytes = if head.has(flag::PADDED) { 1 } else { 0 };
        let priority_bytes = if head.has(flag::PRIORITY) { 5 } else { 0 };
        if payload.len() < padding_bytes + priority_bytes {
            return Err(Failure::because(
                Reason::FRAME_SIZE_ERROR,
                "headers without what their flags say",
            ));
        }
        let no_fields = Failure::because(Reason::PROTOCOL_ERROR, "more padding than headers");
        let mut block = unpad(head, payload).ok_or(no_fields)?;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = block.split_at_checked(priority_bytes).ok_or(no_fields)?;
            if read_31_bits(priority) == Some(head.stream) {
                return Err(Failure::because(
                    Reason::PROTOCOL_ERROR,
                    "a stream that depends on itself",
                ));
            }
            block = rest;
        }
        let is_last = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.take_block(head.stream, is_last, block);
        }
        self.arriving.block = Some(HeaderBlock {
            stream: head.stream,
            is_last,
            bytes: BytesMut::from(block),
            frames: 1,
        });
        Ok(())
    }

    pub(super) fn take_continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let block = self.arriving.block.as_mut();
        let block = block.filter(|block| block.stream == head.stream);
        let Some(block) = block else {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a continuation of nothing",
            ));
        };
        block.frames += 1;
        if block.bytes.len() + payload.len() > BLOCK_BYTES_MAX || block.frames > BLOCK_FRAMES_MAX {
            return Err(Failure::because(
                Reason::ENHANCE_YOUR_CALM,
                "a header block without end",
            ));
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS)
            && let Some(block) = self.arriving.block.take()
        {
            return self.take_block(block.stream, block.is_last, &block.bytes);
        }
        Ok(())
    }

    /// A header block is complete: a request, or the end of one.
    fn take_block(&mut self, id: u32, is_last: bool, block: &[u8]) -> Result<(), Failure> {
        let is_new = id > self.last_stream;
        let list_bytes_max = self.config.header_list_bytes_max as usize;
        let mut head = Head::default();
        // Also what nobody wants is read, or the table would not be what the peer thinks it is.
        let decoded = self.decoder.decode(
            block,
            list_bytes_max,
            BOMB_FACTOR * list_bytes_max,
            |field| {
                if is_new {
                    head.add(field);
                } else {
                    head.check_trailer(field);
                }
            },
        );
        let size = decoded.map_err(|error| match error {
            BlockError::Malformed => {
                Failure::because(Reason::COMPRESSION_ERROR, "a header block that is none")
            }
            BlockError::TooLarge => Failure::because(
                Reason::ENHANCE_YOUR_CALM,
                "a header block that stands for far too much",
            ),
        })?;
        if !is_new {
            return self.take_trailers(id, is_last && !head.is_malformed);
        }
        self.skipped.open(self.last_stream, id);
        self.last_stream = id;
        if id > self.last_served {
            self.expect_strays();
            return Ok(());
        }
        if self.open >= self.config.streams_max {
            return self.fault(id, Reason::REFUSED_STREAM);
        }
        if size == Block::Oversized {
            return self.refuse_oversized(id, is_last);
        }
        let head_bytes = head.bytes();
        let Some((request, body_left)) = head.into_request() else {
            return self.fault(id, Reason::PROTOCOL_ERROR);
        };
        if is_last && body_left.is_some_and(|left| left > 0) {
            return self.fault(id, Reason::PROTOCOL_ERROR);
        }
        self.open(id, body_left, is_last);
        self.arriving.begun.push(Begun {
            id,
            head: request,
            head_bytes,
        });
        Ok(())
    }

    fn refuse_oversized(&mut self, id: u32, is_last: bool) -> Result<(), Failure> {
        self.charge_fault()?;
        let mut block = BytesMut::new();
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.encoder.put_head(&mut block, status, &HeaderMap::new());
        let flags = flag::END_HEADERS | flag::END_STREAM;
        frame::put(&mut self.out, kind::HEADERS, flags, id, &block);
        if !is_last {
            frame::put_reset(&mut self.out, id, Reason::NO_ERROR);
            self.expect_strays();
        }
        Ok(())
    }

    /// What a request says after its body; nobody here wants to know more than whether it may be said.
    fn take_trailers(&mut self, id: u32, is_valid: bool) -> Result<(), Failure> {
        self.check_known(id)?;
        if self.skipped.has(id) {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "headers on a stream that was left out",
            ));
        }
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.is_open) else {
            // They may have been on their way when the stream was reset.
            return self.charge();
        };
        if stream.has_ended {
            return self.fault(id, Reason::STREAM_CLOSED);
        }
        if !is_valid {
            return self.fault(id, Reason::PROTOCOL_ERROR);
        }
        self.end_request(id)
    }
}
