//! The races between publishing, reading, ticking, joining and leaving, in orders that a scheduler
//! chooses: thousands of random ones, and ones that change their mind at few places (PCT, Burckhardt and
//! others, ASPLOS 2010). A reader that is not woken is a deadlock, which the scheduler sees.
//!
//! `cargo test --release --lib --features interleavings interleavings`

use shuttle::{future::block_on, thread};

use super::*;

const MESSAGES: usize = 3;
/// Places at which a schedule changes its mind.
const PCT_DEPTH: usize = 3;
const SCHEDULES: usize = 5_000;

pub(super) fn in_many_orders(scenario: fn()) {
    shuttle::check_random(scenario, SCHEDULES);
    shuttle::check_pct(scenario, SCHEDULES, PCT_DEPTH);
}

fn wish(filter: &str, capacity: usize, overflow: OverflowPolicy) -> SubscribeOptions {
    SubscribeOptions {
        mailbox_capacity: Some(capacity),
        overflow,
        ..options(filter)
    }
}

/// Reads until the subscription ends; what it got and what it was told of.
fn read_to_end(mut subscription: Subscription) -> (u64, u64) {
    let (mut received, mut told) = (0, 0);
    let mut order = OrderCheck::default();
    loop {
        let taken = block_on(std::future::poll_fn(|cx| {
            poll_take(&mut subscription, ALL, cx.waker())
        }));
        match taken {
            Ok((missed, batch)) => {
                told += missed;
                received += batch.len() as u64;
                batch.iter().for_each(|delivery| order.see(delivery));
            }
            Err(ended) => return (received, told + ended.missed),
        }
    }
}

/// Publishes one by one.
fn publish_singly(broker: &Broker) {
    for _ in 0..MESSAGES {
        let receipt = publish(broker, "t", "m");
        assert_eq!(receipt.matched, receipt.delivered + receipt.dropped);
    }
}

/// Publishes all but the first together.
fn publish_together(broker: &Broker) {
    let messages = vec![Message::new(topic("t"), "m"); MESSAGES];
    let messages = messages.iter().map(Message::as_message_ref);
    let mut newest = None;
    let run = &mut broker.run();
    run.publish_all(messages, SystemTime::UNIX_EPOCH, |outcome| {
        let receipt = outcome.unwrap();
        assert_eq!(receipt.matched, receipt.delivered + receipt.dropped);
        let place = (receipt.epoch, receipt.sequence);
        assert!(newest.replace(place).is_none_or(|before| before < place));
    });
}

fn everything_is_accounted_for(meanwhile: fn(&Broker)) {
    all_is_accounted_for(publish_singly, meanwhile);
}

/// Two publishers, two readers of one lane, one of them with a tiny mailbox; `meanwhile` runs beside them.
fn all_is_accounted_for(publish: fn(&Broker), meanwhile: fn(&Broker)) {
    let broker = broker();
    let readers: Vec<_> = [
        (1, OverflowPolicy::DropOldest),
        (8, OverflowPolicy::DropNewest),
    ]
    .map(|(capacity, overflow)| wish("t", capacity, overflow))
    .into_iter()
    .map(|wish| {
        let subscription = subscribe_either(&broker, wish, true).unwrap();
        let subscriber = newest_subscriber(&broker);
        let reader = thread::spawn(move || read_to_end(subscription));
        (reader, subscriber)
    })
    .collect();
    let mut movers: Vec<_> = (0..2)
        .map(|_| {
            let broker = broker.clone();
            thread::spawn(move || publish(&broker))
        })
        .collect();
    let beside = broker.clone();
    movers.push(thread::spawn(move || meanwhile(&beside)));
    for mover in movers {
        mover.join().unwrap();
    }
    broker.drain();
    for (reader, subscriber) in readers {
        let (received, told) = reader.join().unwrap();
        assert_eq!(received + told, 2 * MESSAGES as u64);
        let ledger = subscriber.ledger();
        assert_eq!((ledger.delivered, ledger.missed_total()), (received, told));
    }
    let snapshot = broker.snapshot();
    assert!(snapshot.ledger.balances());
    assert_eq!((snapshot.subscriptions, snapshot.buffered_bytes), (0, 0));
}

#[test]
fn nothing_is_lost_while_the_accounts_are_looked_at() {
    in_many_orders(|| {
        everything_is_accounted_for(|broker| {
            for _ in 0..2 {
                assert!(broker.snapshot().ledger.balances());
                broker.tick(u32::MAX);
            }
        });
    });
}

