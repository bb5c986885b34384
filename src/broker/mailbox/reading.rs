//! The reader's side of a mailbox: what it takes, what it has in hand, and how it waits.

use std::task::{Context, Poll, Waker};

use super::{Mailbox, State};
use crate::broker::{
    ended::{EndReason, Ended},
    queue::{BatchLimit, Room, Taken},
    wakers::replace_waker,
};

impl Mailbox {
    /// Hands waiting messages to `into`, in order, and before them how many were missed.
    ///
    /// Pending while there is neither a message nor a miss to tell. An overflow or a stall ends the
    /// mailbox at once; a drain, once it is empty. Whoever comes for more has passed on what it took
    /// before.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        limit: BatchLimit,
        mut into: impl FnMut(Taken),
    ) -> Poll<Result<(), Ended>> {
        let mut state = self.state.lock();
        self.free_in_hand(&mut state);
        if let (Some(reason), true) = (state.end, state.queue.is_empty()) {
            let missed = std::mem::take(&mut state.untold);
            return Poll::Ready(Err(Ended { reason, missed }));
        }
        if state.queue.is_empty() && !self.is_worth_telling(&state) {
            let replaced = replace_waker(&mut state.reader, cx);
            drop(state);
            drop(replaced);
            return Poll::Pending;
        }
        match std::mem::take(&mut state.untold) {
            0 => {}
            missed => into(Taken::Missed(missed)),
        }
        let mut left = Room {
            messages: limit.messages.max(1),
            bytes: limit.bytes,
        };
        while left.messages > 0 {
            // At least one message is taken, however large.
            let is_first = state.in_hand_bytes == 0;
            let Some(taken) = state.queue.take(left, is_first, &mut into) else {
                break;
            };
            state.in_hand_bytes += taken.bytes;
            state.ledger.delivered += taken.messages as u64;
            state.ledger.delivered_bytes += taken.payload_bytes as u64;
            left.messages -= taken.messages;
            left.bytes = left.bytes.saturating_sub(taken.bytes);
        }
        state.progressed = true;
        Poll::Ready(Ok(()))
    }

    /// A loss is told on its own unless memory is full: then every message makes a loss, and telling each
    /// would take more memory than keeping them. It is told with the next message, or a tick later.
    fn is_worth_telling(&self, state: &State) -> bool {
        state.untold > 0 && !self.budget.memory().is_full()
    }

    /// The reader, if it is parked though there is a loss to tell by now.
    pub(crate) fn take_untold_reader(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        let is_told = !self.is_worth_telling(&state);
        if is_told { None } else { state.reader.take() }
    }

    /// The reader, if it is parked, to be woken for what waits in its lane.
    pub(crate) fn take_reader(&self) -> Option<Waker> {
        self.state.lock().reader.take()
    }

    /// What was taken has been passed on, or given up: it no longer counts.
    pub(crate) fn pass_on(&self) {
        self.free_in_hand(&mut self.state.lock());
    }

    /// Ready once the broker has ended the subscription, for one watcher apart from the reader.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let mut state = self.state.lock();
        if let Some(reason) = state.end {
            return Poll::Ready(reason);
        }
        let replaced = replace_waker(&mut state.end_watch, cx);
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    fn free_in_hand(&self, state: &mut State) {
        self.budget
            .release(std::mem::take(&mut state.in_hand_bytes));
    }
}
