//! The domain: topics, subscribers, mailboxes, and the fan-out between them.
//!
//! Plain synchronous code: publishing is a function that never waits, and reading is a poll. Knows
//! no gRPC, HTTP, command line, clock or task; whoever drives it brings the time of day with each
//! message, and a [`Broker::tick`] for what must not last.
//!
//! Locks, in the order in which they are taken: a shard of the topic table, a topic, the registry, a
//! lane, a mailbox. Readers are woken after all are released.

mod batch;
mod budget;
mod ended;
mod figures;
mod filters;
mod forgotten;
mod history;
mod joining;
mod lane;
mod ledger;
mod limits;
mod log;
mod mailbox;
mod memory;
mod overflow;
mod parting;
mod pressure;
mod publish;
mod queue;
mod registry;
mod replay;
mod retention;
mod run;
mod subscriber;
mod subscription;
mod sync;
mod topics;
mod trie;
mod wakers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

pub(crate) use self::{
    batch::Encoding,
    memory::{Held, Memory},
    queue::Taken,
    run::Run,
    subscription::Ender,
};
use self::{
    budget::Budget,
    history::History,
    registry::Registry,
    sync::{Mutex, RwLock},
    topics::TopicTable,
    wakers::Wakers,
};
pub use self::{
    ended::{EndReason, Ended, Lost},
    figures::*,
    filters::Filters,
    ledger::{Ledger, MissReason},
    limits::*,
    memory::{FULL_PERCENT, REFUSE_PERCENT, SHED_PERCENT},
    overflow::OverflowPolicy,
    pressure::PROCESS_PART,
    publish::{PublishError, Receipt},
    queue::{BatchLimit, MailboxSize},
    retention::*,
    subscription::{EndWatch, Start, SubscribeError, SubscribeOptions, Subscription},
};
use crate::message::Message;

/// A topic-based publish/subscribe broker in memory. Clones are handles to the same broker.
#[derive(Clone, Debug)]
pub struct Broker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    registry: RwLock<Registry>,
    /// The registry's version, to compare with a route's without taking the lock.
    version: AtomicU64,
    topics: TopicTable,
    history: Arc<History>,
    budget: Arc<Budget>,
    /// The smallest mailbox that shares a lane, in messages.
    lane_capacity_min: usize,
    /// For subscribers and lanes.
    next_id: AtomicU64,
    published: AtomicU64,
    published_bytes: AtomicU64,
    unmatched: AtomicU64,
    swept_version: AtomicU64,
    /// What topics take, as of the last tick.
    topics_held: Mutex<Option<Held>>,
    /// What the process takes beside all load.
    process_held: Mutex<Option<Held>>,
}

/// The broker in figures, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Messages accepted from publishers.
    pub published: u64,
    /// Their payload bytes.
    pub published_bytes: u64,
    /// Messages accepted that matched no subscription.
    pub unmatched: u64,
    /// The accounts of all subscriptions, those that left included. Balances at every moment.
    pub ledger: Ledger,
    /// Live subscriptions.
    pub subscriptions: usize,
    /// Live groups.
    pub groups: usize,
    /// Topics with state.
    pub topics: usize,
    /// Messages in the fullest mailbox.
    pub mailbox_depth_max: u64,
    /// Bytes in all mailboxes together, a message that many share counted in each.
    pub buffered_bytes: usize,
    /// Memory in use by all that grows with the load, in the whole process.
    pub memory_bytes: usize,
    /// How often a message found no room in the bound on all mailboxes together.
    pub buffered_bytes_refusals: u64,
    /// Messages kept for replay.
    pub history_messages: usize,
    /// Bytes kept for replay, as [`HistoryLimits::bytes_max`] counts them.
    pub history_bytes: usize,
    /// Topics that keep something for replay.
    pub history_topics: usize,
    /// Messages that were kept and are no longer, in the order of [`EvictReason::ALL`].
    pub evicted: [u64; EvictReason::ALL.len()],
    /// Messages that were handed to subscribers from history; in the ledger, too.
    pub replayed: u64,
}

impl Broker {
    /// An empty broker.
    ///
    /// `first_epoch`, which is the broker's own, must be larger than any epoch of an earlier life of this
    /// broker, for epochs and cursors to tell restarts apart; nanoseconds since 1970 are.
    ///
    /// # Errors
    /// Limits that do not fit together.
    pub fn new(limits: Limits, first_epoch: u64) -> Result<Self, LimitsError> {
        Self::with_lanes(limits, first_epoch, lane::CAPACITY_MIN)
    }

