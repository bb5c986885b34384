//! One HTTP/1.1 connection: one request after the other, each with what it is answered.
//!
//! A response that lasts is a stream with a lifeline, like one of HTTP/2; when it is to be let go of, so is
//! the connection, which serves nothing else meanwhile. The same goes for one that its caller does not take,
//! or has left. A caller that is refused before it has sent all of its request is heard out for a while after
//! the answer.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{SemaphorePermit, TryAcquireError},
};

use super::{
    answer::{answer, has_room, refuse_for_memory},
    config,
    connection::Context,
    open_stream::ROUTED_CALL_BYTES,
    outbox::Outgoing,
    pace::Pace,
    read_ahead::{Ahead, ReadAhead},
    routes,
};
use crate::{
    http as plain_http,
    http2::map_bytes,
    metrics::{Limit, Metrics},
    service::{ConnectionShare, Lifeline},
};

/// What a connection takes beside what each does: hyper's buffers, and the future of its request. As measured.
const HTTP1_BYTES: usize = 24 * 1024;
/// Connections beyond the memory budget.
pub(super) const LAST_PLACES: usize = 32;
/// Headers of a request beside its attributes: what clients, browsers and proxies say on their own.
const OTHER_HEADERS_MAX: usize = 36;
/// Up to so many hyper parses without allocating for it.
const HEADERS_IN_PLACE: usize = 100;

/// What is known of the request and the response in progress.
type Progress = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    /// The response is one that may last.
    lasts: bool,
    /// The response's lifeline, if it has one.
    lifeline: Option<Lifeline>,
    /// Nobody has read all of the request's body.
    is_unread: bool,
}

/// Serves the connection to its end.
pub(super) async fn serve<S, T>(
    stream: S,
    outgoing: Outgoing<T>,
    context: Arc<Context>,
    share: ConnectionShare,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncWrite + Unpin,
{
    let _held = context.pubsub.broker.memory().hold(HTTP1_BYTES);
    let Ok(last_place) = last_place(&context) else {
        context.metrics.reject(Limit::Memory);
        tracing::debug!("closed a connection: memory is used up");
        return;
    };
    let (stream, ahead) = ReadAhead::new(stream);
    let mut watch = Watch {
        progress: Progress::default(),
        ahead,
        outgoing,
        patience: context.config.stall_timeout,
        metrics: Arc::clone(&context.metrics),
        waiting: None,
    };
    let progress = Arc::clone(&watch.progress);
    let requests = service_fn(|request| {
        let (context, share, progress) = (Arc::clone(&context), share.clone(), progress.clone());
        respond(request, context, share, progress)
    });
    let mut builder = builder(&context);
    builder.keep_alive(last_place.is_none());
    let connection = builder.serve_connection(TokioIo::new(stream), requests);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        // The connection comes first: what it does is looked at then.
        biased;
        ended = connection.as_mut() => ended,
        () = poll_fn(|cx| watch.poll_given_up(cx)) => return,
        () = context.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => ended,
                () = poll_fn(|cx| watch.poll_given_up(cx)) => return,
                () = context.close.cancelled() => return,
            }
        }
    };
    let is_refused = match &ended {
        Ok(()) => progress.lock().is_unread,
        Err(error) => {
            tracing::debug!(%error, "the connection ended with an error");
            error.is_parse()
        }
    };
    if is_refused {
        tokio::select! {
            () = watch.ahead.linger() => {}
            () = context.drain.cancelled() => {}
        }
    }
}

/// A place beyond the budget where that is used up, for one request: it may ask whether the broker lives.
fn last_place(context: &Context) -> Result<Option<SemaphorePermit<'_>>, TryAcquireError> {
    let is_full = context.pubsub.broker.memory().would_pass(0);
    let place = is_full.then(|| context.last_places.try_acquire());
    place.transpose()
}

/// What the request's head takes in memory.
fn head_bytes(headers: &HeaderMap) -> usize {
    let texts = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    map_bytes(headers) + texts.sum::<usize>()
}

