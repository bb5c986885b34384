//! How many subscriptions one connection may hold.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A connection's share of subscriptions; the front door puts one into each of its requests.
#[derive(Clone, Debug)]
pub(crate) struct SubscriptionSlots {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// One subscription's slot, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl SubscriptionSlots {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            used: Arc::new(AtomicUsize::new(0)),
            max,
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn acquire(&self) -> Option<Slot> {
        let take = |used| (used < self.max).then_some(used + 1);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()
            .map(|_| Slot(Arc::clone(&self.used)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_dropped() {
        let slots = SubscriptionSlots::new(1);
        let slot = slots.acquire();
        assert!(slot.is_some());
        assert!(slots.acquire().is_none());
        drop(slot);
        assert!(slots.acquire().is_some());
    }
}
