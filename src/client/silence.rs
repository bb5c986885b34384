//! How long a subscription with heartbeats may hear nothing before its connection counts as dead.
//!
//! The limit is about the broker, not about the application: while nobody polls, silence is not held
//! against the broker.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// What a heartbeat may take beyond two intervals: a slow network, a broker that catches its breath.
const MARGIN: Duration = Duration::from_secs(5);
/// The longest interval that a broker grants.
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// A timer that is seen this much too late tells that the application was busy or asleep. What came
/// meanwhile may still wait in the socket, so the broker gets another [`MARGIN`].
const LATE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    heard_at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    pub(super) fn new(heartbeat_interval: Duration) -> Self {
        let limit = 2 * heartbeat_interval.min(HEARTBEAT_INTERVAL_MAX) + MARGIN;
        Self {
            limit,
            heard_at: Instant::now(),
            timer: Box::pin(sleep(limit)),
        }
    }

    pub(super) fn heard(&mut self) {
        self.heard_at = Instant::now();
    }

    /// Ready, with its length, once the silence has lasted too long.
    pub(super) fn poll_too_long(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let due = self.timer.deadline();
            let next = self.heard_at + self.limit;
            if now < next {
                self.timer.as_mut().reset(next);
            } else if now > due + LATE {
                self.timer.as_mut().reset(now + MARGIN);
            } else {
                return Poll::Ready(now - self.heard_at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const LIMIT: Duration = Duration::from_secs(25);

    async fn too_long(silence: &mut Silence) -> Duration {
        std::future::poll_fn(|cx| silence.poll_too_long(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn silence_lasts_two_intervals_and_a_margin() {
        assert_eq!(too_long(&mut Silence::new(INTERVAL)).await, LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_ends_the_silence() {
        let started = Instant::now();
        let mut silence = Silence::new(INTERVAL);
        advance(INTERVAL).await;
        silence.heard();
        assert_eq!(too_long(&mut silence).await, LIMIT);
        assert_eq!(started.elapsed(), INTERVAL + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_slept_does_not_blame_the_broker() {
        let mut silence = Silence::new(INTERVAL);
        advance(3 * LIMIT).await;
        assert_eq!(too_long(&mut silence).await, 3 * LIMIT + MARGIN);
    }
}
