//! How long a connection goes on before others on its thread have their turn.

use std::{future::Future, pin::pin, task::Context, time::Duration};

use tokio::time::Instant;

/// How long a connection goes on with calls that come to their end. A call that does not end has its own bounds.
const TURN_MAX: Duration = Duration::from_millis(2);

/// A connection's turn on its thread.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// When the first call has come to its end in it.
    since: Option<Instant>,
    is_endless: bool,
    pub(super) is_over: bool,
}

impl Turn {
    /// One that lasts as long as there is something to do.
    pub(super) fn endless() -> Self {
        Self {
            is_endless: true,
            ..Self::default()
        }
    }

    /// A call has come to its end.
    pub(super) fn count(&mut self) {
        if !self.is_endless {
            let since = self.since.get_or_insert_with(Instant::now);
            self.is_over = since.elapsed() >= TURN_MAX;
        }
    }
}

/// Has the task polled again after all others and after a look at their sockets. Woken at once, it would have dozens of
/// turns between two such looks.
pub(super) fn come_back(cx: &mut Context<'_>) {
    let later = pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(later.is_pending(), "a future's first poll");
}
