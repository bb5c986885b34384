//! What all topics keep together: the order of their messages, the bound on their bytes, and who gives
//! something up when it is passed.
//!
//! Messages of topics with history are given their positions, and pushed to all mailboxes, under one *order
//! lock*: so the order of positions is the order in every mailbox, and one position is a place in all that
//! a filter matches. A message is in its topic's log before the topic's lock is released.
//!
//! Invariants: a log that is not empty has a seat among the others, and its topic is pinned; the bound is
//! passed by one message of each publisher at most. Topics without history never come here.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use super::{
    Broker, Shared,
    forgotten::Forgotten,
    log::{GivenUp, LOG_BYTES, Log},
    memory::Memory,
    parting::Parting,
    publish::Placed,
    registry::Tally,
    retention::{EvictReason, HistoryLimits},
    sync::{Mutex, MutexGuard},
    topics::{LiveTopic, TopicState},
};
use crate::{cursor::Position, message::MessageRef, topic::Topic};

/// How many topics that were published to since they were last asked are spared by one publisher at most,
/// before it takes from one of them all the same.
const SPARED_MAX: usize = 64;
/// The part of what it keeps that a topic in use gives up at once.
const PART: usize = 4;
/// Seats that are looked at under one lock.
const SEATS_AT_ONCE: usize = 64;

/// How much is kept and was given up.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    evicted: [AtomicU64; EvictReason::ALL.len()],
    stamp: AtomicU64,
}

impl Figures {
    pub(super) fn keep(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts messages that are given up; returns how many that are by now.
    pub(super) fn evict(&self, messages: usize, reason: EvictReason) -> u64 {
        let messages = messages as u64;
        self.evicted[reason as usize].fetch_add(messages, Ordering::Relaxed);
        self.stamp.fetch_add(messages, Ordering::Relaxed) + messages
    }

    pub(super) fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// In the order of [`EvictReason::ALL`].
    pub(super) fn evicted(&self) -> [u64; EvictReason::ALL.len()] {
        std::array::from_fn(|at| self.evicted[at].load(Ordering::Relaxed))
    }

    /// How many messages were given up so far.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Relaxed)
    }
}

/// A topic that keeps something.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) topic: Topic,
    pub(crate) state: Arc<TopicState>,
}

/// In the order in which they were taken.
#[derive(Debug, Default)]
struct Seats {
    taken: BTreeMap<u64, (Topic, Arc<TopicState>)>,
    newest: u64,
    /// The one that was asked last to give something up.
    hand: u64,
}

#[derive(Debug)]
pub(crate) struct History {
    limits: HistoryLimits,
    memory: Arc<Memory>,
    order: Mutex<()>,
    /// The newest position given.
    head: AtomicU64,
    seats: Mutex<Seats>,
    /// What is left of topics that lost their seats.
    forgotten: Mutex<Forgotten>,
    /// For those who ask topics to give something up.
    next_asker: AtomicU64,
    pub(super) figures: Figures,
    pub(super) replayed: AtomicU64,
}

/// The right to give the next position.
#[derive(Debug)]
pub(super) struct Order<'h> {
    _order: MutexGuard<'h, ()>,
    head: &'h AtomicU64,
}

impl Order<'_> {
    pub(super) fn head(&self) -> Position {
        Position(self.head.load(Ordering::Acquire))
    }

    pub(super) fn next(&self) -> Position {
        Position(self.head.fetch_add(1, Ordering::Release) + 1)
    }
}

