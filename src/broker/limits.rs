//! What the broker allows, each limit with its default and the reason for it.
//!
//! Every limit is here as a number, has a flag and an environment variable on the command line, and
//! shows when it is hit: as an error that says limit and value, or in the metrics.

use super::HistoryLimits;

/// 1 MiB: far above an event or a token, far below what would block a connection for its neighbours.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// 16 MiB: above it a message is a file, and belongs in a store with only its address published.
pub const PAYLOAD_BYTES_CEILING: usize = 16 * 1024 * 1024;
/// Enough for trace context, CloudEvents and application headers together.
pub const ATTRIBUTES_MAX: usize = 64;
/// 16 KiB: the size that HTTP servers commonly allow for all headers together.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;
/// Above these, a message of the largest payload could pass what clients take: 16 MiB and 64 KiB.
pub const ATTRIBUTES_CEILING: usize = 256;
/// See [`ATTRIBUTES_CEILING`].
pub const ATTRIBUTES_BYTES_CEILING: usize = 48 * 1024;
/// About a tenth of a second at 10,000 messages a second: rides out a scheduling pause.
pub const MAILBOX_CAPACITY: usize = 1_024;
/// What a subscriber may ask for: six seconds at 10,000 messages a second.
pub const MAILBOX_CAPACITY_MAX: usize = 65_536;
/// 8 MiB: the default payload limit eight times over, so that a few large messages never starve.
pub const MAILBOX_BYTES: usize = 8 * 1024 * 1024;
/// 1 GiB for all that grows with the load, in the whole process: a good part of a small machine.
pub const MEMORY_BUDGET: usize = 1024 * 1024 * 1024;
/// 16 GiB in all mailboxes together, a message that many share counted in each of them: so many are
/// promised at most. What they really take is in the memory budget, where it counts once.
pub const BUFFERED_BYTES_MAX: usize = 16_usize.saturating_mul(1024 * 1024 * 1024);
/// Ten times what a process with the usual 10,000 connections has at ten subscriptions each.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Topics remembered without a subscriber of their own; at some 220 bytes each, 22 MB, and 8 bytes
/// more for each wildcard subscriber that shares no lane.
pub const IDLE_TOPICS_MAX: usize = 100_000;
/// A subscriber that asks for more tags than this wants a topic of its own.
pub const TAGS_MAX: usize = 64;
/// A page shows less at a time; whoever asks for more filters than this wants a wildcard.
pub const FILTERS_MAX: usize = 64;

/// The broker's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload of a message, in bytes.
    pub payload_bytes_max: usize,
    /// The most attributes of a message.
    pub attributes_max: usize,
    /// The most bytes of all attribute names and values of a message together.
    pub attributes_bytes_max: usize,
    /// A mailbox's bound in messages, where the subscriber asks for none.
    pub mailbox_capacity: usize,
    /// The largest bound in messages that a subscriber is granted.
    pub mailbox_capacity_max: usize,
    /// A mailbox's bound in bytes, as [`Message::size`](crate::message::Message::size) counts them.
    pub mailbox_bytes: usize,
    /// The most memory, in bytes, that all that grows with the load takes in the whole process. Above
    /// [`REFUSE_PERCENT`](super::REFUSE_PERCENT) of it no subscription is added, from
    /// [`SHED_PERCENT`](super::SHED_PERCENT) on the largest mailboxes are ended, and above
    /// [`FULL_PERCENT`](super::FULL_PERCENT) every message finds its mailbox full.
    pub memory_budget: usize,
    /// The bound on all mailboxes together, in bytes counted the same way in each. A message that would pass
    /// it finds its mailbox full.
    pub buffered_bytes_max: usize,
    /// The most live subscriptions.
    pub subscriptions_max: usize,
    /// The most topics remembered that have no subscriber of their own; past it, the ones untouched
    /// for longest are forgotten and begin a new epoch when they are used again.
    pub idle_topics_max: usize,
    /// The most tags that one subscriber may ask for.
    pub tags_max: usize,
    /// The most filters that one subscriber may ask for.
    pub filters_max: usize,
    /// What is kept for replay.
    pub history: HistoryLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            attributes_max: ATTRIBUTES_MAX,
            attributes_bytes_max: ATTRIBUTES_BYTES_MAX,
            mailbox_capacity: MAILBOX_CAPACITY,
            mailbox_capacity_max: MAILBOX_CAPACITY_MAX,
            mailbox_bytes: MAILBOX_BYTES,
            memory_budget: MEMORY_BUDGET,
            buffered_bytes_max: BUFFERED_BYTES_MAX,
            subscriptions_max: SUBSCRIPTIONS_MAX,
            idle_topics_max: IDLE_TOPICS_MAX,
            tags_max: TAGS_MAX,
            filters_max: FILTERS_MAX,
            history: HistoryLimits::default(),
        }
    }
}

