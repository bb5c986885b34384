//! Connections whose peers take nothing at the moment, for when memory is short.
//!
//! What waits to be written to a socket is out of its mailbox: to end the subscription does not free it. So where
//! that is not enough, those who have taken nothing for longest are let go of.

use std::{collections::BTreeMap, sync::Arc, task::Waker, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::Memory;

/// Who takes nothing for so long is not only busy. Lost packets are sent again sooner.
const STUCK_TIME_MIN: Duration = Duration::from_millis(500);

/// All writes that wait.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) memory: Arc<Memory>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Those that wait, who came first before the others.
    writes: BTreeMap<u64, Write>,
}

#[derive(Debug)]
struct Write {
    since: Instant,
    bytes: usize,
    waker: Waker,
}

/// A write that waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    stuck: Arc<Stuck>,
    number: u64,
}

impl Stuck {
    pub(super) fn new(memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            memory,
            waiting: Mutex::default(),
        })
    }

    /// A write of so many bytes begins to wait.
    pub(super) fn wait(self: &Arc<Self>, bytes: usize, waker: &Waker) -> Ticket {
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        let write = Write {
            since: Instant::now(),
            bytes,
            waker: waker.clone(),
        };
        waiting.writes.insert(number, write);
        Ticket {
            stuck: Arc::clone(self),
            number,
        }
    }

    /// While memory is critical, gives up those that have waited for longest. Returns how many.
    pub(super) fn relieve(&self) -> usize {
        let mut excess = self.memory.excess();
        let mut given_up = Vec::new();
        let mut waiting = self.waiting.lock();
        while excess > 0
            && let Some(first) = waiting.writes.first_entry()
            && first.get().since.elapsed() >= STUCK_TIME_MIN
        {
            let write = first.remove();
            excess = excess.saturating_sub(write.bytes);
            given_up.push(write.waker);
        }
        drop(waiting);
        let count = given_up.len();
        given_up.into_iter().for_each(Waker::wake);
        count
    }
}

impl Ticket {
    /// Whether the write was given up.
    pub(super) fn is_given_up(&self) -> bool {
        !self.stuck.waiting.lock().writes.contains_key(&self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.stuck.waiting.lock().writes.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_goes_first_and_no_more_go_than_have_to() {
        let memory = Arc::new(Memory::new(1_000));
        let stuck = Stuck::new(Arc::clone(&memory));
        let tickets: Vec<_> = (0..3).map(|_| stuck.wait(100, Waker::noop())).collect();
        let late = memory.hold(950);
        assert_eq!(stuck.relieve(), 0, "they may only be busy");
        tokio::time::advance(STUCK_TIME_MIN).await;
        drop(late);
        assert_eq!(stuck.relieve(), 0, "there is room");
        let _held = memory.hold(1_060);
        assert_eq!(stuck.relieve(), 2);
        let given_up: Vec<_> = tickets.iter().map(Ticket::is_given_up).collect();
        assert_eq!(given_up, [true, true, false]);
    }
}
