//! One unary request in, one unary answer out, in gRPC's framing.
//!
//! A request is read with its limit known before its first byte is kept: what is too large is refused
//! by the length that it announces. What a message keeps of it is copied out of the connection's read
//! buffer, so that a small message in a mailbox never holds a large buffer in memory.

use std::{
    error::Error,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::BodyExt;
use prost::Message;
use tokio::time::Instant;

use super::{deadline::Deadline, web::NotBase64};
use crate::{
    service::{CallError, ConnectionShare, Received, Receiving},
    wire::frame::{PREFIX_BYTES, put_prefix},
};

pub(super) const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Reads the request's one message, within its limits, the caller's deadline and our own patience.
pub(super) async fn read_request<M: Message + Default>(
    body: Body,
    deadline: Deadline,
    receiving: &Receiving,
    share: &ConnectionShare,
) -> Result<M, CallError> {
    let message = read_request_bytes(body, deadline, receiving, share).await?;
    M::decode(message).map_err(CallError::Malformed)
}

/// [`read_request`] without decoding it.
pub(super) async fn read_request_bytes(
    body: Body,
    deadline: Deadline,
    receiving: &Receiving,
    share: &ConnectionShare,
) -> Result<Bytes, CallError> {
    let patience = receiving.patience;
    let timeout = Instant::now() + patience;
    let until = deadline.at().map_or(timeout, |at| at.min(timeout));
    let reading = read_message(body, Received::new(receiving, share));
    match tokio::time::timeout_at(until, reading).await {
        Ok(read) => read,
        Err(_) if until < timeout => Err(CallError::DeadlineExceeded),
        Err(_) => Err(CallError::TimedOut { after: patience }),
    }
}

async fn read_message(body: Body, mut received: Received<'_>) -> Result<Bytes, CallError> {
    let mut body = pin!(body);
    let bytes_max = received.receiving.request_bytes_max;
    let mut announced = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken_off)?.into_data() else {
            continue;
        };
        received.wait_for_room(data.len()).await;
        received.extend(&data)?;
        let buffer = &mut received.buffer;
        if announced.is_none() && buffer.len() >= PREFIX_BYTES {
            announced = Some(announced_bytes(buffer, bytes_max)?);
        }
        if announced.is_some_and(|bytes| buffer.len() > bytes) {
            return Err(CallError::NotOneMessage {
                found: "more than one message",
            });
        }
    }
    match announced {
        Some(bytes) if received.buffer.len() == bytes => {
            Ok(std::mem::take(&mut received.buffer).freeze())
        }
        Some(_) => Err(CallError::NotOneMessage {
            found: "a part of a message",
        }),
        None => Err(CallError::NotOneMessage {
            found: "no message",
        }),
    }
}

/// Why a body ended early: what it says itself may lie below what carried it.
fn broken_off(error: axum::Error) -> CallError {
    let mut causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
    if causes.any(|cause| cause.is::<NotBase64>()) {
        return CallError::NotBase64;
    }
    CallError::BrokenOff(error)
}

/// Takes gRPC's prefix off and returns the length that it announces.
fn announced_bytes(received: &mut BytesMut, max: usize) -> Result<usize, CallError> {
    let compressed = received.get_u8() != 0;
    let bytes = received.get_u32() as usize;
    if compressed {
        return Err(CallError::Compressed);
    }
    if bytes > max {
        return Err(CallError::TooLarge { bytes, max });
    }
    Ok(bytes)
}

/// A message in gRPC's framing.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    put_prefix(&mut data, bytes);
    message
        .encode(&mut data)
        .expect("the buffer grows to the message's length");
    data.freeze()
}

/// What the trailers of a call say that went well.
pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// A successful answer: one message, and the status in trailers.
pub(super) fn answer(message: &impl Message) -> Response<Body> {
    let mut response = Response::new(Body::new(Answer {
        data: Some(frame(message)),
        done: false,
    }));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    response
}

#[derive(Debug)]
struct Answer {
    data: Option<Bytes>,
    done: bool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.done, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio_stream::StreamExt;

    use super::*;
    use crate::{access::Peer, broker::Memory, wire::pb};

