//! A broker's address, as people write it: `host:port`, `http://host:port` or `https://host:port`.

use http::Uri;

/// Why a text is not a broker's address. The caller must change it; a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("`{url}` is not a broker's address: write host:port or http://host:port")]
    Malformed {
        /// The text given.
        url: String,
    },
    /// A scheme other than `http` and `https`.
    #[error("`{url}` has the scheme `{scheme}`: this client speaks http and https")]
    Scheme {
        /// The text given.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A host without a port, or with one that cannot be.
    #[error("`{url}` has no port from 1 to 65535: write host:port, such as 127.0.0.1:1234")]
    NoPort {
        /// The text given.
        url: String,
    },
    /// A URL that is not `https`, where options for TLS are given: they would have no effect.
    #[error("`{url}` is plaintext, and TLS is asked for: write https://host:port")]
    Plaintext {
        /// The text given.
        url: String,
    },
    /// More than scheme, host and port. The text is not repeated: it may hold a password.
    #[error("a broker's address has no path, query or user: write host:port or http://host:port")]
    Excess,
}

/// The address as `http://host:port` or `https://host:port`, without anything else.
pub(super) fn parse(text: &str) -> Result<Uri, UrlError> {
    let url = text.to_owned();
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let Ok(uri) = full.parse::<Uri>() else {
        return Err(UrlError::Malformed { url });
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(UrlError::Malformed { url });
    };
    if !matches!(scheme, "http" | "https") {
        let scheme = scheme.to_owned();
        return Err(UrlError::Scheme { url, scheme });
    }
    if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some()
    {
        return Err(UrlError::Excess);
    }
    if authority.host().is_empty() {
        return Err(UrlError::Malformed { url });
    }
    match authority.port_u16() {
        None | Some(0) => Err(UrlError::NoPort { url }),
        Some(_) => Ok(uri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap().to_string(), expected);
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn an_address_may_have_a_scheme_or_not() {
        check("127.0.0.1:1234", "http://127.0.0.1:1234/");
        check("http://127.0.0.1:1234", "http://127.0.0.1:1234/");
        check("http://broker.example:80/", "http://broker.example:80/");
        check("localhost:1234", "http://localhost:1234/");
        check("[::1]:1234", "http://[::1]:1234/");
        check(
            "https://broker.example:1234",
            "https://broker.example:1234/",
        );
    }

    #[test]
    fn a_bad_address_says_what_to_write() {
        const WRITE: &str = "is not a broker's address: write host:port or http://host:port";
        for text in ["", "a b:1", "http://", ":1234"] {
            check_error(text, &format!("`{text}` {WRITE}"));
        }
        check_error(
            "grpc://h:1",
            "`grpc://h:1` has the scheme `grpc`: this client speaks http and https",
        );
        for text in ["broker", "http://broker", "h:0", "h:70000"] {
            check_error(
                text,
                &format!(
                    "`{text}` has no port from 1 to 65535: write host:port, such as 127.0.0.1:1234"
                ),
            );
        }
        for text in ["h:1/topic", "http://h:1/?a=b", "me:secret@h:1"] {
            check_error(
                text,
                "a broker's address has no path, query or user: write host:port or http://host:port",
            );
        }
    }
}
