//! The state of topics in use: epoch, newest sequence, and the route to the subscribers.
//!
//! A topic with subscribers of its own is *pinned*. Others, which only wildcards read or which were
//! read a moment ago, are remembered in two generations: using one moves it to the young generation,
//! and when that is full, or at each [`TopicTable::age`], the old generation is forgotten and the
//! young one becomes old. So memory is bounded without a clock or a list to maintain.
//! Invariants: a topic has at most one state that is not retired, and sequences are given only under
//! the lock of that one; at most `idle_max` topics are remembered without being pinned.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    history::History,
    log::Log,
    registry::{Route, Tally},
    sync::{Mutex, MutexGuard},
};
use crate::{
    message::{Epoch, Sequence},
    topic::Topic,
};

/// Enough that two threads rarely meet at one, and few enough to visit all of them in passing.
const SHARDS: usize = 16;
const GENERATIONS: usize = 2;

/// One topic for each generation of each shard.
pub(super) const IDLE_TOPICS_MIN: usize = SHARDS * GENERATIONS;

/// The shortest time that a topic's rate is measured over: two who look at once must not measure nothing.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) epoch: Epoch,
    live: Mutex<LiveTopic>,
}

/// What a publisher holds while it gives out a sequence.
#[derive(Debug, Default)]
pub(crate) struct LiveTopic {
    /// The newest sequence given; 0 before the first.
    pub(crate) head: u64,
    pub(crate) route: Arc<Route>,
    /// What `head` was at the last mark.
    marked: u64,
    /// Messages a second until then.
    per_second: f32,
    /// What is kept; `None` for a topic without history.
    pub(crate) log: Option<Box<Log>>,
    /// Whether its last message has been published.
    pub(crate) ended: bool,
    retired: bool,
}

/// One topic, as somebody sees it who looks at all of them.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) topic: Topic,
    pub(crate) epoch: Epoch,
    pub(crate) head: Sequence,
    pub(crate) per_second: f64,
    pub(crate) kept: usize,
}

impl TopicState {
    /// The topic's lock, or `None` if this state is no longer the topic's: look it up again.
    pub(crate) fn lock(&self) -> Option<MutexGuard<'_, LiveTopic>> {
        let live = self.live.lock();
        (!live.retired).then_some(live)
    }

    /// The topic's lock, also once this state is no longer the topic's.
    pub(crate) fn look(&self) -> MutexGuard<'_, LiveTopic> {
        self.live.lock()
    }

    fn retire(&self) {
        let mut live = self.live.lock();
        live.retired = true;
        live.route = Arc::default();
    }
}

impl LiveTopic {
    /// The topic has seen its last message: whoever reads just this one is to end after it.
    pub(crate) fn end(&mut self, topic: &Topic, tally: &mut Tally) {
        self.ended = true;
        self.route.finish(topic, tally);
    }

    pub(crate) fn next_sequence(&mut self) -> Sequence {
        self.head += 1;
        Sequence(self.head)
    }

    /// Ends one measurement of the rate and begins the next.
    fn mark(&mut self, elapsed: Duration) {
        let messages = (self.head - self.marked) as f64;
        self.per_second = (messages / elapsed.as_secs_f64()) as f32;
        self.marked = self.head;
    }
}

/// A topic's state, and whether it should be [touched](TopicTable::touch) when it is used.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) state: Arc<TopicState>,
    pub(crate) aging: bool,
}

type States = HashMap<Topic, Arc<TopicState>>;

#[derive(Debug, Default)]
struct Shard {
    /// Topics with subscribers of their own, and how many.
    pinned: HashMap<Topic, (Arc<TopicState>, usize)>,
    young: States,
    old: States,
}

#[derive(Debug)]
pub(crate) struct TopicTable {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// How many topics one generation of one shard may hold.
    generation_max: usize,
    history: Arc<History>,
    own_epoch: Epoch,
    next_epoch: AtomicU64,
    /// How often a shard has rotated.
    rotations: AtomicU64,
    /// When the topics' rates were measured last.
    marked_at: Mutex<Duration>,
}

/// The way to the state of a topic that a publisher uses again and again, as it was found last.
#[derive(Debug, Default)]
pub(crate) struct TopicHint(Option<Hint>);

#[derive(Debug)]
struct Hint {
    topic: Topic,
    state: Arc<TopicState>,
    /// When it was found: a topic that is used may have to be touched after a rotation.
    rotations: u64,
}

