//! What the broker does when memory runs short: it gives up what is kept for replay, then what it remembers of
//! topics that nobody uses, then it lets nobody in, and at last it lets go of those who hold most.
//!
//! A mailbox that is shed is ended like one that stalled: its messages count as missed, and its subscriber
//! is told why. What was shared with others is freed with the last of them, so mailboxes go one after the
//! other, the largest first, until the account is below the mark. Nothing has to be set back afterwards:
//! each decision looks at the account as it is.

use std::cmp::Reverse;

use super::{Broker, EvictReason, Memory, Shared, SubscribeError};

/// What a subscription takes without a message, beside its stream: as measured, rounded up.
pub(super) const SUBSCRIPTION_BYTES: usize = 1024;
/// What each filter after the first takes: one of four tokens, as measured, rounded up.
pub(super) const FILTER_BYTES: usize = 1024;
/// What a topic takes: as measured, rounded up.
const TOPIC_BYTES: usize = 400;
/// From this part of the budget on, topics that nobody uses are worth forgetting.
const IDLE_TOPICS_PART: usize = 20;
/// What the process itself may count for, at most, as a part of the budget.
pub const PROCESS_PART: usize = 8;
/// Whoever has nothing waiting is not at fault. Whoever has little may have much more in HTTP/2's hands,
/// which are full if anything waits; so it goes, after those who have more.
const SHED_BYTES_MIN: usize = 1;

impl Broker {
    /// If memory [runs short](Self::is_short_of_memory), gives up what is kept for replay until there is some
    /// room again, and forgets topics that were not used since the call before the last, where these take much. If
    /// it is critical all the same, ends the largest mailboxes until it no longer is. Returns how many
    /// mailboxes. Costs nothing otherwise: call it often.
    pub fn relieve(&self) -> usize {
        let shared = &*self.shared;
        let memory = shared.budget.memory();
        if memory.is_scarce() {
            shared.give_up_while(EvictReason::Memory, || !memory.is_at_ease());
        }
        if memory.is_scarce() {
            shared.forget_idle_topics();
        }
        // Asked again: to look at mailboxes takes memory, too.
        if !memory.is_critical() {
            return 0;
        }
        shared.shed(SHED_BYTES_MIN, |memory| !memory.is_critical())
    }

    /// Counts what the process itself takes in memory beside all load: the program, its libraries, its threads.
    /// At most [an eighth of the budget](PROCESS_PART) counts, so that a small one is not used up by it.
    pub fn count_process(&self, bytes: usize) {
        let memory = self.memory();
        let held = memory.hold(bytes.min(memory.budget() / PROCESS_PART));
        *self.shared.process_held.lock() = Some(held);
    }

    /// Whether memory runs short: more than [`REFUSE_PERCENT`](super::REFUSE_PERCENT) of it is in use.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.memory().is_scarce()
    }

    /// The account of the process's memory, for those who take some beside the broker.
    pub(crate) fn memory(&self) -> &std::sync::Arc<Memory> {
        self.shared.budget.memory()
    }
}

impl Shared {
    /// Ends mailboxes of so many bytes or more, the largest first, until it is enough.
    pub(super) fn shed(&self, bytes_min: usize, is_enough: impl Fn(&Memory) -> bool) -> usize {
        let mut largest: Vec<_> = {
            let registry = self.registry.read();
            let held = registry.subscribers().map(|s| (s.held_bytes(), s.clone()));
            held.filter(|(bytes, _)| *bytes >= bytes_min).collect()
        };
        largest.sort_by_key(|(bytes, subscriber)| (Reverse(*bytes), subscriber.id));
        let mut shed = 0;
        for (_, subscriber) in largest {
            if is_enough(self.budget.memory()) {
                break;
            }
            if subscriber.shed() {
                shed += 1;
                self.unsubscribe(subscriber.id);
            }
        }
        shed
    }

    /// Whether memory allows one more subscription.
    pub(super) fn admits_by_memory(&self) -> Result<(), SubscribeError> {
        let memory = self.budget.memory();
        if memory.is_scarce() {
            return Err(SubscribeError::MemoryScarce {
                used: memory.used(),
                budget: memory.budget(),
            });
        }
        Ok(())
    }

    fn forget_idle_topics(&self) {
        let bytes = self.topics.idle() * TOPIC_BYTES;
        if bytes > self.budget.memory().budget() / IDLE_TOPICS_PART {
            self.topics.age();
            self.weigh_topics();
        }
    }

    /// Counts what topics take, which is bounded and changes slowly.
    pub(super) fn weigh_topics(&self) {
        let bytes = self.topics.len() * TOPIC_BYTES;
        let mut held = self.topics_held.lock();
        held.get_or_insert_with(|| self.budget.memory().hold(0))
            .set(bytes);
    }
}
