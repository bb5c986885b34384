//! The bounded buffer between the broker and one subscriber.
//!
//! A slow subscriber may cost a known amount of memory and must never delay a publisher, so a push
//! never waits: a full mailbox does what its [`OverflowPolicy`] says. Invariants: every message
//! pushed is taken, still buffered, or counted as missed; messages leave in the order in which they
//! came; the count of misses and the end are told before the messages that still wait.

mod reading;

use std::{sync::Arc, task::Waker};

use super::{
    batch::Batch,
    budget::Budget,
    ended::EndReason,
    ledger::{Ledger, MissReason},
    memory::Held,
    overflow::OverflowPolicy,
    queue::{MailboxSize, Queue, Room},
    sync::Mutex,
    wakers::Wakers,
};
use crate::message::Delivery;

/// What became of one push.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) outcome: Outcome,
    /// Older messages lost to this push.
    pub(crate) displaced: u64,
    pub(crate) wakers: Wakers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Buffered,
    Dropped,
    /// The subscription has ended: the message was not for it.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    size: MailboxSize,
    policy: OverflowPolicy,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// What the reader took and has not passed on; no longer in the mailbox, but still in memory.
    in_hand_bytes: usize,
    /// The same of what it was replayed, which was never in the mailbox nor promised to it.
    replayed_in_hand_bytes: usize,
    ledger: Ledger,
    /// Misses that the reader has not been told.
    untold: u64,
    end: Option<EndReason>,
    reader: Option<Waker>,
    end_watch: Option<Waker>,
    /// Whether the reader took something since the last tick.
    progressed: bool,
    /// The queue's own memory, beside that of what waits in it.
    table: Option<Held>,
    /// Ticks in a row at which messages waited, here or in the reader's hand, and none had moved.
    idle_ticks: u32,
}

impl Mailbox {
    pub(crate) fn new(size: MailboxSize, policy: OverflowPolicy, budget: Arc<Budget>) -> Self {
        Self {
            size,
            policy,
            budget,
            state: Mutex::default(),
        }
    }

    pub(crate) fn size(&self) -> MailboxSize {
        self.size
    }

    pub(crate) fn policy(&self) -> OverflowPolicy {
        self.policy
    }

    pub(crate) fn end(&self) -> Option<EndReason> {
        self.state.lock().end
    }

    /// Buffers the message if there is room, without invoking the policy or counting a miss.
    pub(crate) fn offer(&self, delivery: &Arc<Delivery>) -> Push {
        let mut state = self.state.lock();
        let outcome = if state.end.is_some() {
            Outcome::Closed
        } else if self.buffer(&mut state, delivery).is_ok() {
            state.ledger.matched += 1;
            Outcome::Buffered
        } else {
            Outcome::Dropped
        };
        let reader = (outcome == Outcome::Buffered).then(|| state.reader.take());
        Push {
            outcome,
            displaced: 0,
            wakers: Wakers::of([reader.flatten(), None]),
        }
    }

