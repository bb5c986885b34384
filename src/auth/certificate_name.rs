//! The names by which an auth file knows certificates.
//!
//! Only what a verified certificate can show is one: a name that never comes would be a user who is locked out, or
//! a rule that nobody falls under, without a word.

use std::{net::IpAddr, str::FromStr};

/// A DNS name (in lower case, as they come to us), an e-mail address or a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateName(String);

/// Why a text is no such name. It is not repeated: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no name that counts in a certificate: write a DNS name, an e-mail address or a URI as it stands there"
)]
pub struct CertificateNameError;

impl FromStr for CertificateName {
    type Err = CertificateNameError;

    fn from_str(text: &str) -> Result<Self, CertificateNameError> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || text.parse::<IpAddr>().is_ok() {
            return Err(CertificateNameError);
        }
        // What a name's kind is says [`CertificateNames`](crate::certificate::CertificateNames).
        if let Some((scheme, rest)) = text.split_once(':') {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
            return Self::checked(text.to_owned(), is_scheme && !rest.is_empty());
        }
        if let Some((mailbox, host)) = text.rsplit_once('@') {
            return Self::checked(text.to_owned(), !mailbox.is_empty() && is_dns(host));
        }
        Self::checked(text.to_ascii_lowercase(), is_dns(text))
    }
}

impl CertificateName {
    fn checked(name: String, is_one: bool) -> Result<Self, CertificateNameError> {
        is_one.then_some(Self(name)).ok_or(CertificateNameError)
    }
}

impl From<CertificateName> for String {
    fn from(name: CertificateName) -> Self {
        name.0
    }
}

/// Labels of letters, digits, `-` and `_`; the first may be `*`.
fn is_dns(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.bytes().all(is_part)
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.strip_prefix("*.")
        .unwrap_or(text)
        .split('.')
        .all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_certificate_can_show_is_a_name_and_nothing_else_is() {
        let check = |text: &str, expected: Option<&str>| {
            let name = text.parse::<CertificateName>().ok().map(String::from);
            assert_eq!(name.as_deref(), expected, "{text:?}");
        };
        for name in [
            "alice",
            "orders_1.example",
            "*.example.",
            "spiffe://Fleet/alice",
            "urn:uuid:1",
            "ops+x=y@example.org",
        ] {
            check(name, Some(name));
        }
        check("Orders.Example", Some("orders.example"));
        for text in [
            "",
            " ",
            "a b",
            "a\n",
            "é.example",
            "CN=alice",
            "CN=alice,O=x",
            "O=a:b",
            ":x",
            "x:",
            "@x",
            "x@",
            "a@b@",
            "a..b",
            ".",
            "a/b",
            "10.0.0.1",
            "::1",
            "2001:db8::1",
            "a.*",
        ] {
            check(text, None);
        }
    }
}
