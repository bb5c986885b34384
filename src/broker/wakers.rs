//! Those who wait for a mailbox.

use std::task::{Context, Waker};

/// Those who wait for what has happened: the reader and the one who watches for the end. A waker may
/// run anything, so it is neither woken nor dropped before all locks are released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakers([Option<Waker>; 2]);

impl Wakers {
    pub(super) fn of(wakers: [Option<Waker>; 2]) -> Self {
        Self(wakers)
    }

    pub(crate) fn wake(self) {
        self.into_iter().for_each(Waker::wake);
    }
}

impl IntoIterator for Wakers {
    type Item = Waker;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Waker>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// Keeps the context's waker, and returns the one that it takes the place of.
pub(super) fn replace_waker(slot: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        slot => slot.replace(cx.waker().clone()),
    }
}
