//! The accounts: what was matched, delivered and missed, so that nothing is lost without saying so.
//!
//! Invariant: `matched = delivered + missed + buffered`, for each mailbox under its lock at every
//! moment, and so for every sum of them.

use std::ops::AddAssign;

/// Why a message that matched a subscription did not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissReason {
    /// The mailbox was full and drops its newest.
    DropNewest,
    /// An older message made room for a newer one.
    DropOldest,
    /// The mailbox overflowed and disconnects: what it held, and the message that did not fit.
    Disconnect,
    /// The reader stalled: what its mailbox held when it was ended.
    Stalled,
    /// The subscriber left with messages still in its mailbox.
    Departed,
    /// The broker ran short of memory: what the mailbox held when it was ended.
    Shed,
}

impl MissReason {
    /// Every reason, in the order of [`Ledger::missed`].
    pub const ALL: [Self; 6] = [
        Self::DropNewest,
        Self::DropOldest,
        Self::Disconnect,
        Self::Stalled,
        Self::Departed,
        Self::Shed,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Disconnect => "disconnect",
            Self::Stalled => "stalled",
            Self::Departed => "departed",
            Self::Shed => "shed",
        }
    }
}

/// The account of one mailbox, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Messages that were for the subscriber.
    pub matched: u64,
    /// Messages handed to the subscriber's connection.
    pub delivered: u64,
    /// Payload bytes of the messages delivered.
    pub delivered_bytes: u64,
    /// Messages lost, in the order of [`MissReason::ALL`].
    pub missed: [u64; MissReason::ALL.len()],
    /// Messages still in the mailbox.
    pub buffered: u64,
}

impl Ledger {
    /// All messages lost, for whatever reason.
    #[must_use]
    pub fn missed_total(&self) -> u64 {
        self.missed.iter().sum()
    }

    /// Whether every matched message is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.matched == self.delivered + self.missed_total() + self.buffered
    }

    pub(crate) fn miss(&mut self, reason: MissReason, count: u64) {
        self.missed[reason as usize] += count;
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.matched += other.matched;
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.buffered += other.buffered;
        for (sum, more) in self.missed.iter_mut().zip(other.missed) {
            *sum += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_column() {
        let mut ledger = Ledger::default();
        for (column, reason) in MissReason::ALL.into_iter().enumerate() {
            ledger.miss(reason, 1);
            assert_eq!(ledger.missed[column], 1, "{}", reason.as_str());
        }
        assert_eq!(ledger.missed_total(), MissReason::ALL.len() as u64);
        let labels = MissReason::ALL.map(MissReason::as_str);
        let expected = [
            "drop_newest",
            "drop_oldest",
            "disconnect",
            "stalled",
            "departed",
            "shed",
        ];
        assert_eq!(labels, expected);
    }

    #[test]
    fn a_message_that_is_in_no_column_unbalances_the_account_and_every_sum_of_it() {
        let mut ledger = Ledger {
            matched: 10,
            delivered: 5,
            delivered_bytes: 50,
            buffered: 2,
            ..Ledger::default()
        };
        ledger.miss(MissReason::Stalled, 2);
        assert!(!ledger.balances());
        ledger.miss(MissReason::Shed, 1);
        assert!(ledger.balances());
        let mut sum = ledger;
        sum += ledger;
        let doubled = Ledger {
            matched: 20,
            delivered: 10,
            delivered_bytes: 100,
            missed: ledger.missed.map(|count| 2 * count),
            buffered: 4,
        };
        assert_eq!(sum, doubled);
    }

    #[test]
    fn an_account_with_one_message_more_or_less_does_not_balance() {
        let mut ledger = Ledger {
            matched: 10,
            delivered: 5,
            buffered: 2,
            ..Ledger::default()
        };
        for missed in 0..5 {
            assert_eq!(ledger.balances(), missed == 3, "{ledger:?}");
            ledger.miss(MissReason::DropNewest, 1);
        }
    }
}