    fn with_lanes(
        limits: Limits,
        first_epoch: u64,
        lane_capacity_min: usize,
    ) -> Result<Self, LimitsError> {
        limits.check()?;
        let memory = Arc::new(Memory::new(limits.memory_budget));
        let history = History::new(limits.history.clone(), Arc::clone(&memory));
        let history = Arc::new(history);
        let topics = TopicTable::new(limits.idle_topics_max, first_epoch, Arc::clone(&history));
        Ok(Self {
            shared: Arc::new(Shared {
                registry: RwLock::default(),
                version: AtomicU64::new(0),
                topics,
                history,
                budget: Arc::new(Budget::new(limits.buffered_bytes_max, memory)),
                topics_held: Mutex::default(),
                process_held: Mutex::default(),
                lane_capacity_min,
                next_id: AtomicU64::new(1),
                published: AtomicU64::new(0),
                published_bytes: AtomicU64::new(0),
                unmatched: AtomicU64::new(0),
                swept_version: AtomicU64::new(0),
                limits,
            }),
        })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Hands the message to every subscription whose filter matches its topic. Never waits.
    ///
    /// # Errors
    /// A message that passes a limit is not published.
    pub fn publish(
        &self,
        message: Message,
        published_at: SystemTime,
    ) -> Result<Receipt, PublishError> {
        self.run().publish(&message.as_message_ref(), published_at)
    }

    /// The way to publish one message after the other without owning them.
    pub(crate) fn run(&self) -> Run<'_> {
        Run::new(&self.shared)
    }

    /// Delivers each message published from now on whose topic matches the filter.
    ///
    /// Dropping the [`Subscription`] unsubscribes. A subscriber that falls behind loses messages by
    /// its [`OverflowPolicy`]; each loss is counted and told to it.
    ///
    /// # Errors
    /// Too many tags, too many subscriptions, or a broker that drains.
    pub fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, SubscribeError> {
        self.shared.subscribe(options, None)
    }

    /// [`subscribe`](Self::subscribe) for an adapter that wants its messages encoded, which is done once
    /// for all who want the same.
    pub(crate) fn subscribe_encoded(
        &self,
        options: SubscribeOptions,
        encoding: &'static Encoding,
    ) -> Result<Subscription, SubscribeError> {
        self.shared.subscribe(options, Some(encoding))
    }

    /// Refuses new subscriptions, and ends each live one after what its mailbox holds.
    pub fn drain(&self) {
        let wakers = self.shared.registry.write().drain();
        wakers.into_iter().for_each(Wakers::wake);
    }

    /// One step of the stall clock: ends each subscription whose reader took nothing at `ticks_max`
    /// ticks in a row while messages waited, and lets go of what is left of subscribers that are
    /// gone. Returns how many had stalled. Call it at even intervals.
    pub fn tick(&self, ticks_max: u32) -> usize {
        let shared = &*self.shared;
        let over: Vec<(u64, EndReason)> = {
            let registry = shared.registry.read();
            let live = registry.subscribers();
            live.filter_map(|s| Some((s.id, s.tick(ticks_max)?)))
                .collect()
        };
        for (id, _) in &over {
            shared.unsubscribe(*id);
        }
        let untold: Vec<_> = {
            let registry = shared.registry.read();
            let live = registry.subscribers();
            live.filter_map(|s| s.mailbox.take_untold_reader())
                .collect()
        };
        untold.into_iter().for_each(std::task::Waker::wake);
        let version = shared.version.load(Ordering::Acquire);
        if shared.swept_version.swap(version, Ordering::Relaxed) != version {
            shared.topics.drop_stale_routes(version);
        }
        shared.weigh_topics();
        let stalled = |reason: &EndReason| *reason == EndReason::Stalled;
        over.iter().filter(|(_, reason)| stalled(reason)).count()
    }

    /// Forgets each topic without a subscriber of its own that was not used since the call before:
    /// its next use begins a new epoch. Call it at even intervals.
    pub fn age_topics(&self) {
        self.shared.topics.age();
    }

    /// The broker in figures. Visits every mailbox.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = &*self.shared;
        // Counted first: a topic-table shard comes before the registry in the order of locks.
        let topics = shared.topics.len();
        let registry = shared.registry.read();
        let depths = registry.subscribers().map(|s| s.ledger().buffered);
        Snapshot {
            published: shared.published.load(Ordering::Relaxed),
            published_bytes: shared.published_bytes.load(Ordering::Relaxed),
            unmatched: shared.unmatched.load(Ordering::Relaxed),
            mailbox_depth_max: depths.max().unwrap_or_default(),
            ledger: registry.ledger(),
            subscriptions: registry.len(),
            groups: registry.groups_len(),
            topics,
            buffered_bytes: shared.budget.used(),
            memory_bytes: shared.budget.memory().used(),
            buffered_bytes_refusals: shared.budget.refusals(),
            history_messages: shared.history.figures.messages(),
            history_bytes: shared.history.figures.bytes(),
            history_topics: shared.history.topics(),
            evicted: shared.history.figures.evicted(),
            replayed: shared.history.replayed.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
