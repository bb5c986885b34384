//! The front door: accepts connections, serves them, and brings everything to an orderly end.
//!
//! One port carries gRPC and HTTP/1.1, in plaintext or over TLS. Every connection, stream, wait and buffer has a limit in
//! [`ServerConfig`]. When [`Server::run`] returns, no connection and no stream is left.

mod accept;
mod addresses;
mod answer;
mod call;
mod clock;
mod config;
mod connection;
mod http1;
mod http2;
mod keeper;
mod open_stream;
mod outbox;
mod pace;
mod patience;
mod read_ahead;
mod routes;
mod secured;
mod sending;
mod slowed;
mod sniff;
mod socket;
mod stuck;
mod tls;
mod transport;
mod turn;
mod warning;
mod weighed;
mod workers;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use axum::Router;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Notify, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    clock::keep_time,
    connection::{Context, Warnings},
    stuck::Stuck,
    tls::{Tls, Watch},
    workers::Workers,
};
pub use self::{
    config::*,
    tls::{NamesError, TLS_CHECK_INTERVAL, TlsConfig, TlsError},
};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::{
    sniff::{Protocol, sniff},
    tls::names_of,
};
pub use crate::http::{Origin, OriginError};
use crate::{
    access::Access,
    auth::{AuthFile, Guesses, Policy},
    broker::Broker,
    grpc::Readiness,
    metrics::{Limit, Metrics},
    reloads::Reloads,
};
pub use crate::{
    pem::{NoPem, PemError},
    service::trace::SPANS,
};

/// A broker's front door, bound and not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    broker: Broker,
    config: ServerConfig,
    tls: Option<(Tls, Watch)>,
    reload: Reload,
    extra: Router,
    workers: Vec<Handle>,
    auth: Option<(AuthFile, Policy)>,
}

/// Why the broker does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, not this machine's, or not allowed.
    #[error("cannot listen on {address}")]
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others could read and change all that is sent, and nobody has said that this is meant.
    #[error(
        "{address} can be reached from outside, and plaintext can be read and changed on the way: give a \
         certificate and its key for TLS (--tls-cert, --tls-key), or allow plaintext on a network that \
         you trust (--insecure-plaintext)"
    )]
    Plaintext {
        /// The address asked for.
        address: SocketAddr,
    },
    /// TLS cannot be had from these files.
    #[error("TLS does not work")]
    Tls(#[from] TlsError),
}

/// Asks a server to look at its files at once, and not only in a moment. Clones ask the same server.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Asked>);

/// Those who look at files, each of whom is asked on its own.
#[derive(Debug, Default)]
struct Asked {
    tls: Notify,
    auth: Notify,
}

impl Reload {
    /// Takes what is new into force, or logs at once why it does not work. Without TLS files and an auth file it does
    /// nothing.
    pub fn reload(&self) {
        self.0.tls.notify_one();
        self.0.auth.notify_one();
    }
}

