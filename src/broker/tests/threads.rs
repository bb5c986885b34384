//! The same promises with real threads: order, liveness, the accounts, and no deadlock.

use std::sync::Weak;

use super::*;

const TOPICS: [&str; 4] = ["a", "a.b", "a.c", "b"];

/// Whether the test still holds its end, which it also lets go of when it fails.
fn is_alive(working: &Weak<()>) -> bool {
    working.strong_count() > 0
}

fn subscribe_with_capacity(broker: &Broker, filter: &str, messages: usize) -> Subscription {
    let wish = SubscribeOptions {
        mailbox_capacity: Some(messages),
        ..options(filter)
    };
    broker.subscribe_encoded(wish, &ENCODING).unwrap()
}

/// What one thread saw, summed up for the accounts.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    matched: u64,
    received: u64,
}

/// Publishes to the topics in turn. Each payload says who published it, and the how-manieth it is.
fn publish_in_turn(broker: &Broker, publisher: usize, count: usize) -> Sum {
    let mut sum = Sum::default();
    for index in 0..count {
        let payload = format!("{publisher} {index}");
        let receipt = publish(broker, TOPICS[index % TOPICS.len()], &payload);
        assert_eq!(receipt.matched, receipt.delivered + receipt.dropped);
        sum.matched += u64::from(receipt.matched);
    }
    sum
}

/// Checks the order of each topic, and of each publisher within a topic.
#[derive(Debug, Default)]
struct Orders {
    topics: OrderCheck,
    publishers: HashMap<(Topic, usize), usize>,
}

impl Orders {
    fn see(&mut self, delivery: &Delivery) {
        self.topics.see(delivery);
        let (publisher, index) = publisher_and_index(delivery);
        let key = (delivery.message.topic.clone(), publisher);
        let before = self.publishers.insert(key, index);
        assert!(before.is_none_or(|before| before < index));
    }
}

fn publisher_and_index(delivery: &Delivery) -> (usize, usize) {
    let text = payload(delivery);
    let (publisher, index) = text.split_once(' ').unwrap();
    (publisher.parse().unwrap(), index.parse().unwrap())
}

