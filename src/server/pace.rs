//! How fast an answer has to be taken: who takes a byte now and then keeps all of it in memory otherwise.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// What a peer has to take of an answer that waits for it, in bytes a second, beyond its patience: less than a
/// modem of the eighties.
pub(super) const ANSWER_BYTES_PER_SECOND_MIN: u32 = 1_024;

/// The time that an answer has, from when it first had to wait until nothing of it does.
#[derive(Debug)]
pub(super) struct Pace {
    until: Instant,
    overdue: Pin<Box<Sleep>>,
}

impl Pace {
    /// Begins to wait.
    pub(super) fn new(patience: Duration) -> Self {
        let until = Instant::now() + patience;
        Self {
            until,
            overdue: Box::pin(tokio::time::sleep_until(until)),
        }
    }

    /// Ready once too little was taken, of which this is all since the beginning.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>, taken_bytes: u64) -> Poll<()> {
        let more = taken_bytes as f64 / f64::from(ANSWER_BYTES_PER_SECOND_MIN);
        let until = self.until + Duration::from_secs_f64(more);
        if self.overdue.deadline() != until {
            self.overdue.as_mut().reset(until);
        }
        self.overdue.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_is_worth_a_second_for_each_kibibyte() {
        let started = Instant::now();
        let mut pace = Pace::new(PATIENCE);
        poll_fn(|cx| pace.poll_over(cx, 5 * 1_024)).await;
        assert_eq!(started.elapsed(), PATIENCE + Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_worth_next_to_nothing() {
        let started = Instant::now();
        let mut pace = Pace::new(PATIENCE);
        let mut taken = 0;
        let mut waits = async || {
            taken += 1;
            let over = poll_fn(|cx| pace.poll_over(cx, taken));
            tokio::time::timeout(Duration::from_secs(8), over).await
        };
        while waits().await.is_err() {}
        assert!(started.elapsed() < Duration::from_secs(11));
    }
}