impl TopicTable {
    /// `idle_max` is [`IDLE_TOPICS_MIN`] at least.
    pub(crate) fn new(idle_max: usize, first_epoch: u64, history: Arc<History>) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            generation_max: idle_max / IDLE_TOPICS_MIN,
            history,
            own_epoch: Epoch(first_epoch),
            next_epoch: AtomicU64::new(first_epoch + 1),
            rotations: AtomicU64::new(0),
            marked_at: Mutex::default(),
        }
    }

    /// An epoch that no other life of any topic has.
    pub(crate) fn mint_epoch(&self) -> Epoch {
        Epoch(self.next_epoch.fetch_add(1, Ordering::Relaxed))
    }

    /// The epoch of the broker itself, which no topic has.
    pub(crate) fn own_epoch(&self) -> Epoch {
        self.own_epoch
    }

    /// Whether this life of the broker has such an epoch.
    pub(crate) fn has_minted(&self, epoch: Epoch) -> bool {
        let next = Epoch(self.next_epoch.load(Ordering::Relaxed));
        (self.own_epoch..next).contains(&epoch)
    }

    pub(crate) fn find(&self, topic: &Topic) -> Option<Found> {
        self.shard(topic).find(topic)
    }

    /// What the hint says, if it is for this topic and still holds. The state may have been retired.
    pub(crate) fn recall<'h>(&self, hint: &'h TopicHint, topic: &Topic) -> Option<&'h TopicState> {
        let hint = hint.0.as_ref()?;
        let holds = hint.rotations == self.rotations.load(Ordering::Acquire);
        (holds && hint.topic.is_same(topic)).then_some(&*hint.state)
    }

    /// [`find`](Self::find), which the hint remembers.
    pub(crate) fn find_by(&self, hint: &mut TopicHint, topic: &Topic) -> Option<Found> {
        // Read before the shard is looked at: what is found then is as new as this, or newer.
        let rotations = self.rotations.load(Ordering::Acquire);
        let found = self.find(topic);
        let lasting = found.as_ref().filter(|found| !found.aging);
        hint.0 = lasting.map(|found| Hint {
            topic: topic.clone(),
            state: Arc::clone(&found.state),
            rotations,
        });
        found
    }

    pub(crate) fn find_or_create(&self, topic: &Topic) -> Found {
        let mut shard = self.shard(topic);
        shard.find(topic).unwrap_or_else(|| {
            let state = self.create(topic);
            self.remember(&mut shard, topic.clone(), Arc::clone(&state));
            Found {
                state,
                aging: false,
            }
        })
    }

    /// Moves a topic in use from the old generation to the young one.
    pub(crate) fn touch(&self, topic: &Topic) {
        let mut shard = self.shard(topic);
        if let Some((topic, state)) = shard.old.remove_entry(topic) {
            self.remember(&mut shard, topic, state);
        }
    }

    /// Keeps the topic's state for as long as a subscriber of its own lives.
    pub(crate) fn pin(&self, topic: &Topic) -> Arc<TopicState> {
        let mut shard = self.shard(topic);
        if let Some((state, pins)) = shard.pinned.get_mut(topic) {
            *pins += 1;
            return Arc::clone(state);
        }
        let remembered = shard
            .young
            .remove(topic)
            .or_else(|| shard.old.remove(topic));
        let state = remembered.unwrap_or_else(|| self.create(topic));
        let pinned = (Arc::clone(&state), 1);
        shard.pinned.insert(topic.clone(), pinned);
        state
    }

    /// Gives back one pin; after the last one the topic is remembered like any other, so that a
    /// subscriber that comes back soon can tell what it missed.
    pub(crate) fn unpin(&self, topic: &Topic) {
        let mut shard = self.shard(topic);
        let Some((_, pins)) = shard.pinned.get_mut(topic) else {
            return;
        };
        *pins -= 1;
        if *pins > 0 {
            return;
        }
        if let Some((topic, (state, _))) = shard.pinned.remove_entry(topic) {
            if shard.pinned.len() < shard.pinned.capacity() / 4 {
                shard.pinned.shrink_to_fit();
            }
            self.remember(&mut shard, topic, state);
        }
    }

    /// Forgets each unpinned topic that was not used since the age before.
    pub(crate) fn age(&self) {
        for shard in &self.shards {
            self.rotate(&mut shard.lock());
        }
    }

    /// Drops the routes that a newer version of the registry has overtaken, and with them what is
    /// left of subscribers that are gone.
    pub(crate) fn drop_stale_routes(&self, version: u64) {
        for shard in &self.shards {
            let shard = shard.lock();
            let pinned = shard.pinned.values().map(|(state, _)| state);
            for state in pinned.chain(shard.young.values()).chain(shard.old.values()) {
                let mut live = state.live.lock();
                if live.route.version != version && !live.route.is_empty() {
                    live.route = Arc::default();
                }
            }
        }
    }

    /// How many topics have state.
    /// How many topics have no subscriber of their own and keep nothing.
    pub(crate) fn idle(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.lock());
        shards
            .map(|shard| shard.young.len() + shard.old.len())
            .sum()
    }

    pub(crate) fn len(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.lock());
        shards
            .map(|shard| shard.pinned.len() + shard.young.len() + shard.old.len())
            .sum()
    }

    /// Shows every topic with state. Rates are measured from one survey to another that is
    /// [`RATE_INTERVAL`] later or more.
    pub(crate) fn survey(&self, now: Duration, mut visit: impl FnMut(Surveyed)) {
        let elapsed = {
            let mut marked_at = self.marked_at.lock();
            let elapsed = now.saturating_sub(*marked_at);
            let is_due = elapsed >= RATE_INTERVAL;
            is_due.then(|| {
                *marked_at = now;
                elapsed
            })
        };
        for shard in &self.shards {
            // Copied, and read when the shard is free again: a topic's lock may be held for as long as it
            // takes to publish to all of its subscribers.
            let states: Vec<_> = shard.lock().states().collect();
            for (topic, state) in states {
                let Some(mut live) = state.lock() else {
                    continue;
                };
                if let Some(elapsed) = elapsed {
                    live.mark(elapsed);
                }
                let surveyed = Surveyed {
                    topic,
                    epoch: state.epoch,
                    head: Sequence(live.head),
                    per_second: live.per_second.into(),
                    kept: live.log.as_ref().map_or(0, |log| log.len()),
                };
                drop(live);
                visit(surveyed);
            }
        }
    }

    fn shard(&self, topic: &Topic) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(topic);
        self.shards[hash as usize % SHARDS].lock()
    }

    fn create(&self, topic: &Topic) -> Arc<TopicState> {
        Arc::new(TopicState {
            epoch: self.mint_epoch(),
            live: Mutex::new(LiveTopic {
                log: self.history.log(topic),
                ..LiveTopic::default()
            }),
        })
    }

    fn rotate(&self, shard: &mut Shard) {
        self.rotations.fetch_add(1, Ordering::Release);
        shard.rotate();
    }

    fn remember(&self, shard: &mut Shard, topic: Topic, state: Arc<TopicState>) {
        if shard.young.len() >= self.generation_max {
            self.rotate(shard);
        }
        shard.young.insert(topic, state);
    }
}

