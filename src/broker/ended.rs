//! The end of a subscription that the broker has ended: why, and what was lost that nothing has told yet.

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
    /// The subscriber itself unsubscribed.
    Unsubscribed,
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
