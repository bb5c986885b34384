//! Subscribers that want the same messages in the same encoding, and what was published to all of them.
//!
//! Pushing a message to each of a thousand mailboxes costs a thousand locks; appending it to the tail
//! of their lane costs one. The tail becomes a [`Batch`] when the first reader comes for more, and each
//! member's mailbox gets a reference to it. So the cost of a message is shared by the members, and the
//! cost of a member by the messages of a batch; both grow cheaper under load.
//!
//! A member's mailbox is bounded as ever: the tail takes no more than fits into the fullest mailbox of
//! those *attached*. A member whose mailbox is getting full is *detached* and pushed to message by
//! message, by its own policy, until it has caught up: one slow reader neither loses more nor less than
//! it would alone, and does not make batches small for the others. A member that is still reading what is
//! kept is *behind*: messages with history are not for its mailbox yet.
//!
//! Invariants: a message in the tail has room, in messages, bytes and budget, in the mailbox of every
//! attached member, and none of these has ended; whatever reads or ends a mailbox has the tail handed
//! over first, so that the accounts are exact at every moment anyone looks; a reader is parked only while
//! the tail is empty.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    batch::{Encoding, Tail},
    budget::Budget,
    ended::EndReason,
    filters::Filters,
    mailbox::Mailbox,
    parting::Parting,
    queue::Room,
    registry::Tally,
    sync::{Mutex, MutexGuard},
};
use crate::message::{MessageRef, Tag};

/// The smallest mailbox that shares a lane, in messages: with smaller ones batches would hold next to
/// nothing.
pub(super) const CAPACITY_MIN: usize = 64;

/// A tail is handed over at this many messages or bytes at the latest: the publisher that fills it
/// up hands it over in a time that stays short, and what one batch keeps in memory is known.
const TAIL_MESSAGES_MAX: usize = 256;
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// A payload of this size or more is shared by reference and not copied into a lane's batch: its
/// subscribers' writes cost far more than a push to each.
pub(crate) const PAYLOAD_BYTES_COPIED_MAX: usize = 16 * 1024;

/// A member stays attached while this part of its mailbox is free, and returns once so much is: what it
/// gets together with the others is a good part of its mailbox each time, and none goes back and forth.
const STAY: usize = 4;
const RETURN: usize = 2;

/// What the members of a lane have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey {
    pub(crate) filters: Filters,
    pub(crate) tags: Box<[Tag]>,
    pub(crate) encoding: &'static str,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: u64,
    pub(crate) key: LaneKey,
    encoding: &'static Encoding,
    budget: Arc<Budget>,
    /// Whether there is anything in the tail, to be asked without the lock.
    has_tail: AtomicBool,
    state: Mutex<State>,
}

/// One member.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
pub(crate) struct State {
    tail: Tail,
    /// The least room of an attached member's mailbox when the tail was empty.
    room: Room,
    attached: Vec<Seat>,
    detached: Vec<Seat>,
    /// Those that read what is kept from the logs: messages of other topics are pushed to them one by one.
    behind: Vec<Seat>,
}

