//! One call: a request on a stream of its own, and the answer to it.
//!
//! Our own methods are called directly; everything else goes through the router. A panic ends a call
//! and nothing else.
//! Invariant: what a call has taken from its response body and flow control does not let out is one
//! chunk.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use tower::ServiceExt;

use super::connection::Context;
use crate::{
    grpc::{self, ConnectionShare, lifeline},
    metrics::Metrics,
};

/// Counts a stream as open until it is dropped.
pub(super) struct OpenStream(Arc<Metrics>);

impl OpenStream {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.streams.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}

/// One request and its answer. A panic ends this call alone.
pub(super) async fn call(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    context: Arc<Context>,
    share: ConnectionShare,
) {
    let grace = context.config.stall_timeout;
    let mut respond = Responder(Some(respond));
    let answering = Box::pin(answer_and_send(request, &mut respond, &context, share));
    let answering = AssertUnwindSafe(lifeline::drive(answering, grace)).catch_unwind();
    if answering.await.is_err() {
        // The hook has logged it. An answer that has begun cannot be taken back; it is reset.
        let status = grpc::internal_error();
        drop(respond.send(status).await);
    }
}

async fn answer_and_send(
    request: Request<RecvStream>,
    respond: &mut Responder,
    context: &Context,
    share: ConnectionShare,
) {
    let request = request.map(|stream| Body::new(Received { stream }));
    let grpc::Answer { response, reading } = answer(request, context, share).await;
    let sending = respond.send(response);
    let sent = match reading {
        None => sending.await,
        Some(reading) => {
            let mut sending = Box::pin(sending);
            tokio::select! {
                // What has come is read before answers go out: these grow larger and fewer.
                biased;
                () = reading => {
                    // A caller that takes no answers does not keep them for ever.
                    let patience = context.config.stall_timeout;
                    let sent = tokio::time::timeout(patience, sending).await;
                    sent.unwrap_or_else(|_| Err(Reason::ENHANCE_YOUR_CALM.into()))
                }
                sent = &mut sending => sent,
            }
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "the stream ended early");
    }
}

async fn answer(
    request: Request<Body>,
    context: &Context,
    share: ConnectionShare,
) -> grpc::Answer<'_> {
    match grpc::Method::of(request.uri().path()) {
        Some(method) => method.call(&context.pubsub, &share, request).await,
        None => {
            let answered = Box::pin(context.router.clone().oneshot(request)).await;
            answered.unwrap_or_else(|never| match never {}).into()
        }
    }
}

/// The request's body as the rest of the server knows bodies.
struct Received {
    stream: RecvStream,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let data = std::task::ready!(self.stream.poll_data(cx));
        Poll::Ready(match data {
            Some(Ok(data)) => {
                // Whoever reads bounds what it keeps; the window is for what nobody has read.
                let released = self.stream.flow_control().release_capacity(data.len());
                Some(released.map(|()| Frame::data(data)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// The right to answer, which can be used once.
struct Responder(Option<SendResponse<Bytes>>);

impl Responder {
    async fn send(&mut self, response: Response<Body>) -> Result<(), h2::Error> {
        let Some(mut respond) = self.0.take() else {
            return Ok(());
        };
        let (head, body) = response.into_parts();
        let head = Response::from_parts(head, ());
        if body.is_end_stream() {
            respond.send_response(head, true)?;
            return Ok(());
        }
        let mut outgoing = Outgoing {
            stream: respond.send_response(head, false)?,
            is_whole: false,
        };
        send_body(body, &mut outgoing.stream).await?;
        outgoing.is_whole = true;
        Ok(())
    }
}

/// A response in progress. If it is dropped before its end, the peer is told to calm down: that is
/// RESOURCE_EXHAUSTED in gRPC's map of HTTP/2 errors, and stalling is what drops it.
struct Outgoing {
    stream: SendStream<Bytes>,
    is_whole: bool,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.is_whole {
            self.stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
    }
}

async fn send_body(mut body: Body, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    loop {
        let frame = std::future::poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Some(Err(reset.map_or_else(|error| error, h2::Error::from))));
            }
            let frame = std::task::ready!(Pin::new(&mut body).poll_frame(cx));
            Poll::Ready(frame.map(|frame| Ok(frame.expect("our bodies do not fail"))))
        });
        let Some(frame) = frame.await.transpose()? else {
            return stream.send_data(Bytes::new(), true);
        };
        match frame.into_data() {
            Ok(data) => send_data(stream, data).await?,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                return stream.send_trailers(trailers);
            }
        }
    }
}

/// Sends as flow control lets it out.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        while stream.capacity() == 0 {
            let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            granted.transpose()?.ok_or(Reason::CANCEL)?;
        }
        let part = data.split_to(stream.capacity().min(data.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}
