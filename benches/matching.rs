//! How the time to match a topic grows with the filters and with the topic's tokens.
//!
//! The matcher is no public part of the library, so that this measures what a publisher pays: a
//! message to a topic that no filter matches and that the broker knows nothing of is one walk of the
//! matcher, to its end, and what every message costs. The broker without a filter shows the latter.
//!
//! `cargo bench --bench matching`
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot go on should say where, and fail"
)]

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use criterion::{BenchmarkId, Criterion};
use fanfare::{
    broker::{Broker, Limits, SubscribeOptions, Subscription},
    message::Message,
    topic::Topic,
};

const TOKENS: [u32; 4] = [1, 2, 4, 8];
const FILTERS: [usize; 4] = [0, 1, 1_000, 100_000];
/// With 32,768 filters at the last.
const HOSTILE_TOKENS: [u32; 5] = [1, 4, 8, 12, 16];
/// So many topics take turns that a walk does not find its path in the processor's nearest cache
/// because the walk before took it.
const TOPICS: usize = 1_000;

/// A broker that holds the filters, with those who ask for them.
fn broker_with(filters: Vec<String>) -> (Broker, Vec<Subscription>) {
    let broker = Broker::new(Limits::default(), 1).unwrap();
    let subscribe = |filter: String| {
        let options = SubscribeOptions::new(filter.parse().unwrap());
        broker.subscribe(options).unwrap()
    };
    let live = filters.into_iter().map(subscribe).collect();
    (broker, live)
}

/// The `index`th of `count` paths of so many tokens, which branch alike at each of them.
fn path(index: usize, count: usize, tokens: u32) -> Vec<String> {
    let branches = (count as f64).powf(1.0 / f64::from(tokens)).ceil().max(1.0) as usize;
    let token = |level| format!("token{}", index / branches.pow(level) % branches);
    (0..tokens).map(token).collect()
}

/// Topics that leave the filters' paths at their last token.
fn unmatched(filters: usize, tokens: u32) -> Vec<Topic> {
    let step = (filters / TOPICS).max(1);
    let topic = |index: usize| {
        let mut path = path(index * step % filters.max(1), filters, tokens);
        *path.last_mut().unwrap() = format!("nobody{index}");
        path.join(".").parse().unwrap()
    };
    (0..TOPICS).map(topic).collect()
}

fn measure(
    criterion: &mut Criterion,
    id: (&str, BenchmarkId),
    filters: Vec<String>,
    topics: &[Topic],
) {
    let (broker, live) = broker_with(filters);
    let mut topics = topics.iter().cycle();
    let mut group = criterion.benchmark_group(id.0);
    group.bench_function(id.1, |bencher| {
        bencher.iter(|| {
            let topic = topics.next().unwrap().clone();
            let message = Message::new(topic, "payload");
            let receipt = broker.publish(black_box(message), SystemTime::UNIX_EPOCH);
            assert_eq!(receipt.unwrap().matched, 0);
        });
    });
    group.finish();
    drop(live);
}

fn literal(criterion: &mut Criterion) {
    for count in FILTERS {
        for tokens in TOKENS {
            let filters = (0..count).map(|index| path(index, count, tokens).join("."));
            let topics = unmatched(count, tokens);
            let id = BenchmarkId::new(format!("{tokens} tokens"), count);
            measure(criterion, ("match", id), filters.collect(), &topics);
        }
    }
}

/// The worst that filters can do: each token of the topic leads on by its text and by `*`, and only
/// the last one shows that nothing matches, so that a walk meets every one of them.
fn hostile(criterion: &mut Criterion) {
    for tokens in HOSTILE_TOKENS {
        let filter = |choices: usize| {
            let token = |level| match choices >> level & 1 {
                0 => "token0.",
                _ => "*.",
            };
            (0..tokens - 1).map(token).collect::<String>() + "end"
        };
        let count = 1 << (tokens - 1);
        let filters = (0..count).map(filter).collect();
        let topics = unmatched(1, tokens);
        let id = BenchmarkId::new("all visited", count);
        measure(criterion, ("match hostile", id), filters, &topics);
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    literal(&mut criterion);
    hostile(&mut criterion);
    criterion.final_summary();
}
