//! What waits in a mailbox: messages on their own, and runs of batches that other mailboxes hold, too.
//!
//! Invariants: messages leave in the order in which they came; `messages` and `bytes` are exactly those
//! of what waits.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::batch::Batch;
use crate::{
    cursor::{Cursor, Gap},
    message::Delivery,
};

/// How much one take may hand over. At least one message is always handed over.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    /// In messages.
    pub messages: usize,
    /// In bytes, as [`Delivery::size`] counts them.
    pub bytes: usize,
}

/// A mailbox's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxSize {
    /// In messages; at least 1.
    pub messages: usize,
    /// In bytes, as [`Delivery::size`] counts them.
    pub bytes: usize,
}

impl MailboxSize {
    /// One part of so many equal ones of a mailbox's room, and never nothing.
    pub(crate) fn share(self, parts: usize) -> Room {
        Room {
            messages: self.messages.div_ceil(parts),
            bytes: self.bytes.div_ceil(parts),
        }
    }
}

/// What fits into a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Room {
    pub(crate) const NONE: Self = Self {
        messages: 0,
        bytes: 0,
    };
    pub(crate) const UNBOUNDED: Self = Self {
        messages: usize::MAX,
        bytes: usize::MAX,
    };

    pub(crate) fn covers(self, other: Self) -> bool {
        self.messages >= other.messages && self.bytes >= other.bytes
    }

    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            messages: self.messages.min(other.messages),
            bytes: self.bytes.min(other.bytes),
        }
    }
}

/// What a reader takes.
#[derive(Clone, Debug)]
pub(crate) enum Taken {
    /// So many messages were lost before what follows.
    Missed(u64),
    /// What was asked for and is no longer kept; comes before the messages after it. And from where to go on if
    /// none of them comes, where that is known.
    Gap(Gap, Option<Cursor>),
    /// A message that is still to be encoded.
    Delivery(Arc<Delivery>),
    /// Messages in the encoding that the subscriber asked for.
    Frames(Bytes),
}

/// What waits in a mailbox, at least one message.
#[derive(Clone, Debug)]
enum Parcel {
    One(Arc<Delivery>),
    /// The messages of a batch from this one on.
    Rest(Arc<Batch>, usize),
}

/// What one take handed over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taking {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) payload_bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    parcels: VecDeque<Parcel>,
    messages: usize,
    /// As [`Delivery::size`] counts them.
    bytes: usize,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a mailbox of this size has left.
    pub(crate) fn room(&self, size: MailboxSize) -> Room {
        Room {
            messages: size.messages - self.messages,
            bytes: size.bytes - self.bytes,
        }
    }

    pub(crate) fn push(&mut self, delivery: &Arc<Delivery>) {
        self.messages += 1;
        self.bytes += delivery.size();
        self.parcels.push_back(Parcel::One(Arc::clone(delivery)));
    }

    pub(crate) fn push_batch(&mut self, batch: &Arc<Batch>) {
        let sums = batch.sums(0..batch.len());
        self.messages += sums.messages;
        self.bytes += sums.size;
        self.parcels.push_back(Parcel::Rest(Arc::clone(batch), 0));
    }

    /// Hands over what is in front, or of a batch as much as there is `left` for; says how much it was. `None` if there is nothing, or none of it fits and it is not the first.
    pub(crate) fn take(
        &mut self,
        left: Room,
        is_first: bool,
        into: &mut impl FnMut(Taken),
    ) -> Option<Taking> {
        let (messages, size, payload_bytes, is_done) = match self.parcels.front_mut()? {
            Parcel::One(delivery) => {
                let size = delivery.size();
                if !is_first && size > left.bytes {
                    return None;
                }
                into(Taken::Delivery(Arc::clone(delivery)));
                (1, size, delivery.message.payload.len(), true)
            }
            Parcel::Rest(batch, from) => {
                let least = *from + usize::from(is_first);
                let most = from.saturating_add(left.messages);
                let end = batch.fitting(*from, left.bytes).min(most).max(least);
                if end == *from {
                    return None;
                }
                let sums = batch.sums(*from..end);
                into(Taken::Frames(batch.frames(*from..end)));
                *from = end;
                let is_done = end == batch.len();
                (sums.messages, sums.size, sums.payload_bytes, is_done)
            }
        };
        if is_done {
            self.parcels.pop_front();
        }
        self.messages -= messages;
        self.bytes -= size;
        Some(Taking {
            messages,
            bytes: size,
            payload_bytes,
        })
    }

    /// Drops the oldest message; says what it counted for.
    pub(crate) fn pop_oldest(&mut self) -> Option<usize> {
        let (size, is_last) = match self.parcels.front_mut()? {
            Parcel::One(delivery) => (delivery.size(), true),
            Parcel::Rest(batch, from) => {
                let size = batch.sums(*from..*from + 1).size;
                *from += 1;
                (size, *from == batch.len())
            }
        };
        if is_last {
            self.parcels.pop_front();
        }
        self.messages -= 1;
        self.bytes -= size;
        Some(size)
    }

    /// Gives back what a burst took and no longer needs.
    pub(crate) fn shrink(&mut self) {
        if self.parcels.is_empty() && self.parcels.capacity() > 0 {
            self.parcels = VecDeque::new();
        }
    }

    /// What the queue itself takes, beside what waits in it, in bytes.
    pub(crate) fn table_bytes(&self) -> usize {
        self.parcels.capacity() * size_of::<Parcel>()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.parcels.capacity()
    }
}
