//! A waker may call the broker: no lock is held when it is woken.

use std::task::Wake;

use super::{endings::capacity, *};

/// A waker that looks at the broker and subscribes, which takes every lock there is.
struct Nosy(Broker);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        assert!(self.0.snapshot().ledger.balances());
        drop(self.0.subscribe(options("another")));
    }
}

#[derive(Clone, Copy)]
enum Waits {
    Reader,
    Watcher,
}

/// Runs on a thread of its own, so that a deadlock fails the test.
fn check(waits: Waits, overflow: OverflowPolicy, happens: fn(&Broker)) {
    let mut crew = Crew::new();
    crew.spawn(move || {
        let broker = broker();
        let mut subscription = broker.subscribe(capacity("t", 1, overflow)).unwrap();
        let waker: Waker = Arc::new(Nosy(broker.clone())).into();
        let pending = match waits {
            Waits::Reader => poll_take(&mut subscription, ALL, &waker).is_pending(),
            Waits::Watcher => {
                let mut watch = subscription.watch_end().unwrap();
                poll_end(&mut watch, &waker).is_pending()
            }
        };
        assert!(pending);
        happens(&broker);
        drop(subscription);
    });
    crew.join();
}

fn overflow_once(broker: &Broker) {
    publish(broker, "t", "fits");
    publish(broker, "t", "too much");
}

fn overflow_together(broker: &Broker) {
    let messages = vec![Message::new(topic("t"), "m"); 2];
    let messages = messages.iter().map(Message::as_message_ref);
    let run = &mut broker.run();
    run.publish_all(messages, SystemTime::UNIX_EPOCH, |outcome| {
        assert_eq!(outcome.unwrap().matched, 1);
    });
}

fn stall(broker: &Broker) {
    publish(broker, "t", "m");
    broker.tick(1);
}

#[test]
fn whoever_is_woken_may_call_the_broker() {
    let default = OverflowPolicy::DropNewest;
    check(Waits::Reader, default, |b| drop(publish(b, "t", "m")));
    check(Waits::Watcher, OverflowPolicy::Disconnect, overflow_once);
    check(Waits::Reader, OverflowPolicy::Disconnect, overflow_once);
    check(Waits::Watcher, default, stall);
    check(Waits::Reader, default, Broker::drain);
    check(Waits::Watcher, default, Broker::drain);
    check(Waits::Watcher, default, |_| {});
}

#[test]
fn whoever_is_woken_by_messages_that_go_together_may_call_the_broker() {
    let disconnect = OverflowPolicy::Disconnect;
    check(Waits::Watcher, disconnect, overflow_together);
}

#[test]
fn the_end_has_one_watch() {
    let broker = broker();
    let mut subscription = subscribe(&broker, "t");
    assert!(subscription.watch_end().is_some());
    assert!(subscription.watch_end().is_none());
}