/// Why a set of limits cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Too small to work with.
    #[error("{name} of {value} is below the minimum of {min}")]
    BelowMinimum {
        /// The limit's name.
        name: &'static str,
        /// The value given.
        value: usize,
        /// The least value that works.
        min: usize,
    },
    /// Above what the broker supports.
    #[error("{name} of {value} exceeds the ceiling of {ceiling}")]
    AboveCeiling {
        /// The limit's name.
        name: &'static str,
        /// The value given.
        value: usize,
        /// The largest value that works.
        ceiling: usize,
    },
    /// The default is above the maximum.
    #[error("mailbox_capacity of {value} exceeds mailbox_capacity_max of {max}")]
    CapacityAboveMax {
        /// The default capacity, in messages.
        value: usize,
        /// The largest capacity granted, in messages.
        max: usize,
    },
    /// A message that publishers may send could never be delivered.
    #[error("{name} of {value} is below {needed}, the size of the largest message allowed")]
    BelowLargestMessage {
        /// The limit's name.
        name: &'static str,
        /// The value given, in bytes.
        value: usize,
        /// The least value that works, in bytes.
        needed: usize,
    },
}

impl Limits {
    /// The size of the largest message that these limits allow, with all its names at their longest.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        use crate::{message, topic};
        message::MESSAGE_OVERHEAD_BYTES
            + topic::TOPIC_BYTES_MAX
            + 2 * message::NAME_BYTES_MAX
            + message::MESSAGE_ID_BYTES_MAX
            + self.payload_bytes_max
            + self.attributes_bytes_max
    }

    /// Whether the limits fit together.
    ///
    /// # Errors
    /// Names the first limit that cannot work; the operator must change it.
    pub fn check(&self) -> Result<(), LimitsError> {
        let minimums = [
            ("payload_bytes_max", self.payload_bytes_max, 1),
            ("mailbox_capacity", self.mailbox_capacity, 1),
            ("subscriptions_max", self.subscriptions_max, 1),
            (
                "idle_topics_max",
                self.idle_topics_max,
                super::topics::IDLE_TOPICS_MIN,
            ),
        ];
        let below = |(_, value, min): &(_, usize, usize)| value < min;
        if let Some((name, value, min)) = minimums.into_iter().find(below) {
            return Err(LimitsError::BelowMinimum { name, value, min });
        }
        let ceilings = [
            (
                "payload_bytes_max",
                self.payload_bytes_max,
                PAYLOAD_BYTES_CEILING,
            ),
            ("attributes_max", self.attributes_max, ATTRIBUTES_CEILING),
            (
                "attributes_bytes_max",
                self.attributes_bytes_max,
                ATTRIBUTES_BYTES_CEILING,
            ),
        ];
        let above = |(_, value, ceiling): &(_, usize, usize)| value > ceiling;
        if let Some((name, value, ceiling)) = ceilings.into_iter().find(above) {
            return Err(LimitsError::AboveCeiling {
                name,
                value,
                ceiling,
            });
        }
        if self.mailbox_capacity > self.mailbox_capacity_max {
            return Err(LimitsError::CapacityAboveMax {
                value: self.mailbox_capacity,
                max: self.mailbox_capacity_max,
            });
        }
        self.history.check(self.memory_budget)?;
        let needed = self.message_bytes_max();
        let holding = [
            ("mailbox_bytes", self.mailbox_bytes),
            ("memory_budget", self.memory_budget),
            ("buffered_bytes_max", self.buffered_bytes_max),
        ];
        match holding.into_iter().find(|(_, value)| *value < needed) {
            Some((name, value)) => Err(LimitsError::BelowLargestMessage {
                name,
                value,
                needed,
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    /// As the README, SECURITY.md and `--help` promise them.
    #[test]
    fn the_defaults_are_the_documented_ones() {
        let documented = Limits {
            payload_bytes_max: 1_048_576,
            attributes_max: 64,
            attributes_bytes_max: 16_384,
            mailbox_capacity: 1_024,
            mailbox_capacity_max: 65_536,
            mailbox_bytes: 8_388_608,
            memory_budget: 1_073_741_824,
            buffered_bytes_max: 1_073_741_824_usize.saturating_mul(16),
            subscriptions_max: 100_000,
            idle_topics_max: 100_000,
            tags_max: 64,
            filters_max: 64,
            history: HistoryLimits {
                rules: Vec::new(),
                bytes_max: 64 << 20,
            },
        };
        assert_eq!(Limits::default(), documented);
    }

    #[test]
    fn a_limit_works_up_to_its_bound_and_not_beyond() {
        let check =
            |change: &dyn Fn(&mut Limits, usize), works: usize, fails: usize, name: &str| {
                let mut limits = Limits {
                    memory_budget: 1 << 30,
                    ..Limits::default()
                };
                change(&mut limits, works);
                assert_eq!(limits.check(), Ok(()), "{name} of {works}");
                change(&mut limits, fails);
                let error = limits.check().unwrap_err().to_string();
                assert!(error.starts_with(&format!("{name} of {fails} ")), "{error}");
            };
        check(&|l, n| l.payload_bytes_max = n, 1, 0, "payload_bytes_max");
        check(&|l, n| l.mailbox_capacity = n, 1, 0, "mailbox_capacity");
        check(&|l, n| l.subscriptions_max = n, 1, 0, "subscriptions_max");
        check(&|l, n| l.idle_topics_max = n, 32, 31, "idle_topics_max");
        let large = |l: &mut Limits, n| {
            l.payload_bytes_max = n;
            l.mailbox_bytes = 1 << 30;
        };
        check(&large, 16 << 20, (16 << 20) + 1, "payload_bytes_max");
        check(&|l, n| l.attributes_max = n, 256, 257, "attributes_max");
        check(
            &|l, n| l.attributes_bytes_max = n,
            48 << 10,
            (48 << 10) + 1,
            "attributes_bytes_max",
        );
        check(
            &|l, n| l.mailbox_capacity = n,
            65_536,
            65_537,
            "mailbox_capacity",
        );
        let largest = Limits::default().message_bytes_max();
        check(
            &|l, n| l.mailbox_bytes = n,
            largest,
            largest - 1,
            "mailbox_bytes",
        );
        check(
            &|l, n| l.memory_budget = n,
            largest,
            largest - 1,
            "memory_budget",
        );
        check(
            &|l, n| l.buffered_bytes_max = n,
            largest,
            largest - 1,
            "buffered_bytes_max",
        );
    }

    #[test]
    fn a_mailbox_always_holds_the_largest_message() {
        let limits = Limits {
            mailbox_bytes: PAYLOAD_BYTES_MAX,
            ..Limits::default()
        };
        let error = limits.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "mailbox_bytes of 1048576 is below 1066109, the size of the largest message allowed"
        );
    }

    #[test]
    fn a_limit_that_refuses_everything_is_named() {
        let limits = Limits {
            subscriptions_max: 0,
            ..Limits::default()
        };
        assert_eq!(
            limits.check().unwrap_err().to_string(),
            "subscriptions_max of 0 is below the minimum of 1"
        );
    }
}
