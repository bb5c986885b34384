//! More than there is room for: subscriptions refused and mailboxes shed as memory runs short, publishers
//! held to a rate, and all of it over as soon as there is room again.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use fanfare::{broker::Limits, server::ServerConfig, wire::pb::PublishStreamResponse};
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    raw::{OPEN, Raw, Response, frame, frame_of},
    support::{Running, filter, message, next, subscribe, within},
};

const PUBLISH_STREAM: &str = "/pubsub.v1.PubSubService/PublishStream";

const BUDGET: usize = 4 << 20;
const PAYLOAD: usize = 64 << 10;
/// What connections, subscriptions and a topic of these tests take.
const FURNITURE: usize = 400 << 10;

/// A broker with a small budget, whose stalled readers are left alone.
async fn start_small() -> Running {
    let limits = Limits {
        memory_budget: BUDGET,
        ..Limits::default()
    };
    let config = ServerConfig {
        stall_timeout: Duration::from_secs(3_600),
        ..ServerConfig::default()
    };
    Running::start_with(config, limits).await
}

/// A reader that takes nothing.
async fn stalled(broker: &Running, topic: &str) -> (Raw, Response) {
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let stream = raw.subscribe(filter(topic)).await;
    (raw, stream)
}

/// Publishes until so many percent of the budget are in use.
fn fill(broker: &Running, topic: &str, percent: usize) {
    while broker.broker.snapshot().memory_bytes <= BUDGET / 100 * percent {
        assert_eq!(broker.publish(topic, vec![0; PAYLOAD]).delivered, 1);
    }
}

