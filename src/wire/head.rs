//! The fields that every message has, written into a fixed place on the stack and copied out at once.
//!
//! A growing buffer asks for room before each byte; here the room is known to suffice, since texts, whose
//! length is the publisher's choice, do not come here.

use std::time::{Duration, SystemTime};

use prost::encoding::WireType;

/// Room for a sequence (11 bytes), an epoch (9), a place (35), a time (19), a cursor (52), a mark (2), and a key
/// with a length (11); and sixteen for digits that do not count.
const BYTES_MAX: usize = 160;

/// Fields of a protobuf message with numbers below 16, in the order in which they were put.
pub(super) struct Head {
    bytes: [u8; BYTES_MAX],
    end: usize,
}

impl Head {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; BYTES_MAX],
            end: 0,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// The key of a field and the length of what follows.
    pub(super) fn put_length(&mut self, field: u32, bytes: usize) {
        self.put_key(field, WireType::LengthDelimited);
        self.put_raw_varint(bytes as u64);
    }

    pub(super) fn put_varint(&mut self, field: u32, value: u64) {
        self.put_key(field, WireType::Varint);
        self.put_raw_varint(value);
    }

    pub(super) fn put_fixed64(&mut self, field: u32, value: u64) {
        self.put_key(field, WireType::SixtyFourBit);
        self.put(&value.to_le_bytes());
    }

    /// Epoch and sequence in hexadecimal, as [`message_id`](crate::message::message_id) writes them.
    pub(super) fn put_place(&mut self, field: u32, epoch: u64, sequence: u64) {
        self.put_length(field, hex_digits(epoch) + 1 + hex_digits(sequence));
        self.put_hex(epoch);
        self.put(b"-");
        self.put_hex(sequence);
    }

    /// Epoch, position and sequence, as [`Cursor`](crate::cursor::Cursor) writes them.
    pub(super) fn put_cursor(&mut self, field: u32, numbers: [u64; 3]) {
        self.put_length(
            field,
            numbers.into_iter().map(hex_digits).sum::<usize>() + 2,
        );
        let [epoch, position, sequence] = numbers;
        self.put_hex(epoch);
        self.put(b"-");
        self.put_hex(position);
        self.put(b"-");
        self.put_hex(sequence);
    }

    /// A `google.protobuf.Timestamp`. Times before 1970 count as 1970: the broker's clock is past that.
    pub(super) fn put_time(&mut self, field: u32, at: SystemTime) {
        let since = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        self.put_key(field, WireType::LengthDelimited);
        let length = self.end;
        self.put(&[0]);
        if since.as_secs() > 0 {
            self.put_varint(1, since.as_secs());
        }
        if since.subsec_nanos() > 0 {
            self.put_varint(2, since.subsec_nanos().into());
        }
        self.bytes[length] = (self.end - length - 1) as u8;
    }

    fn put_key(&mut self, field: u32, wire_type: WireType) {
        self.put(&[(field << 3) as u8 | wire_type as u8]);
    }

    fn put_raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[value as u8]);
    }

    pub(super) fn put_hex(&mut self, value: u64) {
        let digits = hex_digits(value);
        // All sixteen are written where only the first count: a copy of a fixed size is one store.
        let leading = value << (4 * (16 - digits));
        let text = [(leading >> 32) as u32, leading as u32].map(hex_of);
        let (high, low) = (self.end, self.end + 8);
        self.bytes[high..low].copy_from_slice(&text[0]);
        self.bytes[low..low + 8].copy_from_slice(&text[1]);
        self.end += digits;
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        self.bytes[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }
}

/// Eight hexadecimal digits, all at once: each of the bytes of a `u64` becomes one.
fn hex_of(value: u32) -> [u8; 8] {
    let spread = u64::from(value);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // One where the digit is a letter: 10 and 6 are 16.
    let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

pub(super) fn hex_digits(value: u64) -> usize {
    (value.max(1).ilog2() / 4 + 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Epoch, Sequence, message_id};

    #[test]
    fn the_longest_fields_fit() {
        let mut head = Head::new();
        head.put_varint(15, u64::MAX);
        head.put_fixed64(15, u64::MAX);
        head.put_place(15, u64::MAX, u64::MAX);
        let late = Duration::new(i64::MAX as u64 / 2, 999_999_999);
        head.put_time(15, SystemTime::UNIX_EPOCH + late);
        head.put_cursor(15, [u64::MAX; 3]);
        head.put_varint(15, 1);
        head.put_length(15, usize::MAX);
        assert!(head.end + 16 <= BYTES_MAX);
    }

    #[test]
    fn a_place_is_written_as_the_id_that_a_message_goes_by() {
        let all_digits = 0x0123_4567_89ab_cdef;
        let long = (0..16).map(|digits| all_digits >> (4 * digits));
        for value in [0, 1, 0xf, 0x10, u64::MAX - 1, u64::MAX]
            .into_iter()
            .chain(long)
        {
            let mut head = Head::new();
            head.put_place(1, value, value);
            let id = message_id(None, Epoch(value), Sequence(value));
            assert_eq!(&head.as_bytes()[2..], id.as_bytes());
        }
    }
}
