//! Header fields, as a request has them: parsed once, and cheap to clone from a table.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method,
    uri::{Authority, PathAndQuery, Scheme},
};

/// What a table counts for each of its entries beside name and value (RFC 7541, section 4.1).
pub(super) const ENTRY_BYTES: usize = 32;

/// A field's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Authority,
    Method,
    Path,
    Scheme,
    /// A pseudo-header that no request has: `:status`, `:protocol`, or one that nobody knows.
    NoRequest,
    Header(HeaderName),
    /// Not a name, as HTTP/2 has them: in capitals, or of bytes that no name has.
    Malformed,
}

impl Name {
    pub(super) fn parse(name: &[u8]) -> Self {
        match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            [b':', ..] => Self::NoRequest,
            name => HeaderName::from_lowercase(name).map_or(Self::Malformed, Self::Header),
        }
    }
}

/// What a field says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Authority(Authority),
    Method(Method),
    Path(PathAndQuery),
    Scheme(Scheme),
    NoRequest,
    Header(HeaderName, HeaderValue),
    /// Nothing that HTTP allows, under its name. It is a field all the same, which a table counts and whose
    /// name may be used again.
    Malformed(Name),
}

impl Value {
    fn of_pseudo(name: &Name, text: Bytes) -> Option<Self> {
        match name {
            // No user is told here (RFC 9113, section 8.3.1).
            Name::Authority if text.contains(&b'@') => None,
            Name::Authority => Authority::from_maybe_shared(text).map(Self::Authority).ok(),
            Name::Method => Method::from_bytes(&text).map(Self::Method).ok(),
            // A path has its slash, but for the one that asks about all of a server.
            Name::Path if !text.starts_with(b"/") && text != "*" => None,
            Name::Path => PathAndQuery::from_maybe_shared(text).map(Self::Path).ok(),
            Name::Scheme => Scheme::try_from(&*text).map(Self::Scheme).ok(),
            Name::NoRequest => Some(Self::NoRequest),
            Name::Header(_) | Name::Malformed => None,
        }
    }
}

/// A field, with what it counts for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) value: Value,
    pub(super) name_bytes: usize,
    value_bytes: usize,
}

impl Field {
    pub(super) fn new(name: Name, name_bytes: usize, text: Bytes) -> Self {
        let value_bytes = text.len();
        let value = match name {
            Name::Header(name) => match HeaderValue::from_maybe_shared(text) {
                Ok(value) => Value::Header(name, value),
                Err(_) => Value::Malformed(Name::Header(name)),
            },
            name => Value::of_pseudo(&name, text).unwrap_or(Value::Malformed(name)),
        };
        Self {
            value,
            name_bytes,
            value_bytes,
        }
    }

    /// The field's name.
    pub(super) fn name(&self) -> Name {
        match &self.value {
            Value::Authority(_) => Name::Authority,
            Value::Method(_) => Name::Method,
            Value::Path(_) => Name::Path,
            Value::Scheme(_) => Name::Scheme,
            Value::NoRequest => Name::NoRequest,
            Value::Header(name, _) => Name::Header(name.clone()),
            Value::Malformed(name) => name.clone(),
        }
    }

    /// Name and value.
    pub(crate) fn text_bytes(&self) -> usize {
        self.name_bytes + self.value_bytes
    }

    /// What it counts for, in a table and in a list.
    pub(super) fn size(&self) -> usize {
        self.text_bytes() + ENTRY_BYTES
    }
}
