//! What of which topics is kept for replay: by rules, the first of which that matches a topic decides,
//! and within one bound on all topics together.

use std::time::Duration;

use super::LimitsError;
use crate::topic::{Topic, TopicFilter};

/// An hour of a person's typing, or a long answer of a language model, token by token.
pub const HISTORY_MESSAGES: usize = 1_000;
/// 1 MiB for a topic, as [`Message::size`](crate::message::Message::size) counts: the rule's messages at
/// a kilobyte each.
pub const HISTORY_BYTES: usize = 1024 * 1024;
/// Long enough to reload a page, or to restart a service.
pub const HISTORY_AGE: Duration = Duration::from_secs(600);
/// 64 MiB for all topics together: a sixteenth of the default memory budget.
pub const HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How much of one topic is kept: its newest messages, as many as all three allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// In messages; at least 1.
    pub messages: usize,
    /// In bytes, as [`Message::size`](crate::message::Message::size) counts them; at least 1. A message
    /// that is larger is not kept, and neither is what came before it.
    pub bytes: usize,
    /// How long a message is kept, to the second; more than 0.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            messages: HISTORY_MESSAGES,
            bytes: HISTORY_BYTES,
            age: HISTORY_AGE,
        }
    }
}

/// Why a message is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvictReason {
    /// Its topic keeps no more messages.
    Count,
    /// Its topic keeps no more bytes.
    Bytes,
    /// It was kept for as long as its topic keeps any.
    Age,
    /// All topics together keep no more bytes.
    Budget,
    /// The process ran short of memory.
    Memory,
}

impl EvictReason {
    /// Every reason, in the order of [`Snapshot::evicted`](super::Snapshot::evicted).
    pub const ALL: [Self; 5] = [
        Self::Count,
        Self::Bytes,
        Self::Age,
        Self::Budget,
        Self::Memory,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Budget => "budget",
            Self::Memory => "memory",
        }
    }
}

/// A rule: what is kept of the topics that a filter matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Which topics.
    pub filter: TopicFilter,
    /// How much; `None` for nothing.
    pub bounds: Option<Bounds>,
}

/// What the broker keeps for replay. By default, nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// The first rule whose filter matches a topic decides, for that topic's whole life. A topic that
    /// none matches has no history.
    pub rules: Vec<Retention>,
    /// The bound on all topics together, in bytes, with what a topic and a place in its history take
    /// beside the messages. Past it, topics that are not published to give up what they keep, and
    /// others their oldest messages.
    pub bytes_max: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            bytes_max: HISTORY_BYTES_MAX,
        }
    }
}

impl HistoryLimits {
    /// Whether anything may be kept.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.rules.iter().any(|rule| rule.bounds.is_some())
    }

    /// How much of a topic is kept; `None` for nothing.
    #[must_use]
    pub fn bounds(&self, topic: &Topic) -> Option<Bounds> {
        let mut rules = self.rules.iter();
        rules.find(|rule| rule.filter.matches(topic))?.bounds
    }

    /// `memory_budget` is that of the whole process, in bytes.
    pub(super) fn check(&self, memory_budget: usize) -> Result<(), LimitsError> {
        // Subscriptions are refused before what is kept is given up, so it must leave them room.
        let ceiling = memory_budget / 2;
        if self.is_on() && self.bytes_max > ceiling {
            return Err(LimitsError::AboveCeiling {
                name: "history_bytes",
                value: self.bytes_max,
                ceiling,
            });
        }
        let below = |name| LimitsError::BelowMinimum {
            name,
            value: 0,
            min: 1,
        };
        for bounds in self.rules.iter().filter_map(|rule| rule.bounds) {
            if bounds.messages == 0 {
                return Err(below("history messages"));
            }
            if bounds.bytes == 0 {
                return Err(below("history bytes"));
            }
            if bounds.age.is_zero() {
                return Err(below("history age"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(filter: &str, messages: Option<usize>) -> Retention {
        Retention {
            filter: filter.parse().unwrap(),
            bounds: messages.map(|messages| Bounds {
                messages,
                ..Bounds::default()
            }),
        }
    }

    #[track_caller]
    fn check(limits: &HistoryLimits, topic: &str, messages: Option<usize>) {
        let bounds = limits.bounds(&topic.parse().unwrap());
        assert_eq!(bounds.map(|bounds| bounds.messages), messages, "{topic}");
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let limits = HistoryLimits {
            rules: vec![
                rule("requests", None),
                rule("a.*", Some(3)),
                rule("*", Some(9)),
            ],
            ..HistoryLimits::default()
        };
        assert!(limits.is_on());
        check(&limits, "requests", None);
        check(&limits, "response:42", Some(9));
        check(&limits, "a.b", Some(3));
        check(&limits, "a.b.c", None);
    }

    #[test]
    fn nothing_is_kept_by_default_or_where_every_rule_says_off() {
        assert!(!HistoryLimits::default().is_on());
        let rules = vec![rule(">", None)];
        let off = HistoryLimits {
            rules,
            ..HistoryLimits::default()
        };
        assert!(!off.is_on());
    }

    #[test]
    fn a_rule_that_keeps_nothing_says_off() {
        let limits = HistoryLimits {
            rules: vec![rule("*", Some(0))],
            ..HistoryLimits::default()
        };
        assert_eq!(
            limits.check(usize::MAX).unwrap_err().to_string(),
            "history messages of 0 is below the minimum of 1"
        );
    }

    #[test]
    fn history_leaves_half_of_the_memory_to_others() {
        let limits = HistoryLimits {
            rules: vec![rule("*", Some(1))],
            bytes_max: 501,
        };
        assert_eq!(limits.check(1_002), Ok(()));
        assert_eq!(
            limits.check(1_001).unwrap_err().to_string(),
            "history_bytes of 501 exceeds the ceiling of 500"
        );
        let off = HistoryLimits {
            rules: vec![],
            ..limits
        };
        assert_eq!(off.check(0), Ok(()));
    }
}
