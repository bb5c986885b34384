//! The first bytes of a connection, and all of one that speaks HTTP/2, in pieces of any size.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::io::{AsyncRead, ReadBuf};

use super::input::Input;
use crate::{
    http2,
    server::{Protocol, sniff},
};

const PREFACE: &[u8] = http2::PREFACE;

/// Lengths of pieces, and what comes in them.
pub(super) fn connection(data: &[u8]) {
    let (whole, pieces) = Input::new(data).cut();
    let cut = Seen::of(pieces.iter().copied());
    assert_eq!(
        Seen::of([whole]),
        cut,
        "bytes mean the same however they are cut"
    );
    // The same without the preface and the first settings, which a fuzzer would hardly find.
    let opened = |rest: &[&[u8]]| {
        let opening: [&[u8]; 2] = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]];
        Seen::of(opening.iter().chain(rest).copied())
    };
    assert_eq!(opened(&[whole]), opened(&pieces));

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
        assert_eq!(now(read_to_end(stream)), whole);
    }
}

/// What a connection makes of what it was sent: its requests with their bodies, what it answers, and why it
/// failed.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    requests: Vec<(String, Vec<u8>)>,
    out: Vec<u8>,
    failure: Option<String>,
}

impl Seen {
    fn of<'d>(pieces: impl IntoIterator<Item = &'d [u8]>) -> Self {
        const WINDOW: u32 = 64 * 1024;
        let connection = http2::Connection::new(http2::Config {
            streams_max: 8,
            stream_window_bytes: WINDOW,
            connection_window_bytes: 2 * WINDOW,
            header_list_bytes_max: 16 * 1024,
            unsent_bytes_max: 2 * WINDOW as usize,
        });
        let mut requests = Vec::new();
        let mut preface_left = PREFACE.len();
        let mut failure = None;
        for piece in pieces {
            let skipped = preface_left.min(piece.len());
            preface_left -= skipped;
            let began = |request| requests.push(request);
            let received = connection.receive(&piece[skipped..], Duration::ZERO, began);
            if let Err(why) = received {
                failure = Some(why.to_string());
                break;
            }
        }
        assert!(connection.kept().inbound_bytes <= 4 * WINDOW as usize);
        let out = connection.with_out(|out| out.to_vec());
        let requests: Vec<_> = requests.into_iter().map(Self::request).collect();
        assert_eq!(
            connection.kept().inbound_bytes,
            0,
            "nothing is left of what is gone"
        );
        Self {
            requests,
            out,
            failure,
        }
    }

    /// All that has come of a request, and what it was.
    fn request(request: http2::Request) -> (String, Vec<u8>) {
        let (head, body) = request.head.into_parts();
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Some(Ok(data))) = body.poll_data(&mut cx) {
            all.extend_from_slice(&data);
        }
        (format!("{head:?}"), all)
    }
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
