//! Clients that leave in every way there is, or should: their subscriptions, their memory and their
//! connections are gone within the configured times, and nobody else waits for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::any};
use fanfare::{
    broker::Limits,
    server::ServerConfig,
    wire::pb::{OverflowPolicy, SubscribeRequest},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::{
    attack,
    raw::{self, OPEN, PREFACE, PUBLISH, Raw, SUBSCRIBE, frame},
    support::{Running, filter, message, next, subscribe, value_of, within},
};

const SOON: Duration = Duration::from_millis(100);

async fn start(config: ServerConfig) -> Running {
    Running::start_with(config, Limits::default()).await
}

/// Pings soon, and waits for the answer as long as a busy machine may take.
fn short_keepalive() -> ServerConfig {
    ServerConfig {
        keepalive_interval: SOON,
        keepalive_timeout: 5 * SOON,
        ..ServerConfig::default()
    }
}

fn stall_after(stall_timeout: Duration) -> ServerConfig {
    ServerConfig {
        stall_timeout,
        ..ServerConfig::default()
    }
}

#[tokio::test]
async fn a_cancelled_subscription_is_freed_and_the_connection_goes_on() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let mut stays = subscribe(&client, filter("t")).await;
    for _ in 0..20 {
        let leaves = subscribe(&client, filter("t")).await;
        assert_eq!(broker.publish("t", "x").matched, 2);
        drop(leaves);
        broker.until(|s| s.subscriptions == 1).await;
    }
    for sequence in 1..=20 {
        assert_eq!(next(&mut stays).await.sequence, sequence);
    }
    drop(stays);
    let end = broker.until(|s| s.subscriptions == 0).await;
    assert!(end.ledger.balances());
    assert_eq!((end.buffered_bytes, end.groups), (0, 0));
}

#[tokio::test]
async fn a_killed_connection_frees_all_its_subscriptions_and_what_they_held() {
    let broker = Running::start().await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        streams.push(raw.subscribe(filter("t")).await);
    }
    for _ in 0..10 {
        broker.publish("t", vec![0; 1_000]);
    }
    assert!(broker.broker.snapshot().buffered_bytes > 0);
    raw.kill();
    let end = broker.until(|s| s.subscriptions == 0).await;
    assert!(end.ledger.balances());
    // The mailbox is gone; its stream still holds the first message.
    assert_eq!(end.ledger.buffered, 0);
    assert!(end.buffered_bytes < 500, "{end:?}");
    // Its own scrape is the one that is left.
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn a_client_that_cancels_while_it_subscribes_leaves_nothing_behind() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    for round in 0..100 {
        let mut call = raw.start(raw.grpc(SUBSCRIBE)).await;
        call.send(frame(&filter("t")), true);
        // Some are cancelled before the broker sees them, some in the middle, some when they live.
        for _ in 0..round % 10 {
            tokio::task::yield_now().await;
        }
        call.cancel();
        raw.get("/health").await;
    }
    broker.until(|s| s.subscriptions == 0).await;
    broker.until_metric("fanfare_streams", 0).await;
    raw.subscribe(filter("t")).await;
}

#[tokio::test]
async fn a_publisher_that_dies_in_mid_request_leaves_nothing_behind() {
    let broker = Running::start().await;
    let mut stream = subscribe(&broker.client().await, filter("t")).await;
    let mut raw = Raw::connect(broker.address).await;
    let whole = frame(&message("t", "half"));
    let mut call = raw.start(raw.grpc(PUBLISH)).await;
    call.send(whole.slice(..whole.len() / 2), false);
    // The broker has the request when it has answered a later one.
    raw.get("/health").await;
    raw.kill();
    // What is left is the subscription.
    broker.until_metric("fanfare_streams", 1).await;
    assert_eq!(broker.broker.snapshot().published, 0);
    broker.publish("t", "whole");
    assert_eq!(next(&mut stream).await.payload, "whole");
}

