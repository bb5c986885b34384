//! How subscriptions end, who is told, and that nothing stays of them.

use std::sync::Weak;

use super::*;

pub(super) fn capacity(
    filter: &str,
    messages: usize,
    overflow: OverflowPolicy,
) -> SubscribeOptions {
    SubscribeOptions {
        mailbox_capacity: Some(messages),
        overflow,
        ..options(filter)
    }
}

fn ended(reason: EndReason, missed: u64) -> Ended {
    Ended { reason, missed }
}

#[test]
fn a_stalled_reader_is_ended_and_gone_with_its_memory() {
    let broker = broker();
    let mut stalled = subscribe(&broker, "t");
    let mut other = subscribe(&broker, "t");
    for _ in 0..3 {
        publish(&broker, "t", "m");
    }
    let memory: Vec<Weak<Delivery>> = {
        let (_, batch) = take(&mut other).unwrap();
        batch.iter().map(Arc::downgrade).collect()
    };
    assert_eq!(broker.tick(2), 0, "one tick is not yet a stall");
    assert!(broker.snapshot().buffered_bytes > 0);
    assert_eq!(broker.tick(2), 1);

    let snapshot = broker.snapshot();
    assert_eq!(snapshot.subscriptions, 1);
    assert_eq!(snapshot.buffered_bytes, 0);
    assert_eq!(snapshot.ledger.missed[MissReason::Stalled as usize], 3);
    assert!(memory.iter().all(|message| message.strong_count() == 0));
    assert_eq!(
        take(&mut stalled).unwrap_err(),
        ended(EndReason::Stalled, 3)
    );
    assert_eq!(
        take(&mut stalled).unwrap_err(),
        ended(EndReason::Stalled, 0)
    );

    assert_eq!(publish(&broker, "t", "later").matched, 1);
    assert_eq!(payloads(&mut other), ["later"]);
    assert_eq!(other.end(), None);
}

#[test]
fn a_reader_that_keeps_taking_or_has_nothing_to_take_is_not_stalled() {
    let broker = broker();
    let mut slow = subscribe(&broker, "t");
    let _idle = subscribe(&broker, "other");
    let one = BatchLimit { messages: 1, ..ALL };
    for _ in 0..30 {
        publish(&broker, "t", "m");
    }
    for _ in 0..20 {
        assert_eq!(broker.tick(2), 0);
        assert!(poll_take(&mut slow, one, Waker::noop()).is_ready());
    }
    assert_eq!(broker.snapshot().subscriptions, 2);
}

#[test]
fn an_overflow_that_disconnects_is_told_and_swept_by_the_next_tick() {
    let broker = broker();
    let options = capacity("t", 2, OverflowPolicy::Disconnect);
    let mut subscription = broker.subscribe(options).unwrap();
    publish(&broker, "t", "m");
    publish(&broker, "t", "m");
    let receipt = publish(&broker, "t", "m");
    assert_eq!(
        (
            receipt.matched,
            receipt.delivered,
            receipt.dropped,
            receipt.displaced
        ),
        (1, 0, 1, 2)
    );
    assert_eq!(broker.snapshot().buffered_bytes, 0);
    assert_eq!(publish(&broker, "t", "m").matched, 0, "it has ended");
    assert_eq!(broker.tick(1_000), 0, "it did not stall");
    assert_eq!(broker.snapshot().subscriptions, 0);
    assert_eq!(
        take(&mut subscription).unwrap_err(),
        ended(EndReason::Overflow, 3)
    );
}

/// Ends a subscription with one message in its mailbox of one, and expects both its reader and its
/// watcher to be woken and told.
#[track_caller]
fn check_end(overflow: OverflowPolicy, end_it: impl FnOnce(&Broker), reason: EndReason) {
    let broker = broker();
    let mut subscription = broker.subscribe(capacity("t", 1, overflow)).unwrap();
    let (reader, watcher) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let mut watch = subscription.watch_end().unwrap();
    assert!(poll_end(&mut watch, &watcher.clone().into()).is_pending());
    assert!(poll_take(&mut subscription, ALL, &reader.clone().into()).is_pending());

    publish(&broker, "t", "m");
    assert_eq!((reader.count(), watcher.count()), (1, 0));
    end_it(&broker);
    assert_eq!(watcher.count(), 1, "the watcher is woken by {reason:?}");
    assert_eq!(poll_end(&mut watch, Waker::noop()), Poll::Ready(reason));
    assert_eq!(subscription.end(), Some(reason));
}

