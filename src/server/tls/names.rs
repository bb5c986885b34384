//! From a verified certificate to the names in it.

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::certificate::CertificateNames;

/// More names than one client answers to. Each connection keeps its own.
const NAMES_MAX: usize = 64;

/// Why the names in a certificate cannot be used, though an authority vouches for them. The certificate
/// must be changed; a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// The certificate is not as X.509 says.
    #[error("the certificate cannot be decoded")]
    Malformed(#[source] x509_cert::der::Error),
    /// A name that could be taken for one of another kind.
    #[error("`{name}` does not look like {kind}")]
    Ambiguous {
        /// The name.
        name: String,
        /// What it is said to be.
        kind: &'static str,
    },
    /// Too many names.
    #[error("{count} names exceed the limit of {NAMES_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Result<CertificateNames, NamesError> {
    let certificate = Certificate::from_der(certificate).map_err(NamesError::Malformed)?;
    let extension = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()
        .map_err(NamesError::Malformed)?;
    let general = extension.map_or_else(Vec::new, |(_, SubjectAltName(names))| names);
    let names: Vec<String> = general
        .iter()
        .filter_map(name)
        .collect::<Result<_, NamesError>>()?;
    if names.len() > NAMES_MAX {
        return Err(NamesError::TooMany { count: names.len() });
    }
    Ok(CertificateNames::new(names))
}

/// The name, if it is of a kind that names a client.
fn name(general: &GeneralName) -> Option<Result<String, NamesError>> {
    let (name, kind, is_that) = match general {
        GeneralName::DnsName(name) => {
            let name = name.as_str().to_ascii_lowercase();
            let is_dns = !name.contains([':', '@']);
            (name, "a DNS name", is_dns)
        }
        GeneralName::UniformResourceIdentifier(uri) => {
            let uri = uri.as_str().to_owned();
            let is_uri = uri.contains(':');
            (uri, "a URI", is_uri)
        }
        GeneralName::Rfc822Name(address) => {
            let address = address.as_str().to_owned();
            let is_address = address.contains('@') && !address.contains(':');
            (address, "an e-mail address", is_address)
        }
        _ => return None,
    };
    let has_blank = name.contains(|c: char| c.is_whitespace() || c.is_control());
    Some(if is_that && !has_blank && !name.is_empty() {
        Ok(name)
    } else {
        Err(NamesError::Ambiguous { name, kind })
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn names(names: Vec<SanType>) -> Result<CertificateNames, NamesError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        names_of(certificate.der())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    fn email(address: &str) -> SanType {
        SanType::Rfc822Name(address.try_into().unwrap())
    }

    #[track_caller]
    fn check(given: Vec<SanType>, expected: &[&str]) {
        assert_eq!(&*names(given).unwrap(), expected);
    }

    #[track_caller]
    fn check_refused(given: Vec<SanType>, expected: &str) {
        assert_eq!(names(given).unwrap_err().to_string(), expected);
    }

    #[test]
    fn dns_names_uris_and_addresses_are_names_and_nothing_else_is() {
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let given = vec![
            dns("Orders.Example"),
            address,
            uri("spiffe://example/ns/shop/sa/orders"),
            email("ops@example.org"),
        ];
        let expected = [
            "orders.example",
            "spiffe://example/ns/shop/sa/orders",
            "ops@example.org",
        ];
        check(given, &expected);
        check(vec![], &[]);
    }

    #[test]
    fn a_name_that_looks_like_another_kind_is_refused() {
        check_refused(
            vec![dns("ops@example.org")],
            "`ops@example.org` does not look like a DNS name",
        );
        check_refused(
            vec![dns("spiffe://example")],
            "`spiffe://example` does not look like a DNS name",
        );
        check_refused(
            vec![uri("ops@example.org")],
            "`ops@example.org` does not look like a URI",
        );
        check_refused(
            vec![email("spiffe://a@b")],
            "`spiffe://a@b` does not look like an e-mail address",
        );
        check_refused(vec![uri("a: b")], "`a: b` does not look like a URI");
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let many = |count: usize| (0..count).map(|i| dns(&format!("d{i}"))).collect();
        assert_eq!(names(many(NAMES_MAX)).unwrap().len(), NAMES_MAX);
        check_refused(many(NAMES_MAX + 1), "65 names exceed the limit of 64");
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let garbage = CertificateDer::from(b"garbage".to_vec());
        let refused = names_of(&garbage).unwrap_err();
        assert_eq!(refused.to_string(), "the certificate cannot be decoded");
    }
}
