//! What happens where there is no room: the subscriber's choice.

/// What a full mailbox does. There is no policy that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OverflowPolicy {
    /// Drops the message that does not fit.
    #[default]
    DropNewest,
    /// Drops the oldest messages until the new one fits.
    DropOldest,
    /// Ends the subscription; what the mailbox held is lost.
    Disconnect,
}
