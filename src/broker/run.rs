//! A publisher's messages, one after the other.

use std::{sync::atomic::Ordering, task::Waker, time::SystemTime};

use super::{
    Shared,
    publish::{PublishError, Receipt},
    topics::TopicHint,
};
use crate::message::MessageRef;

/// The messages of one publisher, one after the other: most go where the one before went, and together
/// they are added to the broker's figures, when the run is [counted](Run::count) or dropped.
#[derive(Debug)]
pub(crate) struct Run<'b> {
    shared: &'b Shared,
    hint: TopicHint,
    published: u64,
    published_bytes: u64,
    unmatched: u64,
}

impl<'b> Run<'b> {
    pub(super) fn new(shared: &'b Shared) -> Self {
        Self {
            shared,
            hint: TopicHint::default(),
            published: 0,
            published_bytes: 0,
            unmatched: 0,
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
        let tally = placed.tally;
        self.published += 1;
        self.published_bytes += message.payload.len() as u64;
        self.unmatched += u64::from(tally.matched == 0);
        tally.wakers.into_iter().for_each(Waker::wake);
        Ok(Receipt {
            chosen_id: message.id.cloned(),
            epoch: placed.epoch,
            sequence: placed.sequence,
            matched: tally.matched,
            delivered: tally.delivered,
            dropped: tally.matched - tally.delivered,
            displaced: tally.displaced,
            position: placed.position,
        })
    }

    /// Adds what was published to the broker's figures.
    pub(crate) fn count(&mut self) {
        let figures = [
            (&self.shared.published, &mut self.published),
            (&self.shared.published_bytes, &mut self.published_bytes),
            (&self.shared.unmatched, &mut self.unmatched),
        ];
        for (sum, more) in figures {
            sum.fetch_add(std::mem::take(more), Ordering::Relaxed);
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.count();
    }
}