impl Server {
    /// Listens on the configured address; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be had, or plaintext on it is not allowed, or the TLS files do not work.
    pub async fn bind(config: ServerConfig, broker: Broker) -> Result<Self, BindError> {
        let tls = prepare(&config).await?;
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError::Address { address, source })?;
        Ok(Self {
            listener,
            broker,
            config,
            tls,
            reload: Reload::default(),
            extra: Router::new(),
            workers: Vec::new(),
            auth: None,
        })
    }

    /// Whether the server would start, but for the address: plaintext where it may be, and TLS files that
    /// work together now.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn check(config: &ServerConfig) -> Result<(), BindError> {
        prepare(config).await.map(drop)
    }

    /// Serves connections on these runtimes, each on the one with the fewest, instead of the one that
    /// runs the server. Several runtimes of one thread each keep what one connection sends in order,
    /// and cost less per message than one of several threads.
    #[must_use]
    pub fn with_workers(mut self, workers: Vec<Handle>) -> Self {
        self.workers = workers;
        self
    }

    /// Asks who calls and what it may do, as the file says now and whenever it says something else.
    /// Health stays open to anybody.
    #[must_use]
    pub fn with_auth(mut self, file: AuthFile, policy: Policy) -> Self {
        self.auth = Some((file, policy));
        self
    }

    /// Serves these routes too, behind the same limits and layers; who may use them is theirs to ask. For programs that embed the broker;
    /// `tonic::service::Routes` become one by `into_axum_router`.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.extra = self.extra.merge(routes);
        self
    }

    /// What an operator asks by a signal.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// The address in use.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` resolves, then drains: not ready first, then streams end with
    /// UNAVAILABLE and calls in flight finish, and what is left after the drain timeout is dropped.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            broker,
            config,
            tls,
            reload,
            extra,
            workers,
            auth,
        } = self;
        let workers = Workers::new(workers);
        let readiness = Readiness::new().await;
        let (tls, watch) = tls.unzip();
        let mut metrics = Metrics::new(broker.clone());
        metrics.register(|registry| workers.register(registry));
        tls.iter().for_each(|tls| tls.register(&mut metrics));
        let (access, metrics) = guard(auth, &config, metrics);
        let drain = CancellationToken::new();
        let pubsub = Arc::new(routes::pubsub(
            broker.clone(),
            &config,
            &metrics,
            drain.clone(),
            access.clone(),
        ));
        let router = routes::router(&config, readiness.clone(), &pubsub, extra);
        let context = Arc::new(Context {
            pubsub,
            router,
            metrics,
            stuck: Stuck::new(Arc::clone(broker.memory())),
            last_places: Semaphore::new(http1::LAST_PLACES),
            drain,
            close: CancellationToken::new(),
            config,
            tls,
            warnings: Warnings::default(),
        });
        let connections = TaskTracker::new();
        let serving = async {
            tokio::select! {
                () = accept::accept(&listener, &context, &connections, &workers) => {}
                () = keep_time(&broker, &context) => {}
                () = keep_current(access, &reload) => {}
                () = keep_tls_current(&context, watch, &reload) => {}
            }
        };
        let begin_drain = async {
            shutdown.await;
            readiness.set_not_ready().await;
            tracing::info!("not ready");
            tokio::time::sleep(context.config.drain_delay).await;
        };
        tokio::select! {
            () = serving => unreachable!("the accept loop and the clock do not end"),
            () = begin_drain => {}
        }
        drop(listener);
        finish(&broker, &context, &connections).await;
    }
}

/// What asks for rights, if an auth file says which, and the metrics, to which its own belong.
fn guard(
    auth: Option<(AuthFile, Policy)>,
    config: &ServerConfig,
    mut metrics: Metrics,
) -> (Option<Arc<Access>>, Arc<Metrics>) {
    let Some((file, policy)) = auth else {
        return (None, Arc::new(metrics));
    };
    let reloads = Reloads::default();
    let help = "Changes of the auth file or of what it names, taken into force or refused";
    metrics.register(|registry| reloads.register(registry, "auth_reloads", help));
    let metrics = Arc::new(metrics);
    let guesses = Guesses::new(config.guesses_max, config.guess_interval);
    let access = Access::new(file, policy, guesses, Arc::clone(&metrics), reloads);
    (Some(Arc::new(access)), metrics)
}

async fn keep_current(access: Option<Arc<Access>>, reload: &Reload) {
    match access {
        Some(access) => access.keep_current(&reload.0.auth).await,
        None => std::future::pending().await,
    }
}

/// Ends streams with a status, waits for what is in flight, and drops what is left in the end.
async fn finish(broker: &Broker, context: &Context, connections: &TaskTracker) {
    let timeout = context.config.drain_timeout;
    tracing::info!(
        connections = connections.len(),
        timeout_s = timeout.as_secs_f64(),
        "draining"
    );
    broker.drain();
    context.drain.cancel();
    connections.close();
    if tokio::time::timeout(timeout, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "dropping connections that did not finish in time"
        );
        let count = connections.len() as u64;
        context.metrics.reject_many(Limit::Drain, count);
        context.close.cancel();
        connections.wait().await;
    }
    tracing::info!("drained");
}

async fn keep_tls_current(context: &Context, watch: Option<Watch>, reload: &Reload) {
    match context.tls.as_ref().zip(watch) {
        Some((tls, watch)) => tls.keep_current(watch, &reload.0.tls).await,
        None => std::future::pending().await,
    }
}

/// What must hold before anything is listened on.
async fn prepare(config: &ServerConfig) -> Result<Option<(Tls, Watch)>, BindError> {
    let address = config.listen;
    let is_private = config.tls.is_some() || address.ip().to_canonical().is_loopback();
    if !is_private && !config.insecure_plaintext {
        return Err(BindError::Plaintext { address });
    }
    match config.tls.clone() {
        Some(tls) => Ok(Some(Tls::load(tls).await?)),
        None => Ok(None),
    }
}
