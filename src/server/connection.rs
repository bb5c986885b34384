//! One connection, from its first bytes to its end.
//!
//! A connection ends when its peer leaves, says nothing, takes nothing, answers no ping or is idle for
//! too long, and when the broker drains: then it is told to finish, and dropped when the time is up.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    config::{self, ServerConfig},
    http2,
    outbox::Outbox,
    sniff::{Prefixed, Protocol, sniff},
};
use crate::{
    access::Peer,
    grpc::PubSub,
    metrics::{Limit, Metrics},
};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: ServerConfig,
    pub(super) pubsub: Arc<PubSub>,
    pub(super) router: Router,
    pub(super) metrics: Arc<Metrics>,
    /// Finish what is in progress and take nothing new.
    pub(super) drain: CancellationToken,
    /// Let go of everything.
    pub(super) close: CancellationToken,
}

/// Serves the connection to its end, and keeps what it holds until then.
pub(super) fn serve<H>(
    stream: TcpStream,
    context: Arc<Context>,
    held: H,
) -> impl Future<Output = ()> + use<H> {
    // A box each, since beginning takes more memory than going on, and a connection lasts for days.
    let opening = Box::pin(open(stream, context));
    async move {
        if let Some(serving) = opening.await {
            serving.await;
        }
        drop(held);
    }
}

/// Finds out what the peer speaks; returns what serves it, if it speaks before the drain.
async fn open(stream: TcpStream, context: Arc<Context>) -> Option<BoxFuture<()>> {
    tokio::select! {
        serving = greet(stream, &context) => serving,
        // A connection that has not spoken has nothing to finish.
        () = context.drain.cancelled() => None,
    }
}

async fn greet(stream: TcpStream, context: &Arc<Context>) -> Option<BoxFuture<()>> {
    let config = &context.config;
    let peer = Peer {
        address: stream.peer_addr().ok().map(|address| address.ip()),
        certificate: None,
    };
    // A peer that takes nothing is given as long as one that answers nothing.
    let write_timeout = config
        .keepalive_interval
        .saturating_add(config.keepalive_timeout);
    let (stream, outgoing) = Outbox::new(stream, write_timeout);
    let sniffed = tokio::time::timeout(config.first_bytes_timeout, sniff(stream)).await;
    match sniffed {
        Ok(Ok(Some((Protocol::Http2, stream)))) => {
            match http2::open(stream, outgoing, peer, context).await {
                Ok(serving) => return Some(serving),
                Err(error) => tracing::debug!(%error, "the connection broke as it opened"),
            }
        }
        Ok(Ok(Some((Protocol::Http1, stream)))) => {
            return Some(Box::pin(serve_http1(stream, peer, Arc::clone(context))));
        }
        Ok(Ok(None)) => tracing::debug!("the peer left before it spoke"),
        Ok(Err(error)) => tracing::debug!(%error, "the connection broke before it spoke"),
        Err(_) => {
            context.metrics.reject(Limit::FirstBytes);
            tracing::debug!("the peer said too little in the time for its first bytes");
        }
    }
    None
}

async fn serve_http1(stream: Prefixed<Outbox<TcpStream>>, peer: Peer, context: Arc<Context>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.config.first_bytes_timeout)
        .max_buf_size(config::HEADER_LIST_BYTES_MAX as usize)
        .serve_connection(TokioIo::new(stream), service_fn(requests(&context, peer)));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = context.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = context.close.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the connection ended with an error");
    }
}

/// Passes a connection's requests to the router.
fn requests(
    context: &Context,
    peer: Peer,
) -> impl Fn(Request<Incoming>) -> BoxFuture<Result<Response<Body>, Infallible>> + use<> {
    let router = context.router.clone();
    move |request| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        Box::pin(router.clone().oneshot(request))
    }
}

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