impl Lane {
    pub(crate) fn new(
        id: u64,
        key: LaneKey,
        encoding: &'static Encoding,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            id,
            key,
            encoding,
            budget,
            has_tail: AtomicBool::new(false),
            state: Mutex::new(State {
                tail: Tail::default(),
                room: Room::UNBOUNDED,
                attached: Vec::new(),
                detached: Vec::new(),
                behind: Vec::new(),
            }),
        }
    }

    /// Whether the lane's tags let a message with this tag through.
    pub(crate) fn wants(&self, tag: Option<&Tag>) -> bool {
        let tags = &self.key.tags;
        tags.is_empty() || tag.is_some_and(|tag| tags.contains(tag))
    }

    /// Hands over what is in the tail.
    pub(crate) fn flush(&self) {
        self.lock().flush();
    }

    /// [`flush`](Self::flush), if anything that the caller knows to be published is in the tail.
    pub(crate) fn flush_known(&self) {
        if self.has_tail.load(Ordering::Acquire) {
            self.flush();
        }
    }

    /// For whoever publishes one message or several to its members.
    pub(crate) fn lock(&self) -> LockedLane<'_> {
        LockedLane {
            lane: self,
            state: self.state.lock(),
        }
    }

    /// Lets a member in; its first message is the next one published, or if it is behind, the next one of
    /// a topic without history.
    pub(crate) fn join(&self, seat: Seat, is_behind: bool) {
        let mut state = self.lock();
        if is_behind {
            state.behind.push(seat);
            return;
        }
        state.flush();
        state.room = state.room.min(seat.mailbox.size().share(1));
        state.attached.push(seat);
    }

    /// A member that was behind gets all that is published from now on.
    pub(crate) fn catch_up(&self, id: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(at) = state.behind.iter().position(|seat| seat.id == id) else {
            return;
        };
        state.flush();
        let seat = state.behind.swap_remove(at);
        match seat.mailbox.accept(None) {
            Some(free) if free.covers(seat.mailbox.size().share(STAY)) => {
                state.room = state.room.min(free);
                state.attached.push(seat);
            }
            _ => state.detached.push(seat),
        }
    }

    /// Ends all members after what their mailboxes hold: their topic has seen its last message.
    pub(crate) fn finish(&self, tally: &mut Tally) {
        let mut state = self.lock();
        let state = &mut *state;
        state.flush();
        for seats in [&mut state.attached, &mut state.detached, &mut state.behind] {
            for seat in std::mem::take(seats) {
                let wakers = seat.mailbox.finish(EndReason::TopicEnded);
                tally.wakers.extend(wakers);
            }
        }
        state.room = Room::UNBOUNDED;
    }

    /// Wakes all members: what they wait for may be over.
    pub(crate) fn wake(&self, tally: &mut Tally) {
        let state = self.lock();
        for seats in [&state.attached, &state.detached, &state.behind] {
            let readers = seats.iter().filter_map(|seat| seat.mailbox.take_reader());
            tally.wakers.extend(readers);
        }
    }

    /// Does something to a member's mailbox, with all that was published before in it. A member that
    /// has ended by then leaves.
    pub(crate) fn with_flushed<R>(
        &self,
        id: u64,
        mailbox: &Mailbox,
        act: impl FnOnce(&Mailbox) -> R,
    ) -> R {
        let mut state = self.lock();
        state.flush();
        let result = act(mailbox);
        if mailbox.end().is_some() {
            state.unseat(id);
        }
        result
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many members it has.
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        state.attached.len() + state.detached.len() + state.behind.len()
    }
}

/// A lane's state, with `has_tail` kept true to it.
#[derive(Debug)]
pub(crate) struct LockedLane<'l> {
    lane: &'l Lane,
    state: MutexGuard<'l, State>,
}

impl LockedLane<'_> {
    /// Whether the message is for all members together, which costs the same however many they are.
    pub(crate) fn takes_together(&self, message: &MessageRef<'_>) -> bool {
        self.detached.is_empty() && self.behind.is_empty() && self.lane.wants(message.tag)
    }

    /// Publishes the message to every member, whatever its tag. Never waits, wakes nobody.
    pub(crate) fn push(&mut self, parting: &mut Parting<'_>, tally: &mut Tally) {
        let Lane {
            budget, encoding, ..
        } = self.lane;
        let state = &mut *self.state;
        if state.attached.is_empty() || !state.has_room(parting) {
            state.hand_over();
        }
        let together = !state.attached.is_empty()
            && state.has_room(parting)
            && budget.reserve(parting.size() * state.attached.len());
        if together {
            state.tail.count_in(budget.memory());
            state.append(parting, encoding, tally);
        } else if !state.attached.is_empty() {
            state.flush();
            push_singly(&state.attached, parting, tally);
            // To be measured anew: the mailboxes have filled up by what the tail does not know.
            state.room = Room::NONE;
        }
        push_singly(&state.detached, parting, tally);
        if !state.behind.is_empty() && !parting.is_kept() {
            push_singly(&state.behind, parting, tally);
        }
    }
}

impl Deref for LockedLane<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for LockedLane<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for LockedLane<'_> {
    fn drop(&mut self) {
        let has_tail = !self.state.tail.is_empty();
        self.lane.has_tail.store(has_tail, Ordering::Release);
    }
}

fn push_singly(seats: &[Seat], parting: &mut Parting<'_>, tally: &mut Tally) {
    for seat in seats {
        tally.add(seat.mailbox.push(parting.shared()));
    }
}