fn builder(context: &Context) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(context.config.first_bytes_timeout)
        .max_buf_size(config::HEADER_LIST_BYTES_MAX as usize);
    // An attribute is a header, and one too many is to be refused by name.
    let attributes_max = context.pubsub.broker.limits().attributes_max;
    let headers_max = attributes_max.saturating_add(OTHER_HEADERS_MAX);
    if headers_max > HEADERS_IN_PLACE {
        builder.max_headers(headers_max);
    }
    builder
}

/// Looks whether a response is taken.
struct Watch<S, T> {
    progress: Progress,
    ahead: Ahead<S>,
    outgoing: Outgoing<T>,
    patience: Duration,
    metrics: Arc<Metrics>,
    /// While a write waits, and no subscription's clock runs; with what had been written by then.
    waiting: Option<(Pace, u64)>,
}

impl<S: AsyncRead + Unpin, T: AsyncWrite + Unpin> Watch<S, T> {
    /// Ready once the response is not waited for any longer.
    fn poll_given_up(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut progress = self.progress.lock();
        if progress.lasts && self.ahead.poll_gone(cx).is_ready() {
            tracing::debug!("the peer has left, or sends more while it is answered");
            return Poll::Ready(());
        }
        if let Some(lifeline) = &mut progress.lifeline {
            self.waiting = None;
            ready!(lifeline.poll_over(cx, self.patience));
            tracing::debug!("closed the connection of a stream that its reader does not take");
            return Poll::Ready(());
        }
        let (waits, written_bytes) = self.outgoing.waits();
        if !waits {
            self.waiting = None;
            return Poll::Pending;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| (Pace::new(patience), written_bytes));
        let (pace, before) = waiting;
        ready!(pace.poll_over(cx, written_bytes - *before));
        self.metrics.reject(Limit::AnswerUntaken);
        tracing::debug!("closed a connection whose answer is not taken");
        Poll::Ready(())
    }
}

async fn respond(
    request: Request<Incoming>,
    context: Arc<Context>,
    share: ConnectionShare,
    progress: Progress,
) -> Result<Response<Body>, Infallible> {
    if let Some(refusal) = plain_http::refuse_ambiguous(request.version(), request.headers()) {
        progress.lock().is_unread = true;
        return Ok(refusal);
    }
    let request = request.map(|body| {
        Body::new(Arriving {
            body,
            is_whole: false,
            progress: Arc::clone(&progress),
        })
    });
    let memory = context.pubsub.broker.memory();
    let held = memory.hold(ROUTED_CALL_BYTES + head_bytes(request.headers()));
    if !has_room(request.uri().path(), false, memory) {
        return Ok(refuse_for_memory(false, &context));
    }
    let answering = AssertUnwindSafe(answer(request, None, &context, &share)).catch_unwind();
    let answered = answering.await;
    drop(held);
    let Ok(answer) = answered else {
        // The hook has logged the panic.
        return Ok(routes::internal_error());
    };
    if answer.lifeline.is_none() && answer.response.body().size_hint().exact().is_some() {
        return Ok(answer.response);
    }
    {
        let mut progress = progress.lock();
        progress.lasts = true;
        progress.lifeline = answer.lifeline;
    }
    let tethered = |body| Body::new(Tethered { body, progress });
    Ok(answer.response.map(tethered))
}

/// A request's body, which tells whether it has been read.
struct Arriving {
    body: Incoming,
    is_whole: bool,
    progress: Progress,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.progress.lock().is_unread = !self.is_end_stream();
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.is_whole = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response that may last. Its lifeline ends with it.
struct Tethered {
    body: Body,
    progress: Progress,
}

impl Drop for Tethered {
    fn drop(&mut self) {
        let mut progress = self.progress.lock();
        progress.lasts = false;
        progress.lifeline = None;
    }
}

impl http_body::Body for Tethered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(lifeline) = &mut self.progress.lock().lifeline {
            lifeline.ask_right(cx);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
