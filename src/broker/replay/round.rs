//! What is to be read in one round: the topics that have something for the reader, merged by position.

use std::{cmp::Ordering, sync::Arc};

use super::{Asked, Many, Replay, Topics};
use crate::{
    broker::{
        Shared,
        filters::Filters,
        log::{GivenUp, Log},
        queue::Room,
        subscriber::Subscriber,
        topics::TopicState,
    },
    cursor::{Gap, Position},
    message::{Delivery, Tag},
    topic::Topic,
};

/// The most topics that a round reads, which bounds what a slow reader keeps in memory.
const SOURCES_MAX: usize = 4_096;

/// One topic's messages of a round: those from `next` to `end`, by sequence.
#[derive(Debug)]
pub(super) struct Source {
    state: Arc<TopicState>,
    /// Of the next one, for as long as that is kept.
    position: Position,
    next: u64,
    end: u64,
}

/// How far to read at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunLimit {
    pub(super) room: Room,
    /// Whether one message is taken however large it is.
    pub(super) is_first: bool,
    pub(super) up_to: Position,
    pub(super) looked_at_max: usize,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) looked_at: usize,
    pub(super) is_full: bool,
    /// Messages that were given up before they were read; nothing else was read then.
    pub(super) gone: Gap,
}

impl Source {
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The sequence of the next one.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn is_over(&self) -> bool {
        self.next > self.end
    }

    /// Reads on. What is read is cloned under the topic's lock and handed on later.
    pub(super) fn read(
        &mut self,
        batch: &mut Vec<Arc<Delivery>>,
        limit: RunLimit,
        wants: impl Fn(Option<&Tag>) -> bool,
    ) -> Run {
        let live = self.state.look();
        let mut run = Run::default();
        let Some(log) = &live.log else {
            self.next = self.end + 1;
            return run;
        };
        let first = log.first_sequence().min(self.end + 1);
        if first > self.next {
            run.gone = Gap::exactly(first - self.next);
            self.next = first;
        }
        let mut room = limit.room;
        let before = batch.len();
        for kept in log.from(self.next) {
            self.position = kept.position;
            let is_over = self.is_over() || kept.position > limit.up_to;
            if is_over || !run.gone.is_none() || run.looked_at == limit.looked_at_max {
                break;
            }
            run.looked_at += 1;
            let delivery = &kept.delivery;
            if wants(delivery.message.tag.as_ref()) {
                let is_first = limit.is_first && batch.len() == before;
                if room.messages == 0 || (!is_first && delivery.size() > room.bytes) {
                    run.is_full = true;
                    break;
                }
                room.messages -= 1;
                room.bytes = room.bytes.saturating_sub(delivery.size());
                batch.push(Arc::clone(delivery));
            }
            self.next += 1;
        }
        run
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for Source {}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Source {
    /// The oldest is the greatest, which a heap yields first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.position.cmp(&self.position)
    }
}

/// What there is to read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) until: Position,
    pub(super) sources: Vec<Source>,
    pub(super) gone: Gap,
    messages: u64,
}

impl Found {
    fn new(until: Position) -> Self {
        Self {
            until,
            sources: Vec::new(),
            gone: Gap::NONE,
            messages: 0,
        }
    }

    fn add(&mut self, source: Source) {
        self.messages += source.end + 1 - source.next;
        self.sources.push(source);
        if self.sources.len() >= 2 * SOURCES_MAX {
            self.leave_out();
        }
    }

    /// Leaves out the newest of too many sources: the round ends before them.
    fn leave_out(&mut self) {
        if self.sources.len() <= SOURCES_MAX {
            return;
        }
        let by_position = |source: &Source| source.position;
        let (_, first, _) = self
            .sources
            .select_nth_unstable_by_key(SOURCES_MAX, by_position);
        self.until = Position(first.position.0 - 1);
        self.sources.truncate(SOURCES_MAX);
    }
}

impl Replay {
    /// All that one topic has by now. Goes live if that is little: then no message of this topic comes in
    /// between, since its lock is held, and none of another matters.
    pub(super) fn find_one(&mut self, shared: &Shared, subscriber: &Subscriber) -> Found {
        let Topics::One { state, next } = &mut self.topics else {
            unreachable!("a reader of one topic");
        };
        let live = state.look();
        let Some(log) = &live.log else {
            unreachable!("a topic that is replayed has history, and its reader pins it");
        };
        let (first, end) = (*next, log.pushed());
        let mut found = Found::new(log.newest());
        if self.live_from.is_none() && (end + 1).saturating_sub(first) <= Self::left_max(subscriber)
        {
            let order = shared.history.order();
            subscriber.go_live();
            found.until = order.head();
            self.live_from = Some(found.until);
        }
        if first <= end {
            *next = end + 1;
            found.add(Source {
                state: Arc::clone(state),
                position: self.position,
                next: first,
                end,
            });
        }
        found
    }

