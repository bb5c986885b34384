//! What is left of topics that keep nothing any more: enough to say honestly that something may be gone.
//!
//! The latest of them are known by name, so that whoever asks for other topics is told nothing of them; of those
//! before, all that is left is one summary. Invariant: what a topic gave up is in one or the other for ever.

use std::collections::VecDeque;

use super::log::GivenUp;
use crate::topic::Topic;

/// Topics that are known by name: some 0.1 MB, and a look at all of them for each reader who asks for the past.
const NAMED_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Forgotten {
    /// The latest last. A topic may be among them more than once.
    named: VecDeque<(Topic, GivenUp)>,
    others: Option<GivenUp>,
}

impl Forgotten {
    pub(super) fn add(&mut self, topic: &Topic, given_up: GivenUp) {
        if self.named.len() == NAMED_MAX
            && let Some((_, oldest)) = self.named.pop_front()
        {
            self.others = Some(oldest.merge(self.others));
        }
        self.named.push_back((topic.clone(), given_up));
    }

    /// What those may have given up, all together, that are asked for.
    pub(super) fn find(&self, is_asked: impl Fn(&Topic, &GivenUp) -> bool) -> Option<GivenUp> {
        let asked = self
            .named
            .iter()
            .filter(|(topic, given_up)| is_asked(topic, given_up));
        asked.fold(self.others, |found, (_, given_up)| {
            Some(given_up.merge(found))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::cursor::Position;

    fn given_up(at: u64) -> GivenUp {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        GivenUp {
            newest: Position(at),
            stamp: at,
            earliest: time,
            latest: time,
        }
    }

    #[test]
    fn the_latest_are_told_apart_and_the_others_are_not() {
        let topic = |index: u64| -> Topic { format!("t.{index}").parse().unwrap() };
        let mut forgotten = Forgotten::default();
        let newest = |forgotten: &Forgotten, asked: u64| {
            let found = forgotten.find(|it, _| *it == topic(asked));
            found.map(|given_up| given_up.newest.0)
        };
        assert_eq!(newest(&forgotten, 1), None);
        let max = NAMED_MAX as u64;
        (1..=max).for_each(|index| forgotten.add(&topic(index), given_up(index)));
        assert_eq!(newest(&forgotten, 1), Some(1));
        assert_eq!(newest(&forgotten, max), Some(max));
        assert_eq!(newest(&forgotten, max + 1), None);
        forgotten.add(&topic(3), given_up(max + 1));
        assert_eq!(newest(&forgotten, 3), Some(max + 1));
        // Nobody knows any more whose the oldest was.
        assert_eq!(newest(&forgotten, max + 1), Some(1));
        assert_eq!(newest(&forgotten, max), Some(max));
        assert_eq!(forgotten.named.len(), NAMED_MAX);
    }
}