#[test]
fn nothing_is_lost_while_a_member_of_the_lane_comes_and_goes() {
    in_many_orders(|| {
        everything_is_accounted_for(|broker| {
            for _ in 0..2 {
                let wish = wish("t", 2, OverflowPolicy::Disconnect);
                let mut subscription = subscribe_either(broker, wish, true).unwrap();
                drop(take(&mut subscription));
            }
        });
    });
}

#[test]
fn a_lane_that_empties_does_not_take_its_successor_along() {
    in_many_orders(|| {
        let broker = broker();
        let guests: Vec<_> = (0..2)
            .map(|_| {
                let broker = broker.clone();
                thread::spawn(move || {
                    let wish = wish("t", 4, OverflowPolicy::DropNewest);
                    drop(subscribe_either(&broker, wish.clone(), true).unwrap());
                    let mut subscription = subscribe_either(&broker, wish, true).unwrap();
                    let receipt = publish(&broker, "t", "m");
                    assert!(receipt.delivered >= 1, "a live subscriber is found");
                    let mut places = Vec::new();
                    // What another reader has handed over is taken first, and the rest then.
                    for _ in 0..2 {
                        let batch = take(&mut subscription).unwrap().1;
                        places.extend(batch.iter().map(|d| (d.epoch, d.sequence)));
                    }
                    assert!(places.contains(&(receipt.epoch, receipt.sequence)));
                })
            })
            .collect();
        for guest in guests {
            guest.join().unwrap();
        }
        assert_eq!(broker.snapshot().subscriptions, 0);
        assert!(broker.shared.registry.read().is_empty());
    });
}

#[test]
fn nothing_that_goes_together_is_lost_while_the_accounts_are_looked_at() {
    in_many_orders(|| {
        all_is_accounted_for(publish_together, |broker| {
            for _ in 0..2 {
                assert!(broker.snapshot().ledger.balances());
                broker.tick(u32::MAX);
            }
        });
    });
}

#[test]
fn nothing_that_goes_together_is_lost_while_a_member_comes_and_goes() {
    in_many_orders(|| {
        all_is_accounted_for(publish_together, |broker| {
            for _ in 0..2 {
                let wish = wish("t", 2, OverflowPolicy::Disconnect);
                let mut subscription = subscribe_either(broker, wish, true).unwrap();
                drop(take(&mut subscription));
            }
        });
    });
}

/// Whether it shares the others' lane, or is one by whom the route changes.
fn whoever_joins_gets_all_from_then_on(encoded: bool) {
    let broker = broker();
    let standing = subscribe(&broker, "t");
    let publisher = {
        let broker = broker.clone();
        thread::spawn(move || publish_together(&broker))
    };
    let wish = wish("t", 8, OverflowPolicy::DropNewest);
    let subscription = subscribe_either(&broker, wish, encoded).unwrap();
    let start = subscription.start().unwrap();
    publisher.join().unwrap();
    broker.drain();
    let expected = MESSAGES as u64 - start.head.0;
    assert_eq!(read_to_end(subscription), (expected, 0));
    assert_eq!(read_to_end(standing), (MESSAGES as u64, 0));
}

#[test]
fn whoever_joins_between_messages_that_go_together_gets_the_rest() {
    in_many_orders(|| whoever_joins_gets_all_from_then_on(true));
    in_many_orders(|| whoever_joins_gets_all_from_then_on(false));
}

/// A filter with a wildcard says nothing of where the topic stood, and what goes together must look at it.
#[test]
fn whoever_has_joined_misses_at_most_the_message_that_is_on_its_way() {
    in_many_orders(|| {
        let broker = broker();
        let mut standing = subscribe(&broker, "t");
        let told = Arc::new(AtomicUsize::new(0));
        let publisher = {
            let (broker, told) = (broker.clone(), Arc::clone(&told));
            thread::spawn(move || {
                let message = Message::new(topic("t"), "m");
                let message = message.as_message_ref();
                let mut run = broker.run();
                run.publish(&message, SystemTime::UNIX_EPOCH).unwrap();
                drop(take(&mut standing));
                let messages = [message; MESSAGES].into_iter();
                run.publish_all(messages, SystemTime::UNIX_EPOCH, |_| {
                    told.fetch_add(1, Ordering::SeqCst);
                });
            })
        };
        let wish = wish(">", 8, OverflowPolicy::DropNewest);
        let joined = subscribe_either(&broker, wish, false).unwrap();
        let missed_max = told.load(Ordering::SeqCst) + 1;
        publisher.join().unwrap();
        broker.drain();
        let (received, told_missed) = read_to_end(joined);
        assert!(received as usize + missed_max >= MESSAGES);
        assert_eq!(told_missed, 0);
    });
}
