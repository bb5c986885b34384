//! From fields to a request's head, by the rules of RFC 9113, section 8.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header,
    uri::{self, Authority, PathAndQuery, Scheme},
};

use super::hpack::{Field, Value};

/// What a map of headers takes for each name that it has room for, with the index of names.
const NAME_BYTES: usize = 112;
/// What it takes for each value after the first of a name.
const FURTHER_VALUE_BYTES: usize = 72;
/// What a text takes beside itself, once it is shared: as measured, rounded up. What comes from a table
/// shares it with that, and counts all the same.
const TEXT_BYTES: usize = 56;

/// What a map of headers takes in memory, beside their texts.
pub(crate) fn map_bytes(headers: &HeaderMap) -> usize {
    // A list of further values doubles as it grows.
    let room = match headers.len() - headers.keys_len() {
        0 => 0,
        values => values.next_power_of_two(),
    };
    headers.capacity() * NAME_BYTES + room * FURTHER_VALUE_BYTES
}

/// A request's head as its fields come in.
#[derive(Debug, Default)]
pub(super) struct Head {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    headers: HeaderMap,
    /// Names and values.
    text_bytes: usize,
    /// A header has come: no pseudo-header may follow.
    has_header: bool,
    pub(super) is_malformed: bool,
}

impl Head {
    pub(super) fn add(&mut self, field: &Field) {
        self.text_bytes += field.text_bytes();
        // Each pseudo-header may come once, and before all headers.
        let is_valid = match &field.value {
            Value::Method(method) => self.pseudo(|head| &mut head.method, method),
            Value::Scheme(scheme) => self.pseudo(|head| &mut head.scheme, scheme),
            Value::Authority(authority) => self.pseudo(|head| &mut head.authority, authority),
            Value::Path(path) => self.pseudo(|head| &mut head.path, path),
            Value::Header(name, value) => {
                self.has_header = true;
                // There may be no more headers than fit into the limit on their size.
                is_allowed(name, value) && self.headers.try_append(name, value.clone()).is_ok()
            }
            Value::NoRequest | Value::Malformed(_) => false,
        };
        self.is_malformed |= !is_valid;
    }

    /// Looks at a field that comes after the body, where nothing is asked for any more.
    pub(super) fn check_trailer(&mut self, field: &Field) {
        let is_valid =
            matches!(&field.value, Value::Header(name, value) if is_allowed(name, value));
        self.is_malformed |= !is_valid;
    }

    /// What the head takes in memory, or somewhat less.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.headers.keys_len() + self.headers.len();
        self.text_bytes + map_bytes(&self.headers) + texts * TEXT_BYTES
    }

    fn pseudo<T: Clone>(
        &mut self,
        of: impl FnOnce(&mut Self) -> &mut Option<T>,
        value: &T,
    ) -> bool {
        let comes_late = self.has_header;
        let before = of(self).replace(value.clone());
        before.is_none() && !comes_late
    }

    /// The request, and how many bytes its body says to have; `None` if that is malformed.
    pub(super) fn into_request(self) -> Option<(Request<()>, Option<u64>)> {
        // Who asks for a tunnel says neither scheme nor path; we have none.
        let (Some(method), Some(scheme), Some(path)) = (self.method, self.scheme, self.path) else {
            return None;
        };
        if self.is_malformed {
            return None;
        }
        let mut target = uri::Parts::default();
        // A URI without an authority cannot say its scheme.
        target.scheme = self.authority.is_some().then_some(scheme);
        target.authority = self.authority;
        target.path_and_query = Some(path);
        let body_bytes = body_bytes(&self.headers)?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(target).ok()?;
        *request.headers_mut() = self.headers;
        Some((request, body_bytes))
    }
}

/// Whether a header is not about a connection of HTTP/1.1 (section 8.2.2).
fn is_allowed(name: &HeaderName, value: &HeaderValue) -> bool {
    let is_of_http1 = *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == "keep-alive"
        || *name == "proxy-connection";
    !is_of_http1 && (*name != header::TE || value == "trailers")
}

/// What `content-length` says, if it does; `None` if it says no number, or two.
fn body_bytes(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Some(None);
    };
    let text = value.to_str().ok()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || values.any(|other| other != value) {
        return None;
    }
    text.parse().ok().map(Some)
}
