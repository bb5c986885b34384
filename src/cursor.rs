//! Where a subscriber stands in what the broker has kept, where it wants to start, and what of that is
//! gone.
//!
//! Every message of a topic with history has a [`Position`] among all messages of all such topics of
//! one broker, so one number is a place in whatever a filter matches. A [`Cursor`] is that place as a
//! subscriber carries it away and brings it back.

use std::{
    fmt,
    ops::{Add, AddAssign},
    str::FromStr,
    time::SystemTime,
};

use crate::message::{Epoch, Sequence};

/// A message's place among all that one life of a broker has kept: the first is 1, later is larger. 0
/// is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

/// The place after one message, from which a subscriber can go on. As text it is opaque to whoever is
/// not the broker: `epoch-position-sequence`, each in hexadecimal.
///
/// The epoch tells the life of the broker, since no two lives have an epoch in common, and the topic,
/// if it was one topic's; the sequence then makes the count of what is gone exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The life of the message's topic, or the broker's own epoch if there was no message yet.
    pub epoch: Epoch,
    /// The message's place among all that was kept.
    pub position: Position,
    /// The message's place in its topic; 0 if there was no message yet.
    pub sequence: Sequence,
}

/// The longest cursor, in bytes: three numbers of 16 digits.
pub const CURSOR_BYTES_MAX: usize = 3 * 16 + 2;

/// A text that no broker gave out as a cursor. A retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor is malformed: it is to be given back as it came")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, position, sequence) = (self.epoch.0, self.position.0, self.sequence.0);
        write!(f, "{epoch:x}-{position:x}-{sequence:x}")
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(CursorError);
        }
        let mut numbers = text.split('-').map(parse_hex);
        let mut number = || numbers.next().flatten().ok_or(CursorError);
        let cursor = Self {
            epoch: Epoch(number()?),
            position: Position(number()?),
            sequence: Sequence(number()?),
        };
        match numbers.next() {
            None => Ok(cursor),
            Some(_) => Err(CursorError),
        }
    }
}

/// As it is written: without a sign and without zeros in front.
fn parse_hex(text: &str) -> Option<u64> {
    let is_written = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    let is_padded = text.len() > 1 && text.starts_with('0');
    if is_padded || !text.chars().all(is_written) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// From where on a subscriber wants messages. What is not kept starts now, whatever is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// What is published from now on.
    #[default]
    Now,
    /// Everything kept, and what follows.
    All,
    /// The newest so many messages kept that match, and what follows.
    Last(u64),
    /// What came after the message that bore this cursor. A cursor of another life of the broker is
    /// answered with a [`Gap`] and everything kept.
    After(Cursor),
    /// What was published at this time or later.
    Since(SystemTime),
}

impl StartAt {
    /// Whether nothing that was published before is asked for.
    #[must_use]
    pub fn is_now(self) -> bool {
        matches!(self, Self::Now | Self::Last(0))
    }
}

/// What was asked for, or stood in line to be read, and is no longer kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// So many messages are gone.
    pub missing: u64,
    /// There may be more that nobody has counted.
    pub at_least: bool,
}

impl Gap {
    /// Nothing is gone.
    pub const NONE: Self = Self {
        missing: 0,
        at_least: false,
    };
    /// Something may be gone.
    pub const UNKNOWN: Self = Self {
        missing: 0,
        at_least: true,
    };

    /// So many messages and no more.
    #[must_use]
    pub fn exactly(missing: u64) -> Self {
        Self {
            missing,
            at_least: false,
        }
    }

    /// So many messages, and maybe more.
    #[must_use]
    pub fn at_least(missing: u64) -> Self {
        Self {
            missing,
            at_least: true,
        }
    }

    /// Whether nothing is gone.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl Add for Gap {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            missing: self.missing.saturating_add(other.missing),
            at_least: self.at_least || other.at_least,
        }
    }
}

impl AddAssign for Gap {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.missing, self.at_least) {
            (0, false) => f.write_str("nothing"),
            (0, true) => f.write_str("an unknown number of messages"),
            (1, false) => f.write_str("1 message"),
            (1, true) => f.write_str("1 message or more"),
            (missing, false) => write!(f, "{missing} messages"),
            (missing, true) => write!(f, "{missing} messages or more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(epoch: u64, position: u64, sequence: u64) -> Cursor {
        Cursor {
            epoch: Epoch(epoch),
            position: Position(position),
            sequence: Sequence(sequence),
        }
    }

    #[test]
    fn a_cursor_is_written_in_hexadecimal() {
        assert_eq!(cursor(0xabc, 16, 0).to_string(), "abc-10-0");
        let longest = cursor(u64::MAX, u64::MAX, u64::MAX).to_string();
        assert_eq!(longest.len(), CURSOR_BYTES_MAX);
    }

    #[test]
    fn what_no_broker_wrote_is_no_cursor() {
        for text in [
            "",
            "-",
            "--",
            "1",
            "1-2",
            "1-2-",
            "-1-2",
            "1-2-3-4",
            "1-2-3-",
            "1-2-+3",
            "1- 2-3",
            "01-2-3",
            "A-2-3",
            "1-2-x",
            "10000000000000000-2-3",
            "1-2-3\n",
            "é-2-3",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_went(
            epoch in any::<u64>(),
            position in any::<u64>(),
            sequence in any::<u64>(),
        ) {
            let cursor = cursor(epoch, position, sequence);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn whatever_is_read_is_written_the_same(text in "[0-9a-f]{0,17}-[0-9a-f]{0,17}-[0-9a-f]{0,17}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_gone_adds_up() {
        assert_eq!(Gap::exactly(2) + Gap::NONE, Gap::exactly(2));
        assert_eq!(Gap::exactly(2) + Gap::at_least(3), Gap::at_least(5));
        assert_eq!(
            Gap::exactly(u64::MAX) + Gap::exactly(1),
            Gap::exactly(u64::MAX)
        );
        assert!(Gap::NONE.is_none() && !Gap::UNKNOWN.is_none());
    }
}
