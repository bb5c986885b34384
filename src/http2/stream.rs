//! The two halves of a stream: what its request goes on to say, and what it is answered.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use super::{
    frame::{self, FrameHead, HEADER_BYTES, Reason, flag, kind},
    hpack::Encoder,
    state::{State, Stream},
};

/// The stream is over before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// The peer, or we, have reset it.
    #[error("the stream was reset, with code {}", .0.0)]
    Reset(Reason),
    /// The connection is over.
    #[error("the connection is over")]
    Connection,
}

/// The request's body. Dropping it lets go of what was not read; the answer can still be given.
#[derive(Debug)]
pub(crate) struct Inbound {
    state: Arc<Mutex<State>>,
    id: u32,
}

impl Inbound {
    pub(super) fn new(state: Arc<Mutex<State>>, id: u32) -> Self {
        Self { state, id }
    }

    /// All that has come, however many frames it came in; `None` at the end.
    ///
    /// # Errors
    /// The stream broke off; what came before that was read.
    pub(crate) fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let mut state = self.state.lock();
        let is_over = state.is_over;
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Some(Err(Broken::Connection)));
        };
        if !stream.inbound.is_empty() {
            return Poll::Ready(Some(Ok(state.take_inbound(self.id))));
        }
        if stream.has_ended {
            return Poll::Ready(None);
        }
        if let Some(reason) = stream.reset {
            return Poll::Ready(Some(Err(Broken::Reset(reason))));
        }
        if is_over {
            return Poll::Ready(Some(Err(Broken::Connection)));
        }
        set(&mut stream.reader, cx);
        Poll::Pending
    }

    /// Whether all of it was read.
    pub(crate) fn is_end_stream(&self) -> bool {
        let state = self.state.lock();
        let stream = state.streams.get(&self.id);
        stream.is_none_or(|stream| stream.has_ended && stream.inbound.is_empty())
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.discard(self.id);
        if let Some(stream) = state.streams.get_mut(&self.id) {
            stream.has_reader = false;
            stream.reader = None;
            state.settle(self.id);
        }
    }
}

/// The answer. Dropping it before its end resets the stream.
#[derive(Debug)]
pub(crate) struct Outbound {
    state: Arc<Mutex<State>>,
    id: u32,
}

impl Outbound {
    pub(super) fn new(state: Arc<Mutex<State>>, id: u32) -> Self {
        Self { state, id }
    }

    /// Sends the answer's head; `is_whole` says that nothing follows.
    ///
    /// # Errors
    /// The stream is over.
    pub(crate) fn send_head(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        is_whole: bool,
    ) -> Result<(), Broken> {
        self.send_fields(is_whole, |encoder, out| {
            encoder.put_head(out, status, headers)
        })
    }

