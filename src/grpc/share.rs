//! One connection's share of what all connections have together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A connection's share: the subscriptions that it may hold, and the bytes of its requests that have
/// not arrived completely. The front door passes it along with each request.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionShare {
    used: Arc<AtomicUsize>,
    max: usize,
    pub(super) receiving_bytes: Arc<AtomicUsize>,
}

/// One subscription's slot, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl ConnectionShare {
    pub(crate) fn new(subscriptions_max: usize) -> Self {
        Self {
            used: Arc::new(AtomicUsize::new(0)),
            max: subscriptions_max,
            receiving_bytes: Arc::new(AtomicUsize::new(0)),
        }
    }

    pub(crate) fn subscriptions_max(&self) -> usize {
        self.max
    }

    /// One more subscription, if there is room.
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
        let share = ConnectionShare::new(1);
        let slot = share.acquire();
        assert!(slot.is_some());
        assert!(share.acquire().is_none());
        drop(slot);
        assert!(share.acquire().is_some());
    }
}
