//! TLS in the account of memory: its state, and what came of a record that is not complete.
//!
//! What TLS keeps of the latter cannot be asked for. So whoever reads the socket for it follows the records, each of
//! which says its length first (RFC 8446, section 5.1).

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
const TLS_BYTES: usize = 12 * 1024;
/// So much of a record that is not complete is in that.
const PART_BYTES_COUNTED_MIN: usize = 4 * 1024;
/// What a part of a record takes beside itself: its buffer grows in steps.
const PART_OVERHEAD_BYTES: usize = 4 * 1024;

/// A stream that knows how much came of a record that is not complete.
#[derive(Debug)]
pub(super) struct Counting<S> {
    stream: S,
    record: Record,
}

const RECORD_HEADER_BYTES: usize = 5;

/// The record that is coming.
#[derive(Debug, Default)]
struct Record {
    header: [u8; RECORD_HEADER_BYTES],
    header_bytes: usize,
    come_bytes: usize,
    left_bytes: usize,
}

impl Record {
    /// Follows what came.
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left_bytes > 0 {
                let more = self.left_bytes.min(bytes.len());
                self.left_bytes -= more;
                let is_whole = self.left_bytes == 0;
                self.come_bytes = if is_whole { 0 } else { self.come_bytes + more };
                bytes = &bytes[more..];
                continue;
            }
            self.header[self.header_bytes] = first;
            self.header_bytes += 1;
            if self.header_bytes == RECORD_HEADER_BYTES {
                let [.., high, low] = self.header;
                self.left_bytes = u16::from_be_bytes([high, low]).into();
                self.header_bytes = 0;
            }
            bytes = rest;
        }
    }
}

impl<S> Counting<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            record: Record::default(),
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
    fn weigh(&mut self, is_all: bool) -> io::Result<()> {
        let (counting, session) = self.stream.get_mut();
        let unread_bytes = if is_all {
            0
        } else {
            // What is wrong with the next packet is told when it is read.
            let state = session.process_new_packets();
            state.map_or(0, |state| state.plaintext_bytes_to_read())
        };
        let part_bytes = counting.record.come_bytes + unread_bytes;
        let bytes = if part_bytes < PART_BYTES_COUNTED_MIN {
            TLS_BYTES
        } else {
            TLS_BYTES + part_bytes + PART_OVERHEAD_BYTES
        };
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
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.weigh(buffer.remaining() > 0)?;
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
        self.record.take(&buffer.filled()[before..]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_until_it_is_complete_however_it_is_cut() {
        let record = |length: u16| {
            let header = [&[23, 3, 3][..], &length.to_be_bytes()].concat();
            [header, vec![7; length.into()]].concat()
        };
        let said = [record(300), record(0), record(5_000)].concat();
        for size in [1, 2, 7, 305, 310, said.len()] {
            let mut coming = Record::default();
            said.chunks(size).for_each(|part| coming.take(part));
            assert_eq!(coming.come_bytes, 0, "{size}");
            said[..said.len() - 1]
                .chunks(size)
                .for_each(|part| coming.take(part));
            assert_eq!(coming.come_bytes, 4_999, "{size}");
        }
    }
}