    /// Buffers the message, or does what the policy says. Never waits.
    pub(crate) fn push(&self, delivery: &Arc<Delivery>) -> Push {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Push {
                outcome: Outcome::Closed,
                displaced: 0,
                wakers: Wakers::default(),
            };
        }
        state.ledger.matched += 1;
        let (outcome, displaced) = match self.buffer(&mut state, delivery) {
            Ok(()) => (Outcome::Buffered, 0),
            Err(full) => {
                if full == Full::Budget {
                    self.budget.refuse();
                }
                self.overflow(&mut state, delivery)
            }
        };
        let watcher = state.end.and_then(|_| state.end_watch.take());
        Push {
            outcome,
            displaced,
            wakers: Wakers::of([state.reader.take(), watcher]),
        }
    }

    /// Does what the policy says with a message that does not fit.
    fn overflow(&self, state: &mut State, delivery: &Arc<Delivery>) -> (Outcome, u64) {
        match self.policy {
            OverflowPolicy::DropNewest => {
                state.miss(MissReason::DropNewest, 1);
                (Outcome::Dropped, 0)
            }
            OverflowPolicy::DropOldest => {
                let mut displaced = 0;
                // Where others hold the whole budget, giving up everything would not help.
                while self.budget.would_fit(delivery.size(), state.queue.bytes())
                    && let Some(oldest) = state.queue.pop_oldest()
                {
                    self.budget.release(oldest);
                    state.miss(MissReason::DropOldest, 1);
                    displaced += 1;
                    if self.buffer(state, delivery).is_ok() {
                        return (Outcome::Buffered, displaced);
                    }
                }
                state.miss(MissReason::DropNewest, 1);
                (Outcome::Dropped, displaced)
            }
            OverflowPolicy::Disconnect => {
                let displaced = state.queue.messages() as u64;
                state.miss(MissReason::Disconnect, 1);
                self.abandon(state, EndReason::Overflow, MissReason::Disconnect);
                (Outcome::Dropped, displaced)
            }
        }
    }

    /// Buffers a batch, whose bytes the budget has been asked for before and for which there is room;
    /// says how much is left, or `None` if the mailbox has ended.
    pub(crate) fn accept(&self, batch: Option<&Arc<Batch>>) -> Option<Room> {
        let mut state = self.state.lock();
        if let Some(batch) = batch {
            debug_assert!(state.end.is_none(), "the lane lets go of those that end");
            state.ledger.matched += batch.len() as u64;
            state.queue.push_batch(batch);
            self.weigh(&mut state);
        }
        state.end.is_none().then(|| state.queue.room(self.size))
    }

    /// Takes no more messages; the reader gets what is buffered and then the end.
    pub(crate) fn finish(&self, reason: EndReason) -> Wakers {
        let mut state = self.state.lock();
        state.end.get_or_insert(reason);
        state.wakers()
    }

    /// Ends the mailbox for a subscriber that leaves, and closes its account.
    pub(crate) fn close(&self) -> (Ledger, Wakers) {
        let mut state = self.state.lock();
        if !state.is_over() {
            self.abandon(&mut state, EndReason::Unsubscribed, MissReason::Departed);
        }
        (state.ledger(), state.wakers())
    }

    /// What ending the mailbox would free at most, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.state.lock().held_bytes()
    }

    /// The account, and what ending the mailbox would free at most, in bytes.
    pub(crate) fn account(&self) -> (Ledger, usize) {
        let state = self.state.lock();
        (state.ledger(), state.held_bytes())
    }

    /// Ends the mailbox for want of memory. The one who watches for the end is woken when it is closed.
    /// Returns whether it had not ended before.
    pub(crate) fn shed(&self) -> bool {
        let mut state = self.state.lock();
        if state
            .end
            .is_some_and(|reason| reason != EndReason::TopicEnded)
        {
            return false;
        }
        self.abandon(&mut state, EndReason::Shed, MissReason::Shed);
        true
    }

    /// One step of the stall clock. Says why the subscription is over and should leave the registry,
    /// if it is: it overflowed, or took nothing at `ticks_max` ticks in a row while messages waited.
    /// Whoever waits for it is woken when it is closed.
    pub(crate) fn tick(&self, ticks_max: u32) -> Option<EndReason> {
        let mut state = self.state.lock();
        match state.end {
            Some(EndReason::Draining) => return None,
            // Its reader may take its time, but not stall.
            Some(EndReason::TopicEnded) | None => {}
            Some(reason) => return Some(reason),
        }
        let in_hand = state.in_hand_bytes + state.replayed_in_hand_bytes;
        let waiting = !state.queue.is_empty() || in_hand > 0;
        if !waiting && !state.progressed {
            // A burst's buffer does not outlive the burst by more than a tick.
            state.queue.shrink();
            state.table = None;
        }
        if !waiting || state.progressed {
            state.progressed = false;
            state.idle_ticks = 0;
            return None;
        }
        state.idle_ticks += 1;
        if state.idle_ticks < ticks_max {
            return None;
        }
        self.abandon(&mut state, EndReason::Stalled, MissReason::Stalled);
        Some(EndReason::Stalled)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.state.lock().ledger()
    }

    fn buffer(&self, state: &mut State, delivery: &Arc<Delivery>) -> Result<(), Full> {
        let size = delivery.size();
        let fits = Room {
            messages: 1,
            bytes: size,
        };
        if !state.queue.room(self.size).covers(fits) {
            return Err(Full::Mailbox);
        }
        if !self.budget.reserve(size) {
            return Err(Full::Budget);
        }
        state.queue.push(delivery);
        self.weigh(state);
        Ok(())
    }

    /// Counts the memory of the queue itself, which grows and shrinks in steps.
    fn weigh(&self, state: &mut State) {
        let bytes = state.queue.table_bytes();
        match &mut state.table {
            Some(table) => table.set(bytes),
            None if bytes > 0 => state.table = Some(self.budget.memory().hold(bytes)),
            None => {}
        }
    }

    /// Ends the mailbox and counts what it held as missed.
    fn abandon(&self, state: &mut State, end: EndReason, reason: MissReason) {
        let abandoned = std::mem::take(&mut state.queue);
        state.table = None;
        self.budget.release(abandoned.bytes());
        state.miss(reason, abandoned.messages() as u64);
        state.end = Some(end);
    }
}

