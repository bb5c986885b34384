//! Cuts off a peer that floods its connection with frames that ask for nothing.
//!
//! A PING must be answered and a SETTINGS acknowledged, a PRIORITY and an empty DATA read: each costs the
//! broker more than its sender, and HTTP/2 knows no flow control for them. `h2` bounds the memory that
//! they take and not the work. So this watches the frames' headers as they pass, 9 bytes each, and lets a
//! connection have [`CONTROL_FRAMES_PER_SECOND`] of such frames, beside those that it is owed: a peer
//! that is sent much has windows to open and round trips to measure, and gets [`credit`](Credit::grant).
//! It also sees when a connection begins to send large frames, from which time on it takes more memory; where
//! there is none left, the connection is cut off, since what `h2` takes for it cannot be refused.
//! Invariant: no byte is changed, and none is kept.
//!
//! Knows no meaning of a frame beyond its header: whatever is malformed, `h2` finds.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::sniff::PREFACE;
use crate::broker::{Held, Memory};

/// Control frames that a connection may send for ever. The busiest clients known send a PING for each
/// round trip in which they were sent something, which is what credit is for.
pub(super) const CONTROL_FRAMES_PER_SECOND: u64 = 1_000;
/// Control frames that a connection may send at once: enough to take back all calls that may be open on it,
/// and to open a window for each of its subscriptions, several times over. And few enough for the work they
/// make to be over in a fraction of a millisecond.
pub(super) const CONTROL_FRAMES_BURST: u64 = 2_000;
/// Control frames that a connection may be owed: for a busy peer that has stood still, the windows of all that
/// it was sent meanwhile, opened at once. Their work is over in some milliseconds, and whoever makes it
/// has been sent megabytes for it.
const CONTROL_FRAMES_OWED_MAX: u64 = 16_384;
const FRAME_MICROS: u64 = 1_000_000 / CONTROL_FRAMES_PER_SECOND;
/// Frames that a peer is owed for each part of an answer: it opens two windows, and measures.
const FRAMES_PER_PART: u64 = 4;
/// Beside those, one for so many bytes: windows are opened for much less than a frame at times.
const BYTES_PER_FRAME: usize = 256;

/// From a frame of so many bytes on, `h2` reads into buffers for the largest.
const LARGE_FRAME_BYTES: usize = 4 * 1024;
/// What a connection takes more once it was sent a large frame: two buffers for frames of 16 KiB, with what
/// is left over in each, and the table of frames that wait to be taken; as measured, rounded up.
const LARGE_FRAMES_BYTES: usize = 112 * 1024;

const HEADER_BYTES: usize = 9;
/// DATA of fewer bytes than gRPC's own prefix moves nothing on.
const DATA_BYTES_MIN: usize = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// What a connection's peer is owed, and whether it has taken too much.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credit(Arc<State>);

#[derive(Debug, Default)]
struct State {
    granted: AtomicU64,
    is_overdrawn: AtomicBool,
    is_short_of_memory: AtomicBool,
}

impl Credit {
    /// The peer is sent a part of an answer.
    pub(super) fn grant(&self, bytes: usize) {
        let frames = FRAMES_PER_PART + (bytes / BYTES_PER_FRAME) as u64;
        self.0.granted.fetch_add(frames, Ordering::Relaxed);
    }

    /// Whether the connection was cut off for the number of its frames.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.0.is_overdrawn.load(Ordering::Relaxed)
    }

    /// Whether it was for their size, and want of memory.
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.0.is_short_of_memory.load(Ordering::Relaxed)
    }
}

/// Reading fails once too many control frames have come.
#[derive(Debug)]
pub(crate) struct FrameGuard<S> {
    stream: S,
    credit: Credit,
    header: [u8; HEADER_BYTES],
    /// How much of the next frame's header has come.
    header_bytes: usize,
    /// How much of a frame's payload is to come.
    payload_bytes: usize,
    /// Control frames that may still come of those that everybody may send.
    left: u64,
    /// Those that may come beside them, for what the peer was sent.
    owed: u64,
    filled_at: Instant,
    memory: Arc<Memory>,
    /// From the first large frame on.
    held: Option<Held>,
}

impl<S> FrameGuard<S> {
    /// Watches a stream that begins with HTTP/2's preface, which is no frame.
    pub(crate) fn new(stream: S, credit: Credit, memory: Arc<Memory>) -> Self {
        Self {
            stream,
            credit,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            payload_bytes: PREFACE.len(),
            left: CONTROL_FRAMES_BURST,
            owed: 0,
            filled_at: Instant::now(),
            memory,
            held: None,
        }
    }

    /// Counts the control frames that begin in what has come.
    pub(crate) fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut count = 0;
        loop {
            let skipped = self.payload_bytes.min(data.len());
            self.payload_bytes -= skipped;
            data = &data[skipped..];
            let wanted = (HEADER_BYTES - self.header_bytes).min(data.len());
            let (more, rest) = data.split_at(wanted);
            self.header[self.header_bytes..][..wanted].copy_from_slice(more);
            self.header_bytes += wanted;
            data = rest;
            if self.header_bytes < HEADER_BYTES {
                return count;
            }
            let [a, b, c, kind, flags, ..] = self.header;
            self.payload_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
            self.header_bytes = 0;
            count += u64::from(is_control(kind, flags, self.payload_bytes));
            if self.payload_bytes >= LARGE_FRAME_BYTES && self.held.is_none() {
                let is_short = self.memory.would_pass(LARGE_FRAMES_BYTES);
                let is_known = &self.credit.0.is_short_of_memory;
                is_known.fetch_or(is_short, Ordering::Relaxed);
                self.held = Some(self.memory.hold(LARGE_FRAMES_BYTES));
            }
        }
    }

    /// Takes so many frames from what the peer may send; false if it may not.
    fn take(&mut self, frames: u64) -> bool {
        if frames <= self.left {
            self.left -= frames;
            return true;
        }
        let granted = self.credit.0.granted.swap(0, Ordering::Relaxed);
        let elapsed = self.filled_at.elapsed().as_micros() as u64;
        let earned = elapsed / FRAME_MICROS;
        self.filled_at += Duration::from_micros(earned * FRAME_MICROS);
        self.left = (self.left + earned).min(CONTROL_FRAMES_BURST);
        self.owed = (self.owed + granted).min(CONTROL_FRAMES_OWED_MAX);
        let beyond = frames.saturating_sub(self.left);
        self.left = self.left.saturating_sub(frames);
        let suffices = beyond <= self.owed;
        self.owed = self.owed.saturating_sub(beyond);
        suffices
    }
}

