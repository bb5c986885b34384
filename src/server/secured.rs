//! TLS in the account of memory: its state, and what came of a record that is not complete.
//!
//! What TLS keeps of the latter cannot be asked for. It is what came since something was last read out of it,
//! and at most what was read from the socket at once before that.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::patience::Patient;
use crate::broker::{Held, Memory};

/// What TLS takes on a connection, with what it reads into: as measured, rounded up.
const TLS_BYTES: usize = 8 * 1024;
/// So much of a record that is not complete is in that.
const PART_BYTES_COUNTED_MIN: usize = 4 * 1024;

/// A stream that knows how much came on it since it was asked last.
#[derive(Debug)]
pub(super) struct Counting<S> {
    stream: S,
    received_bytes: usize,
}

impl<S> Counting<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            received_bytes: 0,
        }
    }
}

/// TLS on a socket.
#[derive(Debug)]
pub(super) struct Secured<S> {
    stream: TlsStream<Counting<Patient<S>>>,
    memory: Arc<Memory>,
    held: Held,
}

impl<S> Secured<S> {
    pub(super) fn new(stream: TlsStream<Counting<Patient<S>>>, memory: &Arc<Memory>) -> Self {
        Self {
            stream,
            memory: Arc::clone(memory),
            held: memory.hold(TLS_BYTES),
        }
    }

    /// Counts the record that is not complete, and what is left of those that are.
    fn weigh(&mut self, has_read: bool, is_all: bool) -> io::Result<()> {
        let (counting, session) = self.stream.get_mut();
        if has_read {
            counting.received_bytes = 0;
        }
        let unread_bytes = if is_all {
            0
        } else {
            // What is wrong with the next packet is told when it is read.
            let state = session.process_new_packets();
            state.map_or(0, |state| state.plaintext_bytes_to_read())
        };
        let part = Some(counting.received_bytes + unread_bytes);
        let part = part.filter(|bytes| *bytes >= PART_BYTES_COUNTED_MIN);
        let bytes = TLS_BYTES + part.unwrap_or_default();
        let grows = bytes > self.held.bytes();
        self.held.set(bytes);
        if grows && self.memory.would_pass(0) {
            return Err(io::Error::other(
                "memory is used up, and the peer sends much at once",
            ));
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.weigh(buffer.filled().len() > before, buffer.remaining() > 0)?;
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.received_bytes += buffer.filled().len() - before;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
