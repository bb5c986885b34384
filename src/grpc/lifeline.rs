//! Lets go of a stream whose reader no longer takes anything.
//!
//! HTTP/2's flow control leaves no way to send trailers past data that the peer does not take: the
//! end of a stalled subscription would wait, with its buffer, for as long as the connection lives. So
//! the task that drives a stream also watches the subscription behind it. When the broker has ended
//! that, the stream has some grace to tell the reader; then the task drops it, which resets the
//! stream and frees what was buffered for it.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::broker::{EndReason, EndWatch};

tokio::task_local! {
    static WATCHED: RefCell<Option<Watched>>;
}

struct Watched {
    end: EndWatch,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Ties the stream that the present task drives to a subscription and its caller's deadline.
pub(crate) fn watch(end: EndWatch, deadline: Option<Instant>) {
    let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
    // Outside `drive` the connection's own end is all there is.
    let set = WATCHED.try_with(|watched| watched.replace(Some(Watched { end, deadline })));
    drop(set);
}

/// Drives a stream to its end, or to `grace` after the end of the subscription that it is tied to, or
/// of its caller's patience. A drain has a deadline of its own, and its readers may use all of it.
pub(crate) async fn drive(
    mut stream: Pin<Box<dyn Future<Output = ()> + Send + '_>>,
    grace: Duration,
) {
    let over = std::future::poll_fn(|cx| {
        WATCHED.with(|watched| match &mut *watched.borrow_mut() {
            Some(watched) => watched.poll_over(cx),
            None => Poll::Pending,
        })
    });
    let driven = async {
        let over = tokio::select! {
            biased;
            () = &mut stream => return,
            over = over => over,
        };
        match over {
            Over::Draining => stream.await,
            // Past the grace, returning drops the stream.
            Over::Ended => drop(tokio::time::timeout(grace, stream).await),
        }
    };
    WATCHED.scope(RefCell::new(None), driven).await;
}

enum Over {
    Draining,
    Ended,
}

impl Watched {
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Over::Ended);
        }
        Pin::new(&mut self.end).poll(cx).map(|reason| match reason {
            EndReason::Draining => Over::Draining,
            EndReason::Overflow | EndReason::Stalled | EndReason::Unsubscribed => Over::Ended,
        })
    }
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
    async fn driven(deadline: Option<Duration>, end_it: impl FnOnce(&Broker) + Send) -> Duration {
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let options = SubscribeOptions::new("t".parse().unwrap());
        let mut subscription = broker.subscribe(options).unwrap();
        let started = Instant::now();
        let stream = async {
            let deadline = deadline.map(|after| started + after);
            watch(subscription.watch_end().unwrap(), deadline);
            end_it(&broker);
            std::future::pending().await
        };
        drive(Box::pin(stream), GRACE).await;
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

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_subscription_is_left_alone() {
        let hour = Duration::from_secs(3_600);
        drive(Box::pin(tokio::time::sleep(hour)), Duration::from_secs(1)).await;
    }
}
