//! From files to credentials that are known to work: read in full, parsed, matched with each other, and
//! valid at this time.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_cert::{Certificate, der::Decode};

use super::TlsConfig;
use crate::pem::{self, PemError};

pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why there are no credentials in these files. The operator must change them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that does not hold what it should.
    #[error(transparent)]
    File(#[from] PemError),
    /// What is in the PEM is no certificate.
    #[error("the certificate in {} cannot be decoded", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it departs from X.509.
        source: x509_cert::der::Error,
    },
    /// The certificate is not valid yet, or no longer.
    #[error(
        "the certificate in {} is valid from {} to {} only",
        path.display(),
        humantime::format_rfc3339_seconds(*from),
        humantime::format_rfc3339_seconds(*to)
    )]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// When it begins to be valid.
        from: SystemTime,
        /// When it expires.
        to: SystemTime,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate in {} and the key in {} do not work together", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A certificate that cannot vouch for others.
    #[error("a certificate in {} is no authority's", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The files' contents. They include the key: this is neither printed nor logged.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

impl Files {
    #[cfg(test)]
    pub(super) fn of(certificate: &str) -> Self {
        Self {
            certificate: certificate.into(),
            key: Vec::new(),
            client_ca: None,
        }
    }

    pub(super) async fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: pem::read(&config.certificate).await?,
            key: pem::read(&config.key).await?,
            client_ca: match &config.client_ca {
                Some(path) => Some(pem::read(path).await?),
                None => None,
            },
        })
    }
}

/// What new connections are served with.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) server: Arc<rustls::ServerConfig>,
    /// When the broker's certificate expires.
    pub(super) expiry: SystemTime,
}

impl Credentials {
    /// Credentials from what was in the files that `config` names.
    pub(super) fn new(files: &Files, config: &TlsConfig) -> Result<Self, TlsError> {
        let chain = pem::certificates(&files.certificate, &config.certificate)?;
        let expiry = check_validity(&chain[0], &config.certificate, SystemTime::now())?;
        let key = pem::key(&files.key, &config.key)?;
        let provider = Arc::new(ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.2 and 1.3");
        let builder = match files.client_ca.as_deref().zip(config.client_ca.as_deref()) {
            Some((content, path)) => {
                builder.with_client_cert_verifier(client_verifier(content, path, provider)?)
            }
            None => builder.with_no_client_auth(),
        };
        let with_key = builder.with_single_cert(chain, key);
        let mut server = with_key.map_err(|source| TlsError::Pair {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            source,
        })?;
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            server: Arc::new(server),
            expiry,
        })
    }
}

/// When the certificate expires, if it is valid now. A client would refuse one that is not, and say so
/// where no operator sees it.
fn check_validity(
    certificate: &CertificateDer<'_>,
    path: &Path,
    now: SystemTime,
) -> Result<SystemTime, TlsError> {
    let decoded = Certificate::from_der(certificate);
    let decoded = decoded.map_err(|source| TlsError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    let validity = decoded.tbs_certificate().validity();
    let from = validity.not_before.to_system_time();
    let to = validity.not_after.to_system_time();
    if (from..=to).contains(&now) {
        Ok(to)
    } else {
        let path = path.to_owned();
        Err(TlsError::NotValidNow { path, from, to })
    }
}

fn client_verifier(
    content: &[u8],
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in pem::certificates(content, path)? {
        let added = authorities.add(certificate);
        added.map_err(|source| TlsError::Authority {
            path: path.to_owned(),
            source,
        })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    Ok(verifier
        .build()
        .expect("there are authorities, and no lists of revocations"))
}
