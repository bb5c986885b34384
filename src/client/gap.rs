//! How much a subscription may have lost while it was away.
//!
//! Sequences have no gaps at the broker. So of all that a topic's life saw between the heads at two
//! starts of a subscription, whatever was neither delivered nor told as missed is lost. Invariant: no
//! loss of one topic is told twice, and none is left out.

use std::fmt;

use crate::{
    cursor::{self, Cursor},
    message::{Epoch, Sequence},
};

/// Where a topic stood when a subscription to it went live: the first message comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The topic's life.
    pub epoch: Epoch,
    /// The sequence of its newest message; 0 before the first.
    pub head: Sequence,
}

/// What a subscription may have lost between the end of one connection and its return on the next,
/// beyond what [`Event::Missed`](super::Event::Missed) told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Nothing was lost, but for what an [`Event::Gap`](super::Event::Gap) that follows says is no longer kept.
    None,
    /// So many messages were lost.
    Exactly(u64),
    /// So many messages were published that did not arrive here; some of them were for other members
    /// of the group, or carry other tags.
    AtMost(u64),
    /// Nothing of what the broker keeps, which follows, or an [`Event::Gap`](super::Event::Gap) in its place. How
    /// much of topics without history is not known: the filter has a wildcard.
    NotKept,
    /// How many is not known: the filter has a wildcard, or the topic began a new
    /// [epoch](crate::message::Epoch), as it does when the broker restarts.
    Unknown,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::Exactly(1) => f.write_str("1 message"),
            Self::Exactly(count) => write!(f, "{count} messages"),
            Self::AtMost(count) => write!(f, "at most {count} messages"),
            Self::NotKept => f.write_str("nothing of what is kept"),
            Self::Unknown => f.write_str("an unknown number of messages"),
        }
    }
}

/// What one life of a subscription accounts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Where it began, if the filter is one topic.
    start: Option<Start>,
    /// Whether every message of the topic is for this subscription.
    all: bool,
    /// Messages received and misses told since.
    settled: u64,
    /// Whether it was to begin with what had been published before, and nothing of that has come yet.
    is_awaited: bool,
}

impl Account {
    pub(super) fn new(start: Option<Start>, all: bool) -> Self {
        Self {
            start,
            all,
            settled: 0,
            is_awaited: false,
        }
    }

    /// The account of a life that began with what had been published before.
    pub(super) fn with_replay(start: Option<Start>, all: bool) -> Self {
        Self {
            is_awaited: true,
            ..Self::new(start, all)
        }
    }

    /// Counts a message.
    pub(super) fn receive(&mut self, epoch: Epoch, sequence: Sequence) {
        if std::mem::take(&mut self.is_awaited)
            && let Some(start) = &mut self.start
            && start.epoch == epoch
            && sequence <= start.head
        {
            // All that follows the first message is accounted for.
            start.head = Sequence(sequence.0.saturating_sub(1));
        }
        self.settle(1);
    }

    /// Counts what was told to be no longer kept.
    pub(super) fn give_up(&mut self, gone: cursor::Gap) {
        if self.is_awaited {
            // It comes before the first message, and so before the account.
        } else if gone.at_least {
            self.start = None;
        } else {
            self.settle(gone.missing);
        }
    }

    /// Counts messages received or told as missed.
    pub(super) fn settle(&mut self, count: u64) {
        self.settled = self.settled.saturating_add(count);
    }

    /// What is lost if the next life begins at `next`; and the account of that life.
    pub(super) fn resume(&mut self, next: Option<Start>) -> Gap {
        let gap = self.gap(next);
        *self = Self::new(next, self.all);
        gap
    }

    /// The account of a life that goes on after a message.
    pub(super) fn after(cursor: Cursor, start: Option<Start>, all: bool) -> Self {
        match start {
            Some(Start { epoch, .. }) if epoch == cursor.epoch => {
                let head = cursor.sequence;
                Self::new(Some(Start { epoch, head }), all)
            }
            start => Self::with_replay(start, all),
        }
    }