/// Reads until the broker drains, after the last publisher has finished. Everything that was for the
/// subscriber is received or told.
fn read_to_the_end(subscription: Subscription, subscriber: &Subscriber, broker: &Broker) -> Sum {
    let start = subscription.start();
    let mut reader = Reader::new(subscription);
    let mut orders = Orders::default();
    let (mut received, mut told) = (0, 0);
    let limit = BatchLimit { messages: 7, ..ALL };
    let ended = loop {
        match reader.take(limit) {
            Ok((missed, batch)) => {
                told += missed;
                received += batch.len() as u64;
                batch.iter().for_each(|delivery| orders.see(delivery));
            }
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended.reason, EndReason::Draining);
    told += ended.missed;
    let ledger = subscriber.ledger();
    assert_eq!((ledger.delivered, ledger.missed_total()), (received, told));
    if let (Some(start), None) = (start, &subscriber.group) {
        let topic = subscriber.filters.as_topic().unwrap();
        let state = broker.shared.topics.find(&topic).unwrap().state;
        let head = state.lock().unwrap().head;
        assert_eq!(head, start.head.0 + received + told);
    }
    Sum {
        matched: 0,
        received,
    }
}

/// Joins, reads a little and leaves, again and again, with every kind of subscription.
fn come_and_go(broker: &Broker, rounds: usize) -> Sum {
    let policies = [
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Disconnect,
    ];
    let mut received = 0;
    for round in 0..rounds {
        let filter = ["a", "a.*", ">", "b", "a.c"][round % 5];
        let wish = SubscribeOptions {
            overflow: policies[round % 3],
            group: (round % 4 == 0).then(|| "g".parse().unwrap()),
            mailbox_capacity: Some(1 + round % 8),
            ..options(filter)
        };
        let mut subscription = subscribe_either(broker, wish, round % 7 < 5).unwrap();
        for _ in 0..round % 5 {
            thread::yield_now();
            let batch = take(&mut subscription).unwrap_or_default().1;
            received += batch.len() as u64;
        }
    }
    Sum {
        matched: 0,
        received,
    }
}

#[test]
fn the_accounts_balance_at_every_moment_while_everything_moves() {
    let limits = Limits {
        payload_bytes_max: 100,
        attributes_bytes_max: 0,
        mailbox_bytes: 20_000,
        buffered_bytes_max: 50_000,
        idle_topics_max: 32,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let working = Arc::new(());

    let mut readers = Crew::new();
    for (filter, group, encoded) in [
        ("a", None, true),
        ("a", None, true),
        ("a", None, false),
        ("a.*", None, true),
        (">", Some("g"), true),
        (">", Some("g"), false),
    ] {
        let wish = SubscribeOptions {
            mailbox_capacity: Some(16),
            group: group.map(|name: &str| name.parse().unwrap()),
            ..options(filter)
        };
        let subscription = subscribe_either(&broker, wish, encoded).unwrap();
        let subscriber = newest_subscriber(&broker);
        let broker = broker.clone();
        readers.spawn(move || read_to_the_end(subscription, &subscriber, &broker));
    }
    let mut movers = Crew::new();
    for publisher in 0..3 {
        let broker = broker.clone();
        movers.spawn(move || publish_in_turn(&broker, publisher, 4_000));
    }
    for _ in 0..2 {
        let broker = broker.clone();
        movers.spawn(move || come_and_go(&broker, 500));
    }
    let mut watchers = Crew::new();
    for tick in [true, false] {
        let (broker, working) = (broker.clone(), Arc::downgrade(&working));
        watchers.spawn(move || {
            while is_alive(&working) {
                if tick {
                    broker.tick(u32::MAX);
                    broker.age_topics();
                }
                let ledger = broker.snapshot().ledger;
                assert!(ledger.balances(), "{ledger:?}");
                thread::yield_now();
            }
        });
    }

    let moved = movers.join();
    broker.drain();
    let read = readers.join();
    drop(working);
    watchers.join();

    let ledger = broker.snapshot().ledger;
    let all = || moved.iter().chain(&read);
    assert_eq!(ledger.matched, all().map(|sum| sum.matched).sum::<u64>());
    assert_eq!(ledger.delivered, all().map(|sum| sum.received).sum::<u64>());
    assert_eq!(ledger.matched, ledger.delivered + ledger.missed_total());
    assert!(ledger.delivered > 0 && ledger.missed_total() > 0);
    let snapshot = broker.snapshot();
    assert_eq!((snapshot.subscriptions, snapshot.groups), (0, 0));
    assert_eq!(snapshot.buffered_bytes, 0);
}

#[test]
fn every_subscriber_sees_one_order_without_gaps_under_concurrent_publishers() {
    const PUBLISHERS: usize = 4;
    const EACH: usize = 3_000;
    let broker = broker();
    // A long way to the readers, on which one publisher could overtake another.
    let crowd = || subscribe_with_capacity(&broker, "t", 1);
    let _crowd: Vec<_> = (0..40).map(|_| crowd()).collect();
    let mut readers = Crew::new();
    for filter in ["t", "t", "*", ">"] {
        let subscription = subscribe_with_capacity(&broker, filter, PUBLISHERS * EACH);
        let mut reader = Reader::new(subscription);
        readers.spawn(move || {
            let mut orders = Orders::default();
            let mut all = Vec::new();
            while all.len() < PUBLISHERS * EACH {
                let (missed, batch) = reader.take(ALL).unwrap();
                assert_eq!(missed, 0);
                for delivery in batch {
                    orders.see(&delivery);
                    all.push((delivery.sequence.0, publisher_and_index(&delivery)));
                }
            }
            all
        });
    }
    let mut publishers = Crew::new();
    for publisher in 0..PUBLISHERS {
        let broker = broker.clone();
        publishers.spawn(move || {
            let send = |index| {
                let receipt = publish(&broker, "t", &format!("{publisher} {index}"));
                (receipt.sequence.0, (publisher, index))
            };
            (0..EACH).map(send).collect::<Vec<_>>()
        });
    }
    let mut sent: Vec<_> = publishers.join().concat();
    sent.sort_unstable();
    let sequences = sent.iter().map(|(sequence, _)| *sequence);
    assert!(sequences.eq(1..=(PUBLISHERS * EACH) as u64));
    for seen in readers.join() {
        assert!(
            seen == sent,
            "a reader saw another order than the receipts say"
        );
    }
}

#[test]
fn an_epoch_begins_only_after_the_last_message_of_the_one_before() {
    const PUBLISHERS: usize = 3;
    const EACH: usize = 6_000;
    let broker = broker();
    let mut reader = subscribe_with_capacity(&broker, ">", PUBLISHERS * EACH + 1);
    let working = Arc::new(());
    let mut agers = Crew::new();
    for _ in 0..2 {
        let (broker, working) = (broker.clone(), Arc::downgrade(&working));
        agers.spawn(move || {
            while is_alive(&working) {
                broker.age_topics();
            }
        });
    }
    let mut publishers = Crew::new();
    for _ in 0..PUBLISHERS {
        let broker = broker.clone();
        publishers.spawn(move || {
            for _ in 0..EACH {
                publish(&broker, "t", "m");
            }
        });
    }
    publishers.join();
    drop(working);
    agers.join();
    // Those who age may not have had a turn while the others published.
    broker.age_topics();
    broker.age_topics();
    publish(&broker, "t", "m");
    let (missed, batch) = take(&mut reader).unwrap();
    assert_eq!((missed, batch.len()), (0, PUBLISHERS * EACH + 1));
    let mut order = OrderCheck::default();
    batch.iter().for_each(|delivery| order.see(delivery));
    assert!(distinct(batch.iter().map(|delivery| delivery.epoch)) > 1);
}

#[test]
fn a_subscription_is_live_for_every_thread_once_it_is_granted() {
    let broker = broker();
    let (granted, grants) = sync_channel::<&'static str>(0);
    let (published, receipts) = sync_channel(0);
    let publisher = broker.clone();
    let mut crew = Crew::new();
    crew.spawn(move || {
        for topic in grants {
            published.send(publish(&publisher, topic, "m")).unwrap();
        }
    });
    let mut noise = Crew::new();
    let working = Arc::new(());
    let (other, goes_on) = (broker.clone(), Arc::downgrade(&working));
    noise.spawn(move || {
        while is_alive(&goes_on) {
            drop(subscribe(&other, "elsewhere"));
            other.tick(u32::MAX);
        }
    });
    for round in 0..600 {
        let filter = ["t.x", "t.*", "*.x", ">"][round % 4];
        let mut subscription = subscribe(&broker, filter);
        granted.send("t.x").unwrap();
        let receipt = receipts.recv_timeout(PATIENCE).unwrap();
        let (_, batch) = take(&mut subscription).unwrap();
        let places: Vec<_> = batch.iter().map(|d| (d.epoch, d.sequence)).collect();
        assert_eq!(places, [(receipt.epoch, receipt.sequence)], "{filter}");
    }
    drop(granted);
    drop(working);
    crew.join();
    noise.join();
}

#[test]
fn the_first_message_follows_the_head_under_a_concurrent_publisher() {
    let broker = broker();
    let working = Arc::new(());
    let mut publishers = Crew::new();
    for _ in 0..2 {
        let (broker, working) = (broker.clone(), Arc::downgrade(&working));
        publishers.spawn(move || {
            while is_alive(&working) {
                publish(&broker, "t", "m");
            }
        });
    }
    for _ in 0..1_000 {
        let subscription = subscribe(&broker, "t");
        let start = subscription.start().unwrap();
        let one = BatchLimit { messages: 1, ..ALL };
        let (_, batch) = Reader::new(subscription).take(one).unwrap();
        let first = (batch[0].epoch, batch[0].sequence.0);
        assert_eq!(first, (start.epoch, start.head.0 + 1));
    }
    drop(working);
    publishers.join();
}

#[test]
fn nothing_deadlocks_while_topics_come_and_go() {
    let limits = Limits {
        idle_topics_max: 32,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let mut crew = Crew::new();
    let mut spawn = |rounds: usize, work: fn(&Broker, usize)| {
        let broker = broker.clone();
        crew.spawn(move || (0..rounds).for_each(|round| work(&broker, round)));
    };
    for _ in 0..2 {
        spawn(4_000, |broker, round| {
            publish(broker, &format!("t.{}", round % 40), "m");
        });
        spawn(2_000, |broker, round| {
            let topic = format!("t.{}", (round * 7) % 40);
            let mut own = subscribe(broker, &topic);
            let all = (round % 3 == 0).then(|| subscribe(broker, "t.*"));
            let member = (round % 5 == 0).then(|| broker.subscribe(in_group(">", "g")).unwrap());
            let receipt = publish(broker, &topic, "own");
            // Another thread's reader may have handed over what came before: then it is taken first.
            let batches = [take(&mut own).unwrap().1, take(&mut own).unwrap().1];
            let mut places = batches.iter().flatten().map(|d| (d.epoch, d.sequence));
            assert!(places.any(|place| place == (receipt.epoch, receipt.sequence)));
            drop((all, own, member));
        });
    }
    spawn(1_000, |broker, _| {
        assert!(broker.snapshot().ledger.balances());
    });
    spawn(1_000, |broker, _| {
        broker.tick(u32::MAX);
    });
    spawn(1_000, |broker, _| broker.age_topics());
    crew.join();

    let snapshot = broker.snapshot();
    assert_eq!((snapshot.subscriptions, snapshot.groups), (0, 0));
    assert_eq!(snapshot.buffered_bytes, 0);
    assert!(snapshot.ledger.balances());
    assert!(broker.shared.registry.read().is_empty());
    broker.age_topics();
    broker.age_topics();
    assert_eq!(broker.snapshot().topics, 0);
}

#[test]
fn a_full_group_keeps_its_turns_while_topics_publish_at_once() {
    let broker = broker();
    let _members: Vec<_> = (0..60)
        .map(|_| {
            let wish = SubscribeOptions {
                mailbox_capacity: Some(1),
                ..in_group(">", "g")
            };
            broker.subscribe(wish).unwrap()
        })
        .collect();
    let mut crew = Crew::new();
    for publisher in 0..4 {
        let broker = broker.clone();
        crew.spawn(move || {
            for _ in 0..4_000 {
                let receipt = publish(&broker, &format!("t.{publisher}"), "m");
                assert_eq!(receipt.matched, 1);
            }
        });
    }
    crew.join();
    assert!(broker.snapshot().ledger.balances());
}
