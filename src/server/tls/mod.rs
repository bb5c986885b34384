//! TLS at the front door: who the broker is, which clients it lets in, and what may be spoken.
//!
//! A handshake has the time of a connection's first bytes. What is in force is looked up once for each
//! connection, so that renewed credentials reach new connections and no live one notices. Sessions are
//! not resumed: connections last for days, and a resumed session would carry a client's name past the
//! authority or the expiry of its certificate.

mod files;
mod metrics;
mod names;
mod watch;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub(crate) use self::names::names_of;
pub(in crate::server) use self::watch::Watch;
pub use self::{files::TlsError, names::NamesError};
use self::{
    files::{Credentials, Files},
    metrics::TlsMetrics,
    watch::Change,
};
use super::sniff::Protocol;
use crate::{certificate::CertificateNames, metrics::Metrics};

/// How often the files are looked at. What is new counts once it has been seen twice: as long as this a renewal
/// that is written in several steps may pause before it counts, and after twice this it is in force.
pub const TLS_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a peer whose handshake failed may take to read why, and how much it may say meanwhile: a
/// socket that is closed with something unread takes the reason with it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
const FAREWELL_BYTES_MAX: u64 = 64 * 1024;

/// Where the broker's credentials are. The files are PEM, and may be replaced at any time, by renaming
/// or by moving a symbolic link too: what is new is in force for new connections within
/// twice the interval, once it has been seen twice in the same form, and what does not work leaves the old in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The broker's certificate, followed by those of intermediate authorities.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// Certificates of the authorities that vouch for clients. If set, every client needs a certificate.
    pub client_ca: Option<PathBuf>,
    /// How often the files are looked at. [`TLS_CHECK_INTERVAL`] by default.
    pub check_interval: Duration,
}

impl TlsConfig {
    /// TLS without client certificates.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: None,
            check_interval: TLS_CHECK_INTERVAL,
        }
    }
}

/// Why a peer and the broker did not come to terms.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
    #[error("the client's certificate has names that cannot be used: {0}")]
    Names(#[from] NamesError),
}

/// What a handshake agreed on.
#[derive(Debug)]
pub(super) struct Agreed<S> {
    pub(super) stream: TlsStream<S>,
    /// Of the client, where it had to show a certificate.
    pub(super) names: Option<CertificateNames>,
}

impl<S> Agreed<S> {
    /// The one protocol that may follow; any of them, if the client did not ask.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        match self.stream.get_ref().1.alpn_protocol()? {
            files::ALPN_HTTP2 => Some(Protocol::Http2),
            _ => Some(Protocol::Http1),
        }
    }
}

/// TLS as it is in force.
#[derive(Debug)]
pub(super) struct Tls {
    config: TlsConfig,
    in_force: RwLock<Arc<rustls::ServerConfig>>,
    metrics: TlsMetrics,
}

impl Tls {
    /// Also returns the watch over the files, for [`keep_current`](Self::keep_current).
    pub(super) async fn load(config: TlsConfig) -> Result<(Self, Watch), TlsError> {
        let files = Files::read(&config).await?;
        let credentials = Credentials::new(&files, &config)?;
        let tls = Self {
            config,
            in_force: RwLock::new(Arc::clone(&credentials.server)),
            metrics: TlsMetrics::default(),
        };
        tls.take(credentials);
        Ok((tls, Watch::new(files)))
    }

    pub(super) fn register(&self, metrics: &mut Metrics) {
        metrics.register(|registry| self.metrics.register(registry));
    }

    fn take(&self, credentials: Credentials) {
        self.metrics.set_expiry(credentials.expiry);
        *self.in_force.write() = credentials.server;
    }

    /// Comes to terms with a new peer, which takes as long as the peer does.
    pub(super) async fn accept<S>(&self, socket: S) -> Result<Agreed<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let in_force = Arc::clone(&self.in_force.read());
        let accept = TlsAcceptor::from(in_force).accept(socket);
        let stream = match accept.into_fallible().await {
            Ok(stream) => stream,
            Err((error, socket)) => {
                self.metrics.handshake_failures.inc();
                say_farewell(socket).await;
                return Err(HandshakeError::Handshake(error));
            }
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let names = certificates.and_then(<[_]>::first).map(names_of);
        let names = names.transpose().inspect_err(|_| {
            self.metrics.handshake_failures.inc();
        })?;
        Ok(Agreed { stream, names })
    }

    /// Looks at the files in intervals, and at once when asked to, for ever.
    pub(super) async fn keep_current(&self, mut watch: Watch, asked: &Notify) {
        let mut interval = tokio::time::interval(self.config.check_interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = interval.tick() => false,
                () = asked.notified() => true,
            };
            let read = Files::read(&self.config).await;
            match watch.see(read, is_asked, |files| {
                Credentials::new(files, &self.config)
            }) {
                Change::None if is_asked => tracing::info!("the TLS files are as they were"),
                Change::None => {}
                Change::Renewed(credentials) => {
                    let expiry = humantime::format_rfc3339_seconds(credentials.expiry);
                    tracing::info!(%expiry, "new TLS credentials are in force for new connections");
                    self.take(credentials);
                    self.metrics.reloads.count(true);
                }
                Change::Bad(error) => {
                    self.metrics.reloads.count(false);
                    tracing::error!(
                        error = error_chain(&error),
                        "the new TLS files do not work: the old ones stay in force"
                    );
                }
            }
        }
    }
}

fn error_chain(error: &TlsError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    });
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// Closes the socket so that the peer can read the alert which tells why.
async fn say_farewell<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S) {
    let farewell = async {
        socket.shutdown().await?;
        let mut unread = socket.take(FAREWELL_BYTES_MAX);
        tokio::io::copy(&mut unread, &mut tokio::io::sink()).await
    };
    // Whoever does not wait for the reason does without it.
    drop(tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await);
}