#[tokio::test]
async fn a_half_open_connection_is_closed_when_pings_go_unanswered() {
    let broker = start(short_keepalive()).await;
    let mut raw = Raw::connect(broker.address).await;
    let _stream = raw.subscribe(filter("t")).await;
    raw.freeze().await;
    broker.until(|s| s.subscriptions == 0).await;
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn a_half_open_connection_is_closed_also_when_its_socket_takes_no_more() {
    let config = ServerConfig {
        stall_timeout: Duration::from_secs(3_600),
        ..short_keepalive()
    };
    let broker = start(config).await;
    let mut raw = Raw::connect(broker.address).await;
    let _stream = raw.subscribe(filter("t")).await;
    raw.freeze().await;
    // Until the system's buffers are full, and the mailbox after them. Publishing never waits.
    let mut published = 0;
    while broker.publish("t", vec![0; 1_000_000]).dropped == 0 {
        published += 1;
        assert!(published < 1_000, "who takes all this?");
        tokio::task::yield_now().await;
    }
    let end = broker.until(|s| s.subscriptions == 0).await;
    assert_eq!(end.buffered_bytes, 0);
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn a_silent_connection_that_answers_pings_stays() {
    let broker = start(short_keepalive()).await;
    let mut silent = subscribe(&broker.client().await, filter("t")).await;
    // Two half-open connections, one after the other, are outlived: several intervals.
    for _ in 0..2 {
        let mut raw = Raw::connect(broker.address).await;
        let _stream = raw.subscribe(filter("other")).await;
        raw.freeze().await;
        broker.until(|s| s.subscriptions == 1).await;
    }
    assert_eq!(broker.publish("t", "x").delivered, 1);
    assert_eq!(next(&mut silent).await.payload, "x");
}

#[tokio::test]
async fn a_stalled_reader_among_a_hundred_is_ended_and_delays_nobody() {
    let broker = start(stall_after(2 * SOON)).await;
    let mut readers = Vec::new();
    for _ in 0..9 {
        let client = broker.client().await;
        for _ in 0..11 {
            readers.push(subscribe(&client, filter("t")).await);
        }
    }
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let stalled = raw.subscribe(filter("t")).await;
    let mut publisher = broker.client().await;
    for sequence in 1..=50 {
        let reply = within(publisher.publish(message("t", &"x".repeat(100)))).await;
        assert_eq!(reply.unwrap().into_inner().dropped, 0);
        for reader in &mut readers {
            let response = next(reader).await;
            assert_eq!((response.sequence, response.missed), (sequence, 0));
        }
    }
    let end = broker.until(|s| s.subscriptions == 99).await;
    assert!(end.ledger.balances());
    // The mailbox is gone; its stream still holds the first message.
    assert_eq!(end.ledger.buffered, 0);
    assert!(end.buffered_bytes < 500, "{end:?}");
    assert_eq!(broker.rejected("stalled").await, 1);
    // It never opens its window, so it cannot be told why: its stream is reset.
    let reset = stalled.reset().await;
    assert!(reset.is_reset() && reset.is_remote(), "{reset:?}");
    broker.until_metric("fanfare_streams", 99).await;
    assert_eq!(broker.broker.snapshot().buffered_bytes, 0);
    // The connection itself is alive.
    assert_eq!(raw.get("/nope").await.0, 404);
    assert_eq!(broker.publish("t", "").delivered, 99);
}

#[tokio::test]
async fn a_stalled_reader_that_wakes_up_soon_is_told_why_it_was_ended() {
    let broker = start(stall_after(20 * SOON)).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let stalled = raw.subscribe(filter("t")).await;
    broker.publish("t", "1");
    broker.until(|s| s.ledger.delivered == 1).await;
    for _ in 0..5 {
        broker.publish("t", "x");
    }
    broker.until(|s| s.subscriptions == 0).await;
    raw.set_window(65_535).await;
    let (responses, status, trailers) = stalled.responses().await;
    assert_eq!(responses.len(), 1, "what was sent before");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.message(),
        "the reader stalled: it took no message for too long while messages waited"
    );
    assert_eq!(trailers["fanfare-missed"], "5");
    let missed = "fanfare_missed_messages_total{reason=\"stalled\"}";
    assert_eq!(broker.metric(missed).await, 5);
}

#[tokio::test]
async fn a_reader_that_overflowed_and_stays_stuck_leaves_the_registry_and_is_reset() {
    let broker = start(stall_after(2 * SOON)).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let request = SubscribeRequest {
        overflow_policy: OverflowPolicy::Disconnect.into(),
        mailbox_capacity: 1,
        ..filter("t")
    };
    let stuck = raw.subscribe(request).await;
    broker.publish("t", "1");
    broker.until(|s| s.ledger.delivered == 1).await;
    broker.publish("t", "2");
    assert_eq!(broker.publish("t", "3").dropped, 1);
    broker.until(|s| s.subscriptions == 0).await;
    assert!(stuck.reset().await.is_reset());
    broker.until_metric("fanfare_streams", 0).await;
}

#[tokio::test]
async fn a_silent_subscriber_with_a_closed_window_has_not_stalled() {
    let broker = start(stall_after(SOON)).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let mut idle = raw.subscribe(filter("t")).await;
    // Somebody else stalls meanwhile.
    let _stalled = raw.subscribe(filter("other")).await;
    broker.publish("other", "1");
    broker.until(|s| s.ledger.delivered == 1).await;
    broker.publish("other", "2");
    broker.until(|s| s.subscriptions == 1).await;
    raw.set_window(65_535).await;
    assert_eq!(broker.publish("t", "x").delivered, 1);
    assert_eq!(idle.next().await.payload, "x");
}

#[tokio::test]
async fn a_deadline_ends_a_silent_subscription_also_when_its_window_is_closed() {
    let broker = Running::start().await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let request = raw.grpc(SUBSCRIBE).header("grpc-timeout", "100m");
    let stream = raw.call(request, frame(&filter("t"))).await;
    let (_, status, _) = stream.responses().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    broker.until(|s| s.subscriptions == 0).await;
}

#[tokio::test]
async fn a_socket_that_says_nothing_or_half_a_preface_is_closed() {
    let config = ServerConfig {
        first_bytes_timeout: 5 * SOON,
        ..ServerConfig::default()
    };
    let broker = start(config).await;
    let mut sockets = Vec::new();
    for said in [0, 1, 3, 23] {
        sockets.push(raw::socket(broker.address, &PREFACE[..said]).await);
    }
    for socket in sockets {
        assert_eq!(raw::read_to_close(socket).await, b"");
    }
    assert_eq!(broker.rejected("first_bytes").await, 4);
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn a_preface_with_nothing_after_it_is_closed() {
    let broker = start(short_keepalive()).await;
    let socket = raw::socket(broker.address, PREFACE).await;
    raw::read_to_close(socket).await;
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn http1_headers_that_never_end_are_closed() {
    let config = ServerConfig {
        first_bytes_timeout: 5 * SOON,
        ..ServerConfig::default()
    };
    let broker = start(config).await;
    for said in ["GET", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: te"] {
        let socket = raw::socket(broker.address, said.as_bytes()).await;
        let answer = String::from_utf8(raw::read_to_close(socket).await).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{said:?}: {answer}"
        );
    }
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn an_http1_connection_that_asks_nothing_more_is_closed() {
    let config = ServerConfig {
        first_bytes_timeout: 5 * SOON,
        ..ServerConfig::default()
    };
    let broker = start(config).await;
    let request = b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n";
    let socket = raw::socket(broker.address, request).await;
    let answer = String::from_utf8(raw::read_to_close(socket).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn an_http1_request_that_breaks_off_is_closed() {
    let broker = Running::start().await;
    let head = b"POST /pubsub.v1.PubSubService/Publish HTTP/1.1\r\nhost: t\r\n\
                 content-type: application/grpc\r\ncontent-length: 100\r\n\r\n";
    let mut socket = raw::socket(broker.address, head).await;
    socket.write_all(b"\0\0\0").await.unwrap();
    drop(socket);
    broker.until_metric("fanfare_connections", 1).await;
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn a_connection_without_a_stream_is_told_to_go_and_one_with_a_stream_stays() {
    const GOAWAY: u8 = 7;
    let config = ServerConfig {
        idle_timeout: 3 * SOON,
        ..ServerConfig::default()
    };
    let broker = start(config).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut stream = raw.subscribe(filter("t")).await;
    for _ in 0..3 {
        let frames = raw::frames_to_close(broker.address).await;
        let (_, _, goaway) = frames.iter().rfind(|frame| frame.0 == GOAWAY).unwrap();
        // The last stream it saw, which is none, and no error.
        assert_eq!(goaway[..], [0; 8]);
    }
    broker.publish("t", "x");
    assert_eq!(stream.next().await.payload, "x");
    assert_eq!(raw.get("/health").await.0, 200, "not told to go");
    drop(stream);
    raw.closed().await.unwrap();
    broker.until(|s| s.subscriptions == 0).await;
}

/// It may be in the middle of a request when it is told to go, so it is to say that it knows.
#[tokio::test]
async fn an_idle_peer_that_never_says_that_it_knows_that_it_was_told_to_go_is_closed() {
    let config = ServerConfig {
        idle_timeout: SOON,
        keepalive_timeout: 3 * SOON,
        ..ServerConfig::default()
    };
    let broker = start(config).await;
    let said = [PREFACE, &attack::frame(attack::SETTINGS, 0, 0, &[])].concat();
    let socket = raw::socket(broker.address, &said).await;
    let heard = within(raw::read_to_close(socket)).await;
    let last_of_none = attack::frame(attack::GOAWAY, 0, 0, &[0; 8]);
    assert!(heard.ends_with(&last_of_none), "{heard:?}");
}

/// All of them run on one thread here.
#[tokio::test]
async fn many_calls_of_one_connection_do_not_keep_another_one_waiting() {
    const CALLS: u32 = 200;
    let done = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&done);
    let busy = move || {
        std::thread::sleep(Duration::from_millis(1));
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready("")
    };
    let routes = Router::new().route("/busy", any(busy));
    let config = ServerConfig::default();
    let broker = Running::start_with_routes(config, Limits::default(), routes).await;

    let said = [PREFACE, &attack::frame(attack::SETTINGS, 0, 0, &[])].concat();
    let mut many = raw::socket(broker.address, &said).await;
    many.read_u8().await.unwrap();
    let mut other = raw::socket(broker.address, b"GET /health HTTP/1.1\r\n").await;
    broker.until_metric("fanfare_connections", 3).await;
    let calls: Vec<_> = (0..CALLS)
        .flat_map(|number| attack::request(2 * number + 1, "/busy"))
        .collect();
    // Both are there before the broker looks.
    assert_eq!(many.try_write(&calls).unwrap(), calls.len());
    other.try_write(b"host: test\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    within(other.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let done_before = done.load(Ordering::Relaxed);
    assert!(done_before < CALLS / 2, "{done_before}");
    // And all are done in the end.
    within(async {
        while done.load(Ordering::Relaxed) < CALLS {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_taken_back_in_the_same_breath_is_not_begun() {
    let called = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&called);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready("")
    };
    let routes = Router::new().route("/count", any(count));
    let config = ServerConfig::default();
    let broker = Running::start_with_routes(config, Limits::default(), routes).await;
    let cancel = 8_u32.to_be_bytes();
    let said = [
        PREFACE,
        &attack::frame(attack::SETTINGS, 0, 0, &[]),
        &attack::request(1, "/count"),
        &attack::frame(attack::RST_STREAM, 0, 1, &cancel),
        &attack::request(3, "/count"),
    ]
    .concat();
    let _peer = raw::socket(broker.address, &said).await;
    within(async {
        while called.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        called.load(Ordering::Relaxed),
        1,
        "in the order of the calls"
    );
}

#[tokio::test]
async fn a_client_whose_idle_connection_was_closed_connects_again_by_itself() {
    let config = ServerConfig {
        idle_timeout: 3 * SOON,
        ..ServerConfig::default()
    };
    let broker = start(config).await;
    let mut client = broker.client().await;
    within(client.publish(message("t", "1"))).await.unwrap();
    broker.until_metric("fanfare_connections", 1).await;
    within(client.publish(message("t", "2"))).await.unwrap();
}

#[tokio::test]
async fn a_thousand_clients_that_come_and_go_leave_nothing_behind() {
    let broker = Running::start().await;
    for _ in 0..20 {
        let client = broker.client().await;
        let mut streams = Vec::new();
        for number in 0..50 {
            let topic = ["t", "a.*", "a.>", "b"][number % 4];
            let request = SubscribeRequest {
                group: ["", "g"][number % 2].to_owned(),
                ..filter(topic)
            };
            streams.push(subscribe(&client, request).await);
        }
        for topic in ["t", "a.x", "b"] {
            assert!(broker.publish(topic, "x").matched > 0);
        }
    }
    let end = broker.until(|s| s.subscriptions == 0).await;
    assert!(end.ledger.balances());
    assert_eq!((end.buffered_bytes, end.groups), (0, 0));
    let metrics = broker.get("/metrics").await.1;
    assert_eq!(value_of(&metrics, "fanfare_subscriptions"), 0);
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn what_a_slow_connection_holds_outside_the_mailboxes_is_bounded() {
    let broker = Running::start().await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(raw.subscribe(filter("t")).await);
    }
    for _ in 0..500 {
        broker.publish("t", vec![0; 1_000]);
        tokio::task::yield_now().await;
    }
    let delivered = broker.broker.snapshot().ledger.delivered_bytes;
    assert!(delivered <= 20 * 32 * 1_024, "{delivered}");
    raw.set_window(OPEN).await;
    for stream in &mut streams {
        for sequence in 1..=500 {
            assert_eq!(stream.next().await.sequence, sequence);
        }
    }
}

#[tokio::test]
async fn an_http1_client_that_reads_no_answers_is_closed() {
    let config = ServerConfig {
        first_bytes_timeout: 5 * SOON,
        request_timeout: 5 * SOON,
        stall_timeout: SOON,
        ..short_keepalive()
    };
    let broker = start(config).await;
    // The answers are many times what the system's buffers take.
    let requests = b"GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n".repeat(6_000);
    let _unread = raw::socket(broker.address, &requests).await;
    broker.until_metric("fanfare_connections", 1).await;
}

/// A large payload leaves its mailbox by reference: it counts until the peer has taken it, and a peer
/// that does not take it has stalled, though nothing waits in its mailbox.
#[tokio::test]
async fn a_large_payload_that_nobody_takes_is_counted_and_ends_its_stream() {
    const PAYLOAD: usize = 1_000_000;
    let broker = start(stall_after(2 * SOON)).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let stuck = raw.subscribe(filter("t")).await;
    assert_eq!(broker.publish("t", "x".repeat(PAYLOAD)).delivered, 1);
    broker.until(|s| s.ledger.buffered == 0).await;
    assert!(broker.broker.snapshot().buffered_bytes >= PAYLOAD);
    broker.until(|s| s.subscriptions == 0).await;
    assert!(stuck.reset().await.is_reset());
    broker.until(|s| s.buffered_bytes == 0).await;
}
