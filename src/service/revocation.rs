//! Ends a subscription whose caller may not have it any more: its token has run out, or what the auth file
//! says has changed.
//!
//! Polled by whoever drives the stream, also while nobody reads it. What its mailbox holds is dropped;
//! what was taken from it before may still arrive.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use crate::{
    access::{AccessError, Leash, Permit},
    broker::{Ender, Filters},
};

/// Watches over one subscription's right.
#[derive(Debug)]
pub(crate) struct Revocation {
    leash: Leash,
    permit: Permit,
    filters: Filters,
    ender: Ender,
    reason: Arc<OnceLock<AccessError>>,
}

impl Revocation {
    pub(crate) fn new(permit: Permit, filters: Filters, ender: Ender) -> Self {
        Self {
            leash: permit.leash(),
            permit,
            filters,
            ender,
            reason: Arc::default(),
        }
    }

    /// Why the right was lost, once it is.
    pub(crate) fn reason(&self) -> Arc<OnceLock<AccessError>> {
        Arc::clone(&self.reason)
    }

    /// Ends the subscription once its caller has lost the right to it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(changed) = self.leash.poll_change(cx) {
            let mut filters = self.filters.as_slice().iter();
            let permit = &mut self.permit;
            let asked = changed.and_then(|()| filters.try_for_each(|f| permit.subscribe(f)));
            if let Err(error) = asked {
                self.permit.count(&error);
                // The stream reads the reason once it sees the end.
                if self.reason.set(error).is_ok() {
                    self.ender.end();
                }
                return;
            }
        }
    }
}
