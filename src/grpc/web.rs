//! gRPC-Web: gRPC for browsers, which see no trailers and may not speak HTTP/2.
//!
//! A call is translated to gRPC as it comes in, and its answer back as it goes out: trailers become a last
//! frame of the body, and with `application/grpc-web-text` the body is base64, in any number of padded
//! pieces. What lies between knows nothing of it. Over HTTP/1.1 and HTTP/2; after "PROTOCOL-WEB" of the
//! grpc repository.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::Frame;

use super::call::CONTENT_TYPE_GRPC;
use crate::broker::Memory;

/// The flag of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

/// A call in gRPC-Web, in one of its two encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Web {
    Binary,
    Text,
}

impl Web {
    /// What a request's content type says, with a codec or parameters or without.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let end = value.find(['+', ';', ' ']).unwrap_or(value.len());
        let name = &value[..end];
        let is = |wanted| name.eq_ignore_ascii_case(wanted);
        if is("application/grpc-web") {
            Some(Self::Binary)
        } else if is("application/grpc-web-text") {
            Some(Self::Text)
        } else {
            None
        }
    }

    /// The call as gRPC has it.
    pub(super) fn to_grpc(self, mut request: Request) -> Request {
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
        match self {
            Self::Binary => request,
            Self::Text => {
                headers.remove(CONTENT_LENGTH);
                request.map(|body| {
                    let rest = BytesMut::new();
                    Body::new(Decoding { body, rest })
                })
            }
        }
    }

    /// The answer as gRPC-Web has it.
    pub(super) fn answer(
        self,
        mut response: Response<Body>,
        memory: &Arc<Memory>,
    ) -> Response<Body> {
        let content_type = match self {
            Self::Binary => "application/grpc-web+proto",
            Self::Text => "application/grpc-web-text+proto",
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.remove(CONTENT_LENGTH);
        let memory = Arc::clone(memory);
        response.map(|body| {
            Body::new(Encoding {
                web: self,
                body,
                memory,
            })
        })
    }
}

/// A body in base64 that is not.
#[derive(Debug, thiserror::Error)]
#[error("request is not valid base64")]
pub(super) struct NotBase64;

/// A request's body, out of base64.
struct Decoding {
    body: Body,
    /// What has come and is no whole group of four characters.
    rest: BytesMut,
}

impl Decoding {
    fn decode(&mut self, data: &[u8]) -> Result<Bytes, NotBase64> {
        const GROUP: usize = 4;
        self.rest.extend_from_slice(data);
        let whole = self.rest.len() / GROUP * GROUP;
        let groups = self.rest.split_to(whole);
        let mut decoded = Vec::with_capacity(whole / GROUP * 3);
        let mut left = &groups[..];
        while !left.is_empty() {
            // A group with padding ends a piece; another one may follow.
            let padding = left.iter().position(|byte| *byte == b'=');
            let end = padding.map_or(left.len(), |at| (at / GROUP + 1) * GROUP);
            let (piece, next) = left.split_at(end);
            let done = BASE64_STANDARD.decode_vec(piece, &mut decoded);
            done.map_err(|_| NotBase64)?;
            left = next;
        }
        Ok(decoded.into())
    }
}

impl http_body::Body for Decoding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        Poll::Ready(match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => Some(match frame.into_data() {
                Ok(data) => this
                    .decode(&data)
                    .map(Frame::data)
                    .map_err(axum::Error::new),
                Err(frame) => Ok(frame),
            }),
            None if !this.rest.is_empty() => {
                this.rest.clear();
                Some(Err(axum::Error::new(NotBase64)))
            }
            end => end,
        })
    }
}

/// A response's body, with its trailers in it.
struct Encoding {
    web: Web,
    body: Body,
    memory: Arc<Memory>,
}

impl Encoding {
    fn encode(&self, data: Bytes) -> Bytes {
        match self.web {
            Web::Binary => data,
            Web::Text => {
                let text = Bytes::from(BASE64_STANDARD.encode(data));
                self.memory.hold(text.len()).count(text)
            }
        }
    }
}

impl http_body::Body for Encoding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let Some(frame) = frame.transpose()? else {
            return Poll::Ready(None);
        };
        let data = frame.into_data().unwrap_or_else(|frame| {
            let trailers = frame.into_trailers();
            put_trailers(&trailers.unwrap_or_default())
        });
        Poll::Ready(Some(Ok(Frame::data(this.encode(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Trailers as a frame: a line for each, as in HTTP/1.1, with names in lower case.
fn put_trailers(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.put_slice(name.as_str().as_bytes());
        lines.put_slice(b":");
        lines.put_slice(value.as_bytes());
        lines.put_slice(b"\r\n");
    }
    let bytes = u32::try_from(lines.len()).expect("trailers are few");
    let mut frame = BytesMut::with_capacity(lines.len() + 5);
    frame.put_u8(TRAILERS);
    frame.put_u32(bytes);
    frame.put(lines);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn the_content_type_says_whether_and_how() {
        let check = |value: &'static str, expected| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(value))];
            assert_eq!(Web::of(&HeaderMap::from_iter(headers)), expected, "{value}");
        };
        check("application/grpc-web", Some(Web::Binary));
        check("application/grpc-web+proto", Some(Web::Binary));
        check("Application/gRPC-Web; charset=x", Some(Web::Binary));
        check("application/grpc-web-text", Some(Web::Text));
        check("application/grpc-web-text+proto", Some(Web::Text));
        for value in [
            "application/grpc",
            "application/grpc-webx",
            "text/plain",
            "",
        ] {
            check(value, None);
        }
        assert_eq!(Web::of(&HeaderMap::new()), None);
    }

    async fn decoded(pieces: &[&str]) -> Result<Bytes, String> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece.as_bytes())))
            .collect();
        let body = Body::from_stream(tokio_stream::iter(pieces));
        let request = Web::Text.to_grpc(Request::new(body));
        let collected = request.into_body().collect().await;
        let collected = collected.map_err(|error| error.to_string())?;
        Ok(collected.to_bytes())
    }

    #[tokio::test]
    async fn base64_may_come_in_any_pieces_padded_or_not() {
        for pieces in [
            &["aGVsbG8gd29ybGQ="][..],
            &["aGVs", "bG8gd29ybGQ="],
            &["a", "GVsb", "G8gd29", "ybGQ", "="],
            &["aGU=bGxvIHdvcmxk"],
            &["aA==ZWxsbyB3b3I=bGQ="],
        ] {
            assert_eq!(decoded(pieces).await.unwrap(), "hello world", "{pieces:?}");
        }
        assert_eq!(decoded(&[]).await.unwrap(), "");
        for pieces in [&["aGVsb"][..], &["!!!!"], &["a==="], &["aG=s"]] {
            let error = decoded(pieces).await.unwrap_err();
            assert_eq!(error, "request is not valid base64", "{pieces:?}");
        }
    }

    #[test]
    fn trailers_become_lines_in_a_frame_of_their_own() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(0));
        trailers.insert("fanfare-missed", HeaderValue::from(7));
        let frame = put_trailers(&trailers);
        assert_eq!(&frame[..5], [0x80, 0, 0, 0, 33]);
        let mut lines: Vec<_> = std::str::from_utf8(&frame[5..]).unwrap().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["fanfare-missed:7", "grpc-status:0"]);
    }
}
