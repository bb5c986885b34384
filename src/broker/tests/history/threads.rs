//! The same with real threads: history and what follows meet without a gap and without a double.

use super::*;

const TOPICS: [&str; 4] = ["a", "a.b", "a.c", "free"];
const PUBLISHERS: usize = 3;

fn is_for(texts: &str, topic: &str) -> bool {
    filters(texts).matches(&topic.parse().unwrap())
}

/// What was published to topics with history: by position.
type List = HashMap<u64, (String, Epoch, Sequence)>;

fn publish_in_turn(broker: &Broker, publisher: usize, count: usize) -> List {
    let mut list = List::new();
    for index in 0..count {
        let topic = TOPICS[(index + publisher) % TOPICS.len()];
        let receipt = publish(broker, topic, &format!("{publisher} {index}"));
        if let Some(position) = receipt.position {
            let place = (topic.to_owned(), receipt.epoch, receipt.sequence);
            assert!(list.insert(position.0, place).is_none());
        }
    }
    list
}

/// Reads a filter from a cursor on, with breaks: sometimes it leaves and comes back with its newest cursor.
/// Returns the places of all it got, in order.
fn read_with_breaks(
    broker: &Broker,
    filter: &str,
    from: Cursor,
    is_over: &std::sync::atomic::AtomicBool,
    seed: usize,
) -> Vec<(Epoch, Sequence)> {
    let mut cursor = from;
    let mut got = Vec::new();
    let mut round = seed;
    loop {
        // Whoever comes back after the last message gets all that is left.
        let was_over = is_over.load(Ordering::SeqCst);
        round += 1;
        let options = SubscribeOptions {
            mailbox_capacity: Some([65_536, 100, 1][round % 3].max(if was_over {
                65_536
            } else {
                0
            })),
            ..from_start(filter, StartAt::After(cursor))
        };
        let encoded = round.is_multiple_of(2);
        let mut subscription = subscribe_either(broker, options, encoded).unwrap();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let messages = 1 + round * 13 % 100;
        let mut left = if was_over { usize::MAX } else { round * 7 % 40 };
        let mut missed = false;
        while left > 0 && !missed {
            let before = wakes.count();
            let limit = BatchLimit { messages, ..ALL };
            match poll_past(&mut subscription, limit, &waker) {
                Poll::Ready(Ok((lost, batch))) => {
                    assert!(lost.gap.is_none(), "everything is kept");
                    // A small mailbox may overflow: what follows is left, and asked for again.
                    missed = lost.missed > 0;
                    if missed {
                        break;
                    }
                    for delivery in batch {
                        let place = (delivery.epoch, delivery.sequence);
                        if delivery.message.topic.as_str() != "free" {
                            got.push(place);
                            cursor = delivery.cursor().expect("it has history");
                        }
                    }
                }
                Poll::Ready(Err(ended)) => panic!("{ended}"),
                Poll::Pending if was_over && wakes.count() == before => return got,
                Poll::Pending => thread::yield_now(),
            }
            left -= 1;
        }
    }
}

#[test]
fn history_and_what_follows_meet_without_a_gap_and_without_a_double() {
    let mut limits = keeping(&[("free", None), (">", Some(1_000_000))]);
    limits.history.bytes_max = 1 << 30;
    for bounds in limits
        .history
        .rules
        .iter_mut()
        .filter_map(|rule| rule.bounds.as_mut())
    {
        bounds.bytes = 1 << 30;
    }
    let broker = broker_with(limits);
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let begin = broker.subscribe(options(">")).unwrap().cursor().unwrap();
    let filters = [">", "a.*", "a", "a.>", "a.b", "*", "a a.b", "a.* a.>"];
    let mut readers = Crew::new();
    for (seed, filter) in filters.into_iter().enumerate() {
        let (broker, is_over) = (broker.clone(), Arc::clone(&is_over));
        readers.spawn(move || {
            (
                filter,
                read_with_breaks(&broker, filter, begin, &is_over, seed),
            )
        });
    }
    let mut publishers = Crew::new();
    for publisher in 0..PUBLISHERS {
        let broker = broker.clone();
        publishers.spawn(move || publish_in_turn(&broker, publisher, 6_000));
    }
    let mut list: Vec<(u64, (String, Epoch, Sequence))> =
        publishers.join().into_iter().flatten().collect();
    list.sort_unstable_by_key(|(position, _)| *position);
    let positions: Vec<u64> = list.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=list.len() as u64).collect::<Vec<_>>());
    is_over.store(true, Ordering::SeqCst);
    for (filter, got) in readers.join() {
        let expected: Vec<(Epoch, Sequence)> = list
            .iter()
            .filter(|(_, (topic, _, _))| is_for(filter, topic))
            .map(|(_, (_, epoch, sequence))| (*epoch, *sequence))
            .collect();
        assert!(
            got == expected,
            "{filter}: {} of {}",
            got.len(),
            expected.len()
        );
    }
    assert!(broker.snapshot().ledger.balances());
}

/// The accounts balance, and each reader is told of all that it lost, while logs are given up under it.
#[test]
fn readers_that_are_overtaken_by_threads_are_told_of_every_message() {
    let broker = broker_keeping(50);
    let mut readers = Crew::new();
    for seed in 0..4 {
        let broker = broker.clone();
        readers.spawn(move || {
            let options = SubscribeOptions {
                mailbox_capacity: Some(8),
                overflow: OverflowPolicy::DropOldest,
                ..from_start("a", StartAt::All)
            };
            let mut subscription = subscribe_either(&broker, options, seed % 2 == 0).unwrap();
            let start = subscription.start().unwrap();
            let first = subscription.cursor().unwrap().sequence.0;
            let (mut received, mut lost) = (0, 0);
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let mut newest = first;
            loop {
                let limit = BatchLimit {
                    messages: 1 + seed,
                    ..ALL
                };
                match poll_past(&mut subscription, limit, &waker) {
                    Poll::Ready(Ok((gone, batch))) => {
                        assert!(!gone.gap.at_least, "one topic is counted exactly");
                        lost += gone.missed + gone.gap.missing;
                        for delivery in batch {
                            assert_eq!(delivery.epoch, start.epoch);
                            assert!(delivery.sequence.0 > newest);
                            newest = delivery.sequence.0;
                            received += 1;
                            if delivery.message.end {
                                assert_eq!(received + lost, newest - first);
                            }
                        }
                    }
                    Poll::Ready(Err(ended)) => {
                        assert_eq!(ended.reason, EndReason::TopicEnded);
                        return (first, received + lost + ended.missed);
                    }
                    Poll::Pending => thread::yield_now(),
                }
            }
        });
    }
    for index in 0..20_000 {
        publish(&broker, "a", &index.to_string());
    }
    let last = publish_end(&broker, "a", "last").sequence.0;
    for (first, accounted) in readers.join() {
        assert_eq!(first + accounted, last);
    }
    assert!(broker.snapshot().ledger.balances());
}
