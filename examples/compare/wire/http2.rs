//! HTTP/2's frames, HPACK's references, and gRPC's messages, as bytes (RFC 9113, RFC 7541).
//!
//! What is received is borrowed, and taken only once it is complete.

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const HEADER_BYTES: usize = 9;
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024;
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
}

pub(super) mod flag {
    pub(in super::super) const ACK: u8 = 1;
    pub(in super::super) const END_STREAM: u8 = 1;
    pub(in super::super) const END_HEADERS: u8 = 4;
    pub(in super::super) const PADDED: u8 = 8;
}

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that the bytes begin with, and its length, if it is complete.
    pub(super) fn first(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let header = bytes.get(..HEADER_BYTES)?;
        let length = HEADER_BYTES + (number(&header[..4]) >> 8) as usize;
        let frame = Self {
            kind: header[3],
            flags: header[4],
            stream: number(&header[5..]) & 0x7fff_ffff,
            payload: bytes.get(HEADER_BYTES..length)?,
        };
        Some((frame, length))
    }
}

/// Four bytes, big-endian. Short input reads as if zeros came before it.
pub(super) fn number(bytes: &[u8]) -> u32 {
    let read = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
    bytes.iter().take(4).fold(0, read)
}

pub(super) fn put_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

pub(super) fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put_header(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Headers that enter HPACK's dynamic table but for the first two, which are in the static one.
pub(super) fn first_headers(service: &str, method: &str) -> Vec<u8> {
    // POST and http; then literals with the static names `:path`, `:authority`, `content-type`.
    let mut block = vec![0x83, 0x86];
    let path = format!("/{service}/{method}");
    let named = [
        (0x44, path.as_str()),
        (0x41, "127.0.0.1"),
        (0x5f, "application/grpc"),
    ];
    for (name, value) in named {
        block.push(name);
        put_text(&mut block, value);
    }
    block.push(0x40);
    put_text(&mut block, "te");
    put_text(&mut block, "trailers");
    block
}

/// The same headers from the table, whose newest entry has index 62.
pub(super) const LATER_HEADERS: [u8; 6] = [0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];

/// A text without Huffman's code, shorter than 127 bytes.
fn put_text(block: &mut Vec<u8>, text: &str) {
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

/// A message with gRPC's prefix.
pub(super) fn grpc(message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes
}

/// Calls with each complete message in `partial` and `data`, and leaves the rest in `partial`.
pub(super) fn each_message(
    partial: &mut Vec<u8>,
    mut data: &[u8],
    mut call: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const PREFIX_BYTES: usize = 5;
    let length = |bytes: &[u8]| Some(PREFIX_BYTES + number(bytes.get(1..PREFIX_BYTES)?) as usize);
    while !partial.is_empty() {
        let wanted = length(partial).unwrap_or(PREFIX_BYTES);
        let (missing, rest) = data.split_at(data.len().min(wanted - partial.len()));
        partial.extend_from_slice(missing);
        data = rest;
        match length(partial) {
            Some(length) if length == partial.len() => {
                call(&partial[PREFIX_BYTES..])?;
                partial.clear();
            }
            _ if data.is_empty() => return Ok(()),
            _ => {}
        }
    }
    while let Some(message) = length(data).and_then(|length| data.get(..length)) {
        call(&message[PREFIX_BYTES..])?;
        data = &data[message.len()..];
    }
    partial.extend_from_slice(data);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_wherever_frames_split_them() {
        let messages: Vec<Vec<u8>> = (0..5).map(|n| vec![n; n as usize * 3]).collect();
        let mut bytes = Vec::new();
        for message in &messages {
            bytes.push(0);
            bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
            bytes.extend_from_slice(message);
        }
        for size in 1..=bytes.len() {
            let (mut partial, mut found) = (Vec::new(), Vec::new());
            for data in bytes.chunks(size) {
                let found = |message: &[u8]| {
                    found.push(message.to_vec());
                    Ok(())
                };
                each_message(&mut partial, data, found).unwrap();
            }
            assert_eq!(found, messages, "in pieces of {size}");
            assert!(partial.is_empty());
        }
    }

    #[test]
    fn a_frame_is_taken_once_it_is_complete() {
        let mut bytes = Vec::new();
        put_header(&mut bytes, 3, kind::DATA, flag::END_STREAM, 7);
        bytes.extend_from_slice(b"abc");
        assert!(Frame::first(&bytes[..11]).is_none());
        let (frame, length) = Frame::first(&bytes).unwrap();
        assert_eq!((frame.stream, frame.payload, length), (7, &b"abc"[..], 12));
    }
}
