//! How the cost of a publish grows with the subscribers of the topic, and with filters that are none
//! of its business.
//!
//! Readers empty their mailboxes outside the measured time: what is measured is what the publisher's
//! thread does. A reader that is *behind* is not woken. One that is *parked* waits when the message
//! comes; waking it costs nothing here, but finding out whom to wake does. These are readers in the
//! publisher's own program; those on the network, who share what is encoded for them, cost far less:
//! `examples/growth/run` measures them.
//!
//! `cargo bench --bench publish`
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on should say where, and fail"
)]

use std::{
    hint::black_box,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use fanfare::{
    broker::{BatchLimit, Broker, Limits, Lost, SubscribeOptions, Subscription},
    message::Message,
    topic::Topic,
};
use tokio::time::Instant;

const SUBSCRIBERS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const OTHER_FILTERS: [usize; 3] = [0, 1_000, 100_000 - 1];
/// Messages between two rounds of the readers; well below what a mailbox holds.
const BACKLOG: u64 = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    Behind,
    Parked,
}

fn subscribe(broker: &Broker, filter: &str) -> Subscription {
    let options = SubscribeOptions::new(filter.parse().unwrap());
    broker.subscribe(options).unwrap()
}

/// Lets the readers take all that waits.
fn read(live: &mut [Subscription], readers: Readers) {
    let limit = BatchLimit {
        messages: usize::MAX,
        bytes: usize::MAX,
    };
    let mut taken = Vec::new();
    for subscription in live {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let poll = subscription.poll_take(&mut context, limit, &mut taken);
            subscription.pass_on();
            if let Poll::Ready(lost) = &poll {
                assert_eq!(*lost, Ok(Lost::default()));
            }
            // One that finds nothing waits to be woken.
            if poll.is_pending() || readers == Readers::Behind {
                break;
            }
        }
        taken.clear();
    }
}

/// The time that so many publishes take, without that of the readers.
fn publish(
    broker: &Broker,
    topic: &Topic,
    live: &mut [Subscription],
    readers: Readers,
    messages: u64,
) -> Duration {
    let backlog_max = match readers {
        Readers::Behind => BACKLOG,
        Readers::Parked => 1,
    };
    let mut elapsed = Duration::ZERO;
    let mut left = messages;
    while left > 0 {
        let backlog = left.min(backlog_max);
        let started = Instant::now();
        for _ in 0..backlog {
            let message = Message::new(topic.clone(), "payload");
            let receipt = broker.publish(black_box(message), SystemTime::UNIX_EPOCH);
            assert_eq!(receipt.unwrap().delivered as usize, live.len());
        }
        elapsed += started.elapsed();
        left -= backlog;
        read(live, readers);
    }
    elapsed
}

fn subscribers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for (name, readers) in [("behind", Readers::Behind), ("parked", Readers::Parked)] {
        for count in SUBSCRIBERS {
            let broker = Broker::new(Limits::default(), 1).unwrap();
            let topic: Topic = "orders.eu".parse().unwrap();
            let mut live: Vec<_> = (0..count)
                .map(|_| subscribe(&broker, topic.as_str()))
                .collect();
            read(&mut live, readers);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher
                    .iter_custom(|messages| publish(&broker, &topic, &mut live, readers, messages));
            });
        }
    }
    group.finish();
}

fn other_filters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish among");
    for count in OTHER_FILTERS {
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let topic: Topic = "orders.eu".parse().unwrap();
        let others: Vec<_> = (0..count)
            .map(|index| subscribe(&broker, &format!("response:{index}")))
            .collect();
        let mut live = [subscribe(&broker, topic.as_str())];
        group.bench_function(BenchmarkId::new("behind", count), |bencher| {
            bencher.iter_custom(|messages| {
                publish(&broker, &topic, &mut live, Readers::Behind, messages)
            });
        });
        drop(others);
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    subscribers(&mut criterion);
    other_filters(&mut criterion);
    criterion.final_summary();
}