/// Which bound left no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Mailbox,
    Budget,
}

impl State {
    fn miss(&mut self, reason: MissReason, count: u64) {
        self.ledger.miss(reason, count);
        self.untold += count;
    }

    fn wakers(&mut self) -> Wakers {
        Wakers::of([self.reader.take(), self.end_watch.take()])
    }

    fn held_bytes(&self) -> usize {
        self.queue.bytes() + self.in_hand_bytes + self.replayed_in_hand_bytes
    }

    /// Whether nothing more is for the reader, not even what waits.
    fn is_over(&self) -> bool {
        let is_polite = |reason| matches!(reason, EndReason::Draining | EndReason::TopicEnded);
        self.end.is_some_and(|reason| !is_polite(reason))
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            buffered: self.queue.messages() as u64,
            ..self.ledger
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        task::{Context, Poll},
        time::SystemTime,
    };

    use bytes::{Buf, BufMut};
    use proptest::prelude::*;

    use super::{
        super::{
            batch::Tail,
            ended::Ended,
            queue::{BatchLimit, Taken},
        },
        *,
    };
    use crate::message::{Epoch, Message, Sequence};

    fn delivery(sequence: u64, payload: usize) -> Arc<Delivery> {
        Arc::new(Delivery::new(
            Message::new("t".parse().unwrap(), vec![0; payload]),
            Epoch(1),
            Sequence(sequence),
            SystemTime::UNIX_EPOCH,
        ))
    }

    fn mailbox(messages: usize, policy: OverflowPolicy) -> Mailbox {
        let size = MailboxSize {
            messages,
            bytes: 1 << 20,
        };
        Mailbox::new(
            size,
            policy,
            Arc::new(Budget::with_unlimited_memory(1 << 30)),
        )
    }

    const ALL: BatchLimit = BatchLimit {
        messages: usize::MAX,
        bytes: usize::MAX,
    };

    fn take(mailbox: &Mailbox, limit: BatchLimit) -> Poll<Result<(u64, Vec<u64>), Ended>> {
        let (mut missed, mut sequences) = (0, Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        let taken = mailbox.poll_take(&mut cx, limit, |taken| match taken {
            Taken::Missed(count) => missed = count,
            Taken::Gap(gap, _) => panic!("a mailbox knows no history: {gap:?}"),
            Taken::Delivery(delivery) => sequences.push(delivery.sequence.0),
            Taken::Frames(frames) => sequences.extend(frames.chunks(8).map(|mut f| f.get_u64())),
        });
        taken.map_ok(|()| (missed, sequences))
    }

    fn batch(sequences: std::ops::RangeInclusive<u64>, size: usize) -> Arc<Batch> {
        let mut tail = Tail::default();
        for sequence in sequences {
            tail.append(size, 1, |out| out.put_u64(sequence));
        }
        Arc::new(tail.seal())
    }

    fn push_all(mailbox: &Mailbox, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            drop(mailbox.push(&delivery(sequence, 1)));
        }
    }