impl State {
    fn has_room(&self, parting: &Parting<'_>) -> bool {
        let sums = self.tail.sums();
        let fits = Room {
            messages: sums.messages + 1,
            bytes: sums.size + parting.size(),
        };
        self.room.covers(fits)
            && sums.messages < TAIL_MESSAGES_MAX
            && self.tail.frames_bytes() < TAIL_BYTES_MAX
            && parting.message().payload.len() < PAYLOAD_BYTES_COPIED_MAX
    }

    fn append(&mut self, parting: &mut Parting<'_>, encoding: &Encoding, tally: &mut Tally) {
        if self.tail.is_empty() {
            let readers = self
                .attached
                .iter()
                .filter_map(|seat| seat.mailbox.take_reader());
            tally.wakers.extend(readers);
        }
        let payload_bytes = parting.message().payload.len();
        let size = parting.size();
        self.tail
            .append(size, payload_bytes, |out| parting.put(encoding, out));
        let members = u32::try_from(self.attached.len()).unwrap_or(u32::MAX);
        tally.matched += members;
        tally.delivered += members;
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.hand_over();
        }
    }

    /// Gives each attached member a reference to what was in the tail, and measures the room again.
    fn hand_over(&mut self) {
        let batch = (!self.tail.is_empty()).then(|| Arc::new(self.tail.seal()));
        let mut room = Room::UNBOUNDED;
        let detached_before = self.detached.len();
        let mut at = 0;
        while let Some(seat) = self.attached.get(at) {
            match seat.mailbox.accept(batch.as_ref()) {
                Some(free) if free.covers(seat.mailbox.size().share(STAY)) => {
                    room = room.min(free);
                    at += 1;
                }
                _ => self.detached.push(self.attached.swap_remove(at)),
            }
        }
        for at in (0..detached_before).rev() {
            let mailbox = &self.detached[at].mailbox;
            if let Some(free) = mailbox.accept(None)
                && free.covers(mailbox.size().share(RETURN))
            {
                room = room.min(free);
                self.attached.push(self.detached.swap_remove(at));
            }
        }
        self.room = room;
    }

    fn unseat(&mut self, id: u64) {
        for seats in [&mut self.attached, &mut self.detached, &mut self.behind] {
            if let Some(at) = seats.iter().position(|seat| seat.id == id) {
                seats.swap_remove(at);
                if seats.len() < seats.capacity() / 4 {
                    seats.shrink_to_fit();
                }
            }
        }
        if self.attached.is_empty() {
            self.room = Room::UNBOUNDED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{OverflowPolicy, queue::MailboxSize};

    static ENCODING: Encoding = Encoding {
        name: "test",
        put: |_, _| {},
    };

    #[test]
    fn seats_that_are_left_give_their_memory_back_in_large_steps() {
        let budget = Arc::new(Budget::with_unlimited_memory(1 << 30));
        let topic: crate::topic::Topic = "t".parse().unwrap();
        let key = LaneKey {
            filters: crate::topic::TopicFilter::from(topic).into(),
            tags: Box::default(),
            encoding: ENCODING.name,
        };
        let lane = Lane::new(0, key, &ENCODING, Arc::clone(&budget));
        lane.lock().attached.reserve_exact(64);
        let size = MailboxSize {
            messages: 100,
            bytes: 100_000,
        };
        let mailboxes: Vec<_> = (0..64)
            .map(|id| {
                let policy = OverflowPolicy::DropNewest;
                let mailbox = Arc::new(Mailbox::new(size, policy, Arc::clone(&budget)));
                let seat = Seat {
                    id,
                    mailbox: Arc::clone(&mailbox),
                };
                lane.join(seat, false);
                mailbox
            })
            .collect();
        let leave = |ids: std::ops::Range<usize>| {
            for id in ids {
                let close = |mailbox: &Mailbox| drop(mailbox.close());
                lane.with_flushed(id as u64, &mailboxes[id], close);
            }
            lane.lock().attached.capacity()
        };
        assert_eq!(leave(0..1), 64);
        assert_eq!(leave(1..48), 64, "a quarter of them is left");
        assert_eq!(leave(48..49), 15);
        assert!(leave(49..64) < 4);
        assert!(lane.is_empty());
    }
}