#[test]
fn each_end_resolves_the_watch_also_while_nobody_reads() {
    let overflow = |broker: &Broker| drop(publish(broker, "t", "too much"));
    check_end(OverflowPolicy::Disconnect, overflow, EndReason::Overflow);
    let stall = |broker: &Broker| assert_eq!(broker.tick(1), 1);
    check_end(OverflowPolicy::DropNewest, stall, EndReason::Stalled);
    check_end(
        OverflowPolicy::DropNewest,
        Broker::drain,
        EndReason::Draining,
    );
}

#[test]
fn a_drain_wakes_a_waiting_reader() {
    let broker = broker();
    let mut subscription = subscribe(&broker, "t");
    let reader = Arc::new(Wakes::default());
    assert!(poll_take(&mut subscription, ALL, &reader.clone().into()).is_pending());
    broker.drain();
    assert_eq!(reader.count(), 1);
    assert_eq!(
        take(&mut subscription).unwrap_err(),
        ended(EndReason::Draining, 0)
    );
}

#[test]
fn a_subscription_that_is_dropped_has_ended_for_its_watcher() {
    let broker = broker();
    let mut subscription = subscribe(&broker, "a.*");
    let watcher = Arc::new(Wakes::default());
    let mut watch = subscription.watch_end().unwrap();
    assert!(poll_end(&mut watch, &watcher.clone().into()).is_pending());
    drop(subscription);
    assert_eq!(watcher.count(), 1);
    assert_eq!(
        poll_end(&mut watch, Waker::noop()),
        Poll::Ready(EndReason::Unsubscribed)
    );
}

#[test]
fn nothing_stays_of_a_subscriber_after_the_next_tick() {
    let broker = broker();
    let _other = subscribe(&broker, ">");
    for wish in [
        options("t"),
        options("*"),
        in_group("t", "g"),
        in_group(">", "g"),
    ] {
        let what = format!("{wish:?}");
        let subscription = broker.subscribe(wish).unwrap();
        let gone = Arc::downgrade(&newest_subscriber(&broker));
        publish(&broker, "t", "m");
        publish(&broker, "elsewhere", "m");
        drop(subscription);
        let left = broker.snapshot();
        assert_eq!((left.subscriptions, left.groups), (1, 0));
        broker.tick(1_000);
        assert_eq!(gone.strong_count(), 0, "{what}");
    }
}

#[test]
fn messages_that_a_subscriber_leaves_behind_are_missed_and_freed() {
    let broker = broker();
    let subscription = subscribe(&broker, "t");
    publish(&broker, "t", "m");
    publish(&broker, "t", "m");
    drop(subscription);
    let snapshot = broker.snapshot();
    assert_eq!(snapshot.buffered_bytes, 0);
    assert_eq!(snapshot.ledger.missed[MissReason::Departed as usize], 2);
    assert!(snapshot.ledger.balances());
}

#[test]
fn a_drain_refuses_newcomers_and_delivers_what_is_buffered_first() {
    let broker = broker();
    let options = capacity("t", 2, OverflowPolicy::DropNewest);
    let mut subscription = broker.subscribe(options).unwrap();
    for payload in ["1", "2", "3"] {
        publish(&broker, "t", payload);
    }
    broker.drain();
    for filter in ["t", "new", ">"] {
        let refused = broker.subscribe(super::options(filter)).unwrap_err();
        assert_eq!(refused, SubscribeError::Draining);
    }
    assert_eq!(publish(&broker, "t", "late").matched, 0);
    assert_eq!(broker.tick(1), 0, "a drain has its own end");
    assert_eq!(broker.tick(1), 0, "a drain has its own end");

    let (missed, batch) = take(&mut subscription).unwrap();
    let payloads: Vec<String> = batch.iter().map(|delivery| payload(delivery)).collect();
    assert_eq!(
        (missed, payloads),
        (1, vec!["1".to_owned(), "2".to_owned()])
    );
    assert_eq!(
        take(&mut subscription).unwrap_err(),
        ended(EndReason::Draining, 0)
    );
    drop(subscription);
    let snapshot = broker.snapshot();
    assert_eq!(snapshot.subscriptions, 0);
    assert!(snapshot.ledger.balances());
}
