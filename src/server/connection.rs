//! One connection, from its first bytes to its end.
//!
//! A connection ends when its peer leaves, says nothing, answers no ping or is idle for too long, and
//! when the broker drains: then it is told to finish (GOAWAY), and dropped when the time is up.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    config::{self, ServerConfig},
    sniff::{Prefixed, Protocol, sniff},
    write_timeout::WriteTimeout,
};
use crate::{
    grpc::{SubscriptionSlots, lifeline},
    metrics::{Limit, Metrics},
};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: ServerConfig,
    pub(super) router: Router,
    pub(super) metrics: Arc<Metrics>,
    /// Finish what is in progress and take nothing new.
    pub(super) drain: CancellationToken,
    /// Let go of everything.
    pub(super) close: CancellationToken,
    /// The tasks of all HTTP/2 streams.
    pub(super) streams: TaskTracker,
}

pub(super) async fn serve(stream: TcpStream, context: Arc<Context>) {
    let config = &context.config;
    // A peer that takes nothing is given as long as one that answers nothing.
    let write_timeout = config.keepalive_interval + config.keepalive_timeout;
    let stream = WriteTimeout::new(stream, write_timeout);
    let sniffed = tokio::select! {
        sniffed = tokio::time::timeout(config.first_bytes_timeout, sniff(stream)) => sniffed,
        // A connection that has not spoken has nothing to finish.
        () = context.drain.cancelled() => return,
    };
    match sniffed {
        Ok(Ok(Some((Protocol::Http2, stream)))) => serve_http2(stream, &context).await,
        Ok(Ok(Some((Protocol::Http1, stream)))) => serve_http1(stream, &context).await,
        Ok(Ok(None)) => tracing::debug!("the peer left before it spoke"),
        Ok(Err(error)) => tracing::debug!(%error, "the connection broke before it spoke"),
        Err(_) => {
            context.metrics.reject(Limit::FirstBytes);
            tracing::debug!("the peer said too little in the time for its first bytes");
        }
    }
}

async fn serve_http2(stream: Prefixed<WriteTimeout<TcpStream>>, context: &Arc<Context>) {
    let config = &context.config;
    let activity = Arc::new(Activity::default());
    let executor = StreamExecutor {
        grace: config.stall_timeout,
        activity: Arc::clone(&activity),
        context: Arc::clone(context),
    };
    let streams_max =
        config.subscriptions_per_connection_max + config::OTHER_STREAMS_PER_CONNECTION;
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(streams_max).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(config::ERROR_RESETS_MAX)
        .max_header_list_size(config::HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(config::SEND_BUFFER_BYTES)
        .initial_stream_window_size(config::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(config::CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .serve_connection(TokioIo::new(stream), service_fn(requests(context)));
    drive(connection, context, Some(&activity)).await;
}

async fn serve_http1(stream: Prefixed<WriteTimeout<TcpStream>>, context: &Arc<Context>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.config.first_bytes_timeout)
        .max_buf_size(config::HEADER_LIST_BYTES_MAX as usize)
        .serve_connection(TokioIo::new(stream), service_fn(requests(context)));
    drive(connection, context, None).await;
}

/// Passes a connection's requests to the router, each with the connection's own slots.
fn requests(
    context: &Arc<Context>,
) -> impl Fn(Request<Incoming>) -> BoxFuture<Result<Response<Body>, Infallible>> + use<> {
    let slots = SubscriptionSlots::new(context.config.subscriptions_per_connection_max);
    let router = context.router.clone();
    move |mut request| {
        request.extensions_mut().insert(slots.clone());
        Box::pin(router.clone().oneshot(request.map(Body::new)))
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection of either protocol that can be told to finish.
trait Finish: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<S> Finish for http2::Connection<TokioIo<Prefixed<WriteTimeout<TcpStream>>>, S, StreamExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future<Output = hyper::Result<()>>,
    StreamExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, Body>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Finish for http1::Connection<TokioIo<Prefixed<WriteTimeout<TcpStream>>>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future<Output = hyper::Result<()>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn drive(connection: impl Finish, context: &Context, activity: Option<&Activity>) {
    let mut connection = std::pin::pin!(connection);
    let finish = async {
        tokio::select! {
            () = context.drain.cancelled() => {}
            () = idle(activity, context.config.idle_timeout) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = context.close.cancelled() => return,
        () = finish => {
            connection.as_mut().finish();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = context.close.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the connection ended with an error");
    }
}

/// Streams of one connection, in progress and ever.
#[derive(Debug, Default)]
struct Activity {
    open: AtomicUsize,
    started: AtomicU64,
}

/// Resolves once the connection was without a stream for a whole `timeout`. HTTP/1.1 has a timeout of
/// its own between requests.
async fn idle(activity: Option<&Activity>, timeout: Duration) {
    let Some(activity) = activity else {
        return std::future::pending().await;
    };
    let mut seen = None;
    loop {
        let started = activity.started.load(Ordering::Relaxed);
        if activity.open.load(Ordering::Relaxed) == 0 && seen == Some(started) {
            return;
        }
        seen = Some(started);
        tokio::time::sleep(timeout).await;
    }
}

/// Runs each HTTP/2 stream as a task of its own, counted, and tied to the subscription behind it.
#[derive(Clone, Debug)]
struct StreamExecutor {
    grace: Duration,
    activity: Arc<Activity>,
    context: Arc<Context>,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.activity.started.fetch_add(1, Ordering::Relaxed);
        self.activity.open.fetch_add(1, Ordering::Relaxed);
        self.context.metrics.streams.inc();
        let open = OpenStream(self.clone());
        self.context.streams.spawn(async move {
            let Self { grace, context, .. } = &open.0;
            tokio::select! {
                biased;
                () = lifeline::drive(stream, *grace) => {}
                () = context.close.cancelled() => {}
            }
        });
    }
}

/// Counts a stream as open until it is dropped, also when its task panics.
struct OpenStream(StreamExecutor);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.activity.open.fetch_sub(1, Ordering::Relaxed);
        self.0.context.metrics.streams.dec();
    }
}
