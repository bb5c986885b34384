//! The first bytes of a connection and the headers of HTTP/2 frames, in pieces of any size.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::input::Input;
use crate::{
    broker::Memory,
    server::{Credit, FrameGuard, Protocol, sniff},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// From this size on, a frame makes a connection take more memory.
const LARGE_FRAME_BYTES: usize = 4 * 1024;

/// Lengths of pieces, and what comes in them.
pub(super) fn connection(data: &[u8]) {
    let (whole, pieces) = Input::new(data).cut();
    let memory = Arc::new(Memory::new(usize::MAX));
    let mut guard = FrameGuard::new((), Credit::default(), Arc::clone(&memory));
    let counted: u64 = pieces.iter().map(|piece| guard.count(piece)).sum();
    let (expected, has_large) = look_through(whole);
    assert_eq!(counted, expected);
    assert_eq!(memory.used() > 0, has_large);

    let expected = if whole.starts_with(PREFACE) {
        Some(Protocol::Http2)
    } else if PREFACE.starts_with(whole) {
        None
    } else {
        Some(Protocol::Http1)
    };
    let peer = Peer {
        pieces: pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .collect(),
    };
    let sniffed = now(sniff(peer)).expect("the peer does not fail");
    let protocol = sniffed.as_ref().map(|(protocol, _)| *protocol);
    assert_eq!(protocol, expected);
    if let Some((_, stream)) = sniffed {
        // Whatever was looked at comes to whoever serves the connection, and as it was.
        let guarded = FrameGuard::new(stream, Credit::default(), Arc::clone(&memory));
        assert_eq!(now(read_to_end(guarded)), whole);
    }
}

/// How many frames ask for nothing, of those whose header has come, and whether any is large. What comes
/// first is no frame but the preface.
fn look_through(stream: &[u8]) -> (u64, bool) {
    let mut frames = stream.get(PREFACE.len()..).unwrap_or_default();
    let (mut count, mut has_large) = (0, false);
    while frames.len() >= HEADER_BYTES {
        let length = u32::from_be_bytes([0, frames[0], frames[1], frames[2]]) as usize;
        let (kind, ends_stream) = (frames[3], frames[4] & 1 == 1);
        let moves_on = match kind {
            0 => length >= 5 || ends_stream,
            1 | 9 => length > 0,
            _ => false,
        };
        count += u64::from(!moves_on);
        has_large |= length >= LARGE_FRAME_BYTES;
        frames = frames.get(HEADER_BYTES + length..).unwrap_or_default();
    }
    (count, has_large)
}

/// What is ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("all that it waits for is there"),
    }
}

async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await;
    read.expect("these are fewer frames than a connection may send at once");
    all
}

/// Sends these pieces, and leaves.
struct Peer<'d> {
    pieces: std::collections::VecDeque<&'d [u8]>,
}

impl AsyncRead for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.pieces.front_mut() {
            let (now, later) = piece.split_at(piece.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *piece = later;
            if later.is_empty() {
                self.pieces.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}