    /// Sends the answer's last words.
    ///
    /// # Errors
    /// The stream is over.
    pub(crate) fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), Broken> {
        self.send_fields(true, |encoder, out| encoder.put_trailers(out, trailers))
    }

    fn send_fields(
        &mut self,
        is_last: bool,
        put: impl FnOnce(&mut Encoder, &mut BytesMut),
    ) -> Result<(), Broken> {
        let mut state = self.state.lock();
        let state = &mut *state;
        live(state, self.id)?;
        let frame_bytes_max = state.peer.frame_bytes_max;
        put_block(&mut state.out, self.id, is_last, frame_bytes_max, |out| {
            put(&mut state.encoder, out);
        });
        state.allowance.grant(0);
        if is_last {
            self.finish(state);
        }
        Ok(())
    }

    /// Sends as much of `data` as the windows and what waits to be sent let out, and takes it off. Ready once
    /// nothing is left.
    ///
    /// # Errors
    /// The stream is over.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), Broken>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let window = live(state, self.id)?.send_window;
        let unsent_bytes_max = state.config.unsent_bytes_max;
        let mut sent = 0;
        let mut left = window.min(state.send_window).max(0) as usize;
        while !data.is_empty() {
            let room = unsent_bytes_max.saturating_sub(state.out.len() + HEADER_BYTES);
            let bytes = data
                .len()
                .min(left)
                .min(room)
                .min(state.peer.frame_bytes_max);
            if bytes == 0 {
                break;
            }
            frame::put(&mut state.out, kind::DATA, 0, self.id, &data[..bytes]);
            bytes::Buf::advance(data, bytes);
            left -= bytes;
            sent += bytes;
        }
        state.send_window -= sent as i64;
        if sent > 0 {
            state.allowance.grant(sent);
            state.leave_queue(self.id);
        }
        let stream = live(state, self.id)?;
        stream.send_window -= sent as i64;
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        set(&mut stream.writer, cx);
        // Its own window is opened for it alone, and wakes it.
        if stream.send_window > 0 {
            state.queue(self.id);
        }
        Poll::Pending
    }

    /// Whether the stream is over before anything was answered.
    pub(crate) fn is_broken(&self) -> bool {
        live(&mut self.state.lock(), self.id).is_err()
    }

    /// Ready once the stream is over before its end.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let mut state = self.state.lock();
        match live(&mut state, self.id) {
            Err(broken) => Poll::Ready(broken),
            Ok(stream) => {
                set(&mut stream.writer, cx);
                Poll::Pending
            }
        }
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// The stream is over.
    pub(crate) fn end(&mut self) -> Result<(), Broken> {
        let mut state = self.state.lock();
        let state = &mut *state;
        live(state, self.id)?;
        frame::put(&mut state.out, kind::DATA, flag::END_STREAM, self.id, &[]);
        state.allowance.grant(0);
        self.finish(state);
        Ok(())
    }

    /// Takes the stream back, unless it is over.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.state.lock().reset(self.id, reason, true);
    }

    fn finish(&self, state: &mut State) {
        if let Some(stream) = state.streams.get_mut(&self.id) {
            stream.have_ended = true;
            state.leave_queue(self.id);
            state.settle(self.id);
        }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return;
        };
        stream.has_writer = false;
        stream.writer = None;
        let has_ended = stream.have_ended;
        if has_ended {
            state.settle(self.id);
        } else {
            state.reset(self.id, Reason::CANCEL, true);
            state.settle(self.id);
        }
    }
}

/// The stream, if anything can be sent on it.
fn live(state: &mut State, id: u32) -> Result<&mut Stream, Broken> {
    if state.is_over {
        return Err(Broken::Connection);
    }
    let stream = state.streams.get_mut(&id).ok_or(Broken::Connection)?;
    match stream.reset {
        Some(reason) => Err(Broken::Reset(reason)),
        None => Ok(stream),
    }
}

fn set(waker: &mut Option<std::task::Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

/// Appends a header block, in as many frames as it takes.
fn put_block(
    out: &mut BytesMut,
    stream: u32,
    is_last: bool,
    frame_bytes_max: usize,
    put: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    out.put_bytes(0, HEADER_BYTES);
    put(out);
    let length = out.len() - start - HEADER_BYTES;
    let end_stream = if is_last { flag::END_STREAM } else { 0 };
    let mut head = FrameHead {
        length,
        kind: kind::HEADERS,
        flags: end_stream | flag::END_HEADERS,
        stream,
    };
    if length <= frame_bytes_max {
        return head.write_at(&mut out[start..]);
    }
    let rest = out.split_off(start + HEADER_BYTES + frame_bytes_max);
    head.length = frame_bytes_max;
    head.flags = end_stream;
    head.write_at(&mut out[start..]);
    let mut parts = rest.chunks(frame_bytes_max).peekable();
    while let Some(part) = parts.next() {
        let end_headers = if parts.peek().is_none() {
            flag::END_HEADERS
        } else {
            0
        };
        frame::put(out, kind::CONTINUATION, end_headers, stream, part);
    }
}
