//! What one topic keeps for replay, and what is known of the messages that it gave up.
//!
//! Invariants: what is kept is the newest run of this life's messages, without holes and within the
//! bounds; every other message of this life is behind `given_up`. Knows no other topic and no lock.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use super::{
    history::Figures,
    memory::{Held, Memory},
    retention::{Bounds, EvictReason},
};
use crate::{
    cursor::Position,
    message::{Delivery, Tag},
};

/// What a message counts for beside its own size: its place in the log, which may have grown to twice
/// what is used, and what the message takes as one of its own.
pub(super) const SLOT_BYTES: usize = 288;
/// What a topic counts for while it keeps anything: its state, its log, and its seat among the others.
pub(super) const LOG_BYTES: usize = 1_024;

/// What the log itself takes beside its slots, in memory: as measured, rounded up.
const LOG_OVERHEAD_BYTES: usize = 320;

/// What is left of messages that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// Of the newest of them.
    pub(crate) newest: Position,
    /// How many messages all topics together had given up by then.
    pub(crate) stamp: u64,
    /// No message of them was published before this, and none after `latest`.
    pub(crate) earliest: SystemTime,
    pub(crate) latest: SystemTime,
}

impl GivenUp {
    /// Both together.
    pub(crate) fn merge(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self {
            newest: self.newest.max(other.newest),
            stamp: self.stamp.max(other.stamp),
            earliest: self.earliest.min(other.earliest),
            latest: self.latest.max(other.latest),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) position: Position,
    pub(crate) delivery: Arc<Delivery>,
}

#[derive(Debug)]
pub(crate) struct Log {
    bounds: Bounds,
    kept: VecDeque<Kept>,
    /// Of the messages kept, as [`Delivery::size`] counts them.
    bytes: usize,
    /// The messages of this life, which is the sequence of the newest.
    pushed: u64,
    /// Of the newest message; before the first one, a position that no message of this life is at or
    /// before.
    newest: Position,
    born: Position,
    given_up: Option<GivenUp>,
    /// Whether it was published to since it was last asked to give something up.
    pub(super) used: bool,
    /// By whom it was last asked and spared.
    pub(super) spared_by: u64,
    /// Its place among the topics that keep something; with it, the topic is pinned.
    pub(super) seat: Option<u64>,
    table: Option<Held>,
}

impl Log {
    /// The log of a topic whose life begins after everything up to `born`.
    pub(crate) fn new(bounds: Bounds, born: Position) -> Self {
        Self {
            bounds,
            kept: VecDeque::new(),
            bytes: 0,
            pushed: 0,
            newest: born,
            born,
            given_up: None,
            used: false,
            spared_by: 0,
            seat: None,
            table: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// The sequence of the newest message; 0 before the first.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    pub(crate) fn newest(&self) -> Position {
        self.newest
    }

    /// All messages of this life come after it, and all of earlier ones do not.
    pub(crate) fn born(&self) -> Position {
        self.born
    }

    pub(crate) fn given_up(&self) -> Option<GivenUp> {
        self.given_up
    }

    /// The sequence of the oldest message kept, or of the next one if there is none.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.pushed + 1 - self.kept.len() as u64
    }

    /// The sequence of the oldest message kept that comes after a position, or of the next one.
    pub(crate) fn first_after(&self, position: Position) -> u64 {
        let before = self.kept.partition_point(|kept| kept.position <= position);
        self.first_sequence() + before as u64
    }

    /// The sequence of the oldest message kept that was published at this time or later, or of the next
    /// one. Clocks may step back, so they are looked at one by one.
    pub(crate) fn first_since(&self, at: SystemTime) -> u64 {
        let is_since = |kept: &Kept| kept.delivery.published_at >= at;
        let before = self.kept.iter().position(is_since);
        self.first_sequence() + before.unwrap_or(self.kept.len()) as u64
    }

    /// The sequence of the oldest of the newest `count` messages kept that are wanted, and how many these
    /// are.
    pub(crate) fn first_of_last(
        &self,
        count: u64,
        wants: impl Fn(Option<&Tag>) -> bool,
    ) -> (u64, u64) {
        let (mut found, mut first) = (0, self.pushed + 1);
        for (back, kept) in self.kept.iter().rev().enumerate() {
            if found == count {
                break;
            }
            if wants(kept.delivery.message.tag.as_ref()) {
                found += 1;
                first = self.pushed - back as u64;
            }
        }
        (first, found)
    }

