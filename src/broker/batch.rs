//! Messages that were encoded once for many subscribers, one after the other in one piece of memory.
//!
//! Invariants: a batch never changes; the bytes of any run of its messages are a slice of it, so that a
//! mailbox can drop or hand over a part without copying.

use std::{fmt, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::memory::{Held, Memory};
use crate::message::DeliveryRef;

/// How an adapter wants its messages written. Subscribers with the same encoding share the bytes.
pub(crate) struct Encoding {
    /// Which one it is.
    pub(crate) name: &'static str,
    /// Appends one message, complete in itself.
    pub(crate) put: fn(&mut BytesMut, DeliveryRef<'_>),
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoding").field(&self.name).finish()
    }
}

/// Sums over the first messages of a batch, or over a part of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) messages: usize,
    /// As [`Message::size`](crate::message::Message::size) counts them.
    pub(crate) size: usize,
    pub(crate) payload_bytes: usize,
    frames_bytes: usize,
}

impl Sums {
    fn minus(self, less: Self) -> Self {
        Self {
            messages: self.messages - less.messages,
            size: self.size - less.size,
            payload_bytes: self.payload_bytes - less.payload_bytes,
            frames_bytes: self.frames_bytes - less.frames_bytes,
        }
    }
}

/// What is made room for before it is needed, at most: a lone message may wait in a tail for a while.
const GUESS_BYTES_MAX: usize = 8 * 1024;
const GUESS_MESSAGES_MAX: usize = 64;

/// What a batch takes beside its bytes and sums: the allocations that hold them, and an entry of HTTP/2's
/// table of frames; as measured, rounded up.
const BATCH_OVERHEAD_BYTES: usize = 512;

/// A batch that is still being written.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    frames: BytesMut,
    /// After each message, the sums up to it.
    sums: Vec<Sums>,
    /// How large the batch before was: a guess at this one.
    last: Sums,
    held: Option<Held>,
}

impl Tail {
    pub(crate) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sums.last().copied().unwrap_or_default()
    }

    pub(crate) fn frames_bytes(&self) -> usize {
        self.frames.len()
    }

    /// Appends a message that counts for `size` and is written by `put`.
    pub(crate) fn append(
        &mut self,
        size: usize,
        payload_bytes: usize,
        put: impl FnOnce(&mut BytesMut),
    ) {
        if self.is_empty() {
            let last = self.last;
            self.frames.reserve(last.frames_bytes.min(GUESS_BYTES_MAX));
            self.sums.reserve(last.messages.min(GUESS_MESSAGES_MAX));
        }
        put(&mut self.frames);
        let before = self.sums();
        self.sums.push(Sums {
            messages: before.messages + 1,
            size: before.size + size,
            payload_bytes: before.payload_bytes + payload_bytes,
            frames_bytes: self.frames.len(),
        });
        if let Some(held) = &mut self.held {
            held.set(self.frames.capacity() + table_bytes(self.sums.capacity()));
        }
    }

    /// Counts what the tail takes from now on, and what becomes of it.
    pub(crate) fn count_in(&mut self, memory: &Arc<Memory>) {
        self.held.get_or_insert_with(|| memory.hold(0));
    }

    /// What was written, and an empty tail that takes no memory.
    pub(crate) fn seal(&mut self) -> Batch {
        self.last = self.sums();
        let frames = std::mem::take(&mut self.frames);
        // A batch may wait in a slow mailbox for long: it must not hold much more than it is.
        let (frames, bytes) = if frames.capacity() > 2 * frames.len() {
            (Bytes::copy_from_slice(&frames), frames.len())
        } else {
            let bytes = frames.capacity();
            (frames.freeze(), bytes)
        };
        let sums = std::mem::take(&mut self.sums).into_boxed_slice();
        let frames = match self.held.take() {
            // The bytes outlive the batch: a part of them may be in a connection's send buffer.
            Some(mut held) => {
                held.set(bytes + table_bytes(sums.len()) + BATCH_OVERHEAD_BYTES);
                held.count(frames)
            }
            None => frames,
        };
        Batch { frames, sums }
    }
}

fn table_bytes(messages: usize) -> usize {
    messages * size_of::<Sums>()
}

