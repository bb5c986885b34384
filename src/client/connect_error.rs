//! What can go wrong before there is a connection, and whether it is the caller who must change
//! something.

use std::{sync::Arc, time::Duration};

use super::{status::TransportError, tls::TlsError, url::UrlError};

/// Why there is no connection to a broker.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none; the caller must change it.
    #[error(transparent)]
    InvalidUrl(#[from] UrlError),
    /// TLS cannot be had with these options; the caller must change them, or the files.
    #[error("TLS does not work")]
    Tls(#[from] Arc<TlsError>),
    /// Something answers there, but TLS with it does not come about: it is not trusted, or speaks
    /// plaintext. A retry helps once either side has changed its certificates.
    #[error("no secure connection to {url}")]
    Handshake {
        /// The address tried.
        url: String,
        /// What is wrong.
        source: TransportError,
    },
    /// Nothing accepts connections there. Is the broker running?
    #[error("no broker answers at {url}")]
    Unreachable {
        /// The address tried.
        url: String,
        /// What the operating system says.
        source: TransportError,
    },
    /// Something accepts connections there and then breaks them: a server of another kind, a broker
    /// that wants TLS, or a proxy without a broker behind it.
    #[error("the connection to {url} broke before a broker answered")]
    Broken {
        /// The address tried.
        url: String,
        /// How it broke.
        source: TransportError,
    },
    /// Nothing was heard at all: a firewall, or a server of another kind.
    #[error("nothing was heard from {url} within {timeout:?}")]
    Silent {
        /// The address tried.
        url: String,
        /// How long it was waited for.
        timeout: Duration,
    },
}

impl ConnectError {
    /// Whether a later attempt can succeed without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::InvalidUrl(_) | Self::Tls(_))
    }
}