    /// What is kept from a sequence on, which need not be kept itself.
    pub(crate) fn from(&self, sequence: u64) -> impl DoubleEndedIterator<Item = &Kept> {
        let before = sequence.saturating_sub(self.first_sequence());
        let before = usize::try_from(before).map_or(self.kept.len(), |b| b.min(self.kept.len()));
        self.kept.range(before..)
    }

    /// The position of the newest message before a sequence, or one between that and the message.
    pub(crate) fn position_before(&self, sequence: u64) -> Position {
        let first = self.first_sequence();
        if sequence > first {
            let before = self.from(sequence - 1).next();
            return before.map_or(self.newest, |kept| kept.position);
        }
        let given_up = self.given_up.filter(|_| sequence == first);
        given_up.map_or(self.born, |given_up| given_up.newest)
    }

    /// Keeps a message, and gives up what the bounds no longer allow.
    pub(crate) fn push(&mut self, position: Position, delivery: Arc<Delivery>, figures: &Figures) {
        let size = delivery.size();
        self.pushed += 1;
        self.newest = position;
        self.used = true;
        self.bytes += size;
        self.kept.push_back(Kept { position, delivery });
        figures.keep(size + SLOT_BYTES);
        if self.kept.len() > self.bounds.messages {
            self.give_up(1, EvictReason::Count, figures);
        }
        while self.bytes > self.bounds.bytes {
            self.give_up(1, EvictReason::Bytes, figures);
        }
    }

    /// Gives up what is too old.
    pub(crate) fn expire(&mut self, now: SystemTime, figures: &Figures) {
        let age = self.bounds.age;
        let is_over = |kept: &Kept| {
            let over_at = kept.delivery.published_at.checked_add(age);
            over_at.is_some_and(|over_at| over_at <= now)
        };
        let over = self.kept.iter().position(|kept| !is_over(kept));
        self.give_up(over.unwrap_or(self.kept.len()), EvictReason::Age, figures);
    }

    /// Gives up the oldest messages.
    pub(crate) fn give_up(&mut self, count: usize, reason: EvictReason, figures: &Figures) {
        let count = count.min(self.kept.len());
        if count == 0 {
            return;
        }
        let stamp = figures.evict(count, reason);
        let mut bytes = 0;
        for kept in self.kept.drain(..count) {
            let at = kept.delivery.published_at;
            bytes += kept.delivery.size();
            let one = GivenUp {
                newest: kept.position,
                stamp,
                earliest: at,
                latest: at,
            };
            self.given_up = Some(one.merge(self.given_up));
        }
        self.bytes -= bytes;
        figures.release(count, bytes + count * SLOT_BYTES);
        if self.kept.len() < self.kept.capacity() / 4 {
            self.kept.shrink_to(2 * self.kept.len());
        }
    }

