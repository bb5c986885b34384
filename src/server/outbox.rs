//! What is on its way to a peer: gathered into few large writes.
//!
//! HTTP/2 hands over frames of at most 16 KiB one by one, flushes after each, and a system call for each
//! costs more than copying it. So writes gather here, past flushes too, until the connection's task has
//! done all it could in one turn and [passes them on](Outgoing::poll_pass_on), or until there are
//! [`GATHERED_BYTES_MAX`]. TLS lies below, so that it makes large records of them.
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

use crate::broker::{Held, Memory};

/// As much as a socket's send buffer commonly takes at once.
const GATHERED_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    /// One buffer for all connections of a thread, which gather one after the other and are mostly
    /// empty in between.
    static SPARE: RefCell<BytesMut> = RefCell::default();
}

/// A stream whose writes are gathered. Flushing writes what was gathered, unless someone has taken it
/// upon them to [pass it on](Outgoing::poll_pass_on).
#[derive(Debug)]
pub(super) struct Outbox<S>(Arc<Mutex<State<S>>>);

/// The other end of an [`Outbox`]: for the task that drives the connection.
#[derive(Debug)]
pub(super) struct Outgoing<S>(Arc<Mutex<State<S>>>);

#[derive(Debug)]
struct State<S> {
    stream: S,
    gathered: BytesMut,
    is_passed_on: bool,
    /// Whether the stream may hold some of what was written to it.
    is_unflushed: bool,
    memory: Arc<Memory>,
    /// While a write waits, what is gathered counts.
    held: Option<Held>,
    /// How often something was written.
    writes: u64,
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    pub(super) fn new(stream: S, memory: Arc<Memory>) -> (Self, Outgoing<S>) {
        let state = Arc::new(Mutex::new(State {
            stream,
            gathered: BytesMut::new(),
            is_passed_on: false,
            is_unflushed: false,
            memory,
            held: None,
            writes: 0,
        }));
        (Self(Arc::clone(&state)), Outgoing(state))
    }
}

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    /// From now on, what was flushed is written by [`poll_pass_on`](Self::poll_pass_on).
    pub(super) fn take_over(&self) {
        self.0.lock().is_passed_on = true;
    }

    /// Adds last words to what was gathered, if there is room: then what is there ends with a whole frame.
    pub(super) fn put(&self, words: &[u8]) {
        let mut state = self.0.lock();
        if state.gathered.len() + words.len() <= GATHERED_BYTES_MAX {
            state.gathered.extend_from_slice(words);
        }
    }

    /// Whether a write waits for the peer; how often one did not.
    pub(super) fn waits(&self) -> (bool, u64) {
        let state = self.0.lock();
        (state.held.is_some(), state.writes)
    }

    /// How much waits to be passed on.
    pub(super) fn gathered_bytes(&self) -> usize {
        self.0.lock().gathered.len()
    }

    /// Whether so many bytes more wait than did at `gathered`, which is set to what does, and there is room
    /// for more.
    pub(super) fn gathers(&self, gathered: &mut usize, bytes: usize) -> bool {
        let now = self.gathered_bytes();
        let before = std::mem::replace(gathered, now);
        now >= before + bytes && now < GATHERED_BYTES_MAX
    }

    /// Writes what was gathered. Ready once nothing is left.
    pub(super) fn poll_pass_on(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_drain(cx)
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
                self.shrink();
                let memory = &self.memory;
                self.held
                    .get_or_insert_with(|| memory.hold(GATHERED_BYTES_MAX));
            } else {
                self.held = None;
                self.writes += 1;
            }
            match std::task::ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.gathered.advance(bytes),
            }
            self.is_unflushed = true;
        }
        give_back(std::mem::take(&mut self.gathered));
        Poll::Ready(Ok(()))
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
        if self.gathered.is_empty() {
            self.gathered = SPARE.take();
            // All of it comes back, since a buffer loses its front as it is written.
            self.gathered.reserve(GATHERED_BYTES_MAX);
        }
        Poll::Ready(Ok(GATHERED_BYTES_MAX - self.gathered.len()))
    }
}

fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    SPARE.set(buffer);
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
        if state.is_passed_on {
            return Poll::Ready(Ok(()));
        }
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

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::new(1 << 30))
    }

    #[tokio::test]
    async fn writes_are_gathered_up_to_a_bound_and_leave_in_order() {
        let (mut peer, stream) = tokio::io::duplex(GATHERED_BYTES_MAX);
        let (mut stream, _) = Outbox::new(stream, memory());
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
    async fn what_is_flushed_waits_for_whoever_passes_it_on() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let (mut stream, outgoing) = Outbox::new(stream, memory());
        outgoing.take_over();
        stream.write_all(b"first ").await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(b"second").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.0.lock().gathered, "first second");
        std::future::poll_fn(|cx| outgoing.poll_pass_on(cx))
            .await
            .unwrap();
        let mut read = [0; 12];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"first second");
    }

    #[tokio::test]
    async fn what_is_passed_on_does_not_stay_in_what_lies_below() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let (mut stream, outgoing) = Outbox::new(tokio::io::BufWriter::new(stream), memory());
        outgoing.take_over();
        stream.write_all(b"all").await.unwrap();
        std::future::poll_fn(|cx| outgoing.poll_pass_on(cx))
            .await
            .unwrap();
        let mut read = [0; 3];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"all");
    }
}