    /// What the topics of a reader of many have by now, the oldest of it where it is much. Goes live if
    /// it is little.
    pub(super) fn find_many(
        &mut self,
        shared: &Shared,
        subscriber: &Subscriber,
        many: &Many,
    ) -> Found {
        let head = self.live_from.unwrap_or_else(|| shared.history.head());
        let filters = &subscriber.filters;
        let found = self.find_up_to(shared, (many, filters), head, self.live_from.is_some());
        if found.until < head
            || self.live_from.is_some()
            || found.messages > Self::left_max(subscriber)
        {
            return found;
        }
        let order = shared.history.order();
        subscriber.go_live();
        let live_from = order.head();
        drop(order);
        self.live_from = Some(live_from);
        if live_from == head {
            return found;
        }
        self.find_up_to(shared, (many, filters), live_from, true)
    }

    /// `is_last` says that no round follows for what is newer.
    fn find_up_to(
        &self,
        shared: &Shared,
        many: (&Many, &Filters),
        until: Position,
        is_last: bool,
    ) -> Found {
        let found = self.visit(shared, many, until, is_last);
        if found.until == until {
            return found;
        }
        // Once more, with what each topic has up to where the round ends.
        self.visit(shared, many, found.until, false)
    }

    fn visit(
        &self,
        shared: &Shared,
        (many, filters): (&Many, &Filters),
        until: Position,
        is_last: bool,
    ) -> Found {
        let mut found = Found::new(until);
        for topic in many.topics(shared) {
            let live = topic.look();
            let Some(log) = &live.log else { continue };
            found.gone += self.gone_of(log, until, is_last);
            let (next, end) = (self.first_in(log), log.first_after(until) - 1);
            let Some(first) = log.from(next).next().filter(|_| next <= end) else {
                continue;
            };
            // The round ends before what was left out, and so before this: a later one reads both.
            if first.position > found.until {
                continue;
            }
            found.add(Source {
                state: Arc::clone(&topic),
                position: first.position,
                next,
                end,
            });
        }
        found.leave_out();
        // Looked at last: a topic that loses its seat meanwhile is seen in one place or the other.
        let is_asked = |topic: &Topic, _: &GivenUp| filters.matches(topic);
        if let Some(forgotten) = shared.history.forgotten(is_asked)
            && self.is_gone_here(forgotten, until, is_last)
        {
            found.gone += Gap::UNKNOWN;
        }
        found
    }

    fn first_in(&self, log: &Log) -> u64 {
        let next = log.first_after(self.position);
        match self.asked {
            Asked::Since { head, at } if self.position < head => {
                next.max(log.first_since(at).min(log.first_after(head)))
            }
            _ => next,
        }
    }

    /// What was asked for of a log, belongs into this round, and is gone.
    fn gone_of(&self, log: &Log, until: Position, is_last: bool) -> Gap {
        let Some(given_up) = log.given_up() else {
            return Gap::NONE;
        };
        if !self.is_gone_here(given_up, until, is_last) {
            return Gap::NONE;
        }
        if given_up.newest > until {
            // What is newer was in the mailbox; what was before, nobody knows.
            return Gap::UNKNOWN;
        }
        let is_all = log.born() >= self.position
            && match self.asked {
                Asked::Kept { head, .. } => log.born() >= head,
                Asked::After => true,
                Asked::Since { head, at } => log.born() >= head || given_up.earliest >= at,
            };
        if is_all {
            Gap::exactly(log.first_sequence() - 1)
        } else {
            Gap::at_least(1)
        }
    }

    /// Whether the newest of what was given up was asked for and belongs into this round.
    fn is_gone_here(&self, given_up: GivenUp, until: Position, is_last: bool) -> bool {
        let is_asked = match self.asked {
            Asked::Kept { stamp, .. } => given_up.stamp > stamp,
            Asked::After => true,
            Asked::Since { head, at } => given_up.newest > head || given_up.latest >= at,
        };
        let is_here = given_up.newest > self.position && (given_up.newest <= until || is_last);
        is_asked && is_here
    }
}