impl Shard {
    fn states(&self) -> impl Iterator<Item = (Topic, Arc<TopicState>)> {
        let pinned = self.pinned.iter().map(|(topic, (state, _))| (topic, state));
        let all = pinned.chain(&self.young).chain(&self.old);
        all.map(|(topic, state)| (topic.clone(), Arc::clone(state)))
    }

    fn find(&self, topic: &Topic) -> Option<Found> {
        let current = |state: &Arc<TopicState>| Found {
            state: Arc::clone(state),
            aging: false,
        };
        let pinned = self.pinned.get(topic).map(|(state, _)| current(state));
        pinned
            .or_else(|| self.young.get(topic).map(current))
            .or_else(|| {
                self.old.get(topic).map(|state| Found {
                    state: Arc::clone(state),
                    aging: true,
                })
            })
    }

    fn rotate(&mut self) {
        let young = std::mem::take(&mut self.young);
        let forgotten = std::mem::replace(&mut self.old, young);
        forgotten.values().for_each(|state| state.retire());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{HistoryLimits, Memory};

    fn table_of(idle_max: usize) -> TopicTable {
        let memory = Arc::new(Memory::new(usize::MAX));
        let history = History::new(HistoryLimits::default(), memory);
        TopicTable::new(idle_max, 1, Arc::new(history))
    }

    fn topic(text: &str) -> Topic {
        text.parse().unwrap()
    }

    #[test]
    fn a_topic_in_use_survives_aging_and_an_idle_one_does_not() {
        let table = table_of(1_000);
        let used = table.find_or_create(&topic("used")).state.epoch;
        let idle = table.find_or_create(&topic("idle")).state;
        for _ in 0..4 {
            table.age();
            assert!(table.find(&topic("used")).unwrap().aging);
            table.touch(&topic("used"));
        }
        assert_eq!(table.find(&topic("used")).unwrap().state.epoch, used);
        assert!(table.find(&topic("idle")).is_none());
        assert!(
            idle.lock().is_none(),
            "a forgotten state gives no sequences"
        );
        assert_ne!(
            table.find_or_create(&topic("idle")).state.epoch,
            idle.epoch,
            "a new life is a new epoch"
        );
    }

    #[test]
    fn a_pinned_topic_stays_until_its_last_pin_and_a_while() {
        let table = table_of(1_000);
        let epoch = table.pin(&topic("t")).epoch;
        table.pin(&topic("t"));
        table.unpin(&topic("t"));
        table.age();
        table.age();
        table.age();
        assert_eq!(table.find(&topic("t")).unwrap().state.epoch, epoch);
        table.unpin(&topic("t"));
        table.age();
        assert_eq!(table.find(&topic("t")).unwrap().state.epoch, epoch);
        table.age();
        assert!(table.find(&topic("t")).is_none());
    }

    #[test]
    fn a_million_short_lived_topics_are_remembered_up_to_the_bound() {
        let table = table_of(10_000);
        for index in 0..1_000_000 {
            table.find_or_create(&topic(&format!("response:{index}")));
        }
        assert!(table.len() <= 10_000, "{}", table.len());
        table.age();
        table.age();
        assert_eq!(table.len(), 0);
    }
}
