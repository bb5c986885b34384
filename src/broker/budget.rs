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

    /// Takes `bytes` if they fit; counts a refusal if they don't.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.max;
        if !fits {
            self.release(bytes);
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        fits
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
    fn what_does_not_fit_is_refused_and_counted() {
        let budget = Budget::new(10);
        assert!(budget.reserve(10));
        assert!(!budget.reserve(1));
        assert_eq!((budget.used(), budget.refusals()), (10, 1));
        budget.release(4);
        assert!(budget.reserve(4));
    }
}
