//! One HTTP/2 connection: a single task drives the socket and all its streams.
//!
//! The calls in progress are futures in a set; each is woken on its own, and all that are woken are
//! served before the socket is read again, so that batches grow under load and what one connection
//! sends keeps its order. Our own methods are called directly; everything else goes through the router.
//! Invariant: what a stream has taken from its mailbox and flow control does not let out is one chunk.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Interval, MissedTickBehavior},
};
use tower::ServiceExt;

use super::{config, connection::Context, outbox};
use crate::{
    grpc::{self, ConnectionShare, lifeline},
    metrics::{Limit, Metrics},
};

/// Serves the connection to its end. What it has to say is passed on whenever it has done all it could.
pub(super) async fn serve<S, T>(stream: S, outgoing: &outbox::Outgoing<T>, context: &Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncWrite + Unpin,
{
    outgoing.take_over();
    let mut serving = std::pin::pin!(try_serve(stream, context));
    let served = std::future::poll_fn(|cx| {
        let served = serving.as_mut().poll(cx);
        match outgoing.poll_pass_on(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(Error::Write(error))),
            _ => served.map_err(Error::Protocol),
        }
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "the connection ended with an error");
    }
    let last_words = std::future::poll_fn(|cx| outgoing.poll_pass_on(cx));
    drop(tokio::time::timeout(context.config.stall_timeout, last_words).await);
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Protocol(#[source] h2::Error),
    #[error("writing to the peer: {0}")]
    Write(#[source] std::io::Error),
}

async fn try_serve<S>(stream: S, context: &Arc<Context>) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = &context.config;
    let mut connection = builder(config).handshake::<_, Bytes>(stream).await?;
    let ping_pong = connection.ping_pong().expect("it is taken once");
    let share = ConnectionShare::new(config.subscriptions_per_connection_max);
    let mut calls = FuturesUnordered::new();
    let mut started = 0_u64;
    let mut finishing = false;

    let mut alive = std::pin::pin!(keepalive(ping_pong, config));
    let mut drain = std::pin::pin!(context.drain.cancelled());
    let mut idle = idle_clock(config.idle_timeout);
    // How many calls had been started when the connection was seen without one.
    let mut idle_since = Some(0);
    loop {
        tokio::select! {
            biased;
            Some(()) = calls.next(), if !calls.is_empty() => {}
            accepted = connection.accept() => match accepted {
                Some(accepted) => {
                    let (request, respond) = accepted?;
                    started += 1;
                    let open = OpenStream::new(&context.metrics);
                    let call = call(request, respond, Arc::clone(context), share.clone());
                    let call = async move {
                        call.await;
                        drop(open);
                    };
                    // Boxed, since the set keeps one more of its kind for itself.
                    calls.push(Box::pin(call));
                }
                None => return Ok(()),
            },
            () = &mut alive => {
                context.metrics.reject(Limit::Keepalive);
                tracing::debug!("the peer answers no ping");
                return Ok(());
            }
            () = &mut drain, if !finishing => {
                finishing = true;
                connection.graceful_shutdown();
            }
            _ = idle.tick(), if !finishing => {
                let is_idle = calls.is_empty();
                if is_idle && idle_since == Some(started) {
                    context.metrics.reject(Limit::Idle);
                    finishing = true;
                    connection.graceful_shutdown();
                }
                idle_since = is_idle.then_some(started);
            }
        }
    }
}

fn builder(config: &config::ServerConfig) -> h2::server::Builder {
    let subscriptions_max = config.subscriptions_per_connection_max;
    let streams_max = subscriptions_max.saturating_add(config::OTHER_STREAMS_PER_CONNECTION);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(u32::try_from(streams_max).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(Some(config::ERROR_RESETS_MAX))
        .max_header_list_size(config::HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(config::SEND_BUFFER_BYTES)
        .initial_window_size(config::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(config::CONNECTION_WINDOW_BYTES);
    builder
}

/// Resolves once a ping has gone unanswered.
async fn keepalive(mut ping_pong: PingPong, config: &config::ServerConfig) {
    loop {
        tokio::time::sleep(config.keepalive_interval).await;
        let pong = ping_pong.ping(Ping::opaque());
        let answered = tokio::time::timeout(config.keepalive_timeout, pong).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}

/// Ticks at which a connection without a stream, then and before, is told to finish.
fn idle_clock(timeout: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + timeout, timeout);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Counts a stream as open until it is dropped.
struct OpenStream(Arc<Metrics>);

impl OpenStream {
    fn new(metrics: &Arc<Metrics>) -> Self {
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
async fn call(
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
