//! What a subscriber is told beside its messages: what it lost, and the end of a subscription that the
//! broker has ended.

use crate::cursor::Gap;

/// Why the broker ended a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The mailbox overflowed under [`OverflowPolicy::Disconnect`](super::OverflowPolicy::Disconnect).
    Overflow,
    /// The reader took nothing for too long while messages waited.
    Stalled,
    /// The broker is shutting down; what was buffered is delivered first.
    Draining,
    /// The broker ran short of memory, and this mailbox was among the largest.
    Shed,
    /// The one topic that it was for has ended; what was left of it is delivered first.
    TopicEnded,
    /// The subscriber itself unsubscribed.
    Unsubscribed,
}

/// What a subscriber lost before the messages that it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Messages lost to its overflow policy.
    pub missed: u64,
    /// What it asked for, or stood in line to be read, and was no longer kept.
    pub gap: Gap,
}

/// The end of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscription ended ({reason:?}), {missed} messages missed")]
pub struct Ended {
    /// Why it ended.
    pub reason: EndReason,
    /// Messages lost that no batch has told yet.
    pub missed: u64,
}
