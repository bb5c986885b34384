//! One bound on the bytes in all mailboxes together, so that many slow readers cost no more than few.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes in use against a maximum. Invariant: `used` never passes `max`.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
    refusals: AtomicU64,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
            refusals: AtomicU64::new(0),
        }
    }

    /// Takes `bytes` if they fit.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let take = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Whether so many bytes would fit, once the caller has given some back.
    pub(crate) fn would_fit(&self, bytes: usize, given_back: usize) -> bool {
        (self.used() + bytes).saturating_sub(given_back) <= self.max
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
        let budget = Budget::new(10);
        assert!(budget.reserve(10));
        assert!(!budget.reserve(1));
        assert!(!budget.reserve(usize::MAX));
        assert_eq!(budget.used(), 10);
        assert!(!budget.would_fit(5, 4) && budget.would_fit(4, 4));
        budget.release(4);
        assert!(budget.reserve(4));
    }
}
