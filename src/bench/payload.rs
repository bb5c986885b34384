//! What each message carries, so that its receiver can tell latency, loss and order.

use bytes::Bytes;

/// When a message was due, who sent it, and its position among the sender's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Since the benchmark's start.
    pub(super) due_ns: u64,
    pub(super) publisher: u64,
    /// The first is 1.
    pub(super) position: u64,
}

pub(super) const STAMP_BYTES: usize = 24;

impl Stamp {
    /// A payload of `size` bytes, [`STAMP_BYTES`] at least, that begins with the stamp.
    pub(super) fn payload(self, size: usize) -> Bytes {
        let mut payload = Vec::with_capacity(size);
        for field in [self.due_ns, self.publisher, self.position] {
            payload.extend_from_slice(&field.to_le_bytes());
        }
        payload.resize(size, b'x');
        payload.into()
    }

    /// `None` if the payload is not ours.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let field = |at: usize| {
            let bytes = payload.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            due_ns: field(0)?,
            publisher: field(8)?,
            position: field(16)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_way() {
        let stamp = Stamp {
            due_ns: 1,
            publisher: 2,
            position: u64::MAX,
        };
        assert_eq!(Stamp::read(&stamp.payload(100)), Some(stamp));
        assert_eq!(stamp.payload(100).len(), 100);
        assert_eq!(Stamp::read(b"short"), None);
    }
}
