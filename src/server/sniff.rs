//! Which protocol a new connection speaks, from its first bytes.
//!
//! HTTP/2 with prior knowledge opens with a fixed preface of 24 bytes (RFC 9113, section 3.4); whatever
//! departs from it is HTTP/1.1. The bytes read are given back to the protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is clear. `None` if the peer leaves before that.
pub(crate) async fn sniff<S: AsyncRead + Unpin>(
    mut stream: S,
) -> io::Result<Option<(Protocol, Prefixed<S>)>> {
    let mut prefix = BytesMut::with_capacity(PREFACE.len());
    let protocol = loop {
        let wanted = (PREFACE.len() - prefix.len()) as u64;
        if (&mut stream).take(wanted).read_buf(&mut prefix).await? == 0 {
            return Ok(None);
        }
        if *prefix == *PREFACE {
            break Protocol::Http2;
        }
        if !PREFACE.starts_with(&prefix) {
            break Protocol::Http1;
        }
    };
    let prefix = prefix.freeze();
    Ok(Some((protocol, Prefixed { prefix, stream })))
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    prefix: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let bytes = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..bytes]);
        self.prefix.advance(bytes);
        if self.prefix.is_empty() {
            // What is empty still keeps its memory.
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
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

    async fn check(sent: &[&[u8]], expected: Option<Protocol>) {
        let (mut client, server) = tokio::io::duplex(1_024);
        let whole = sent.concat();
        let sent: Vec<Vec<u8>> = sent.iter().map(|part| part.to_vec()).collect();
        let sending = tokio::spawn(async move {
            for part in sent {
                tokio::io::AsyncWriteExt::write_all(&mut client, &part)
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
        });
        let sniffed = sniff(server).await.unwrap();
        let protocol = sniffed.as_ref().map(|(protocol, _)| *protocol);
        assert_eq!(protocol, expected);
        sending.await.unwrap();
        if let Some((_, mut stream)) = sniffed {
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, whole, "no byte is lost");
        }
    }

    #[tokio::test]
    async fn the_preface_is_http2_and_all_else_is_http1() {
        check(&[PREFACE, b"more"], Some(Protocol::Http2)).await;
        check(&[&PREFACE[..3], &PREFACE[3..]], Some(Protocol::Http2)).await;
        check(&[b"GET / HTTP/1.1\r\n\r\n"], Some(Protocol::Http1)).await;
        check(&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Some(Protocol::Http1)).await;
        check(&[b"PRI * HTTP/1"], Some(Protocol::Http1)).await;
    }

    #[tokio::test]
    async fn a_peer_that_leaves_early_speaks_nothing() {
        check(&[], None).await;
        check(&[&PREFACE[..10]], None).await;
    }
}
