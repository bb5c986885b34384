//! The reader's side of a mailbox: what it takes, what it has in hand, and how it waits.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{Mailbox, State};
use crate::{
    broker::{
        ended::{EndReason, Ended},
        queue::{BatchLimit, Room, Taken, Taking},
        wakers::replace_waker,
    },
    message::Delivery,
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
        state.tell(&mut into);
        let room = Room {
            messages: limit.messages.max(1),
            bytes: limit.bytes,
        };
        state.take(room, &mut into);
        Poll::Ready(Ok(()))
    }

    /// Hands over as much as there is room for of what waits, and what was missed, without waiting itself.
    ///
    /// # Errors
    /// The end, if nothing of what waits is for the reader any more.
    pub(crate) fn take_waiting(
        &self,
        room: Room,
        into: &mut impl FnMut(Taken),
    ) -> Result<Waiting, Ended> {
        let mut state = self.state.lock();
        self.free_in_hand(&mut state);
        if let (Some(reason), true) = (state.end, state.is_over()) {
            let missed = std::mem::take(&mut state.untold);
            return Err(Ended { reason, missed });
        }
        let was_told = state.tell(into);
        let taking = if room.messages == 0 || state.queue.is_empty() {
            Taking::default()
        } else {
            state.take(room, into)
        };
        Ok(Waiting {
            messages: taking.messages,
            bytes: taking.bytes,
            is_anything: was_told || taking.messages > 0,
        })
    }

    /// Counts messages that are handed over without having been in the mailbox. `false` if they must not
    /// be: the subscription is over.
    pub(crate) fn take_replayed(&self, batch: &[Arc<Delivery>]) -> bool {
        let mut state = self.state.lock();
        if state.is_over() {
            return false;
        }
        for delivery in batch {
            state.replayed_in_hand_bytes += delivery.size();
            state.ledger.delivered_bytes += delivery.message.payload.len() as u64;
        }
        state.ledger.matched += batch.len() as u64;
        state.ledger.delivered += batch.len() as u64;
        state.progressed |= !batch.is_empty();
        true
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

    /// Ready once the broker has ended the subscription, for one watcher apart from the reader. A topic's end
    /// is for the reader alone, who may take its time for what is left.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let mut state = self.state.lock();
        if let (Some(reason), true) = (state.end, state.end != Some(EndReason::TopicEnded)) {
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
        state.replayed_in_hand_bytes = 0;
    }
}

/// What was handed over of what waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// Whether anything was, a loss included.
    pub(crate) is_anything: bool,
}

impl State {
    /// Says what was missed; whether there was anything to say.
    fn tell(&mut self, into: &mut impl FnMut(Taken)) -> bool {
        let missed = std::mem::take(&mut self.untold);
        if missed > 0 {
            into(Taken::Missed(missed));
        }
        missed > 0
    }

    /// Hands over messages. At least one is, however large, unless the reader has something in hand.
    fn take(&mut self, room: Room, into: &mut impl FnMut(Taken)) -> Taking {
        let mut left = room;
        let mut sum = Taking::default();
        while left.messages > 0 {
            // At least one message is taken, however large.
            let is_first = self.in_hand_bytes == 0;
            let Some(taken) = self.queue.take(left, is_first, into) else {
                break;
            };
            self.in_hand_bytes += taken.bytes;
            sum.messages += taken.messages;
            sum.bytes += taken.bytes;
            sum.payload_bytes += taken.payload_bytes;
            left.messages -= taken.messages;
            left.bytes = left.bytes.saturating_sub(taken.bytes);
        }
        self.ledger.delivered += sum.messages as u64;
        self.ledger.delivered_bytes += sum.payload_bytes as u64;
        self.progressed = true;
        sum
    }
}