    #[test]
    fn a_full_mailbox_drops_its_newest_message() {
        let mailbox = mailbox(3, OverflowPolicy::DropNewest);
        push_all(&mailbox, 1..=5);
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Ok((2, vec![1, 2, 3]))));
        assert_eq!(take(&mailbox, ALL), Poll::Pending);
    }

    #[test]
    fn a_full_mailbox_drops_its_oldest_message() {
        let mailbox = mailbox(3, OverflowPolicy::DropOldest);
        push_all(&mailbox, 1..=5);
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Ok((2, vec![3, 4, 5]))));
    }

    #[test]
    fn an_overflow_that_disconnects_is_told_at_once() {
        let mailbox = mailbox(3, OverflowPolicy::Disconnect);
        push_all(&mailbox, 1..=3);
        let push = mailbox.push(&delivery(4, 1));
        assert_eq!((push.outcome, push.displaced), (Outcome::Dropped, 3));
        let ended = Ended {
            reason: EndReason::Overflow,
            missed: 4,
        };
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Err(ended)));
        assert_eq!(mailbox.push(&delivery(5, 1)).outcome, Outcome::Closed);
        assert!(mailbox.ledger().balances());
    }

    #[test]
    fn the_bound_in_bytes_holds_with_few_large_messages() {
        let size = MailboxSize {
            messages: 100,
            bytes: 3_000,
        };
        let budget = Arc::new(Budget::with_unlimited_memory(1 << 30));
        let mailbox = Mailbox::new(size, OverflowPolicy::DropOldest, Arc::clone(&budget));
        let large = delivery(3, 2_000).size();
        drop(mailbox.push(&delivery(1, 10)));
        drop(mailbox.push(&delivery(2, 10)));
        assert_eq!(mailbox.push(&delivery(3, 2_000)).displaced, 0);
        assert_eq!(mailbox.push(&delivery(4, 2_000)).displaced, 3);
        assert_eq!(budget.used(), large);
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Ok((3, vec![4]))));
        assert_eq!(budget.used(), large, "in the reader's hand");
        assert_eq!(take(&mailbox, ALL), Poll::Pending);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_budget_of_all_mailboxes_is_one_more_bound() {
        let size = MailboxSize {
            messages: 100,
            bytes: 1 << 20,
        };
        let budget = Arc::new(Budget::with_unlimited_memory(2 * delivery(1, 1).size()));
        let first = Mailbox::new(size, OverflowPolicy::DropNewest, Arc::clone(&budget));
        let second = Mailbox::new(size, OverflowPolicy::DropOldest, Arc::clone(&budget));
        push_all(&first, 1..=3);
        assert_eq!(second.push(&delivery(4, 1)).outcome, Outcome::Dropped);
        assert_eq!(take(&second, ALL), Poll::Ready(Ok((1, vec![]))));
        assert_eq!(take(&first, ALL), Poll::Ready(Ok((1, vec![1, 2]))));
        first.pass_on();
        assert_eq!(budget.refusals(), 2);
        assert_eq!(second.push(&delivery(5, 1)).outcome, Outcome::Buffered);
        assert_eq!(first.push(&delivery(6, 1)).outcome, Outcome::Buffered);
        assert_eq!(first.push(&delivery(7, 9)).outcome, Outcome::Dropped);
        // Giving up its own message would not make room for a larger one.
        let large = second.push(&delivery(8, 1_000));
        assert_eq!((large.outcome, large.displaced), (Outcome::Dropped, 0));
        assert_eq!(take(&first, ALL), Poll::Ready(Ok((1, vec![6]))));
        first.pass_on();
        let older = second.push(&delivery(9, 200));
        assert_eq!((older.outcome, older.displaced), (Outcome::Buffered, 1));
    }

    #[test]
    fn a_batch_is_bounded_but_never_empty() {
        let mailbox = mailbox(10, OverflowPolicy::DropNewest);
        push_all(&mailbox, 1..=5);
        let two = BatchLimit {
            messages: 2,
            bytes: usize::MAX,
        };
        assert_eq!(take(&mailbox, two), Poll::Ready(Ok((0, vec![1, 2]))));
        let tiny = BatchLimit {
            messages: usize::MAX,
            bytes: 1,
        };
        assert_eq!(take(&mailbox, tiny), Poll::Ready(Ok((0, vec![3]))));
    }

    #[test]
    fn a_drain_delivers_what_is_buffered_and_then_ends() {
        let mailbox = mailbox(10, OverflowPolicy::DropNewest);
        push_all(&mailbox, 1..=2);
        mailbox.finish(EndReason::Draining).wake();
        assert_eq!(mailbox.push(&delivery(3, 1)).outcome, Outcome::Closed);
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Ok((0, vec![1, 2]))));
        let ended = Ended {
            reason: EndReason::Draining,
            missed: 0,
        };
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Err(ended)));
    }

    #[test]
    fn a_reader_that_takes_nothing_is_ended_after_its_ticks() {
        let mailbox = mailbox(10, OverflowPolicy::DropNewest);
        assert_eq!(mailbox.tick(2), None, "an empty mailbox does not stall");
        push_all(&mailbox, 1..=2);
        assert_eq!(mailbox.tick(2), None);
        assert_eq!(mailbox.tick(2), Some(EndReason::Stalled));
        let ended = Ended {
            reason: EndReason::Stalled,
            missed: 2,
        };
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Err(ended)));
    }

    #[test]
    fn a_slow_reader_that_moves_is_not_stalled() {
        let mailbox = mailbox(100, OverflowPolicy::DropNewest);
        push_all(&mailbox, 1..=50);
        let one = BatchLimit {
            messages: 1,
            bytes: usize::MAX,
        };
        for _ in 0..40 {
            assert_eq!(mailbox.tick(2), None);
            assert!(take(&mailbox, one).is_ready());
        }
    }

    #[test]
    fn a_reader_that_holds_what_it_took_has_stalled() {
        let mailbox = mailbox(10, OverflowPolicy::DropNewest);
        push_all(&mailbox, 1..=2);
        assert!(take(&mailbox, ALL).is_ready());
        assert_eq!(
            mailbox.tick(2),
            None,
            "it took something since the last tick"
        );
        assert_eq!(mailbox.tick(2), None);
        assert_eq!(mailbox.tick(2), Some(EndReason::Stalled));
    }

    #[test]
    fn a_bursts_buffer_is_given_back() {
        let mailbox = mailbox(1_000, OverflowPolicy::DropNewest);
        push_all(&mailbox, 1..=1_000);
        assert!(take(&mailbox, ALL).is_ready());
        assert!(take(&mailbox, ALL).is_pending());
        assert_eq!(mailbox.tick(10), None);
        assert_eq!(mailbox.tick(10), None);
        assert_eq!(mailbox.state.lock().queue.capacity(), 0);
    }

    #[test]
    fn a_batch_is_taken_and_dropped_message_by_message_where_need_be() {
        let mailbox = mailbox(6, OverflowPolicy::DropOldest);
        assert!(mailbox.budget.reserve(5 * 300));
        let left = mailbox.accept(Some(&batch(1..=5, 300)));
        assert_eq!(left.map(|room| room.messages), Some(1));
        push_all(&mailbox, 6..=8);
        let three = BatchLimit {
            messages: 3,
            bytes: usize::MAX,
        };
        assert_eq!(take(&mailbox, three), Poll::Ready(Ok((2, vec![3, 4, 5]))));
        let tiny = BatchLimit {
            messages: usize::MAX,
            bytes: 1,
        };
        assert_eq!(take(&mailbox, tiny), Poll::Ready(Ok((0, vec![6]))));
        assert_eq!(take(&mailbox, ALL), Poll::Ready(Ok((0, vec![7, 8]))));
        assert_eq!(take(&mailbox, ALL), Poll::Pending);
        assert_eq!(mailbox.budget.used(), 0);
        assert!(mailbox.ledger().balances());
        drop(mailbox.close());
        assert_eq!(mailbox.accept(None), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Accept(u64, usize),
        Push(usize),
        Offer,
        Take(usize),
        Tick,
        Shed,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            20 => (1u64..6, 1usize..2_000).prop_map(|(messages, size)| Step::Accept(messages, size)),
            50 => (0usize..2_000).prop_map(Step::Push),
            10 => Just(Step::Offer),
            20 => (1usize..6).prop_map(Step::Take),
            3 => Just(Step::Tick),
            1 => Just(Step::Shed),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn policies() -> impl Strategy<Value = OverflowPolicy> {
        prop::sample::select(vec![
            OverflowPolicy::DropNewest,
            OverflowPolicy::DropOldest,
            OverflowPolicy::Disconnect,
        ])
    }

    proptest! {
        #[test]
        fn every_message_is_taken_buffered_or_counted_as_missed(
            steps in steps(),
            policy in policies(),
            capacity in 1usize..20,
        ) {
            let budget = Arc::new(Budget::with_unlimited_memory(30_000));
            let size = MailboxSize { messages: capacity, bytes: 20_000 };
            let mailbox = Mailbox::new(size, policy, Arc::clone(&budget));
            let (mut sequence, mut matched, mut told, mut last) = (0, 0, 0, 0);
            for step in steps {
                match step {
                    Step::Accept(messages, size) => {
                        // As a lane does it: what fits, with the budget asked before.
                        let fits = Room { messages: messages as usize, bytes: messages as usize * size };
                        let room = mailbox.accept(None);
                        if room.is_some_and(|room| room.covers(fits)) && budget.reserve(fits.bytes) {
                            let batch = batch(sequence + 1..=sequence + messages, size);
                            mailbox.accept(Some(&batch));
                            sequence += messages;
                            matched += messages;
                        }
                    }
                    Step::Push(payload) => {
                        sequence += 1;
                        let push = mailbox.push(&delivery(sequence, payload));
                        matched += u64::from(push.outcome != Outcome::Closed);
                    }
                    Step::Offer => {
                        sequence += 1;
                        let push = mailbox.offer(&delivery(sequence, 1));
                        matched += u64::from(push.outcome == Outcome::Buffered);
                    }
                    Step::Take(messages) => {
                        let limit = BatchLimit { messages, bytes: usize::MAX };
                        match take(&mailbox, limit) {
                            Poll::Ready(Ok((missed, sequences))) => {
                                told += missed;
                                for sequence in sequences {
                                    prop_assert!(sequence > last, "out of order");
                                    last = sequence;
                                }
                            }
                            Poll::Ready(Err(ended)) => told += ended.missed,
                            Poll::Pending => {}
                        }
                    }
                    Step::Tick => {
                        mailbox.tick(3);
                    }
                    Step::Shed => {
                        mailbox.shed();
                    }
                }
                let ledger = mailbox.ledger();
                prop_assert!(ledger.balances(), "{ledger:?}");
                prop_assert_eq!(ledger.matched, matched);
                let state = mailbox.state.lock();
                prop_assert_eq!(ledger.missed_total(), told + state.untold);
                prop_assert!(state.queue.messages() <= capacity && state.queue.bytes() <= 20_000);
                prop_assert_eq!(budget.used(), state.queue.bytes() + state.in_hand_bytes);
            }
            prop_assert!(mailbox.close().0.balances());
            mailbox.pass_on();
            prop_assert_eq!(budget.used(), 0);
            prop_assert_eq!(budget.memory().used(), 0);
        }
    }
}
