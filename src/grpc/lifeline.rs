//! Lets go of a stream whose reader no longer takes anything.
//!
//! HTTP/2's flow control leaves no way to send trailers past data that the peer does not take: the
//! end of a stalled subscription would wait, with its buffer, for as long as the connection lives. So
//! the task that drives a stream also watches the subscription behind it. When the broker has ended
//! that, the stream has some grace to tell the reader; then the task drops it, which resets the
//! stream and frees what was buffered for it.

use std::{cell::RefCell, future::Future, pin::pin, task::Poll, time::Duration};

use crate::broker::EndWatch;

tokio::task_local! {
    static WATCHED: RefCell<Option<EndWatch>>;
}

/// Ties the stream that the present task drives to a subscription.
pub(crate) fn watch(end: EndWatch) {
    // Outside `drive`, as on HTTP/1.1, the connection's own end is all there is.
    let set = WATCHED.try_with(|watched| watched.replace(Some(end)));
    drop(set);
}

/// Drives a stream to its end, or to `grace` after the end of the subscription that it is tied to.
pub(crate) async fn drive(stream: impl Future<Output = ()>, grace: Duration) {
    let ended = std::future::poll_fn(|cx| {
        WATCHED.with(|watched| match &mut *watched.borrow_mut() {
            Some(end) => std::pin::Pin::new(end).poll(cx).map(drop),
            None => Poll::Pending,
        })
    });
    let driven = async {
        let mut stream = pin!(stream);
        tokio::select! {
            biased;
            () = &mut stream => return,
            () = ended => {}
        }
        // Past the grace, returning drops the stream.
        drop(tokio::time::timeout(grace, stream).await);
    };
    WATCHED.scope(RefCell::new(None), driven).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, Limits, SubscribeOptions};

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_dropped_some_grace_after_its_subscription_ended() {
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let options = SubscribeOptions::new("t".parse().unwrap());
        let mut subscription = broker.subscribe(options).unwrap();
        let grace = Duration::from_secs(10);
        let started = tokio::time::Instant::now();
        let stream = async {
            watch(subscription.watch_end().unwrap());
            broker.drain();
            std::future::pending().await
        };
        drive(stream, grace).await;
        assert_eq!(started.elapsed(), grace);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_subscription_is_left_alone() {
        let hour = Duration::from_secs(3_600);
        drive(tokio::time::sleep(hour), Duration::from_secs(1)).await;
    }
}
