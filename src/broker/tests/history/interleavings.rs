//! Where history and what follows meet, in orders that a scheduler chooses; see `tests/interleavings.rs`.

use shuttle::{future::block_on, thread};

use super::{super::interleavings::in_many_orders, *};

const MESSAGES: u64 = 3;

/// Reads to the end, a message at a time: the places of what it got, and what it lost.
fn read_to_end(mut subscription: Subscription) -> (Vec<(Epoch, Sequence)>, Lost, EndReason) {
    let (mut places, mut lost) = (Vec::new(), Lost::default());
    let limit = BatchLimit { messages: 1, ..ALL };
    loop {
        let taken = block_on(std::future::poll_fn(|cx| {
            poll_past(&mut subscription, limit, cx.waker())
        }));
        match taken {
            Ok((more, batch)) => {
                lost.missed += more.missed;
                lost.gap += more.gap;
                places.extend(batch.iter().map(|d| (d.epoch, d.sequence)));
            }
            Err(ended) => {
                lost.missed += ended.missed;
                return (places, lost, ended.reason);
            }
        }
    }
}

/// The mailbox holds all that is published, and is about to go live at once, soon or late.
fn wish(filter: &str, start: StartAt, capacity: usize) -> SubscribeOptions {
    SubscribeOptions {
        mailbox_capacity: Some(capacity),
        ..from_start(filter, start)
    }
}

/// Two publishers, and one who joins: it gets all that both publish, in the order of positions.
fn whoever_joins_gets_all(filter: &'static str, encoded: bool, capacity: usize) {
    let broker = broker_keeping(100);
    let publishers: Vec<_> = ["t", "u"]
        .into_iter()
        .map(|topic| {
            let broker = broker.clone();
            thread::spawn(move || publish_all(&broker, topic, 1..=MESSAGES))
        })
        .collect();
    let joining = broker.clone();
    let reader = thread::spawn(move || {
        let wish = wish(filter, StartAt::All, capacity);
        let subscription = subscribe_either(&joining, wish, encoded);
        subscription.map(read_to_end)
    });
    let receipts = publishers
        .into_iter()
        .map(|publisher| publisher.join().unwrap());
    let mut published: Vec<Receipt> = receipts
        .zip(["t", "u"])
        .filter(|(_, topic)| filter != "t" || *topic == "t")
        .flat_map(|(receipts, _)| receipts)
        .collect();
    published.sort_by_key(|receipt| receipt.position);
    broker.drain();
    match reader.join().unwrap() {
        Ok((places, lost, _)) => {
            let expected: Vec<_> = published.iter().map(|r| (r.epoch, r.sequence)).collect();
            assert_eq!((places, lost), (expected, Lost::default()));
        }
        Err(error) => assert_eq!(error, SubscribeError::Draining, "it came too late"),
    }
    assert!(broker.snapshot().ledger.balances());
}

#[test]
fn one_topic_is_joined_without_a_gap_and_without_a_double() {
    in_many_orders(|| whoever_joins_gets_all("t", true, 6));
    in_many_orders(|| whoever_joins_gets_all("t", false, 100));
}

#[test]
fn a_filter_is_joined_without_a_gap_and_without_a_double() {
    in_many_orders(|| whoever_joins_gets_all("*", true, 6));
    in_many_orders(|| whoever_joins_gets_all(">", false, 100));
}

#[test]
fn what_is_given_up_under_a_reader_is_told() {
    in_many_orders(|| {
        let broker = broker_keeping(1);
        publish_all(&broker, "t", 1..=1);
        let subscription = broker.subscribe(wish("t", StartAt::All, 2)).unwrap();
        let reader = thread::spawn(move || read_to_end(subscription));
        let publishing = broker.clone();
        let publisher = thread::spawn(move || publish_all(&publishing, "t", 2..=4));
        publisher.join().unwrap();
        broker.drain();
        let (places, lost, _) = reader.join().unwrap();
        assert!(!lost.gap.at_least);
        assert_eq!(places.len() as u64 + lost.missed + lost.gap.missing, 4);
    });
}

#[test]
fn topics_take_and_leave_their_seats_while_they_are_published_to() {
    in_many_orders(|| {
        let broker = broker_keeping(100);
        let mut movers = Vec::new();
        for _ in 0..2 {
            let broker = broker.clone();
            movers.push(thread::spawn(move || {
                publish_all(&broker, "t", 1..=MESSAGES);
            }));
        }
        let expiring = broker.clone();
        movers.push(thread::spawn(move || {
            for _ in 0..2 {
                expiring.expire(SystemTime::UNIX_EPOCH + Bounds::default().age);
                expiring.age_topics();
            }
        }));
        for mover in movers {
            mover.join().unwrap();
        }
        let snapshot = broker.snapshot();
        let evicted = snapshot.evicted.iter().sum::<u64>();
        assert_eq!(snapshot.history_messages as u64 + evicted, 2 * MESSAGES);
        budget::check_figures(&broker);
        broker.expire(SystemTime::UNIX_EPOCH + Bounds::default().age);
        broker.age_topics();
        broker.age_topics();
        assert_eq!(broker.snapshot().topics, 0, "no pin is left");
    });
}

#[test]
fn nobody_misses_the_end_of_a_topic() {
    in_many_orders(|| {
        let broker = broker_keeping(100);
        let readers: Vec<_> = [
            (StartAt::Now, true),
            (StartAt::All, true),
            (StartAt::All, false),
        ]
        .into_iter()
        .map(|(start, encoded)| {
            let broker = broker.clone();
            thread::spawn(move || {
                let wish = wish("t", start, 4);
                let subscription = subscribe_either(&broker, wish, encoded).unwrap();
                (start, read_to_end(subscription))
            })
        })
        .collect();
        publish_all(&broker, "t", 1..=1);
        publish_end(&broker, "t", "last");
        for reader in readers {
            let (start, (places, lost, end)) = reader.join().unwrap();
            assert_eq!((lost, end), (Lost::default(), EndReason::TopicEnded));
            assert!(
                places.len() == 2 || start == StartAt::Now,
                "{start:?}: {places:?}"
            );
        }
    });
}
