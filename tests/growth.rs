//! What growth leaves behind, in bytes: nothing.
//!
//! A process of its own with one test, since an allocator counts for all threads of its process.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where, and fail"
)]

use std::{alloc::System, ops::Range, time::SystemTime};

use fanfare::{
    broker::{Broker, Limits, SubscribeOptions, Subscription},
    message::Message,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Tables of a few entries stay for the next ones; the table of a burst would be megabytes.
const BYTES_LEFT_MAX: usize = 16 * 1024;

fn bytes_in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn subscribe(broker: &Broker, filter: &str) -> Subscription {
    let options = SubscribeOptions {
        mailbox_capacity: Some(1),
        ..SubscribeOptions::new(filter.parse().unwrap())
    };
    broker.subscribe(options).unwrap()
}

/// Publishes; returns how many subscriptions matched.
fn publish(broker: &Broker, topic: &str) -> u32 {
    let message = Message::new(topic.parse().unwrap(), "answer");
    let receipt = broker.publish(message, SystemTime::UNIX_EPOCH).unwrap();
    receipt.matched
}

/// What the server does at even intervals; after two of them nothing unused is remembered.
fn forget_unused(broker: &Broker) {
    broker.tick(u32::MAX);
    broker.age_topics();
    broker.age_topics();
}

/// Runs a burst and sees that nothing stays of it.
#[track_caller]
fn check(broker: &Broker, burst: impl Fn()) {
    let before = (broker.snapshot(), bytes_in_use());
    burst();
    forget_unused(broker);
    let after = (broker.snapshot(), bytes_in_use());
    assert_eq!(after.0.topics, before.0.topics);
    assert_eq!(after.0.subscriptions, before.0.subscriptions);
    let left = after.1.saturating_sub(before.1);
    assert!(left <= BYTES_LEFT_MAX, "{left} bytes are left");
}

#[test]
fn a_million_short_lived_topics_leave_no_memory_behind() {
    let broker = Broker::new(Limits::default(), 1).unwrap();
    let answers = |range: Range<usize>| range.map(|index| format!("response:{index}"));

    // Each has a subscriber of its own, which gets what is published there; as many live at a time as
    // the broker grants subscriptions.
    check(&broker, || {
        let wave = broker.limits().subscriptions_max;
        for from in (0..1_000_000).step_by(wave) {
            let live = answers(from..from + wave).map(|topic| {
                let subscription = subscribe(&broker, &topic);
                assert_eq!(publish(&broker, &topic), 1);
                subscription
            });
            let live: Vec<_> = live.collect();
            assert!(broker.snapshot().topics >= live.len());
        }
    });
    // Filters with wildcards, in paths.
    check(&broker, || {
        let filters = (0..100_000).map(|index| format!("job.{index}.*.done"));
        let live: Vec<_> = filters.map(|filter| subscribe(&broker, &filter)).collect();
        assert_eq!(publish(&broker, "job.7.eu.done"), 1);
        drop(live);
    });
    // Nobody listens.
    check(&broker, || {
        let matched = answers(0..100_000).map(|topic| publish(&broker, &topic));
        assert_eq!(matched.sum::<u32>(), 0);
        assert_eq!(broker.snapshot().topics, 0);
    });
    // One listens to all of them, and each is remembered for a while.
    let all = subscribe(&broker, ">");
    check(&broker, || {
        let remembered_max = broker.limits().idle_topics_max;
        let matched = answers(0..2 * remembered_max).map(|topic| publish(&broker, &topic));
        assert_eq!(matched.sum::<u32>() as usize, 2 * remembered_max);
        assert!(broker.snapshot().topics <= remembered_max);
    });
    drop(all);
}
