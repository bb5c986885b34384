//! One HTTP/2 connection: a single task drives the socket and all its streams.
//!
//! The calls in progress are futures in a set; each is woken on its own, and all that are woken are
//! served before the socket is read again, so that batches grow under load and what one connection
//! sends keeps its order.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{Ping, PingPong};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    call::Call,
    config,
    connection::{BoxFuture, Conduct, Context},
    frame_guard::{Credit, FrameGuard},
    outbox::Outgoing,
};
use crate::{metrics::Limit, service::ConnectionShare};

/// Greets the peer; returns what serves the connection to its end.
pub(super) async fn open<S, T>(
    stream: S,
    outgoing: Outgoing<T>,
    context: &Arc<Context>,
    share: ConnectionShare,
) -> Result<BoxFuture<Conduct>, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncWrite + Unpin + Send + 'static,
{
    let credit = Credit::default();
    let memory = Arc::clone(context.pubsub.broker.memory());
    let stream = FrameGuard::new(stream, credit.clone(), memory);
    let connection = builder(&context.config).handshake(stream).await?;
    outgoing.take_over();
    Ok(serve(
        connection,
        outgoing,
        credit,
        Arc::clone(context),
        share,
    ))
}

/// Not an `async fn`, whose future would have room for the connection twice. What the connection has to
/// say is passed on whenever it has done all it could.
fn serve<S, T>(
    mut connection: h2::server::Connection<S, Bytes>,
    outgoing: Outgoing<T>,
    credit: Credit,
    context: Arc<Context>,
    share: ConnectionShare,
) -> BoxFuture<Conduct>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(async move {
        let mut conduct = Conduct::Fair;
        {
            let mut serving = pin!(try_serve(&mut connection, &credit, &context, &share));
            let served = poll_fn(|cx| {
                let mut gathered = outgoing.gathered_bytes();
                let mut served = serving.as_mut().poll(cx);
                // So much that a stream may have filled its buffer, which has room again: one write is to
                // take it all.
                while served.is_pending()
                    && outgoing.gathers(&mut gathered, config::SEND_BUFFER_BYTES)
                {
                    served = serving.as_mut().poll(cx);
                }
                match outgoing.poll_pass_on(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(Error::Write(error))),
                    _ => served.map_err(Error::Protocol),
                }
            });
            if let Err(error) = served.await {
                tracing::debug!(%error, "the connection ended with an error");
                if error.is_peers_fault() {
                    conduct = Conduct::Abusive;
                }
            }
        }
        if credit.is_overdrawn() {
            context.metrics.reject(Limit::ControlFrames);
            tracing::warn!("closed a connection that sent too many control frames");
            outgoing.put(&CALM_DOWN);
            conduct = Conduct::Abusive;
        } else if credit.is_short_of_memory() {
            context.metrics.reject(Limit::Memory);
            tracing::warn!(
                "closed a connection that began to send large frames: memory is used up"
            );
            outgoing.put(&CALM_DOWN);
        }
        let last_words = poll_fn(|cx| outgoing.poll_pass_on(cx));
        tokio::select! {
            _ = tokio::time::timeout(context.config.stall_timeout, last_words) => {}
            () = context.close.cancelled() => {}
        }
        conduct
    })
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Protocol(#[source] h2::Error),
    #[error("writing to the peer: {0}")]
    Write(#[source] std::io::Error),
}

impl Error {
    /// Whether `h2` cut the connection off for what the peer sent.
    fn is_peers_fault(&self) -> bool {
        matches!(self, Self::Protocol(error) if error.is_library() && !error.is_io())
    }
}

async fn try_serve<S>(
    connection: &mut h2::server::Connection<S, Bytes>,
    credit: &Credit,
    context: &Arc<Context>,
    share: &ConnectionShare,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = &context.config;
    let ping_pong = connection.ping_pong().expect("it is taken once");
    let mut calls = FuturesUnordered::new();
    let mut started = 0_u64;
    let mut finishing = false;

    let mut alive = pin!(keepalive(ping_pong, config));
    // To finish at first, and then to let go.
    let mut order = pin!(context.drain.cancelled());
    let mut idle = pin!(tokio::time::sleep(config.idle_timeout));
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
                    calls.push(Call::new(request, respond, context, share, credit));
                }
                None => return Ok(()),
            },
            () = &mut alive => {
                context.metrics.reject(Limit::Keepalive);
                tracing::debug!("the peer answers no ping");
                return Ok(());
            }
            () = &mut order => {
                if context.close.is_cancelled() {
                    return Ok(());
                }
                finishing = true;
                connection.graceful_shutdown();
                order.set(context.close.cancelled());
            }
            () = &mut idle, if !finishing => {
                let is_idle = calls.is_empty();
                if is_idle && idle_since == Some(started) {
                    context.metrics.reject(Limit::Idle);
                    finishing = true;
                    connection.graceful_shutdown();
                }
                idle_since = is_idle.then_some(started);
                idle.as_mut().reset(Instant::now() + config.idle_timeout);
            }
        }
    }
}

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, section 6.8). Any stream may have been served.
const CALM_DOWN: [u8; 17] = [
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb,
];

fn builder(config: &config::ServerConfig) -> h2::server::Builder {
    let subscriptions_max = config.subscriptions_per_connection_max;
    let streams_max = subscriptions_max.saturating_add(config::OTHER_STREAMS_PER_CONNECTION);
    let mut builder = h2::server::Builder::new();
    // All calls that may be open at once may be taken back at once, before we have seen any of them.
    builder
        .max_concurrent_streams(u32::try_from(streams_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(streams_max)
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
