//! One connection, from its first bytes to its end.
//!
//! A connection ends when its peer leaves, says nothing, takes nothing, answers no ping or is idle for
//! too long, and when the broker drains: then it is told to finish, and dropped when the time is up. A TLS
//! handshake is part of its first bytes.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use futures_util::FutureExt;
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    addresses::Entry,
    config::ServerConfig,
    http1, http2,
    outbox::{Outbox, Outgoing},
    patience::Patient,
    secured::{Counting, Secured},
    sniff::{Prefixed, Protocol, sniff},
    stuck::Stuck,
    tls::{HandshakeError, Tls},
    transport::Transport,
    warning::Warning,
};
use crate::{
    access::Peer,
    metrics::{Limit, Metrics},
    service::{ConnectionShare, PubSub, PublishRate, room},
};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: ServerConfig,
    /// None serves in plaintext.
    pub(super) tls: Option<Tls>,
    pub(super) pubsub: Arc<PubSub>,
    pub(super) router: Router,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stuck: Arc<Stuck>,
    /// For connections of HTTP/1.1 beyond the memory budget.
    pub(super) last_places: Semaphore,
    /// Finish what is in progress and take nothing new.
    pub(super) drain: CancellationToken,
    /// Let go of everything.
    pub(super) close: CancellationToken,
    pub(super) warnings: Warnings,
}

/// Of connections that were closed.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// For a flood of frames.
    pub(super) floods: Warning,
    /// Since memory was used up.
    pub(super) memory: Warning,
}

/// Serves the connection to its end, and keeps what it holds until then.
pub(super) fn serve<H>(
    stream: TcpStream,
    context: Arc<Context>,
    mut entry: Entry,
    held: H,
) -> impl Future<Output = ()> + use<H> {
    // A box each, since beginning takes more memory than going on, and a connection lasts for days.
    let opening = Box::pin(open(stream, context, entry.wait()));
    async move {
        let opened = opening.await;
        entry.greeted();
        if let Some(serving) = opened
            && serving.await == Conduct::Abusive
        {
            entry.offended();
        }
        drop((entry, held));
    }
}

/// Waits, and finds out what the peer speaks; returns what serves it, if it speaks before the drain.
async fn open(
    stream: TcpStream,
    context: Arc<Context>,
    wait: Duration,
) -> Option<BoxFuture<Conduct>> {
    let greeting = async {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        greet(stream, &context).await
    };
    tokio::select! {
        serving = greeting => serving,
        // A connection that has not spoken has nothing to finish.
        () = context.drain.cancelled() => None,
    }
}

/// A peer that has said what it speaks.
struct Greeted {
    protocol: Protocol,
    stream: Prefixed<Outbox<Transport>>,
    outgoing: Outgoing<Transport>,
    peer: Peer,
}

async fn greet(socket: TcpStream, context: &Arc<Context>) -> Option<BoxFuture<Conduct>> {
    let time = context.config.first_bytes_timeout;
    match tokio::time::timeout(time, hear_out(socket, context)).await {
        Ok(Ok(Some(greeted))) => return Some(begin(greeted, context)),
        Ok(Ok(None)) => tracing::debug!("the peer left before it spoke"),
        Ok(Err(GreetError::Memory)) => {
            context.metrics.reject(Limit::Memory);
            tracing::debug!("closed a new connection: memory is used up");
        }
        Ok(Err(error)) => tracing::debug!(%error, "the connection broke before it spoke"),
        Err(_) => {
            context.metrics.reject(Limit::FirstBytes);
            tracing::debug!("the peer said too little in the time for its first bytes");
        }
    }
    None
}

/// What a handshake takes, with a message of the usual size that is not complete: as measured, rounded up.
const HANDSHAKE_BYTES: usize = 24 * 1024;

#[derive(Debug, thiserror::Error)]
enum GreetError {
    #[error("{0}")]
    Tls(#[from] HandshakeError),
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("memory is used up")]
    Memory,
    #[error("{spoken:?} is spoken, and {agreed:?} was agreed on")]
    Protocol { spoken: Protocol, agreed: Protocol },
}

/// Secures the connection, if that is wanted, and reads until the protocol is clear. `None` if the peer
/// leaves before that.
async fn hear_out(socket: TcpStream, context: &Context) -> Result<Option<Greeted>, GreetError> {
    let config = &context.config;
    // A peer that takes nothing is given as long as one that answers nothing.
    let write_timeout = config
        .keepalive_interval
        .saturating_add(config.keepalive_timeout);
    let memory = context.pubsub.broker.memory();
    let is_full = !room(memory, 0).await;
    if is_full && context.last_places.available_permits() == 0 {
        return Err(GreetError::Memory);
    }
    let address = socket.peer_addr().ok().map(|address| address.ip());
    let socket = Patient::new(socket, write_timeout);
    let (transport, agreed, certificate) = match &context.tls {
        None => (Transport::Plain(socket), None, None),
        Some(tls) => {
            let _held = memory.hold(HANDSHAKE_BYTES);
            let secured = tls.accept(Counting::new(socket)).await?;
            let agreed = secured.protocol();
            let transport = Transport::Tls(Box::new(Secured::new(secured.stream, memory)));
            (transport, agreed, secured.names)
        }
    };
    let (stream, outgoing) = Outbox::new(transport, Arc::clone(&context.stuck));
    let Some((protocol, stream)) = sniff(stream).await? else {
        return Ok(None);
    };
    if is_full && protocol == Protocol::Http2 && memory.would_pass(0) {
        return Err(GreetError::Memory);
    }
    match agreed {
        Some(agreed) if agreed != protocol => Err(GreetError::Protocol {
            spoken: protocol,
            agreed,
        }),
        _ => Ok(Some(Greeted {
            protocol,
            stream,
            outgoing,
            peer: Peer {
                address,
                certificate,
            },
        })),
    }
}

/// How a peer has behaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    /// As peers do.
    Fair,
    /// It broke the protocol's rules, or flooded, and was cut off for it.
    Abusive,
}

fn begin(greeted: Greeted, context: &Arc<Context>) -> BoxFuture<Conduct> {
    let Greeted {
        protocol,
        stream,
        outgoing,
        peer,
    } = greeted;
    let config = &context.config;
    let share = ConnectionShare::new(config.subscriptions_per_connection_max, peer)
        .with_publish_rate(config.publish_rate_max.map(PublishRate::new));
    match protocol {
        Protocol::Http1 => {
            let serving = http1::serve(stream, outgoing, Arc::clone(context), share);
            Box::pin(serving.map(|()| Conduct::Fair))
        }
        Protocol::Http2 => http2::open(stream, outgoing, context, share),
    }
}

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
