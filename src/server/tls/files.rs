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
use x509_cert::{Certificate, Version, der::Decode, ext::pkix::BasicConstraints};

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
    /// A certificate is not valid yet, or no longer.
    #[error(
        "the certificate of `{subject}` in {} is valid from {} to {} only",
        path.display(),
        humantime::format_rfc3339_seconds(*from),
        humantime::format_rfc3339_seconds(*to)
    )]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        subject: String,
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
    /// A certificate that says that it does not vouch for others.
    #[error(
        "the certificate of `{subject}` in {} is no authority's: it does not say CA:TRUE",
        path.display()
    )]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        subject: String,
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
    /// When the first of the broker's certificates expires.
    pub(super) expiry: SystemTime,
}

impl Credentials {
    /// Credentials from what was in the files that `config` names.
    pub(super) fn new(files: &Files, config: &TlsConfig) -> Result<Self, TlsError> {
        let chain = pem::certificates(&files.certificate, &config.certificate)?;
        let now = SystemTime::now();
        let expiries = chain.iter().map(|certificate| {
            let decoded = decode(certificate, &config.certificate)?;
            check_validity(&decoded, &config.certificate, now)
        });
        let expiries: Vec<SystemTime> = expiries.collect::<Result<_, _>>()?;
        let first = expiries.into_iter().min();
        let expiry = first.expect("there is one certificate at least");
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

fn decode(certificate: &CertificateDer<'_>, path: &Path) -> Result<Certificate, TlsError> {
    Certificate::from_der(certificate).map_err(|source| TlsError::Malformed {
        path: path.to_owned(),
        source,
    })
}

/// When the certificate expires, if it is valid now. Whoever is shown one that is not refuses it, and says so
/// where no operator sees it.
fn check_validity(
    certificate: &Certificate,
    path: &Path,
    now: SystemTime,
) -> Result<SystemTime, TlsError> {
    let validity = certificate.tbs_certificate().validity();
    let from = validity.not_before.to_system_time();
    let to = validity.not_after.to_system_time();
    if (from..=to).contains(&now) {
        return Ok(to);
    }
    Err(TlsError::NotValidNow {
        path: path.to_owned(),
        subject: subject(certificate),
        from,
        to,
    })
}

/// That a certificate may vouch for others now. rustls takes those that it is told to trust as they are, and
/// certificates of version 1 cannot say it.
fn check_authority(
    certificate: &Certificate,
    path: &Path,
    now: SystemTime,
) -> Result<(), TlsError> {
    check_validity(certificate, path, now)?;
    let constraints = certificate
        .tbs_certificate()
        .get_extension::<BasicConstraints>()
        .map_err(|source| TlsError::Malformed {
            path: path.to_owned(),
            source,
        })?;
    let says_so = constraints.is_some_and(|(_, constraints)| constraints.ca);
    if says_so || certificate.tbs_certificate().version() != Version::V3 {
        return Ok(());
    }
    Err(TlsError::NoAuthority {
        path: path.to_owned(),
        subject: subject(certificate),
    })
}

fn subject(certificate: &Certificate) -> String {
    certificate.tbs_certificate().subject().to_string()
}

fn client_verifier(
    content: &[u8],
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in pem::certificates(content, path)? {
        check_authority(&decode(&certificate, path)?, path, SystemTime::now())?;
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
