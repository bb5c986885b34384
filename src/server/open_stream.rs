//! What an open stream and its call take, in the account of memory.
//!
//! The futures of a call cannot be asked for their size, so that a measured one counts for each kind of call. What
//! its caller chooses, its head, counts as allocated. `tests/account.rs` compares both with what the allocator says.

use std::sync::Arc;

use super::connection::Context;
use crate::{broker::Held, metrics::Metrics};

/// What an open stream takes, in HTTP/2's tables and here, with an answer that goes on; as measured, rounded up.
const STREAM_BYTES: usize = 1024;
/// What a call of one of our own methods takes with its stream until it is answered, or for as long as it reads.
/// Its head is gone before it waits for anything. As measured, rounded up.
const OWN_CALL_BYTES: usize = 5_632;
/// What a call takes that goes through the router, beside its head: the futures of all layers. As measured,
/// rounded up.
pub(super) const ROUTED_CALL_BYTES: usize = 14 * 1024;
/// The same of a call of tonic's services, beside its head: with two buffers that last as long as their answer.
const TONIC_CALL_BYTES: usize = 25 * 1024;

/// What a call takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    /// Until it is answered.
    at_first: usize,
    /// While its answer goes on, unless that is a subscription.
    at_last: usize,
}

impl Takes {
    pub(super) fn of(is_own: bool, is_companion: bool, head_bytes: usize) -> Self {
        let (at_first, at_last) = if is_own {
            (OWN_CALL_BYTES, STREAM_BYTES)
        } else if is_companion {
            (TONIC_CALL_BYTES + head_bytes, TONIC_CALL_BYTES)
        } else {
            (ROUTED_CALL_BYTES + head_bytes, STREAM_BYTES)
        };
        Self { at_first, at_last }
    }
}

/// Counts a stream as open, and what its call takes, until it is dropped.
pub(super) struct OpenStream {
    metrics: Arc<Metrics>,
    takes: Takes,
    held: Held,
}

impl OpenStream {
    pub(super) fn new(context: &Context, takes: Takes) -> Self {
        context.metrics.streams.inc();
        Self {
            metrics: Arc::clone(&context.metrics),
            takes,
            held: context.pubsub.broker.memory().hold(takes.at_first),
        }
    }

    /// What was needed to answer is gone.
    pub(super) fn is_answered(&mut self, is_subscription: bool) {
        self.held.set(if is_subscription {
            STREAM_BYTES
        } else {
            self.takes.at_last
        });
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.metrics.streams.dec();
    }
}
