//! Frames as they are on the wire (RFC 9113, sections 4 and 6), and the codes for errors (section 7).

use bytes::{BufMut, BytesMut};

/// What every connection of a client begins with (section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The head of each frame.
pub(super) const HEADER_BYTES: usize = 9;
/// The largest payload that a frame may have unless a peer allows more (section 4.2); we do not.
pub(super) const FRAME_BYTES_MAX: usize = 16_384;
/// The largest window (section 6.9.1).
pub(super) const WINDOW_MAX: i64 = (1 << 31) - 1;
/// The window of a stream and of a connection unless told otherwise (section 6.9.2).
pub(super) const WINDOW_DEFAULT: i64 = 65_535;

pub(super) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(super) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Why a stream was reset or a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(crate) const STREAM_CLOSED: Self = Self(5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(6);
    pub(crate) const REFUSED_STREAM: Self = Self(7);
    pub(crate) const CANCEL: Self = Self(8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// What is in front of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Of the payload, in bytes.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0 is the connection itself.
    pub(super) stream: u32,
}

impl FrameHead {
    /// The head at the front of `bytes`, if it is there in full.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s, t, u, v] = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The first bit is reserved, and ignored.
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
        })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [s, t, u, v] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, s, t, u, v]
    }

    pub(super) fn put(self, out: &mut BytesMut) {
        out.put_slice(&self.bytes());
    }

    /// Writes the head to where room was left for it.
    pub(super) fn write_at(self, out: &mut [u8]) {
        out[..HEADER_BYTES].copy_from_slice(&self.bytes());
    }
}

/// Appends a frame whose payload is short.
pub(super) fn put(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.reserve(HEADER_BYTES + payload.len());
    let length = payload.len();
    FrameHead {
        length,
        kind,
        flags,
        stream,
    }
    .put(out);
    out.put_slice(payload);
}

pub(super) fn put_reset(out: &mut BytesMut, stream: u32, reason: Reason) {
    put(out, kind::RST_STREAM, 0, stream, &reason.0.to_be_bytes());
}

pub(super) fn put_window_update(out: &mut BytesMut, stream: u32, bytes: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

pub(super) fn put_goaway(out: &mut BytesMut, last_stream: u32, reason: Reason) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last_stream.to_be_bytes());
    payload[4..].copy_from_slice(&reason.0.to_be_bytes());
    put(out, kind::GOAWAY, 0, 0, &payload);
}

/// A number of 31 bits at the front of a payload; the first bit is reserved, and ignored.
pub(super) fn read_31_bits(payload: &[u8]) -> Option<u32> {
    payload
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// Takes the padding off a payload (section 6.1); `None` if there is more of it than there is payload.
pub(super) fn unpad(head: FrameHead, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(padding.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = FrameHead {
            length: 0x01_02_03,
            kind: kind::PING,
            flags: flag::ACK,
            stream: 0x7fff_fffe,
        };
        let mut out = BytesMut::new();
        head.put(&mut out);
        assert_eq!(FrameHead::read(&out), Some(head));
        out[5] |= 0x80;
        assert_eq!(
            FrameHead::read(&out),
            Some(head),
            "the first bit is reserved"
        );
        assert_eq!(FrameHead::read(&out[..8]), None);
    }

    #[test]
    fn padding_is_taken_off_and_must_fit() {
        let head = |flags| FrameHead {
            length: 0,
            kind: kind::HEADERS,
            flags,
            stream: 1,
        };
        assert_eq!(unpad(head(0), &[2, 7]), Some(&[2, 7][..]));
        let padded = head(flag::PADDED);
        assert_eq!(unpad(padded, &[2, 7, 0, 0]), Some(&[7][..]));
        assert_eq!(unpad(padded, &[2, 0, 0]), Some(&[][..]));
        assert_eq!(unpad(padded, &[2, 0]), None);
        assert_eq!(unpad(padded, &[]), None);
    }
}
