//! TLS from the client's side: which brokers it trusts, and who it is itself.
//!
//! The files are read anew for each connection, so that a subscriber which lives for months follows
//! certificates that live for hours. What does not work any more leaves what did in force.

use std::{future::Future, io, path::PathBuf, pin::Pin, sync::Arc, task, time::Duration};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::{BoxError, Service, ServiceExt};

use crate::pem::{self, PemError};

const ALPN_HTTP2: &[u8] = b"h2";

/// How an `https://` broker is recognised, and how the client shows who it is. By default, the
/// authorities that the system trusts vouch for the broker, and the client shows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// A PEM file of authorities, instead of those that the system trusts.
    pub ca: Option<PathBuf>,
    /// What the client shows to a broker that asks.
    pub identity: Option<Identity>,
    /// The name in the broker's certificate, if it is not the URL's host.
    pub server_name: Option<String>,
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The client's certificate, followed by those of intermediate authorities.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Why a client cannot speak TLS. The caller must change its options or the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that does not hold what it should.
    #[error(transparent)]
    File(#[from] PemError),
    /// The system trusts nobody, or does not say whom: it needs a file of authorities.
    #[error("the system has no certificates of authorities: give a file of them")]
    NoRoots,
    /// A certificate that cannot vouch for others.
    #[error("a certificate in {} is no authority's", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate in {} and the key in {} do not work together", identity.certificate.display(), identity.key.display())]
    Pair {
        /// The files.
        identity: Identity,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Neither a DNS name nor an IP address.
    #[error("`{name}` is not a server's name")]
    ServerName {
        /// The name.
        name: String,
        /// What is wrong.
        source: InvalidDnsNameError,
    },
}

/// Something answers, but TLS with it does not come about: it is not trusted, it does not trust this
/// client, or it speaks something else.
#[derive(Debug, thiserror::Error)]
#[error("the TLS handshake failed")]
pub(super) struct HandshakeError(#[source] io::Error);

/// Makes secure connections: for programs that use other gRPC services of a broker's with a
/// [`tonic`] channel of their own.
///
///     # use std::time::Duration;
///     # use fanfare::client::{TlsConnector, TlsOptions};
///     # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
///     let tls = TlsConnector::new(TlsOptions::default(), Duration::from_secs(5));
///     let endpoint = tonic::transport::Endpoint::from_static("https://broker.example:1234");
///     let channel = endpoint.connect_with_connector(tls).await?;
///     # drop(channel);
///     # Ok(())
///     # }
#[derive(Clone, Debug)]
pub struct TlsConnector {
    shared: Arc<Shared>,
    tcp: HttpConnector,
}

#[derive(Debug)]
struct Shared {
    options: TlsOptions,
    timeout: Duration,
    /// What worked last.
    config: Mutex<Option<Arc<ClientConfig>>>,
}

impl TlsConnector {
    /// A connection has this long to come about, handshake included.
    #[must_use]
    pub fn new(options: TlsOptions, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let config = Mutex::default();
        Self {
            shared: Arc::new(Shared {
                options,
                timeout,
                config,
            }),
            tcp,
        }
    }

    /// Looks at options and files before anything is connected.
    ///
    /// # Errors
    /// What each connection would fail with.
    pub async fn check(&self) -> Result<(), TlsError> {
        if let Some(name) = &self.shared.options.server_name {
            server_name(name)?;
        }
        self.shared.current().await.map(drop)
    }
}

impl Shared {
    async fn current(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let known = self.config.lock().clone();
        let has_files = self.options.ca.is_some() || self.options.identity.is_some();
        match known {
            Some(known) if !has_files => Ok(known),
            Some(known) => Ok(self.load().await.unwrap_or_else(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the new TLS files do not work: the old ones are used"
                );
                known
            })),
            None => self.load().await,
        }
    }

    async fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = match &self.options.ca {
            Some(path) => {
                let content = pem::read(path).await?;
                let mut roots = RootCertStore::empty();
                for certificate in pem::certificates(&content, path)? {
                    let added = roots.add(certificate);
                    added.map_err(|source| TlsError::Authority {
                        path: path.clone(),
                        source,
                    })?;
                }
                roots
            }
            None => system_roots().await?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let mut config = match &self.options.identity {
            Some(identity) => {
                let certificate = pem::read(&identity.certificate).await?;
                let chain = pem::certificates(&certificate, &identity.certificate)?;
                let key = pem::key(&pem::read(&identity.key).await?, &identity.key)?;
                let identified = builder.with_client_auth_cert(chain, key);
                identified.map_err(|source| TlsError::Pair {
                    identity: identity.clone(),
                    source,
                })?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        // Brokers do not resume sessions.
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        *self.config.lock() = Some(Arc::clone(&config));
        Ok(config)
    }

    async fn connect(
        &self,
        uri: Uri,
        tcp: HttpConnector,
    ) -> Result<TokioIo<TlsStream<TcpStream>>, BoxError> {
        let host = uri.host().unwrap_or_default();
        let name = self.options.server_name.as_deref().unwrap_or(host);
        let name = server_name(name)?;
        let config = self.current().await?;
        let socket = tcp.oneshot(uri).await?.into_inner();
        let handshake = tokio_rustls::TlsConnector::from(config).connect(name, socket);
        let stream = handshake.await.map_err(HandshakeError)?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP2) {
            let error = io::Error::other("the server does not speak HTTP/2 over TLS");
            return Err(HandshakeError(error).into());
        }
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), BoxError>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (shared, tcp) = (Arc::clone(&self.shared), self.tcp.clone());
        Box::pin(async move {
            let timeout = shared.timeout;
            let connected = tokio::time::timeout(timeout, shared.connect(uri, tcp)).await;
            connected.unwrap_or_else(|_| {
                let late = format!("no secure connection within {timeout:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
            })
        })
    }
}

/// A name or an address, which URLs write in brackets if it is of IPv6.
fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let parsed = ServerName::try_from(bare.to_owned());
    parsed.map_err(|source| TlsError::ServerName {
        name: name.to_owned(),
        source,
    })
}

/// Some of a system's certificates are commonly such that rustls does not take them.
async fn system_roots() -> Result<RootCertStore, TlsError> {
    let loading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let mut roots = RootCertStore::empty();
    if let Ok(loaded) = loading.await {
        roots.add_parsable_certificates(loaded.certs);
    }
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}