    fn receiving() -> Receiving {
        Receiving {
            request_bytes_max: 100,
            patience: Duration::from_secs(30),
            bytes_max: 350,
            bytes: AtomicUsize::new(0),
            memory: Arc::new(Memory::new(1 << 30)),
        }
    }

    async fn read(chunks: Vec<&[u8]>) -> Result<pb::PublishRequest, String> {
        let chunks: Vec<_> = chunks
            .into_iter()
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect();
        let body = Body::from_stream(tokio_stream::iter(chunks));
        let receiving = receiving();
        let share = ConnectionShare::new(1, Peer::default());
        let read = read_request(body, Deadline::default(), &receiving, &share).await;
        assert_eq!(share.receiving_bytes().load(Ordering::Relaxed), 0);
        assert_eq!(receiving.bytes.into_inner(), 0, "all bytes are given back");
        read.map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(read: Result<pb::PublishRequest, String>, expected: Result<&str, &str>) {
        let topic = read.as_ref().map(|request| request.topic.as_str());
        assert_eq!(topic.map_err(String::as_str), expected);
    }

    /// `topic = "t"`, framed.
    const FRAME: [u8; 8] = [0, 0, 0, 0, 3, 0x0a, 1, b't'];

    #[tokio::test]
    async fn a_request_may_come_in_any_pieces() {
        check(read(vec![&FRAME]).await, Ok("t"));
        check(read(FRAME.chunks(1).collect()).await, Ok("t"));
        check(read(vec![&FRAME[..5], &FRAME[5..]]).await, Ok("t"));
    }

    #[tokio::test]
    async fn exactly_one_message_is_wanted() {
        let expect = |found| Err(found);
        check(
            read(vec![]).await,
            expect("request has no message: send exactly one message"),
        );
        check(
            read(vec![&FRAME[..7]]).await,
            expect("request has a part of a message: send exactly one message"),
        );
        check(
            read(vec![&FRAME, &FRAME]).await,
            expect("request has more than one message: send exactly one message"),
        );
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_by_the_length_it_announces() {
        check(
            read(vec![&[0, 0, 1, 0, 0]]).await,
            Err("request of 65536 bytes exceeds the limit of 100"),
        );
        check(
            read(vec![&[1, 0, 0, 0, 3]]).await,
            Err("request is compressed: the broker takes `identity` only"),
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_arrives_is_given_up() {
        let never = || Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        let (receiving, share) = (receiving(), ConnectionShare::new(1, Peer::default()));
        let read =
            |deadline| read_request::<pb::PublishRequest>(never(), deadline, &receiving, &share);
        assert_eq!(
            read(Deadline::default()).await.unwrap_err().to_string(),
            "request did not arrive within 30 s"
        );
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static("100m"));
        let deadline = Deadline::of(&headers).unwrap();
        let late = read(deadline).await;
        assert!(matches!(late, Err(CallError::DeadlineExceeded)));
    }

    #[tokio::test]
    async fn requests_in_progress_have_a_bound_together_and_on_each_connection() {
        let receiving = receiving();
        let part = Bytes::copy_from_slice(&[[0, 0, 0, 0, 100].as_slice(), &[0; 95]].concat());
        let stuck = |share: &ConnectionShare| {
            let part = tokio_stream::once(Ok::<_, std::io::Error>(part.clone()));
            let body = Body::from_stream(part.chain(tokio_stream::pending()));
            let share = share.clone();
            let receiving = &receiving;
            async move {
                read_request::<pb::PublishRequest>(body, Deadline::default(), receiving, &share)
                    .await
            }
        };
        let shares = [
            ConnectionShare::new(1, Peer::default()),
            ConnectionShare::new(1, Peer::default()),
        ];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut held: Vec<_> = [&shares[0], &shares[0], &shares[1]]
            .map(|share| Box::pin(stuck(share)))
            .into();
        for request in &mut held {
            assert!(request.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(
            stuck(&shares[0]).await.unwrap_err().to_string(),
            "requests in progress on this connection take 200 bytes together, which is the limit"
        );
        assert_eq!(
            stuck(&shares[1]).await.unwrap_err().to_string(),
            "requests in progress on all connections take 350 bytes together, which is the limit"
        );
        drop(held);
        assert_eq!(receiving.bytes.load(Ordering::Relaxed), 0);
    }
}
