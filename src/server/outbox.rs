//! What is on its way to a peer: gathered into few large writes, and given up when nothing moves.
//!
//! HTTP/2 hands over frames of at most 16 KiB one by one, and a system call for each costs more than
//! copying it. So writes gather here until they are flushed, or until there are [`GATHERED_BYTES_MAX`].
//! A keepalive notices a peer that answers no ping, but a connection whose send buffer is full cannot
//! even say goodbye: it would wait for the peer, with its memory, for as long as the system lets it. So
//! a write without progress times out.
//! Invariant: at most [`GATHERED_BYTES_MAX`] bytes wait here, and no memory when none do.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// As much as a socket's send buffer commonly takes at once.
const GATHERED_BYTES_MAX: usize = 128 * 1024;

/// A stream whose writes are gathered until they are flushed, and fail with
/// [`io::ErrorKind::TimedOut`] once they made no progress for a time.
#[derive(Debug)]
pub(super) struct Outbox<S> {
    stream: S,
    gathered: BytesMut,
    timeout: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self {
            stream,
            gathered: BytesMut::new(),
            timeout,
            waiting: None,
        }
    }

    /// Writes what was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.gathered);
            match std::task::ready!(self.bound(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.gathered.advance(bytes),
            }
        }
        self.gathered = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Resolves once there is room to gather; says how much.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED_BYTES_MAX {
            std::task::ready!(self.poll_drain(cx))?;
        }
        Poll::Ready(Ok(GATHERED_BYTES_MAX - self.gathered.len()))
    }

    fn bound<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let timeout = self.timeout;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        std::task::ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outbox<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = std::task::ready!(self.poll_room(cx))?;
        let bytes = buffer.len().min(room);
        self.gathered.extend_from_slice(&buffer[..bytes]);
        Poll::Ready(Ok(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = std::task::ready!(self.poll_room(cx))?;
        let mut left = room;
        for buffer in buffers {
            let bytes = buffer.len().min(left);
            self.gathered.extend_from_slice(&buffer[..bytes]);
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

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_makes_no_progress_times_out() {
        let (_peer, stream) = tokio::io::duplex(4);
        let mut stream = Outbox::new(stream, TIMEOUT);
        stream.write_all(b"too much").await.unwrap();
        let error = stream.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_begins_the_time_anew() {
        let (mut peer, stream) = tokio::io::duplex(1);
        let mut stream = Outbox::new(stream, TIMEOUT);
        let slow = async {
            for _ in 0..5 {
                tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
                peer.read_u8().await.unwrap();
            }
        };
        let flushed = async {
            stream.write_all(b"12345").await?;
            stream.flush().await
        };
        let (flushed, ()) = tokio::join!(flushed, slow);
        flushed.unwrap();
    }

    #[tokio::test]
    async fn writes_are_gathered_up_to_a_bound_and_leave_in_order() {
        let (mut peer, stream) = tokio::io::duplex(GATHERED_BYTES_MAX);
        let mut stream = Outbox::new(stream, TIMEOUT);
        let parts: Vec<u8> = (0..=255).cycle().take(3 * GATHERED_BYTES_MAX).collect();
        let reading = async {
            let mut read = vec![0; parts.len()];
            peer.read_exact(&mut read).await.unwrap();
            read
        };
        let writing = async {
            for part in parts.chunks(1_000) {
                stream.write_all(part).await.unwrap();
                assert!(stream.gathered.len() <= GATHERED_BYTES_MAX);
            }
            stream.flush().await.unwrap();
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert!(read == parts);
        assert_eq!(
            stream.gathered.capacity(),
            0,
            "an empty outbox costs nothing"
        );
    }
}
