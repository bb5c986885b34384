//! A subscription that begins in the past, until it has caught up.
//!
//! It is live at once for topics without history, and reads the messages of others from their logs, by
//! position and at its own pace: a slow reader costs no memory but the list of topics that it is
//! reading, which is bounded. It reads in rounds, each up to a position that was given when it began.
//! When so little is left that its mailbox can hold what is published meanwhile, it goes live under the
//! order lock: what came before is read from the logs, what comes after is in the mailbox, and the
//! mailbox is read after the logs.
//!
//! Invariants: every message that is asked for is handed over once, in the order of positions, or told as
//! gone before the next one that is; once live, a mailbox holds only what the logs are not read for.

mod round;
mod start;

use std::{
    collections::BinaryHeap,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::SystemTime,
};

use self::round::{Found, Source};
pub(super) use self::start::Beginning;
use super::{
    Shared,
    ended::Ended,
    filters::Filters,
    memory::Held,
    queue::{BatchLimit, Room, Taken},
    subscriber::Subscriber,
    topics::TopicState,
};
use crate::{
    cursor::{Cursor, Gap, Position},
    message::{Delivery, Sequence, Tag},
};

/// Messages that one take looks at, at most: those that the tags leave out are looked at, too.
const LOOKED_AT_MAX: usize = 4_096;
/// A reader goes live when no more is left than this, or than half of what its mailbox holds.
const LEFT_MAX: usize = 256;

/// Which messages are asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Those that were kept when the head was here and so many had been given up, and all after the head.
    Kept { head: Position, stamp: u64 },
    /// All after the position from which the replay began.
    After,
    /// Those published since, and all after what was the head.
    Since { head: Position, at: SystemTime },
}

/// What is read.
#[derive(Debug)]
enum Topics {
    /// One topic, from a sequence on.
    One { state: Arc<TopicState>, next: u64 },
    /// All that is asked for.
    Many(Many),
    /// Nothing is kept.
    None,
}

/// Topics that are read together.
#[derive(Clone, Debug)]
enum Many {
    /// Whatever these match.
    Matching(Filters),
    /// These, which their reader pins.
    These(Arc<[Arc<TopicState>]>),
}

