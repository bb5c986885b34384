//! What is on its way to a peer: gathered into few large writes.
//!
//! A system call for each part of an answer costs more than copying it. So writes gather here until they are
//! flushed, or until there are [`GATHERED_BYTES_MAX`]; HTTP/2 gathers by itself, in a buffer that is
//! [lent](lend) to it, and has [all of that written](Outgoing::poll_write_all) past what is here. TLS lies below,
//! so that it makes large records of them.
//! Invariant: at most [`GATHERED_BYTES_MAX`] bytes wait here, and no memory when none do.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stuck::{Stuck, Ticket};
use crate::broker::{Held, Memory};

/// As much as a socket's send buffer commonly takes at once.
pub(super) const GATHERED_BYTES_MAX: usize = 128 * 1024;

/// As much as is gathered for each connection: less where memory is short, so that many that take nothing do not
/// use it up at once.
pub(super) fn gathered_bytes_max(memory: &Memory) -> usize {
    if memory.is_full() {
        GATHERED_BYTES_MAX / 64
    } else if memory.is_scarce() {
        GATHERED_BYTES_MAX / 8
    } else {
        GATHERED_BYTES_MAX
    }
}

thread_local! {
    /// One buffer for all connections of a thread, which gather one after the other and are mostly
    /// empty in between.
    static SPARE: RefCell<BytesMut> = RefCell::default();
}

/// Why a connection is let go of that memory is wanted from.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("memory is short, and the peer takes nothing")]
struct TakesNothing;

/// A stream whose writes are gathered, until it is flushed.
#[derive(Debug)]
pub(super) struct Outbox<S>(Arc<Mutex<State<S>>>);

/// The other end of an [`Outbox`]: for the task that drives the connection.
#[derive(Debug)]
pub(super) struct Outgoing<S>(Arc<Mutex<State<S>>>);

#[derive(Debug)]
struct State<S> {
    stream: S,
    gathered: BytesMut,
    /// Whether the stream may hold some of what was written to it.
    is_unflushed: bool,
    stuck: Arc<Stuck>,
    /// While a write waits, what is gathered counts.
    held: Option<(Held, Ticket)>,
    written_bytes: u64,
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    pub(super) fn new(stream: S, stuck: Arc<Stuck>) -> (Self, Outgoing<S>) {
        let state = Arc::new(Mutex::new(State {
            stream,
            gathered: BytesMut::new(),
            is_unflushed: false,
            stuck,
            held: None,
            written_bytes: 0,
        }));
        (Self(Arc::clone(&state)), Outgoing(state))
    }
}

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    /// Writes what somebody else has gathered, past what is gathered here. Ready once nothing is left.
    pub(super) fn poll_write_all(
        &self,
        cx: &mut Context<'_>,
        gathered: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        std::mem::swap(&mut state.gathered, gathered);
        let written = state.poll_drain(cx);
        std::mem::swap(&mut state.gathered, gathered);
        written
    }

    /// Whether a write waits for the peer; how many bytes did not.
    pub(super) fn waits(&self) -> (bool, u64) {
        let state = self.0.lock();
        (state.held.is_some(), state.written_bytes)
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Writes what was gathered, down to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.gathered.is_empty() {
            std::task::ready!(self.poll_write_gathered(cx))?;
        }
        if self.is_unflushed {
            std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.gathered);
            if written.is_pending() {
                self.hold_back(cx)?;
            } else {
                self.held = None;
            }
            match std::task::ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => {
                    self.gathered.advance(bytes);
                    self.written_bytes += bytes as u64;
                }
            }
            self.is_unflushed = true;
        }
        give_back(std::mem::take(&mut self.gathered));
        Poll::Ready(Ok(()))
    }

    /// Counts what waits.
    fn hold_back(&mut self, cx: &Context<'_>) -> io::Result<()> {
        self.shrink();
        let bytes = self.gathered.capacity();
        if let Some((held, ticket)) = &mut self.held {
            held.set(bytes);
            return match ticket.is_given_up() {
                true => Err(io::Error::new(io::ErrorKind::TimedOut, TakesNothing)),
                false => Ok(()),
            };
        }
        let held = self.stuck.memory.hold(bytes);
        self.held = Some((held, self.stuck.wait(bytes, cx.waker())));
        Ok(())
    }

    /// A peer that takes nothing may do so for long: what waits for it holds little more than it is.
    fn shrink(&mut self) {
        if self.gathered.capacity() > 2 * self.gathered.len() {
            let small = BytesMut::from(&self.gathered[..]);
            give_back(std::mem::replace(&mut self.gathered, small));
        }
    }

    /// Resolves once there is room to gather; says how much.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED_BYTES_MAX {
            std::task::ready!(self.poll_write_gathered(cx))?;
        }
        lend(&mut self.gathered);
        Poll::Ready(Ok(GATHERED_BYTES_MAX - self.gathered.len()))
    }
}

/// Gives an empty buffer room, from what all connections of a thread share.
pub(super) fn lend(buffer: &mut BytesMut) {
    if buffer.capacity() == 0 {
        *buffer = SPARE.take();
        // All of it comes back, since a buffer loses its front as it is written.
        buffer.reserve(GATHERED_BYTES_MAX);
    }
}

/// Takes the room of an empty buffer back.
pub(super) fn take_back(buffer: &mut BytesMut) {
    if buffer.is_empty() && buffer.capacity() > 0 {
        give_back(std::mem::take(buffer));
    }
}

fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    // One that has grown far, for a peer that took nothing for long, is not kept.
    if buffer.capacity() <= 2 * GATHERED_BYTES_MAX {
        SPARE.set(buffer);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outbox<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buffer)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        state.poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        std::task::ready!(state.poll_drain(cx))?;
        Pin::new(&mut state.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        let room = std::task::ready!(state.poll_room(cx))?;
        let mut left = room;
        for buffer in buffers {
            let bytes = buffer.len().min(left);
            state.gathered.extend_from_slice(&buffer[..bytes]);
            left -= bytes;
        }
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn stuck() -> Arc<Stuck> {
        Stuck::new(Arc::new(Memory::new(1 << 30)))
    }

    #[tokio::test]
    async fn writes_are_gathered_up_to_a_bound_and_leave_in_order() {
        let (mut peer, stream) = tokio::io::duplex(GATHERED_BYTES_MAX);
        let (mut stream, _) = Outbox::new(stream, stuck());
        let parts: Vec<u8> = (0..=255).cycle().take(3 * GATHERED_BYTES_MAX).collect();
        let reading = async {
            let mut read = vec![0; parts.len()];
            peer.read_exact(&mut read).await.unwrap();
            read
        };
        let writing = async {
            for part in parts.chunks(1_000) {
                stream.write_all(part).await.unwrap();
                assert!(stream.0.lock().gathered.len() <= GATHERED_BYTES_MAX);
            }
            stream.flush().await.unwrap();
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert!(read == parts);
        assert_eq!(
            stream.0.lock().gathered.capacity(),
            0,
            "an empty outbox costs nothing"
        );
    }

    #[tokio::test]
    async fn what_others_have_gathered_does_not_stay_in_what_lies_below() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let (_stream, outgoing) = Outbox::new(tokio::io::BufWriter::new(stream), stuck());
        let mut all = BytesMut::from(&b"all"[..]);
        std::future::poll_fn(|cx| outgoing.poll_write_all(cx, &mut all))
            .await
            .unwrap();
        assert_eq!(all.capacity(), 0);
        let mut read = [0; 3];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"all");
    }
}