    fn gap(&self, next: Option<Start>) -> Gap {
        let (Some(then), Some(now), false) = (self.start, next, self.is_awaited) else {
            return Gap::Unknown;
        };
        if then.epoch != now.epoch {
            return Gap::Unknown;
        }
        let published = now.head.0.checked_sub(then.head.0);
        match published.and_then(|published| published.checked_sub(self.settled)) {
            // More arrived than was published: these heads cannot be trusted.
            None => Gap::Unknown,
            Some(0) => Gap::None,
            Some(lost) if self.all => Gap::Exactly(lost),
            Some(lost) => Gap::AtMost(lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, head: u64) -> Option<Start> {
        Some(Start {
            epoch: Epoch(epoch),
            head: Sequence(head),
        })
    }

    #[track_caller]
    fn check(then: Option<Start>, all: bool, settled: u64, next: Option<Start>, expected: Gap) {
        let mut account = Account::new(then, all);
        account.settle(settled);
        assert_eq!(account.resume(next), expected);
        assert_eq!(
            account,
            Account::new(next, all),
            "the next life starts afresh"
        );
    }

    #[test]
    fn what_is_neither_received_nor_told_is_lost() {
        check(at(1, 0), true, 0, at(1, 0), Gap::None);
        check(at(1, 10), true, 0, at(1, 10), Gap::None);
        check(at(1, 10), true, 0, at(1, 13), Gap::Exactly(3));
        check(at(1, 10), true, 3, at(1, 13), Gap::None);
        check(at(1, 0), true, 10, at(1, 20), Gap::Exactly(10));
    }

    /// Received 10 of a mailbox of 16, told that 5 after those were missed, and away until 25.
    #[test]
    fn a_miss_told_ahead_of_waiting_messages_is_not_told_again() {
        let mut account = Account::new(at(1, 0), true);
        account.settle(10);
        account.settle(5);
        assert_eq!(account.resume(at(1, 25)), Gap::Exactly(10));
        assert_eq!(account.resume(at(1, 25)), Gap::None);
    }

    #[test]
    fn what_was_replayed_counts_from_its_first_message() {
        let replaying = || Account::with_replay(at(1, 10), true);
        let receive = |account: &mut Account, sequences: std::ops::RangeInclusive<u64>| {
            sequences.for_each(|sequence| account.receive(Epoch(1), Sequence(sequence)));
        };
        let mut account = replaying();
        assert_eq!(account.resume(at(1, 12)), Gap::Unknown, "nothing had come");
        let mut account = replaying();
        account.give_up(cursor::Gap::exactly(3));
        receive(&mut account, 4..=7);
        assert_eq!(account.resume(at(1, 12)), Gap::Exactly(5));
        let mut account = replaying();
        receive(&mut account, 4..=5);
        account.give_up(cursor::Gap::exactly(2));
        receive(&mut account, 8..=12);
        assert_eq!(account.resume(at(1, 12)), Gap::None);
        let mut account = replaying();
        receive(&mut account, 11..=12);
        assert_eq!(
            account.resume(at(1, 13)),
            Gap::Exactly(1),
            "nothing was kept"
        );
        let mut account = replaying();
        receive(&mut account, 4..=5);
        account.give_up(cursor::Gap::at_least(1));
        assert_eq!(account.resume(at(1, 13)), Gap::Unknown);
    }

    #[test]
    fn messages_for_others_make_it_an_upper_bound() {
        check(at(1, 10), false, 2, at(1, 20), Gap::AtMost(8));
        check(at(1, 10), false, 10, at(1, 20), Gap::None);
    }

    #[test]
    fn what_does_not_compare_is_unknown() {
        check(None, true, 3, None, Gap::Unknown);
        check(at(1, 10), true, 3, None, Gap::Unknown);
        check(None, true, 3, at(1, 10), Gap::Unknown);
        check(at(1, 10), true, 0, at(2, 10), Gap::Unknown);
        check(at(1, 10), true, 0, at(1, 9), Gap::Unknown);
        check(at(1, 10), true, 4, at(1, 13), Gap::Unknown);
        check(at(1, 0), true, u64::MAX, at(1, 13), Gap::Unknown);
    }
}