#[tokio::test]
async fn subscriptions_are_refused_above_four_fifths_of_the_budget_and_taken_again_below() {
    let broker = start_small().await;
    let (raw, mut slow) = stalled(&broker, "slow").await;
    let mut client = broker.client().await;
    let mut there_before = subscribe(&client, filter("t")).await;
    fill(&broker, "slow", 80);
    let status = within(client.subscribe(filter("t"))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let text = status.message();
    assert!(
        text.ends_with("bytes of the memory budget of 4194304 are in use, which leaves no room for a subscription"),
        "{text}"
    );
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
    assert_eq!(broker.rejected("memory").await, 1);
    // Publishing goes on, and so do those who were there before.
    let reply = within(client.publish(message("t", "x"))).await.unwrap();
    assert_eq!(reply.into_inner().delivered, 1);
    assert_eq!(next(&mut there_before).await.payload, "x");

    raw.set_window(OPEN).await;
    let waiting = broker.broker.snapshot().ledger.matched - 1;
    for _ in 0..waiting {
        assert_eq!(slow.next().await.missed, 0);
    }
    broker.until(|s| s.memory_bytes < BUDGET / 2).await;
    subscribe(&client, filter("t")).await;
    assert_eq!(broker.rejected("shed").await, 0);
}

#[tokio::test]
async fn the_largest_mailbox_is_shed_when_memory_is_critical_and_the_others_stay() {
    let broker = start_small().await;
    let (_large, large) = stalled(&broker, "large").await;
    let (_raw, _small) = stalled(&broker, "small").await;
    for _ in 0..8 {
        broker.publish("small", vec![0; PAYLOAD]);
    }
    fill(&broker, "large", 95);
    let after = broker.until(|s| s.subscriptions == 1).await;
    assert!(after.memory_bytes < BUDGET / 100 * 95, "{after:?}");
    assert!(after.ledger.balances());
    assert_eq!(after.ledger.buffered, 7, "one is on its way");
    // What it did not take is in the way of a status: the reset means RESOURCE_EXHAUSTED in gRPC.
    let reset = large.reset().await;
    assert_eq!(reset.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    let metric = "fanfare_missed_messages_total{reason=\"shed\"}";
    assert!(broker.metric(metric).await > 30);
    assert_eq!(broker.rejected("shed").await, 1);
    // Without a restart.
    let mut again = subscribe(&broker.client().await, filter("large")).await;
    broker.publish("large", "x");
    assert_eq!(next(&mut again).await.payload, "x");
}

#[tokio::test]
async fn a_mailbox_that_is_shed_and_never_read_is_reset_and_frees_what_it_held() {
    let config = ServerConfig {
        stall_timeout: Duration::from_secs(5),
        ..ServerConfig::default()
    };
    let limits = Limits {
        memory_budget: BUDGET,
        ..Limits::default()
    };
    let broker = Running::start_with(config, limits).await;
    let (_raw, stream) = stalled(&broker, "t").await;
    fill(&broker, "t", 95);
    assert!(stream.reset().await.is_reset());
    broker.until(|s| s.memory_bytes < FURNITURE).await;
}

/// The clock that sheds mailboxes has no turn meanwhile: all that holds is the hard bound.
#[tokio::test]
async fn memory_stays_within_the_budget_however_fast_it_is_filled() {
    let broker = start_small().await;
    let (_raw, _slow) = stalled(&broker, ">").await;
    let mut dropped = 0;
    for _ in 0..1_000 {
        dropped += broker.publish("t", vec![0; PAYLOAD]).dropped;
        let used = broker.broker.snapshot().memory_bytes;
        assert!(used <= BUDGET, "{used}");
    }
    assert!(dropped > 900);
    assert!(broker.broker.snapshot().ledger.balances());
}

#[tokio::test]
async fn what_many_share_counts_once() {
    let broker = start_small().await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(raw.subscribe(filter("t")).await);
    }
    let before = broker.broker.snapshot().memory_bytes;
    // A hundred times this would be six times the budget.
    for _ in 0..4 {
        let receipt = broker.publish("t", vec![0; PAYLOAD]);
        assert_eq!((receipt.delivered, receipt.dropped), (100, 0));
    }
    let after = broker.broker.snapshot();
    let taken = after.memory_bytes - before;
    assert!((4 * PAYLOAD..5 * PAYLOAD).contains(&taken), "{taken}");
    assert_eq!(broker.rejected("shed").await, 0);
    drop((raw, streams));
    broker.until(|s| s.memory_bytes < FURNITURE).await;
}

/// Its window is open, so that its bytes leave the mailbox: they are in HTTP/2's buffers, and on their way
/// into the socket.
#[tokio::test]
async fn what_a_frozen_connection_holds_outside_its_mailboxes_counts() {
    let broker = start_small().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut streams = Vec::new();
    for topic in 0..20 {
        streams.push(raw.subscribe(filter(&format!("t{topic}"))).await);
    }
    raw.freeze().await;
    // Until the system's buffers are full: what is published then is not taken.
    let mut published = 0;
    while broker.broker.snapshot().memory_bytes < BUDGET / 2 {
        for topic in 0..20 {
            broker.publish(&format!("t{topic}"), vec![0; 8 << 10]);
        }
        published += 1;
        assert!(published < 10_000, "who takes all this?");
        // The connection has its turn.
        assert_eq!(broker.get("/health").await.0, 200);
    }
    let held = broker.broker.snapshot();
    assert!(held.memory_bytes <= BUDGET, "{held:?}");
    raw.kill();
    broker.until(|s| s.memory_bytes < FURNITURE).await;
}

/// Those who read nothing have all but what the largest request of these tests takes.
#[tokio::test]
async fn a_publisher_of_large_payloads_is_served_where_others_take_nothing() {
    const LARGE: usize = 1 << 20;
    let broker = start_small().await;
    let mut client = broker.client().await;
    let mut held = Vec::new();
    for round in 0..10 {
        held.push(stalled(&broker, "t").await);
        for _ in 0..2 * BUDGET / PAYLOAD {
            broker.publish("t", vec![0; PAYLOAD]);
        }
        let payload = "x".repeat(LARGE);
        let reply = within(client.publish(message("nobody", &payload))).await;
        assert!(reply.is_ok(), "{round}: {reply:?}");
    }
    assert!(broker.rejected("shed").await > 0);
    assert_eq!(broker.rejected("memory").await, 0);
}

/// What waits for frozen sockets is out of all mailboxes.
#[tokio::test]
async fn connections_that_take_nothing_go_where_memory_is_critical() {
    let broker = start_small().await;
    let mut frozen = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut raw = Raw::connect(broker.address).await;
        streams.push(raw.subscribe(filter("t")).await);
        raw.freeze().await;
        frozen.push(raw);
    }
    let mut client = broker.client().await;
    within(async {
        while broker.broker.snapshot().subscriptions > 0 {
            broker.publish("t", vec![0; PAYLOAD]);
            let reply = client.publish(message("nobody", "x")).await;
            reply.unwrap();
        }
    })
    .await;
    broker.until(|s| s.memory_bytes < BUDGET / 100 * 96).await;
    assert_eq!(broker.rejected("memory").await, 0);
}

