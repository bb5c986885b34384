//! What growth leaves behind, in bytes: nothing.
//!
//! A process of its own, in which one test runs at a time, since an allocator counts for all threads.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where, and fail"
)]

use std::{
    alloc::System,
    future,
    ops::Range,
    time::{Duration, SystemTime},
};

use fanfare::{
    broker::{Broker, Limits, SubscribeOptions, Subscription},
    message::Message,
    server::{Server, ServerConfig},
    wire::pb::{SubscribeRequest, pub_sub_service_client::PubSubServiceClient},
};
use parking_lot::Mutex;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::time::timeout;
use tonic::transport::Endpoint;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

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
    let _alone = ONE_AT_A_TIME.lock();
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
    // Groups, each with a name of its own.
    check(&broker, || {
        let members = (0..100_000).map(|index| {
            let options = SubscribeOptions {
                group: Some(format!("workers-{index}").parse().unwrap()),
                ..SubscribeOptions::new("jobs".parse().unwrap())
            };
            broker.subscribe(options).unwrap()
        });
        let live: Vec<_> = members.collect();
        assert_eq!(broker.snapshot().groups, live.len());
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

/// What client, server and runtime make when they are first used, for as long as the thread lives; the
/// burst itself takes a hundred times as much.
const BYTES_MADE_ONCE_MAX: usize = 384 * 1024;
/// Far above what any test takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SUBSCRIPTIONS_PER_CONNECTION: usize = 250;

/// Subscribes over the network, each to a topic of its own; publishes to each, reads, and leaves.
async fn subscribe_read_and_leave(broker: &Broker, url: &str, count: usize) {
    let mut streams = Vec::new();
    let mut channel = None;
    for index in 0..count {
        if index % SUBSCRIPTIONS_PER_CONNECTION == 0 {
            let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
            channel = Some(endpoint.connect().await.unwrap());
        }
        let request = SubscribeRequest {
            topic: format!("response:{index}"),
            ..SubscribeRequest::default()
        };
        let mut client = PubSubServiceClient::new(channel.clone().unwrap());
        streams.push(client.subscribe(request).await.unwrap().into_inner());
    }
    for (index, stream) in streams.iter_mut().enumerate() {
        assert_eq!(publish(broker, &format!("response:{index}")), 1);
        let response = stream.message().await.unwrap().unwrap();
        assert_eq!(response.payload, "answer");
    }
    assert_eq!(broker.snapshot().subscriptions, count);
}

#[test]
fn a_burst_of_connections_and_subscriptions_leaves_no_memory_behind() {
    let _alone = ONE_AT_A_TIME.lock();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let mut config = ServerConfig::default();
        config.listen.set_port(0);
        let server = Server::bind(config, broker.clone()).await.unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        tokio::spawn(server.run(future::pending()));

        let before = bytes_in_use();
        subscribe_read_and_leave(&broker, &url, 5_000).await;
        let bytes_left = || bytes_in_use().saturating_sub(before);
        let all_left = timeout(PATIENCE, async {
            while broker.snapshot().subscriptions > 0 || bytes_left() > BYTES_MADE_ONCE_MAX {
                forget_unused(&broker);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let all_left = all_left.await.is_ok();
        assert!(all_left, "{} bytes are left", bytes_left());
    });
}
