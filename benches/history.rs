//! What history adds to a publish, and what replaying costs.
//!
//! Each pair is one publish with history off and on, in one run: what carries over is their ratio. Readers
//! empty their mailboxes outside the measured time, and are in the publisher's own program.
//!
//! `cargo bench --bench history`
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
    broker::{
        BatchLimit, Bounds, Broker, HistoryLimits, Limits, Retention, SubscribeOptions,
        Subscription,
    },
    cursor::StartAt,
    message::Message,
    topic::Topic,
};
use tokio::time::Instant;

const SUBSCRIBERS: [usize; 3] = [0, 1, 100];
/// Messages between two rounds of the readers; well below what a mailbox holds.
const BACKLOG: u64 = 64;
/// Of a topic that is full.
const KEPT: usize = 1_000;
const ALL: BatchLimit = BatchLimit {
    messages: usize::MAX,
    bytes: usize::MAX,
};

fn broker(keeps: bool, bytes_max: usize) -> Broker {
    let rule = Retention {
        filter: ">".parse().unwrap(),
        bounds: keeps.then(|| Bounds {
            messages: KEPT,
            ..Bounds::default()
        }),
    };
    let history = HistoryLimits {
        rules: vec![rule],
        bytes_max,
    };
    let limits = Limits {
        history,
        ..Limits::default()
    };
    Broker::new(limits, 1).unwrap()
}

fn name(keeps: bool) -> &'static str {
    if keeps { "on" } else { "off" }
}

fn publish(broker: &Broker, topic: &Topic) {
    let message = Message::new(topic.clone(), "payload");
    let receipt = broker.publish(black_box(message), SystemTime::UNIX_EPOCH);
    black_box(receipt.unwrap());
}

/// All that waits, or is to be replayed; how many messages.
fn read(subscription: &mut Subscription) -> usize {
    let mut taken = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(lost) = subscription.poll_take(&mut context, ALL, &mut taken) {
        lost.unwrap();
    }
    subscription.pass_on();
    taken.len()
}

/// The time that so many publishes take, to each topic in turn, without that of the readers.
fn timed(broker: &Broker, topics: &[Topic], live: &mut [Subscription], messages: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut topics = topics.iter().cycle();
    let mut left = messages;
    while left > 0 {
        let backlog = left.min(BACKLOG);
        let started = Instant::now();
        for topic in topics.by_ref().take(backlog as usize) {
            publish(broker, topic);
        }
        elapsed += started.elapsed();
        left -= backlog;
        for subscription in &mut *live {
            read(subscription);
        }
    }
    elapsed
}

/// One topic that keeps as much as it may.
fn one_topic(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history, publish to");
    for count in SUBSCRIBERS {
        for keeps in [false, true] {
            let broker = broker(keeps, Limits::default().history.bytes_max);
            let topic: Topic = "orders.eu".parse().unwrap();
            let options = || SubscribeOptions::new(topic.clone().into());
            let mut live: Vec<Subscription> = (0..count)
                .map(|_| broker.subscribe(options()).unwrap())
                .collect();
            for _ in 0..KEPT {
                publish(&broker, &topic);
            }
            let topics = [topic.clone()];
            group.bench_function(BenchmarkId::new(name(keeps), count), |bencher| {
                bencher.iter_custom(|messages| timed(&broker, &topics, &mut live, messages));
            });
        }
    }
    group.finish();
}

/// Many topics, each with a message now and then, and one who reads all; with history on, the bound on all
/// together is passed all the time.
fn many_topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history, 20,000 topics in turn");
    let topics = (0..20_000).map(|index| format!("response:{index}").parse().unwrap());
    let topics: Vec<Topic> = topics.collect();
    for keeps in [false, true] {
        let broker = broker(keeps, 10_000_000);
        let mut live = [broker
            .subscribe(SubscribeOptions::new("*".parse().unwrap()))
            .unwrap()];
        timed(&broker, &topics, &mut live, topics.len() as u64);
        group.bench_function(name(keeps), |bencher| {
            bencher.iter_custom(|messages| timed(&broker, &topics, &mut live, messages));
        });
    }
    group.finish();
}

/// A subscription from its beginning to where it is live, by the messages that it is replayed.
fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history, replay of 1,000 messages");
    group.throughput(Throughput::Elements(KEPT as u64));
    for (name, filter, topics) in [("one topic", "t.0", 1), ("100 topics", "t.*", 100)] {
        let broker = broker(true, Limits::default().history.bytes_max);
        for index in 0..KEPT {
            publish(&broker, &format!("t.{}", index % topics).parse().unwrap());
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let options = SubscribeOptions {
                    start: StartAt::All,
                    ..SubscribeOptions::new(filter.parse().unwrap())
                };
                let mut subscription = broker.subscribe(options).unwrap();
                assert_eq!(read(&mut subscription), KEPT);
            });
        });
    }
    group.finish();
}

/// The same of nothing, among topics that keep something: who comes back with a cursor after a moment.
fn resume(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("history, resume at the head among");
    for count in [1_usize, 1_000, 20_000] {
        let broker = broker(true, Limits::default().history.bytes_max);
        for index in 0..count {
            publish(&broker, &format!("t.{index}").parse().unwrap());
        }
        let filter = || SubscribeOptions::new("t.*".parse().unwrap());
        let head = broker.subscribe(filter()).unwrap().cursor().unwrap();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let options = SubscribeOptions {
                    start: StartAt::After(head),
                    ..filter()
                };
                let mut subscription = broker.subscribe(options).unwrap();
                assert_eq!(read(&mut subscription), 0);
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    one_topic(&mut criterion);
    many_topics(&mut criterion);
    replay(&mut criterion);
    resume(&mut criterion);
    criterion.final_summary();
}
