//! Answers' fields to header blocks (RFC 7541, section 6).
//!
//! Two fields are said again and again: that an answer is gRPC, and that all went well. These are added to the
//! peer's table when they are said first, and are one byte from then on; everything else is said in full, so
//! that nothing is looked up and nothing kept, here or there.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// What the two fields take in a table, and its smallest size with which they are added: less is asked for
/// by peers that have no memory for tables.
const TABLE_BYTES_MIN: u32 = 256;

/// A table's size unless the peer says otherwise (RFC 9113, section 6.5.2).
const TABLE_BYTES: u32 = 4_096;

/// The first index of what was added (section 2.3.3).
const DYNAMIC: u8 = 62;

const STATUS: u8 = 8;

static GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static OK: HeaderValue = HeaderValue::from_static("0");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usual {
    ContentType,
    GrpcStatus,
}

#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// What was added, the oldest first.
    added: [Option<Usual>; 2],
    /// The peer's table is too small to add anything.
    is_plain: bool,
    /// How much of the peer's table is used at most, once it has allowed less than all know.
    table_bytes: Option<u32>,
    /// The peer has to be told so.
    is_to_say: bool,
}

impl Encoder {
    /// The peer says how large its table is.
    pub(crate) fn resize(&mut self, size_max: u32) {
        if size_max >= self.table_bytes.unwrap_or(TABLE_BYTES) || self.is_plain {
            return;
        }
        self.is_plain = size_max < TABLE_BYTES_MIN;
        self.is_to_say = true;
        if self.is_plain {
            self.table_bytes = Some(0);
            self.added = [None; 2];
        } else {
            self.table_bytes = Some(size_max);
        }
    }

    pub(crate) fn put_head(&mut self, out: &mut BytesMut, status: StatusCode, fields: &HeaderMap) {
        self.begin(out);
        let in_table = match status.as_u16() {
            200 => Some(8),
            204 => Some(9),
            206 => Some(10),
            304 => Some(11),
            400 => Some(12),
            404 => Some(13),
            500 => Some(14),
            _ => None,
        };
        match in_table {
            Some(index) => out.put_u8(0x80 | index),
            None => {
                out.put_u8(STATUS);
                put_string(out, status.as_str().as_bytes());
            }
        }
        self.put_fields(out, fields);
    }

    pub(crate) fn put_trailers(&mut self, out: &mut BytesMut, fields: &HeaderMap) {
        self.begin(out);
        self.put_fields(out, fields);
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if std::mem::take(&mut self.is_to_say)
            && let Some(table_bytes) = self.table_bytes
        {
            // The table's new size may be said at the beginning of a block alone (section 4.2).
            put_integer(out, 0x20, 5, table_bytes as usize);
        }
    }

    fn put_fields(&mut self, out: &mut BytesMut, fields: &HeaderMap) {
        for (name, value) in fields {
            let usual = if *name == header::CONTENT_TYPE && *value == GRPC {
                Some(Usual::ContentType)
            } else if *name == GRPC_STATUS && *value == OK {
                Some(Usual::GrpcStatus)
            } else {
                None
            };
            match usual {
                Some(usual) if !self.is_plain && !value.is_sensitive() => {
                    self.put_usual(out, usual, name, value);
                }
                _ => {
                    // Sensitive values are never to be indexed, by anybody on the way.
                    out.put_u8(if value.is_sensitive() { 0x10 } else { 0 });
                    put_string(out, name.as_str().as_bytes());
                    put_string(out, value.as_bytes());
                }
            }
        }
    }

    fn put_usual(
        &mut self,
        out: &mut BytesMut,
        usual: Usual,
        name: &HeaderName,
        value: &HeaderValue,
    ) {
        let count = self.added.iter().flatten().count();
        match self.added.iter().position(|added| *added == Some(usual)) {
            // The newest is the first.
            Some(at) => out.put_u8(0x80 | (DYNAMIC + (count - 1 - at) as u8)),
            None => {
                self.added[count] = Some(usual);
                out.put_u8(0x40);
                put_string(out, name.as_str().as_bytes());
                put_string(out, value.as_bytes());
            }
        }
    }
}

/// Appends a string as it is (section 5.2).
fn put_string(out: &mut BytesMut, string: &[u8]) {
    put_integer(out, 0, 7, string.len());
    out.put_slice(string);
}

/// Appends an integer of which `prefix_bits` are in its first byte, below `first` (section 5.1).
fn put_integer(out: &mut BytesMut, first: u8, prefix_bits: u32, integer: usize) {
    let mask = (1 << prefix_bits) - 1;
    if integer < mask {
        return out.put_u8(first | integer as u8);
    }
    out.put_u8(first | mask as u8);
    let mut rest = integer - mask;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}
