//! One account of the memory that the broker's load takes, in the whole process.
//!
//! Bytes are counted where they are allocated and given back when they are freed, wherever they are by
//! then: in mailboxes, in HTTP/2's send buffers, or on their way between. What many subscribers share
//! counts once. So the account is of memory and not of promises, and pressure is not seen where there is
//! none. Invariant: what was counted is given back exactly once, when its [`Held`] is dropped.
//!
//! Whoever takes memory asks first where it can refuse; what cannot be refused any more is counted all
//! the same, and drives the account towards the marks at which the broker acts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Above this part of the budget, in percent, no subscription is added: those that are there need the
/// rest to ride out a burst.
pub const REFUSE_PERCENT: usize = 80;
/// Where subscriptions would be refused, history is given up down to this part of the budget, in percent: what is
/// published until it is looked again must not pass the mark.
const EASE_PERCENT: usize = 75;
/// From this part of the budget on, in percent, the largest mailboxes are shed.
pub const SHED_PERCENT: usize = 95;

/// Above this part of the budget, in percent, every message finds its mailbox full: what is left is for
/// requests, so that who only publishes does not suffer from those who do not read.
pub const FULL_PERCENT: usize = 98;

/// Bytes in use, against the budget.
#[derive(Debug)]
pub(crate) struct Memory {
    used: AtomicUsize,
    budget: usize,
}

impl Memory {
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            budget,
        }
    }

    /// Counts bytes that are taken.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Held {
            memory: Arc::clone(self),
            bytes,
        }
    }

    /// These bytes, counted for as long as any part of them is in use.
    pub(crate) fn count(self: &Arc<Self>, data: Bytes) -> Bytes {
        self.hold(data.len()).count(data)
    }

    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether so many bytes more would pass the budget.
    pub(crate) fn would_pass(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) > self.budget
    }

    /// Whether mailboxes take no more.
    pub(crate) fn is_full(&self) -> bool {
        self.used() > percent(self.budget, FULL_PERCENT)
    }

    /// Whether there is too little left for one more subscription.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used() > percent(self.budget, REFUSE_PERCENT)
    }

    /// Whether enough is left for a while.
    pub(crate) fn is_at_ease(&self) -> bool {
        self.used() <= percent(self.budget, EASE_PERCENT)
    }

    /// By how much the mark is passed from which mailboxes must go.
    pub(crate) fn excess(&self) -> usize {
        let mark = percent(self.budget, SHED_PERCENT);
        self.used().saturating_sub(mark)
    }

    /// Whether mailboxes must go.
    pub(crate) fn is_critical(&self) -> bool {
        self.used() >= percent(self.budget, SHED_PERCENT)
    }
}

fn percent(whole: usize, percent: usize) -> usize {
    // Sizes are far below where this could overflow, but an unlimited one is not.
    whole / 100 * percent + whole % 100 * percent / 100
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// It is so many bytes by now.
    pub(crate) fn set(&mut self, bytes: usize) {
        let used = &self.memory.used;
        if bytes > self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Ties the count to the data: it lasts for as long as any part of that.
    pub(crate) fn count(self, data: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Counted { data, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Counted<D> {
    data: D,
    _held: Held,
}

impl<D: AsRef<[u8]>> AsRef<[u8]> for Counted<D> {
    fn as_ref(&self) -> &[u8] {
        self.data.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let memory = Arc::new(Memory::new(100));
        let mut held = memory.hold(10);
        held.set(30);
        held.set(20);
        let other = memory.hold(5);
        assert_eq!(memory.used(), 25);
        drop((held, other));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn bytes_count_once_and_until_their_last_part_is_gone() {
        let memory = Arc::new(Memory::new(100));
        let data = memory.count(Bytes::from_static(b"0123456789"));
        let parts: Vec<Bytes> = (0..5).map(|at| data.slice(at..=at)).collect();
        drop(data);
        assert_eq!(memory.used(), 10);
        drop(parts);
        assert_eq!(memory.used(), 0);
        let empty = memory.hold(7).count(Bytes::new());
        assert_eq!((memory.used(), empty.len()), (7, 0));
        drop(empty);
        assert_eq!(memory.used(), 0, "nothing weighs nothing, once it is gone");
    }

    #[test]
    fn the_marks_are_parts_of_the_budget() {
        let memory = Arc::new(Memory::new(1_000));
        let mut held = memory.hold(800);
        assert!(!memory.is_scarce() && !memory.is_critical());
        held.set(801);
        assert!(memory.is_scarce() && !memory.is_critical());
        held.set(950);
        assert!(memory.is_critical() && !memory.is_full());
        held.set(981);
        assert!(memory.is_full());
        held.set(950);
        assert!(!memory.would_pass(50) && memory.would_pass(51));
        let unlimited = Arc::new(Memory::new(usize::MAX));
        let _held = unlimited.hold(1 << 40);
        assert!(!unlimited.is_scarce() && !unlimited.would_pass(1 << 40));
    }
}
