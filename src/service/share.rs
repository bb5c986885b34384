//! One connection's share of what all connections have together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::rate::{PublishRate, PublishRateExceeded};
use crate::{
    access::{CallerCache, Peer},
    broker::Arrival,
};

/// A connection's share: the subscriptions that it may hold, the bytes of its requests that have not
/// arrived completely, and who is at its other end. The front door passes it along with each request.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionShare(Arc<Share>);

#[derive(Debug)]
struct Share {
    subscriptions: AtomicUsize,
    subscriptions_max: usize,
    receiving_bytes: AtomicUsize,
    peer: Peer,
    /// The peer's address as text, for all its subscriptions.
    origin: Option<Arc<str>>,
    caller: CallerCache,
    publish_rate: Option<PublishRate>,
    looking: Semaphore,
}

/// One subscription's slot, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot(ConnectionShare);

impl ConnectionShare {
    pub(crate) fn new(subscriptions_max: usize, peer: Peer) -> Self {
        Self(Arc::new(Share {
            subscriptions: AtomicUsize::new(0),
            subscriptions_max,
            receiving_bytes: AtomicUsize::new(0),
            origin: peer.address.map(|address| address.to_string().into()),
            peer,
            caller: CallerCache::default(),
            publish_rate: None,
            looking: Semaphore::const_new(1),
        }))
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// A subscription comes on this connection, now.
    pub(super) fn arrival(&self) -> Arrival {
        Arrival {
            peer: self.0.origin.clone(),
            at: Some(SystemTime::now()),
        }
    }

    /// Who called last.
    pub(crate) fn caller(&self) -> &CallerCache {
        &self.0.caller
    }

    /// Bounds how fast the connection may publish.
    pub(crate) fn with_publish_rate(mut self, rate: Option<PublishRate>) -> Self {
        let share = Arc::get_mut(&mut self.0).expect("nobody else has it yet");
        share.publish_rate = rate;
        self
    }

    /// Takes one message from what the connection may publish now.
    pub(crate) fn admit_publish(&self) -> Result<(), PublishRateExceeded> {
        self.0
            .publish_rate
            .as_ref()
            .map_or(Ok(()), PublishRate::take)
    }

    /// The connection's turn to have a list made: one after the other.
    pub(crate) async fn turn_to_look(&self) -> SemaphorePermit<'_> {
        let turn = self.0.looking.acquire().await;
        turn.expect("it is never closed")
    }

    pub(crate) fn subscriptions_max(&self) -> usize {
        self.0.subscriptions_max
    }

    /// The bytes of the connection's requests that have not arrived completely.
    pub(crate) fn receiving_bytes(&self) -> &AtomicUsize {
        &self.0.receiving_bytes
    }

    /// One more subscription, if there is room.
    pub(crate) fn acquire(&self) -> Option<Slot> {
        let take = |used| (used < self.0.subscriptions_max).then_some(used + 1);
        self.0
            .subscriptions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()
            .map(|_| Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_dropped() {
        let share = ConnectionShare::new(1, Peer::default());
        let slot = share.acquire();
        assert!(slot.is_some());
        assert!(share.acquire().is_none());
        drop(slot);
        assert!(share.acquire().is_some());
    }
}
