//! One bound on the bytes in all mailboxes together, each message counted in each of them, so that many
//! slow readers cost no more than few; and nothing more once the process's memory is used up.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::memory::Memory;

/// Bytes in use against a maximum. Invariant: `used` never passes `max`.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
    memory: Arc<Memory>,
    refusals: AtomicU64,
}

impl Budget {
    pub(crate) fn new(max: usize, memory: Arc<Memory>) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
            memory,
            refusals: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_unlimited_memory(max: usize) -> Self {
        Self::new(max, Arc::new(Memory::new(usize::MAX)))
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Takes `bytes` if they fit. The message itself is in the account of memory by now.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        if self.memory.is_full() {
            return false;
        }
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Whether so many bytes would fit, once the caller has given some back.
    pub(crate) fn would_fit(&self, bytes: usize, given_back: usize) -> bool {
        (self.used() + bytes).saturating_sub(given_back) <= self.max && !self.memory.is_full()
    }

    /// Counts a message that found no room.
    pub(crate) fn refuse(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_takes_nothing() {
        let budget = Budget::with_unlimited_memory(10);
        assert!(budget.reserve(10));
        assert!(!budget.reserve(1));
        assert!(!budget.reserve(usize::MAX));
        assert_eq!(budget.used(), 10);
        assert!(!budget.would_fit(5, 4) && budget.would_fit(4, 4));
        budget.release(4);
        assert!(budget.reserve(4));
    }
}
