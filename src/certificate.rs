//! Who a peer is, as the certificate says that it proved itself with.
//!
//! Under mutual TLS, the certificate authority that the operator chose vouches for the names in a
//! client's certificate. They are the only part of it that anyone beyond the front door needs to know.
//! Invariant: a name's kind is plain from its looks, so that a name of one kind is never taken for one
//! of another. A URI has a colon; an e-mail address has an `@` and no colon; a DNS name has neither.

use std::{ops::Deref, sync::Arc};

/// The names in a verified client certificate: the DNS names (in lower case), URIs and e-mail addresses
/// among its subject alternative names, in its order. The subject's common name, which any authority may
/// fill as it likes, is not among them. There may be none.
///
/// The front door verifies the certificate once, in the handshake, and hands the names along with each
/// request of the connection, also to the routes of an embedding program: as an extension of the
/// request, which is there exactly if client certificates are demanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames(Arc<[String]>);

impl CertificateNames {
    /// Leaves it to the caller that each name has the looks of its kind.
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self(names.into())
    }
}

impl Deref for CertificateNames {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}