/// Messages in their order, at least one.
#[derive(Debug)]
pub(crate) struct Batch {
    frames: Bytes,
    sums: Box<[Sums]>,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.sums.len()
    }

    /// The sums over a run of messages.
    pub(crate) fn sums(&self, run: Range<usize>) -> Sums {
        self.up_to(run.end).minus(self.up_to(run.start))
    }

    /// The bytes of a run of messages.
    pub(crate) fn frames(&self, run: Range<usize>) -> Bytes {
        let bytes = self.up_to(run.start).frames_bytes..self.up_to(run.end).frames_bytes;
        self.frames.slice(bytes)
    }

    /// The end of the longest run from `start` that counts for `size_max` at most.
    pub(crate) fn fitting(&self, start: usize, size_max: usize) -> usize {
        let max = self.up_to(start).size.saturating_add(size_max);
        self.sums.partition_point(|sums| sums.size <= max)
    }

    fn up_to(&self, end: usize) -> Sums {
        match end {
            0 => Sums::default(),
            end => self.sums[end - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch_of(frames: &[&str]) -> Batch {
        let mut tail = Tail::default();
        for frame in frames {
            tail.append(100 + frame.len(), frame.len(), |out| {
                out.extend_from_slice(frame.as_bytes());
            });
        }
        tail.seal()
    }

    #[test]
    fn any_run_of_messages_is_a_slice_with_its_own_sums() {
        let batch = batch_of(&["a", "bb", "", "dddd"]);
        assert_eq!(batch.len(), 4);
        assert_eq!(batch.frames(0..4), "abbdddd");
        assert_eq!(batch.frames(1..3), "bb");
        let sums = batch.sums(1..4);
        assert_eq!((sums.messages, sums.size, sums.payload_bytes), (3, 306, 6));
        assert_eq!(batch.sums(2..2), Sums::default());
    }

    #[test]
    fn a_tail_knows_what_was_written() {
        let mut tail = Tail::default();
        assert_eq!(tail.frames_bytes(), 0);
        for frame in ["abc", "", "de"] {
            tail.append(1, 1, |out| out.extend_from_slice(frame.as_bytes()));
        }
        assert_eq!(tail.frames_bytes(), 5);
        tail.seal();
        assert_eq!(tail.frames_bytes(), 0);
    }

    #[test]
    fn the_longest_run_that_fits_is_found() {
        let batch = batch_of(&["a", "bb", "", "dddd"]);
        assert_eq!(batch.fitting(0, 100), 0);
        assert_eq!(batch.fitting(0, 101), 1);
        assert_eq!(batch.fitting(1, 202), 3);
        assert_eq!(batch.fitting(1, usize::MAX), 4);
    }

    #[test]
    fn what_a_tail_and_its_batch_take_is_counted_until_the_last_of_it_is_gone() {
        let memory = Arc::new(Memory::new(1 << 20));
        let mut tail = Tail::default();
        tail.append(1, 1, |out| out.extend_from_slice(&[0; 200]));
        tail.seal();
        // The batch before makes room for 200 bytes.
        for (written, kept) in [(200, 200), (150, 200), (100, 200), (99, 99)] {
            tail.count_in(&memory);
            for bytes in [written - 1, 1] {
                tail.append(1, 1, |out| out.extend_from_slice(&vec![0; bytes]));
            }
            let table = tail.sums.capacity() * size_of::<Sums>();
            assert_eq!(memory.used(), 200 + table, "{written}");
            let batch = tail.seal();
            let table = 2 * size_of::<Sums>();
            assert_eq!(memory.used(), kept + table + 512, "{written}");
            let part = batch.frames(0..1);
            drop(batch);
            assert_ne!(memory.used(), 0, "a part is still there");
            drop(part);
            assert_eq!(memory.used(), 0);
            tail.append(1, 1, |out| out.extend_from_slice(&[0; 200]));
            tail.seal();
        }
    }

    #[test]
    fn an_encoding_is_shown_by_its_name() {
        let encoding = Encoding {
            name: "full",
            put: |_, _| {},
        };
        assert_eq!(format!("{encoding:?}"), "Encoding(\"full\")");
    }

    #[test]
    fn a_sealed_batch_holds_little_more_memory_than_it_is() {
        let mut tail = Tail::default();
        tail.append(1, 1, |out| out.extend_from_slice(&[0; 100_000]));
        drop(tail.seal());
        tail.append(1, 1, |out| out.extend_from_slice(&[0; 10]));
        let guessed = tail.frames.capacity();
        assert!((8_000..=8_192).contains(&guessed), "{guessed}");
        let small = tail.seal().frames.try_into_mut().unwrap();
        assert!(small.capacity() < 100);
        assert_eq!((tail.frames.capacity(), tail.sums.capacity()), (0, 0));
    }
}
