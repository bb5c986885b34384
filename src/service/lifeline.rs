//! Lets go of a stream whose reader no longer takes anything.
//!
//! HTTP/2's flow control leaves no way to send trailers past data that the peer does not take: the
//! end of a stalled subscription would wait, with its buffer, for as long as the connection lives. So
//! whoever drives a stream also watches the subscription behind it. When the broker has ended that,
//! the stream has some grace to tell the reader; then it is dropped, which resets it and frees what
//! was buffered for it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::revocation::Revocation;
use crate::broker::{EndReason, EndWatch};

/// Ties a stream to the subscription behind it, to its caller's deadline and to its caller's right.
#[derive(Debug)]
pub(crate) enum Lifeline {
    Watching {
        end: EndWatch,
        deadline: Option<Pin<Box<Sleep>>>,
        revocation: Option<Box<Revocation>>,
    },
    /// A drain has a deadline of its own, and its readers may use all of it.
    Draining,
    /// What is left of the grace.
    Grace(Pin<Box<Sleep>>),
}

impl Lifeline {
    pub(crate) fn new(
        end: EndWatch,
        deadline: Option<Instant>,
        revocation: Option<Revocation>,
    ) -> Self {
        Self::Watching {
            end,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            revocation: revocation.map(Box::new),
        }
    }

    /// Ends the subscription if its caller may not have it any more. To be asked before anything of it is
    /// handed out, so that nothing is that was published after the right was lost.
    pub(crate) fn ask_right(&mut self, cx: &mut Context<'_>) {
        if let Self::Watching {
            revocation: Some(revocation),
            ..
        } = self
        {
            revocation.poll(cx);
        }
    }

    /// Ready when the stream is to be dropped: `grace` after the end of the subscription, or of its
    /// caller's patience.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>, grace: Duration) -> Poll<()> {
        self.ask_right(cx);
        if let Self::Watching { end, deadline, .. } = self {
            *self = match ready!(poll_end(end, deadline, cx)) {
                Some(EndReason::Draining) => Self::Draining,
                // Its memory is wanted now: who reads at this moment is told why, and nobody is waited for.
                Some(EndReason::Shed) => return Poll::Ready(()),
                Some(
                    EndReason::Overflow
                    | EndReason::Stalled
                    | EndReason::TopicEnded
                    | EndReason::Unsubscribed,
                )
                | None => Self::Grace(Box::pin(tokio::time::sleep(grace))),
            };
        }
        match self {
            Self::Grace(left) => left.as_mut().poll(cx),
            Self::Watching { .. } | Self::Draining => Poll::Pending,
        }
    }
}

/// A lifeline on its way from whoever makes a stream to whoever drives it: along with the response, through
/// whatever lies between.
#[derive(Clone, Debug)]
struct Tether(Arc<Mutex<Option<Lifeline>>>);

impl Lifeline {
    /// Lets the response carry the lifeline of its body.
    pub(crate) fn fasten_to<B>(self, response: &mut Response<B>) {
        let tether = Tether(Arc::new(Mutex::new(Some(self))));
        response.extensions_mut().insert(tether);
    }

    /// Takes the lifeline that the response carries, if it does.
    pub(crate) fn unfasten_from<B>(response: &mut Response<B>) -> Option<Self> {
        let tether = response.extensions_mut().remove::<Tether>()?;
        let mut lifeline = tether.0.lock();
        lifeline.take()
    }
}

/// Ready with the reason for which the subscription has ended, or with none at the deadline.
fn poll_end(
    end: &mut EndWatch,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<Option<EndReason>> {
    if let Some(deadline) = deadline
        && deadline.as_mut().poll(cx).is_ready()
    {
        return Poll::Ready(None);
    }
    Pin::new(end).poll(cx).map(Some)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        broker::{Broker, Limits, SubscribeOptions},
        message::Message,
    };

    const GRACE: Duration = Duration::from_secs(10);
    const DEADLINE: Duration = Duration::from_secs(3);

    /// How long a stream that never ends is driven.
    async fn driven(deadline: Option<Duration>, end_it: impl FnOnce(&Broker)) -> Duration {
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let options = SubscribeOptions::new("t".parse().unwrap());
        let mut subscription = broker.subscribe(options).unwrap();
        let started = Instant::now();
        let deadline = deadline.map(|after| started + after);
        let mut lifeline = Lifeline::new(subscription.watch_end().unwrap(), deadline, None);
        end_it(&broker);
        std::future::poll_fn(|cx| lifeline.poll_over(cx, GRACE)).await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_dropped_some_grace_after_its_subscription_ended() {
        let stall = |broker: &Broker| {
            let message = Message::new("t".parse().unwrap(), "m");
            broker.publish(message, SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(broker.tick(1), 1);
        };
        assert_eq!(driven(None, stall).await, GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_dropped_some_grace_after_its_callers_deadline() {
        assert_eq!(driven(Some(DEADLINE), |_| {}).await, DEADLINE + GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_drains_may_take_the_time_of_the_drain() {
        let hour = Duration::from_secs(3_600);
        let drained = tokio::time::timeout(hour, driven(None, Broker::drain)).await;
        assert!(drained.is_err());
    }
}