impl History {
    pub(super) fn new(limits: HistoryLimits, memory: Arc<Memory>) -> Self {
        Self {
            limits,
            memory,
            order: Mutex::default(),
            head: AtomicU64::new(0),
            seats: Mutex::default(),
            forgotten: Mutex::default(),
            next_asker: AtomicU64::new(1),
            figures: Figures::default(),
            replayed: AtomicU64::new(0),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.limits.is_on()
    }

    pub(super) fn keeps(&self, topic: &Topic) -> bool {
        self.limits.bounds(topic).is_some()
    }

    /// The log of a topic whose life begins, if it has history.
    pub(super) fn log(&self, topic: &Topic) -> Option<Box<Log>> {
        let bounds = self.limits.bounds(topic)?;
        Some(Box::new(Log::new(bounds, self.head())))
    }

    /// The newest position given. A message with it, or an older one, is in the log of its topic for
    /// whoever gets that topic's lock.
    pub(super) fn head(&self) -> Position {
        Position(self.head.load(Ordering::Acquire))
    }

    pub(super) fn order(&self) -> Order<'_> {
        Order {
            _order: self.order.lock(),
            head: &self.head,
        }
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    pub(super) fn topics(&self) -> usize {
        self.seats.lock().taken.len()
    }

    /// What topics that lost their seats gave up, of those that are asked for, or may be.
    pub(super) fn forgotten(&self, is_asked: impl Fn(&Topic, &GivenUp) -> bool) -> Option<GivenUp> {
        self.forgotten.lock().find(is_asked)
    }

    /// All topics that keep something, or did when they were last looked at, a few at a time; one that
    /// does all the while is among them once.
    pub(super) fn seats(&self) -> impl Iterator<Item = Seat> {
        let mut last = 0;
        let next = move || {
            let seats = self.seats.lock();
            let after = (Bound::Excluded(last), Bound::Unbounded);
            let more: Vec<Seat> = seats
                .taken
                .range(after)
                .take(SEATS_AT_ONCE)
                .map(|(id, (topic, state))| Seat {
                    id: *id,
                    topic: topic.clone(),
                    state: Arc::clone(state),
                })
                .collect();
            last = more.last()?.id;
            Some(more)
        };
        std::iter::from_fn(next).flatten()
    }

    fn sit(&self, log: &mut Log, topic: &Topic, state: &Arc<TopicState>) {
        let mut seats = self.seats.lock();
        seats.newest += 1;
        let id = seats.newest;
        seats.taken.insert(id, (topic.clone(), Arc::clone(state)));
        drop(seats);
        log.seat = Some(id);
        self.figures.bytes.fetch_add(LOG_BYTES, Ordering::Relaxed);
    }

    /// Takes an empty log's seat.
    fn stand(&self, log: &mut Log, topic: &Topic) -> bool {
        let Some(id) = log.seat.filter(|_| log.is_empty()) else {
            return false;
        };
        if let Some(given_up) = log.given_up() {
            self.forgotten.lock().add(topic, given_up);
        }
        log.seat = None;
        self.seats.lock().taken.remove(&id);
        self.figures.bytes.fetch_sub(LOG_BYTES, Ordering::Relaxed);
        log.weigh(&self.memory);
        true
    }

    /// The next one to be asked to give something up.
    fn next_hand(&self) -> Option<Seat> {
        let mut seats = self.seats.lock();
        let after = (Bound::Excluded(seats.hand), Bound::Unbounded);
        let mut from_here = seats.taken.range(after).chain(seats.taken.range(..));
        let (id, (topic, state)) = from_here.next()?;
        let seat = Seat {
            id: *id,
            topic: topic.clone(),
            state: Arc::clone(state),
        };
        seats.hand = seat.id;
        Some(seat)
    }
}

impl Shared {
    /// Pins the topic and gives its log a seat, for the first message to be kept.
    pub(super) fn seat_log(&self, topic: &Topic) {
        let state = self.topics.pin(topic);
        let mut live = state.look();
        let log = live.log.as_mut().filter(|log| log.seat.is_none());
        let is_new = log
            .map(|log| self.history.sit(log, topic, &state))
            .is_some();
        drop(live);
        if !is_new {
            self.topics.unpin(topic);
        }
    }

    /// Gives the message its places, keeps it, and pushes it to every mailbox that is not behind. `None`
    /// if the log has no seat yet.
    pub(super) fn keep(
        &self,
        state: &TopicState,
        mut live: MutexGuard<'_, LiveTopic>,
        message: &MessageRef<'_>,
        published_at: SystemTime,
    ) -> Option<Placed> {
        live.log.as_ref()?.seat?;
        let sequence = live.next_sequence();
        let order = self.history.order();
        // Under the order lock: whoever went live before has this message in its mailbox.
        self.refresh_route(message.topic, &mut live);
        let position = order.next();
        let memory = self.budget.memory();
        let parting = Parting::new(memory, *message, state.epoch, sequence, published_at);
        let mut parting = parting.keep_at(position);
        let mut tally = Tally::default();
        live.route.deliver(&mut parting, &mut tally);
        if message.end {
            live.end(message.topic, &mut tally);
        }
        drop(order);
        let log = live.log.as_mut()?;
        log.push(
            position,
            Arc::clone(parting.shared()),
            &self.history.figures,
        );
        log.weigh(memory);
        drop(live);
        self.keep_history_bound();
        Some(Placed {
            epoch: state.epoch,
            sequence,
            position: Some(position),
            tally,
        })
    }

    /// Has a log do something, and lets go of the topic if nothing is left in it.
    fn with_seated(&self, seat: &Seat, act: impl FnOnce(&mut Log)) {
        let mut live = seat.state.look();
        let Some(log) = &mut live.log else { return };
        act(log);
        log.weigh(self.history.memory());
        let is_over = self.history.stand(log, &seat.topic);
        drop(live);
        if is_over {
            self.topics.unpin(&seat.topic);
        }
    }

    /// Keeps the bound on all topics together. To be called without any lock.
    pub(super) fn keep_history_bound(&self) {
        let max = self.history.limits.bytes_max;
        if self.history.figures.bytes() > max {
            self.give_up_while(EvictReason::Budget, || self.history.figures.bytes() > max);
        }
    }

