//! What ends a live stream whose caller has lost its right: its token runs out, or the policy changes.
//!
//! A stream asks whenever it has nothing else to do, which may be for each message. So a question costs
//! two atomic loads, unless there is something to tell or somebody else to wake.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Access, AccessError, Caller};
use crate::auth::{Right, Unproven};

/// What a timer is set for at most; it is set again after that.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Holds a stream as long as its caller may have it.
pub(crate) struct Leash {
    access: Arc<Access>,
    caller: Caller,
    expiry: Option<Pin<Box<Sleep>>>,
    /// Of the caller's policy, or of a newer one.
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Woken by both of them.
    woken: Option<Waker>,
}

impl std::fmt::Debug for Leash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leash").finish_non_exhaustive()
    }
}

impl Leash {
    pub(crate) fn new(access: &Arc<Access>, caller: Caller) -> Self {
        let expires_at = caller.expires_at();
        Self {
            expiry: expires_at.map(|at| Box::pin(tokio::time::sleep_until(soon(at)))),
            over: Box::pin(access.over()),
            access: Arc::clone(access),
            caller,
            woken: None,
        }
    }

    /// Ready when the caller has lost a right that it had.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>, right: Right) -> Poll<AccessError> {
        loop {
            let changed = std::task::ready!(self.poll_change(cx));
            if let Err(error) = changed.and_then(|()| self.caller.require(right)) {
                self.access.count(&error);
                return Poll::Ready(error);
            }
        }
    }

    /// Ready when there is another policy, by which the caller is still known: whatever it was allowed
    /// to do has to be asked again. Ready with an error when the caller is known no more.
    pub(crate) fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AccessError>> {
        if self.access.generation() != self.caller.generation() {
            let caller = self.caller.prove_again(&self.access)?;
            *self = Self::new(&self.access, caller);
            return Poll::Ready(Ok(()));
        }
        let is_elapsed = |expiry: &Pin<Box<Sleep>>| expiry.is_elapsed();
        let is_running_out = self.expiry.as_ref().is_some_and(is_elapsed);
        let wakes = |waker: &Waker| waker.will_wake(cx.waker());
        if !is_running_out && self.woken.as_ref().is_some_and(wakes) {
            // Neither has come to pass, so that both still have the waker.
            return Poll::Pending;
        }
        if let (Some(expiry), Some(at)) = (&mut self.expiry, self.caller.expires_at()) {
            while expiry.as_mut().poll(cx).is_ready() {
                if at <= Instant::now() {
                    return Poll::Ready(Err(Unproven::Expired.into()));
                }
                expiry.as_mut().reset(soon(at));
            }
        }
        self.woken = Some(cx.waker().clone());
        if self.over.as_mut().poll(cx).is_ready() {
            // The next one came into force meanwhile.
            return self.poll_change(cx);
        }
        Poll::Pending
    }
}

fn soon(at: Instant) -> Instant {
    at.min(Instant::now() + SLEEP_MAX)
}