    /// Counts what the log takes beside its messages.
    pub(crate) fn weigh(&mut self, memory: &Arc<Memory>) {
        let bytes = match (self.seat, self.kept.capacity()) {
            (None, 0) => {
                self.table = None;
                return;
            }
            (_, slots) => LOG_OVERHEAD_BYTES + slots * size_of::<Kept>(),
        };
        match &mut self.table {
            Some(table) => table.set(bytes),
            table => *table = Some(memory.hold(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{Epoch, Message, Sequence};

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// A log of messages at these seconds, with positions 11, 12 and so on.
    fn log(bounds: Bounds, seconds: impl IntoIterator<Item = u64>, figures: &Figures) -> Log {
        let mut log = Log::new(bounds, Position(10));
        for (sequence, second) in (1..).zip(seconds) {
            let mut message = Message::new("t".parse().unwrap(), "");
            message.tag = (second % 2 == 1).then(|| "odd".parse().unwrap());
            let delivery = Delivery::new(message, Epoch(1), Sequence(sequence), at(second));
            log.push(Position(10 + sequence), Arc::new(delivery), figures);
        }
        log
    }

    fn sequences(log: &Log) -> Vec<u64> {
        let kept = log.from(0).map(|kept| kept.delivery.sequence.0);
        kept.collect()
    }

    fn bounds(messages: usize) -> Bounds {
        Bounds {
            messages,
            ..Bounds::default()
        }
    }

    #[test]
    fn the_newest_messages_are_kept_and_the_others_remembered_as_gone() {
        let figures = Figures::default();
        let log = log(bounds(3), [1, 2, 3, 4, 5], &figures);
        assert_eq!(sequences(&log), [3, 4, 5]);
        assert_eq!((log.first_sequence(), log.pushed()), (3, 5));
        let given_up = log.given_up().unwrap();
        assert_eq!(given_up.newest, Position(12));
        assert_eq!((given_up.earliest, given_up.latest), (at(1), at(2)));
        assert_eq!(figures.evicted()[EvictReason::Count as usize], 2);
    }

    #[test]
    fn bytes_are_bounded_too_and_what_is_too_large_is_not_kept() {
        let figures = Figures::default();
        let size = Message::new("t".parse().unwrap(), "").size();
        let two = Bounds {
            bytes: 2 * size + 10,
            ..Bounds::default()
        };
        let mut log = log(two, [2, 4, 6], &figures);
        assert_eq!(sequences(&log), [2, 3]);
        let large = Message::new("t".parse().unwrap(), vec![0; 2 * size]);
        let large = Delivery::new(large, Epoch(1), Sequence(4), at(8));
        log.push(Position(14), Arc::new(large), &figures);
        assert!(log.is_empty());
        assert_eq!((log.first_sequence(), log.newest()), (5, Position(14)));
        assert_eq!(figures.evicted()[EvictReason::Bytes as usize], 4);
        assert_eq!((figures.messages(), figures.bytes()), (0, 0));
    }

    #[test]
    fn what_is_too_old_is_given_up() {
        let figures = Figures::default();
        let minute = Bounds {
            age: Duration::from_secs(60),
            ..Bounds::default()
        };
        let mut log = log(minute, [100, 120, 110, 130], &figures);
        log.expire(at(159), &figures);
        assert_eq!(log.len(), 4);
        log.expire(at(160), &figures);
        assert_eq!(sequences(&log), [2, 3, 4]);
        log.expire(at(190), &figures);
        assert_eq!(sequences(&log), Vec::<u64>::new());
        assert_eq!(figures.evicted()[EvictReason::Age as usize], 4);
    }

    #[test]
    fn a_place_is_found_by_position_time_and_number() {
        let figures = Figures::default();
        let log = log(bounds(4), [1, 2, 3, 5, 6, 5], &figures);
        assert_eq!(sequences(&log), [3, 4, 5, 6]);
        for (position, sequence) in [(0, 3), (12, 3), (13, 4), (15, 6), (16, 7), (99, 7)] {
            assert_eq!(log.first_after(Position(position)), sequence, "{position}");
        }
        for (second, sequence) in [(0, 3), (4, 4), (5, 4), (6, 5), (7, 7)] {
            assert_eq!(log.first_since(at(second)), sequence, "{second}");
        }
        let all = |_: Option<&Tag>| true;
        let odd = |tag: Option<&Tag>| tag.is_some();
        assert_eq!(log.first_of_last(0, all), (7, 0));
        assert_eq!(log.first_of_last(2, all), (5, 2));
        assert_eq!(log.first_of_last(9, all), (3, 4));
        assert_eq!(log.first_of_last(2, odd), (4, 2));
        assert_eq!(log.first_of_last(9, odd), (3, 3));
    }

    #[test]
    fn the_position_before_a_sequence_is_that_of_the_message_before() {
        let figures = Figures::default();
        let log = log(bounds(2), [1, 2, 3, 4], &figures);
        for (sequence, position) in [(1, 10), (2, 10), (3, 12), (4, 13), (5, 14)] {
            assert_eq!(
                log.position_before(sequence),
                Position(position),
                "{sequence}"
            );
        }
    }

    #[test]
    fn a_burst_leaves_no_large_table() {
        let figures = Figures::default();
        let mut log = log(bounds(1_000), 0..1_000, &figures);
        log.give_up(990, EvictReason::Budget, &figures);
        assert!(log.kept.capacity() < 100, "{}", log.kept.capacity());
        assert_eq!(log.len(), 10);
    }
}