const WATCH: &str = "/grpc.health.v1.Health/Watch";

#[track_caller]
fn check_refused(status: &tonic::Status) {
    assert_eq!(status.code(), Code::ResourceExhausted);
    let text = "the memory budget of 4194304 bytes is used up";
    assert_eq!(status.message(), text);
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn calls_are_refused_once_those_in_progress_take_all_memory() {
    let broker = start_small().await;
    let mut raw = Raw::connect(broker.address).await;
    let large = || "x".repeat(8 << 10);
    let mut held = Vec::new();
    while broker.broker.snapshot().memory_bytes < BUDGET / 100 * 98 - (48 << 10) {
        let request = raw.grpc(WATCH).header("x-large", large());
        held.push(raw.start(request).await);
        assert!(held.len() < 300, "who takes all this?");
        // The connection has its turn.
        raw.get("/health").await;
    }
    // Streams that are no use to publishers leave them the last of it.
    let mut publishers = Vec::new();
    while broker.broker.snapshot().memory_bytes < BUDGET - (6 << 10) {
        publishers.push(raw.start(raw.grpc(PUBLISH_STREAM)).await);
        raw.get("/health").await;
        assert!(publishers.len() < 100, "who takes all this?");
    }
    for path in [WATCH, PUBLISH_STREAM] {
        check_refused(&raw.status_of(raw.grpc(path), Bytes::new()).await);
    }
    let (status, text) = raw.get("/v1/stats").await;
    assert_eq!(status, 429);
    assert!(text.contains("RESOURCE_EXHAUSTED"), "{text}");
    assert_eq!(broker.get("/v1/stats").await.0, 429, "and over HTTP/1.1");
    // Whoever is not answered that would restart the broker.
    assert_eq!(raw.get("/health").await.0, 200);
    assert_eq!(broker.get("/ready").await.0, 200);
    let held_bytes = broker.broker.snapshot().memory_bytes;
    assert!(held_bytes <= BUDGET, "{held_bytes}");

    drop((held, publishers));
    broker.until(|s| s.memory_bytes < FURNITURE).await;
    assert_eq!(broker.get("/health").await.0, 200);
    assert!(broker.rejected("memory").await >= 4);
}

#[tokio::test]
async fn answers_that_nobody_takes_are_refused_once_they_take_all_memory() {
    let broker = start_small().await;
    let mut peers = Vec::new();
    let mut held = Vec::new();
    // What calls take until they are answered is free again then.
    while broker.broker.snapshot().memory_bytes < BUDGET / 16 * 15 {
        let mut peer = Raw::connect_with_window(broker.address, 0).await;
        for _ in 0..300 {
            let url = format!("http://{}/metrics", broker.address);
            held.push(peer.start(http::Request::get(url)).await);
        }
        // It answers them in turn.
        let ours = peer.grpc(PUBLISH_STREAM);
        held.push(peer.start(ours).await);
        tokio::task::yield_now().await;
        peers.push(peer);
        assert!(peers.len() < 20, "who takes all this?");
        let used = broker.broker.snapshot().memory_bytes;
        assert!(used <= BUDGET, "{used}");
    }
    drop((peers, held));
    broker.until(|s| s.memory_bytes < FURNITURE).await;
    assert_eq!(broker.get("/metrics").await.0, 200);
}

#[tokio::test]
async fn an_answer_that_is_taken_byte_by_byte_is_given_up() {
    let config = ServerConfig {
        stall_timeout: Duration::from_secs(1),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let url = format!("http://{}/metrics", broker.address);
    let mut answer = raw.call(http::Request::get(url), Bytes::new()).await;
    // Each of them waits for less than that.
    let mut taken = 0;
    let reset = loop {
        taken += 1;
        raw.set_window(taken).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if let Err(reset) = answer.taken().await {
            break reset;
        }
        assert!(taken < 100, "it goes on and on");
    };
    assert_eq!(reset.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    assert_eq!(broker.rejected("answer_untaken").await, 1);
}

#[tokio::test]
async fn a_connection_may_publish_at_its_rate_and_not_faster() {
    let config = ServerConfig {
        publish_rate_max: NonZeroU32::new(10),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut client = broker.client().await;
    let mut taken = 0;
    let status = loop {
        match within(client.publish(message("t", "x"))).await {
            Ok(_) => taken += 1,
            Err(status) => break status,
        }
    };
    assert!(taken >= 10, "{taken}");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.message(),
        "this connection publishes more than 10 messages a second, which is the limit"
    );
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
    assert_eq!(broker.rejected("publish_rate").await, 1);

    // On a stream the messages above the rate are rejected in-band, and it goes on.
    let mut raw = Raw::connect(broker.address).await;
    let mut call = raw.start(raw.grpc(PUBLISH_STREAM)).await;
    call.send(frame(&message("t", "x")).repeat(100), true);
    let (answers, status, _) = call.response().await.finished().await;
    assert_eq!(status.code(), Code::Ok);
    let answers: Vec<_> = answers
        .into_iter()
        .map(|answer| PublishStreamResponse::decode(answer).unwrap())
        .collect();
    assert_eq!(answers.last().map(|answer| answer.position), Some(100));
    let rejections = answers.iter().flat_map(|answer| &answer.rejections);
    let codes: Vec<_> = rejections.map(|rejection| rejection.code).collect();
    assert!((80..=90).contains(&codes.len()), "{codes:?}");
    assert!(
        codes
            .iter()
            .all(|code| *code == Code::ResourceExhausted as i32)
    );
}

#[tokio::test]
async fn rejections_that_nobody_takes_are_bounded_on_all_streams_together() {
    const REJECTIONS_OF_ALL_MAX: usize = 65_536;
    const ON_EACH: usize = 1_000;
    let broker = Running::start().await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    // Messages without a topic.
    let bad = |count| Bytes::from(frame_of(b"").repeat(count));
    let mut held = Vec::new();
    let mut ended = 0;
    for _ in 0..=REJECTIONS_OF_ALL_MAX / ON_EACH {
        let mut call = raw.start(raw.grpc(PUBLISH_STREAM)).await;
        // The first answer is on its way, and waits for the window.
        call.send(bad(1), false);
        raw.get("/nope").await;
        call.send(bad(ON_EACH), false);
        raw.get("/nope").await;
        held.push(call);
        ended = broker.rejected("rejections").await;
    }
    // One more on a stream that has some waiting.
    let mut call = held.pop().unwrap();
    call.send(bad(1), false);
    within(async {
        while broker.rejected("rejections").await == ended {
            raw.get("/nope").await;
        }
    })
    .await;
    // A publisher that takes its answers is not held liable.
    let mut other = Raw::connect(broker.address).await;
    let mut call = other.start(other.grpc(PUBLISH_STREAM)).await;
    call.send(bad(5), true);
    let (_, status, _) = call.response().await.finished().await;
    assert_eq!(status.code(), Code::Ok);
}
