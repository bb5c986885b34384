//! Sees that a peer is gone although what it sent before is not read yet.
//!
//! While a response lasts, hyper reads nothing once there is more than the request: a connection whose peer
//! sent another request, or an empty line, and left, would be kept for as long as nothing is written to it.
//! So whoever watches over the response reads on, and what it reads is kept for hyper. Invariant: hyper reads
//! the same bytes in the same order, and then the same end.
//!
//! When hyper is done with the connection, a peer may still be sending what was refused. A socket that is
//! closed with unread bytes is reset, and many a client then reports the reset and not the answer that came
//! before it. So what such a peer sends is still read for a while, for nobody.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is kept that was sent behind a request whose response lasts. Whoever sends more is not waiting
/// for it.
const AHEAD_BYTES_MAX: usize = 1024;

/// How much of a request that was refused is still read: no payload may be larger, whatever the limit is. It
/// takes no memory.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// And for how long, as long as a stranger has for its first bytes.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// The stream, for hyper.
#[derive(Debug)]
pub(super) struct ReadAhead<S>(Arc<Mutex<State<S>>>);

/// The other end of a [`ReadAhead`]: for whoever watches over the connection.
#[derive(Debug)]
pub(super) struct Ahead<S>(Arc<Mutex<State<S>>>);

#[derive(Debug)]
struct State<S> {
    stream: S,
    ahead: BytesMut,
    /// How reading ended, until hyper has seen it.
    end: Option<io::Result<()>>,
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    pub(super) fn new(stream: S) -> (Self, Ahead<S>) {
        let state = Arc::new(Mutex::new(State {
            stream,
            ahead: BytesMut::new(),
            end: None,
        }));
        (Self(Arc::clone(&state)), Ahead(state))
    }
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    /// Reads what the peer sends. Ready once it sends no more, or more than is kept.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        let State { stream, ahead, end } = &mut *state;
        while end.is_none() {
            let mut room = [0; AHEAD_BYTES_MAX];
            let mut room = ReadBuf::new(&mut room[ahead.len()..]);
            if room.remaining() == 0 {
                break;
            }
            let read = std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut room));
            let bytes = room.filled();
            if read.is_err() || bytes.is_empty() {
                *end = Some(read);
            }
            ahead.extend_from_slice(bytes);
            // Hyper may have waited for just this, and asked before it was there.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(())
    }

    /// Reads what the peer still sends, and forgets it: until it has sent all, or too much, or for too long.
    pub(super) async fn linger(&self) {
        let mut left = LINGER_BYTES;
        let lingering = poll_fn(|cx| self.poll_forget(cx, &mut left));
        // Either way it is over.
        drop(tokio::time::timeout(LINGER_TIME, lingering).await);
    }

    fn poll_forget(&self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let mut state = self.0.lock();
        while state.end.is_none() {
            let mut room = [0; 8 * 1024];
            let mut room = ReadBuf::new(&mut room);
            let read = std::task::ready!(Pin::new(&mut state.stream).poll_read(cx, &mut room));
            let bytes = room.filled().len();
            *left = left.saturating_sub(bytes);
            if read.is_err() || bytes == 0 || *left == 0 {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if !state.ahead.is_empty() {
            let bytes = state.ahead.len().min(buffer.remaining());
            buffer.put_slice(&state.ahead[..bytes]);
            state.ahead.advance(bytes);
            if state.ahead.is_empty() {
                // What is empty still keeps its memory.
                state.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match state.end.take() {
            Some(end) => Poll::Ready(end),
            None => Pin::new(&mut state.stream).poll_read(cx, buffer),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().stream).poll_write(cx, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    async fn sent(bytes: &[u8], is_closed: bool) -> (Vec<u8>, bool) {
        let (mut peer, stream) = duplex(4096);
        let (mut stream, ahead) = ReadAhead::new(stream);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(ahead.poll_gone(&mut cx), Poll::Pending);
        peer.write_all(bytes).await.unwrap();
        let peer = (!is_closed).then_some(peer);
        let is_gone = ahead.poll_gone(&mut cx).is_ready();
        assert_eq!(ahead.poll_gone(&mut cx).is_ready(), is_gone, "asked again");
        drop(peer);
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        (read, is_gone)
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_read_again_and_so_is_the_end() {
        for bytes in [&b""[..], b"\r\n", &[7; AHEAD_BYTES_MAX - 1]] {
            assert_eq!(sent(bytes, false).await, (bytes.to_vec(), false));
            assert_eq!(sent(bytes, true).await, (bytes.to_vec(), true));
        }
        let more = [7; AHEAD_BYTES_MAX + 9];
        assert_eq!(sent(&more, false).await, (more.to_vec(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_ends_with_the_peer_and_else_by_itself() {
        let (mut peer, stream) = duplex(4096);
        let (_stream, ahead) = ReadAhead::new(stream);
        let began = Instant::now();
        let leaves = async {
            peer.write_all(&[7; 1 << 20]).await.unwrap();
            drop(peer);
        };
        tokio::join!(ahead.linger(), leaves);
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (_silent, stream) = duplex(4096);
        let (_stream, ahead) = ReadAhead::new(stream);
        ahead.linger().await;
        assert_eq!(began.elapsed(), LINGER_TIME);

        let (mut peer, stream) = duplex(4096);
        let (_stream, ahead) = ReadAhead::new(stream);
        let endless = async { while peer.write_all(&[7; 4096]).await.is_ok() {} };
        tokio::select! {
            () = ahead.linger() => {}
            () = endless => panic!("the peer stays"),
        }
        assert_eq!(began.elapsed(), LINGER_TIME);
    }
}
