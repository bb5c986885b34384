//! The tables that fields are looked up in: one that all know, and one that a peer has filled (RFC 7541,
//! section 2.3 and appendix A).

use std::{collections::VecDeque, sync::LazyLock};

use bytes::Bytes;

use super::field::{ENTRY_BYTES, Field, Name};

/// What name and value of an entry take beside their texts, which are shared with requests: as measured,
/// rounded up.
const TEXTS_BYTES: usize = 112;

/// Appendix A, in its order. Entries without a value are there for their names.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The static table, parsed.
static PARSED: LazyLock<Vec<(Name, Field)>> = LazyLock::new(|| {
    let parse = |(name, value): &(&'static str, &'static str)| {
        let text = Bytes::from_static(value.as_bytes());
        let parsed = Name::parse(name.as_bytes());
        (parsed.clone(), Field::new(parsed, name.len(), text))
    };
    STATIC.iter().map(parse).collect()
});

/// The entries that a peer has added, the newest first.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Field>,
    size: usize,
    size_max: usize,
}

impl Table {
    pub(super) fn new(size_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            size_max,
        }
    }

    /// The field at an index, from 1 on.
    pub(super) fn field(&self, index: usize) -> Option<&Field> {
        match index.checked_sub(1)?.checked_sub(STATIC.len()) {
            Some(dynamic) => self.entries.get(dynamic),
            None => PARSED.get(index - 1).map(|(_, field)| field),
        }
    }

    /// The name at an index, and its length.
    pub(super) fn name(&self, index: usize) -> Option<(Name, usize)> {
        if let Some((name, field)) = PARSED.get(index.checked_sub(1)?) {
            return Some((name.clone(), field.name_bytes));
        }
        self.field(index)
            .map(|field| (field.name(), field.name_bytes))
    }

    pub(super) fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.make_room(0);
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Adds a field; one that is larger than the table empties it (section 4.4).
    pub(super) fn add(&mut self, field: Field) {
        let size = field.size();
        self.make_room(size);
        if size <= self.size_max {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    /// What the entries take, as allocated, or somewhat less.
    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.len();
        let texts = self.size - entries * ENTRY_BYTES;
        self.entries.capacity() * size_of::<Field>() + texts + entries * TEXTS_BYTES
    }

    fn make_room(&mut self, size: usize) {
        while self.size + size > self.size_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }
}