/// Whether a frame asks for nothing that flow control or the number of streams would bound.
fn is_control(kind: u8, flags: u8, payload_bytes: usize) -> bool {
    match kind {
        DATA => payload_bytes < DATA_BYTES_MIN && flags & END_STREAM == 0,
        // `h2` bounds those of one request, and requests are bounded by the streams that are open.
        HEADERS | CONTINUATION => payload_bytes == 0,
        _ => true,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let frames = this.count(&buffer.filled()[before..]);
        if frames > 0 && !this.take(frames) {
            this.credit.0.is_overdrawn.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::other("too many control frames")));
        }
        if this.credit.is_short_of_memory() {
            return Poll::Ready(Err(io::Error::other("no memory for large frames")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameGuard<S> {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, flags: u8, payload_bytes: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, payload_bytes, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + usize::from(payload_bytes), 0xff);
        frame
    }

    const PING: u8 = 6;

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::new(1 << 30))
    }

    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: u64) {
        let bytes = [PREFACE, &frames.concat()].concat();
        for size in 1..=bytes.len() {
            let mut guard = FrameGuard::new((), Credit::default(), memory());
            let count: u64 = bytes.chunks(size).map(|part| guard.count(part)).sum();
            assert_eq!(count, expected, "in parts of {size}");
        }
    }

    #[tokio::test]
    async fn control_frames_are_counted_however_the_bytes_come() {
        let request = [frame(HEADERS, 4, 30), frame(DATA, END_STREAM, 20)];
        check(&request, 0);
        check(&[frame(DATA, END_STREAM, 0), frame(DATA, 0, 5)], 0);
        check(&[frame(DATA, 0, 0), frame(DATA, 0, 4)], 2);
        check(&[frame(HEADERS, 4, 0), frame(CONTINUATION, 0, 0)], 2);
        let kinds = [2, 3, 4, 5, PING, 7, 8, 10, 200];
        let all: Vec<_> = kinds.into_iter().map(|kind| frame(kind, 0, 8)).collect();
        check(&all, 9);
        check(&[&all[..], &request, &all].concat(), 18);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_so_many_frames_a_second() {
        let mut guard = FrameGuard::new((), Credit::default(), memory());
        assert!(guard.take(CONTROL_FRAMES_BURST));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(guard.take(CONTROL_FRAMES_PER_SECOND / 2));
        assert!(!guard.take(1));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(
            !guard.take(CONTROL_FRAMES_BURST + 1),
            "silence is saved up within bounds"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_sent_much_may_say_more() {
        let credit = Credit::default();
        let mut guard = FrameGuard::new((), credit.clone(), memory());
        assert!(guard.take(CONTROL_FRAMES_BURST));
        credit.grant(0);
        assert!(guard.take(FRAMES_PER_PART));
        // What one frame leaves over is there for the next.
        credit.grant(BYTES_PER_FRAME * 5_000);
        (0..5).for_each(|_| assert!(guard.take(1_000)));
        assert!(guard.take(FRAMES_PER_PART));
        assert!(!guard.take(1));
        credit.grant(usize::MAX);
        assert!(guard.take(CONTROL_FRAMES_OWED_MAX), "and no more than that");
        assert!(!guard.take(1));
    }

    #[tokio::test]
    async fn a_connection_that_is_sent_a_large_frame_counts_for_more() {
        let memory = memory();
        let mut guard = FrameGuard::new((), Credit::default(), Arc::clone(&memory));
        guard.count(PREFACE);
        guard.count(&frame(DATA, 0, 255));
        assert_eq!(memory.used(), 0);
        for _ in 0..2 {
            guard.count(&[0, 0x10, 0, DATA, 0, 0, 0, 0, 1]);
            guard.count(&[0; LARGE_FRAME_BYTES]);
            assert_eq!(memory.used(), LARGE_FRAMES_BYTES);
        }
        drop(guard);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn where_memory_is_used_up_large_frames_are_not_read() {
        let memory = Arc::new(Memory::new(2 * LARGE_FRAMES_BYTES));
        let data = [
            &[0, 0x10, 0, DATA, 0, 0, 0, 0, 1][..],
            &[0; LARGE_FRAME_BYTES],
        ]
        .concat();
        let bytes = [PREFACE, &frame(HEADERS, 4, 30), &data].concat();
        let mut read = Vec::new();
        for is_left in [true, true, false] {
            let (mut peer, stream) = tokio::io::duplex(bytes.len());
            peer.write_all(&bytes).await.unwrap();
            let credit = Credit::default();
            let mut guard = FrameGuard::new(stream, credit.clone(), Arc::clone(&memory));
            let mut buffer = vec![0; bytes.len()];
            assert_eq!(guard.read_exact(&mut buffer).await.is_ok(), is_left);
            assert_eq!(credit.is_short_of_memory(), !is_left);
            read.push(guard);
        }
    }
}