impl Many {
    /// Each topic that may have something kept, once.
    fn topics<'m>(&'m self, shared: &'m Shared) -> Box<dyn Iterator<Item = Arc<TopicState>> + 'm> {
        match self {
            Self::Matching(filters) => {
                let seats = shared.history.seats();
                let matching = seats.filter(|seat| filters.matches(&seat.topic));
                Box::new(matching.map(|seat| seat.state))
            }
            Self::These(topics) => Box::new(topics.iter().map(Arc::clone)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Replay {
    topics: Topics,
    asked: Asked,
    /// All that matches up to here has been handed over, or told as gone.
    position: Position,
    /// Up to where this round goes.
    until: Position,
    sources: BinaryHeap<Source>,
    /// What the list of sources takes.
    table: Option<Held>,
    /// Where the mailbox begins, once live.
    live_from: Option<Position>,
    is_done: bool,
    /// To be told before what is read next.
    gap: Gap,
    /// What is handed over next.
    batch: Vec<Arc<Delivery>>,
    /// Whether the mailbox or the logs come first where there is room for one message alone.
    is_odd: bool,
}

impl Replay {
    fn new(topics: Topics, asked: Asked, gap: Gap) -> Self {
        Self {
            topics,
            asked,
            position: Position::default(),
            until: Position::default(),
            sources: BinaryHeap::new(),
            table: None,
            live_from: None,
            is_done: false,
            gap,
            batch: Vec::new(),
            is_odd: false,
        }
    }

    /// The first round begins after this position.
    fn begin_after(&mut self, position: Position) {
        (self.position, self.until) = (position, position);
    }

    /// Whether the mailbox is to leave out what has history.
    pub(super) fn is_behind(&self) -> bool {
        self.live_from.is_none() && !self.is_done
    }

    /// Whether nothing is left to be read or told.
    pub(super) fn is_done(&self) -> bool {
        self.is_done && self.gap.is_none()
    }

    /// Hands over what is read, and what waits in the mailbox of what has no history. A gap comes before
    /// the messages with history that are handed over at the same time. Ready with `false`, and nothing,
    /// when all is read; otherwise as [`Subscriber::poll_take`].
    pub(super) fn poll_take(
        &mut self,
        shared: &Shared,
        subscriber: &Subscriber,
        cx: &Context<'_>,
        limit: BatchLimit,
        into: &mut impl FnMut(Taken),
    ) -> Poll<Result<bool, Ended>> {
        let mailbox = &subscriber.mailbox;
        let mut left = Room {
            messages: limit.messages.max(1),
            bytes: limit.bytes,
        };
        let waiting = mailbox.take_waiting(self.share_of_mailbox(left), into)?;
        left.messages -= waiting.messages;
        left.bytes = left.bytes.saturating_sub(waiting.bytes);

        let gap = self.read(shared, subscriber, left);
        if !mailbox.take_replayed(&self.batch) {
            self.batch.clear();
            // Over by now, which is told at once, or next time if that was handed something before.
            return match waiting.is_anything {
                true => Poll::Ready(Ok(true)),
                false => Poll::Ready(mailbox.take_waiting(Room::NONE, into).map(|_| false)),
            };
        }
        let replayed = self.batch.len() as u64;
        shared
            .history
            .replayed
            .fetch_add(replayed, Ordering::Relaxed);
        if !gap.is_none() {
            into(Taken::Gap(gap, self.place(shared)));
        }
        self.batch.drain(..).map(Taken::Delivery).for_each(into);
        let is_anything = replayed > 0 || !gap.is_none() || waiting.is_anything;
        if is_anything || self.is_done() {
            return Poll::Ready(Ok(is_anything));
        }
        // Nothing of all that was looked at is wanted, and there is more: others come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The place before what is handed over next, or looked at next, or after all of it; `None` where nothing is
    /// kept.
    fn place(&self, shared: &Shared) -> Option<Cursor> {
        let (handed_over, looked_at) = (self.batch.first(), self.sources.peek());
        let next = handed_over
            .and_then(|next| next.position)
            .or_else(|| looked_at.map(Source::position));
        let position = next.map_or(self.position, |next| Position(next.0.saturating_sub(1)));
        match &self.topics {
            Topics::One { state, next: end } => {
                let next = handed_over
                    .map(|next| next.sequence.0)
                    .or_else(|| looked_at.map(Source::next));
                Some(Cursor {
                    epoch: state.epoch,
                    position,
                    sequence: Sequence(next.unwrap_or(*end) - 1),
                })
            }
            Topics::Many(_) => Some(shared.cursor_at(position)),
            Topics::None => None,
        }
    }

    /// Before it is live, the mailbox holds only what has no history, which has no order with what has.
    fn share_of_mailbox(&mut self, room: Room) -> Room {
        if !self.is_behind() {
            return Room::NONE;
        }
        self.is_odd = !self.is_odd;
        Room {
            messages: (room.messages / 2 + room.messages % 2 * usize::from(self.is_odd)),
            bytes: room.bytes / 2,
        }
    }

    /// Fills the batch. Returns what is gone before it.
    fn read(&mut self, shared: &Shared, subscriber: &Subscriber, left: Room) -> Gap {
        let mut gap = Gap::NONE;
        let mut looked_at = 0;
        loop {
            gap += std::mem::take(&mut self.gap);
            if self.is_done || left.messages == 0 || looked_at >= LOOKED_AT_MAX {
                return gap;
            }
            looked_at += self.fill(shared, subscriber, left, LOOKED_AT_MAX - looked_at);
            if !self.batch.is_empty() {
                return gap;
            }
        }
    }

    /// Reads one source after the other until the batch is full, something is gone, or the round is over
    /// and the next one begins. Returns how many messages were looked at, at least 1.
    fn fill(
        &mut self,
        shared: &Shared,
        subscriber: &Subscriber,
        mut left: Room,
        looked_at_max: usize,
    ) -> usize {
        let mut looked_at = 1;
        while left.messages > 0 && looked_at <= looked_at_max {
            let Some(mut source) = self.sources.pop() else {
                self.position = self.until;
                self.begin_round(shared, subscriber);
                break;
            };
            let next = self.sources.peek().map(Source::position);
            let limit = round::RunLimit {
                room: left,
                is_first: self.batch.is_empty(),
                up_to: next.map_or(self.until, |next| next.min(self.until)),
                looked_at_max,
            };
            let before = self.batch.len();
            let run = source.read(&mut self.batch, limit, |tag| subscriber.wants(tag));
            looked_at += run.looked_at;
            for delivery in &self.batch[before..] {
                left.messages -= 1;
                left.bytes = left.bytes.saturating_sub(delivery.size());
            }
            if !source.is_over() {
                self.sources.push(source);
            }
            if !run.gone.is_none() {
                self.gap += as_wanted(run.gone, &subscriber.tags);
                break;
            }
            if run.is_full {
                break;
            }
        }
        looked_at
    }

    /// Finds what there is to read by now. Goes live if that is little, and is done if it is nothing.
    fn begin_round(&mut self, shared: &Shared, subscriber: &Subscriber) {
        if self.live_from.is_some_and(|from| self.position >= from) {
            self.is_done = true;
            self.sources = BinaryHeap::new();
            self.table = None;
            return;
        }
        let found = match &self.topics {
            Topics::One { .. } => self.find_one(shared, subscriber),
            Topics::Many(many) => {
                let many = many.clone();
                self.find_many(shared, subscriber, &many)
            }
            Topics::None => unreachable!("what keeps nothing is done from the start"),
        };
        let Found {
            until,
            sources,
            gone,
            ..
        } = found;
        self.gap += as_wanted(gone, &subscriber.tags);
        self.until = until;
        let bytes = sources.capacity() * size_of::<Source>();
        self.sources = sources.into();
        match &mut self.table {
            Some(table) => table.set(bytes),
            None if bytes > 0 => self.table = Some(shared.budget.memory().hold(bytes)),
            None => {}
        }
    }

    /// How much may be left for a reader to go live.
    fn left_max(subscriber: &Subscriber) -> u64 {
        LEFT_MAX.min(subscriber.mailbox.size().messages / 2) as u64
    }
}

/// Nobody knows how many of the messages that are gone had one of the tags.
fn as_wanted(gone: Gap, tags: &[Tag]) -> Gap {
    if gone.is_none() || tags.is_empty() {
        gone
    } else {
        Gap::UNKNOWN
    }
}
