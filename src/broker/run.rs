//! A publisher's messages, one after the other.
//!
//! Most go where the one before went. Those that are there to be published at once then share what each
//! would have to do on its own, if the topic's subscribers are one lane and none of them has to be served
//! alone: find the topic, lock it, lock the lane. Whatever is unusual goes on its own.
//!
//! Invariants: nobody can tell from accounts, receipts or deliveries which messages went together; readers
//! are woken once all locks are released; under a topic's lock no other topic's is taken. How long the locks
//! are held does not depend on the subscribers but on the number of messages, which the caller bounds.

use std::{sync::atomic::Ordering, task::Waker, time::SystemTime};

use super::{
    Shared,
    lane::Lane,
    parting::Parting,
    publish::{Placed, PublishError, Receipt},
    registry::Tally,
    topics::{LiveTopic, TopicHint},
};
use crate::message::{MessageRef, Sequence, Stencil};

/// So often in a row messages are tried to be published together in vain, before those that are left go alone:
/// the first time the topic may not have been looked up yet.
const ATTEMPTS_MAX: u32 = 2;

/// The messages of one publisher, one after the other: most go where the one before went, and together
/// they are added to the broker's figures, when the run is [counted](Run::count) or dropped.
#[derive(Debug)]
pub(crate) struct Run<'b> {
    shared: &'b Shared,
    hint: TopicHint,
    sums: Sums,
}

/// What is not yet in the broker's figures.
#[derive(Debug, Default)]
struct Sums {
    messages: u64,
    payload_bytes: u64,
    unmatched: u64,
}

impl Sums {
    fn add(&mut self, message: &MessageRef<'_>, tally: &Tally) {
        self.messages += 1;
        self.payload_bytes += message.payload.len() as u64;
        self.unmatched += u64::from(tally.matched == 0);
    }
}

impl<'b> Run<'b> {
    pub(super) fn new(shared: &'b Shared) -> Self {
        Self {
            shared,
            hint: TopicHint::default(),
            sums: Sums::default(),
        }
    }

    /// See [`Broker::publish`](super::Broker::publish).
    pub(crate) fn publish(
        &mut self,
        message: &MessageRef<'_>,
        published_at: SystemTime,
    ) -> Result<Receipt, PublishError> {
        self.shared.limits.admit(message)?;
        let placed = self.shared.fan_out(message, published_at, &mut self.hint)?;
        self.sums.add(message, &placed.tally);
        let (receipt, wakers) = placed.receipt(message);
        wakers.into_iter().for_each(Waker::wake);
        Ok(receipt)
    }

    /// Does as [`publish`](Self::publish) with one message after the other, and tells what became of each.
    /// It may be told under locks: `messages` and `tell` must not call the broker.
    pub(crate) fn publish_all<'m>(
        &mut self,
        mut messages: impl Iterator<Item = MessageRef<'m>>,
        published_at: SystemTime,
        mut tell: impl FnMut(Result<Receipt, PublishError>),
    ) {
        let mut next = messages.next();
        let mut attempts = 0;
        while let Some(first) = next {
            if attempts < ATTEMPTS_MAX {
                let before = self.sums.messages;
                next = self.publish_together(first, &mut messages, published_at, &mut tell);
                let is_in_vain = self.sums.messages == before;
                attempts = if is_in_vain { attempts + 1 } else { 0 };
            }
            if let Some(message) = next {
                tell(self.publish(&message, published_at));
                next = messages.next();
            }
        }
    }

    /// Publishes what goes where the last message went, under one lock. Returns the first message that has to
    /// go on its own, if there is one.
    fn publish_together<'m>(
        &mut self,
        first: MessageRef<'m>,
        rest: &mut impl Iterator<Item = MessageRef<'m>>,
        published_at: SystemTime,
        tell: &mut impl FnMut(Result<Receipt, PublishError>),
    ) -> Option<MessageRef<'m>> {
        let (shared, topic) = (self.shared, first.topic);
        let mut next = Some(first);
        let mut wakers = Vec::new();
        if let Some(state) = shared.topics.recall(&self.hint, topic)
            && let Some(mut live) = state.lock()
            && live.takes_several()
        {
            shared.refresh_route(topic, &mut live);
            let LiveTopic { head, route, .. } = &mut *live;
            let mut lane = route.only_lane().map(Lane::lock);
            let stencil = Stencil::default();
            let mut is_first = true;
            while let Some(mut message) = next
                && let Some(lane) = &mut lane
                && lane.takes_together(&message)
                && message.topic.is_same(topic)
                && !message.end
                && shared.is_current(route)
                && shared.limits.admit(&message).is_ok()
            {
                // It would not pay for a message that is alone.
                message.stencil = (!is_first).then_some(&stencil);
                is_first = false;
                *head += 1;
                let sequence = Sequence(*head);
                let memory = shared.budget.memory();
                let mut parting =
                    Parting::new(memory, message, state.epoch, sequence, published_at);
                let mut tally = Tally {
                    wakers,
                    ..Tally::default()
                };
                lane.push(&mut parting, &mut tally);
                self.sums.add(&message, &tally);
                let placed = Placed {
                    epoch: state.epoch,
                    sequence,
                    position: None,
                    tally,
                };
                let receipt;
                (receipt, wakers) = placed.receipt(&message);
                tell(Ok(receipt));
                next = rest.next();
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        next
    }

    /// Adds what was published to the broker's figures.
    pub(crate) fn count(&mut self) {
        let sums = std::mem::take(&mut self.sums);
        let figures = [
            (&self.shared.published, sums.messages),
            (&self.shared.published_bytes, sums.payload_bytes),
            (&self.shared.unmatched, sums.unmatched),
        ];
        for (figure, more) in figures {
            figure.fetch_add(more, Ordering::Relaxed);
        }
    }
}

impl LiveTopic {
    /// Whether messages may follow one another without a look at anything but the route.
    fn takes_several(&self) -> bool {
        !self.ended && self.log.is_none()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.count();
    }
}