    /// Has topics give up what they keep, for as long as it is needed and there is any: those that were
    /// not published to since they were last asked all, others a part, and those only where none of the
    /// former is found near by (CLOCK, as in the paging of Multics).
    pub(super) fn give_up_while(&self, reason: EvictReason, is_needed: impl Fn() -> bool) {
        let figures = &self.history.figures;
        let asker = self.history.next_asker.fetch_add(1, Ordering::Relaxed);
        let mut spared = 0;
        while is_needed()
            && let Some(seat) = self.history.next_hand()
        {
            self.with_seated(&seat, |log| {
                let was_spared = log.spared_by == asker;
                let is_used = std::mem::take(&mut log.used) || was_spared;
                if is_used && !was_spared && spared < SPARED_MAX {
                    log.spared_by = asker;
                    spared += 1;
                } else if is_used {
                    log.give_up(log.len().div_ceil(PART), reason, figures);
                } else {
                    log.give_up(log.len(), reason, figures);
                }
            });
        }
    }
}

impl Broker {
    /// Gives up what has been kept for as long as its topic keeps anything. Call it every second: that is
    /// how exact an age is.
    pub fn expire(&self, now: SystemTime) {
        let shared = &*self.shared;
        for seat in shared.history.seats() {
            shared.with_seated(&seat, |log| log.expire(now, &shared.history.figures));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broker::Bounds, broker::Limits, broker::Retention, message::Message};

    fn broker(bytes_max: usize) -> Broker {
        let rule = Retention {
            filter: ">".parse().unwrap(),
            bounds: Some(Bounds::default()),
        };
        let history = HistoryLimits {
            rules: vec![rule],
            bytes_max,
        };
        let limits = Limits {
            history,
            ..Limits::default()
        };
        Broker::new(limits, 1).unwrap()
    }

    fn publish(broker: &Broker, topic: &str) {
        let message = Message::new(topic.parse().unwrap(), "");
        broker.publish(message, SystemTime::UNIX_EPOCH).unwrap();
    }

    fn kept(broker: &Broker) -> Vec<(String, usize)> {
        let lengths = broker.shared.history.seats().map(|seat| {
            let live = seat.state.look();
            (seat.topic.to_string(), live.log.as_ref().unwrap().len())
        });
        lengths.collect()
    }

    fn message_bytes() -> usize {
        Message::new("a".parse().unwrap(), "").size() + super::super::log::SLOT_BYTES
    }

    #[test]
    fn the_bound_holds_after_each_message_and_one_topic_gives_up_a_quarter() {
        let broker = broker(LOG_BYTES + 8 * message_bytes());
        for count in 1..=8 {
            publish(&broker, "a");
            assert_eq!(kept(&broker), [("a".into(), count)]);
        }
        publish(&broker, "a");
        assert_eq!(kept(&broker), [("a".into(), 6)]);
        let snapshot = broker.snapshot();
        assert_eq!(snapshot.evicted[EvictReason::Budget as usize], 3);
        assert_eq!(snapshot.history_bytes, LOG_BYTES + 6 * message_bytes());
    }

    #[test]
    fn who_was_not_published_to_since_it_was_asked_gives_up_all_first() {
        let broker = broker(3 * LOG_BYTES + 12 * message_bytes());
        for topic in ["a", "b", "c"] {
            for _ in 0..4 {
                publish(&broker, topic);
            }
        }
        // All are in use, so each is spared once, and the first gives up a quarter.
        publish(&broker, "c");
        let lengths = |a, b, c| [("a".into(), a), ("b".into(), b), ("c".into(), c)];
        assert_eq!(kept(&broker), lengths(3, 4, 5));
        publish(&broker, "c");
        assert_eq!(
            kept(&broker),
            [("a".into(), 3), ("c".into(), 6)],
            "b was idle"
        );
    }

    #[test]
    fn a_topic_that_keeps_nothing_more_is_let_go() {
        let broker = broker(1 << 20);
        publish(&broker, "a");
        broker.age_topics();
        broker.age_topics();
        assert_eq!(broker.snapshot().topics, 1, "what is kept is pinned");
        let over = SystemTime::UNIX_EPOCH + Bounds::default().age;
        broker.expire(over);
        let snapshot = broker.snapshot();
        assert_eq!((snapshot.history_topics, snapshot.history_bytes), (0, 0));
        assert_eq!(snapshot.topics, 1, "its sequence is remembered for a while");
        broker.age_topics();
        broker.age_topics();
        assert_eq!(broker.snapshot().topics, 0);
        broker.tick(1);
        assert_eq!(broker.snapshot().memory_bytes, 0);
    }

    #[test]
    fn a_bound_that_holds_no_message_keeps_none() {
        let broker = broker(0);
        publish(&broker, "a");
        publish(&broker, "a");
        assert_eq!(kept(&broker), []);
    }
}
