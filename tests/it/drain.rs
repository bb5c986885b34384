//! Shutting down: not ready first, then every stream is told, what is buffered is delivered, calls in
//! flight finish, and all is over in time.

use std::{io::ErrorKind, time::Duration};

use bytes::Bytes;
use fanfare::{
    broker::Limits,
    server::ServerConfig,
    wire::pb::{PublishResponse, SubscribeRequest},
};
use prost::Message;
use tokio::{net::TcpStream, time::Instant};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use crate::{
    raw::{self, PREFACE, PUBLISH, Raw, frame},
    support::{Running, filter, message, next, subscribe, to_end, within},
};

#[track_caller]
fn check_drained(status: &Status) {
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the broker is shutting down")
    );
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
}

async fn start(config: ServerConfig) -> Running {
    Running::start_with(config, Limits::default()).await
}

#[tokio::test]
async fn the_broker_is_not_ready_first_and_serves_until_the_delay_is_over() {
    let config = ServerConfig {
        drain_delay: Duration::from_secs(2),
        ..ServerConfig::default()
    };
    let mut broker = start(config).await;
    let mut client = broker.client().await;
    let mut stream = subscribe(&client, filter("t")).await;
    let channel = tonic::transport::Endpoint::new(broker.url()).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    let request = HealthCheckRequest::default();
    let mut watch = within(health.watch(request.clone()))
        .await
        .unwrap()
        .into_inner();
    let seen = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(seen.status(), ServingStatus::Serving);

    let told = Instant::now();
    broker.shut_down();
    let seen = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(seen.status(), ServingStatus::NotServing);
    let checked = within(health.check(request)).await.unwrap().into_inner();
    assert_eq!(checked.status(), ServingStatus::NotServing);
    assert_eq!(broker.get("/ready").await, (503, "shutting down\n".into()));
    assert_eq!(broker.get("/health").await.0, 200);
    let mut late = subscribe(&client, filter("t")).await;
    let reply = within(client.publish(message("t", "x"))).await.unwrap();
    assert_eq!(reply.into_inner().delivered, 2);

    for stream in [&mut stream, &mut late] {
        let (responses, status) = to_end(stream).await;
        assert_eq!(responses.len(), 1);
        check_drained(&status);
    }
    check_drained(&within(watch.message()).await.unwrap_err());
    assert!(told.elapsed() >= Duration::from_secs(2));
    broker.stopped().await;
}

#[tokio::test]
async fn what_a_mailbox_holds_is_delivered_before_the_stream_ends() {
    let mut broker = Running::start().await;
    let mut stream = subscribe(&broker.client().await, filter("t")).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let slow = raw.subscribe(filter("t")).await;
    // Nothing runs between these: all wait in the mailboxes when the drain begins.
    for _ in 0..1_000 {
        assert_eq!(broker.publish("t", "x").delivered, 2);
    }
    broker.shut_down();
    let (responses, status) = to_end(&mut stream).await;
    check_drained(&status);
    let sequences: Vec<_> = responses.iter().map(|r| r.sequence).collect();
    assert_eq!(sequences, (1..=1_000).collect::<Vec<_>>());

    // A reader that was slow until now gets all of its own, too.
    raw.set_window(1 << 20).await;
    let (responses, status, _) = slow.responses().await;
    check_drained(&status);
    let sequences: Vec<_> = responses.iter().map(|r| r.sequence).collect();
    assert_eq!(sequences, (1..=1_000).collect::<Vec<_>>());
    broker.stopped().await;
}

#[tokio::test]
async fn a_loss_that_was_not_told_yet_is_told_before_the_end() {
    let mut broker = Running::start().await;
    let request = SubscribeRequest {
        mailbox_capacity: 10,
        ..filter("t")
    };
    let mut stream = subscribe(&broker.client().await, request).await;
    for _ in 0..25 {
        broker.publish("t", "x");
    }
    broker.shut_down();
    let (responses, status) = to_end(&mut stream).await;
    check_drained(&status);
    assert_eq!(responses.len(), 10);
    assert_eq!(responses.iter().map(|r| r.missed).sum::<u64>(), 15);
    broker.stopped().await;
}

#[tokio::test]
async fn a_call_in_flight_finishes() {
    let mut broker = Running::start().await;
    let mut stream = subscribe(&broker.client().await, filter("t")).await;
    let mut raw = Raw::connect(broker.address).await;
    let whole = frame(&message("t", "x"));
    let mut call = raw.start(raw.grpc(PUBLISH)).await;
    call.send(whole.slice(..whole.len() / 2), false);
    // The broker has the first half when it has answered a later request.
    raw.get("/health").await;
    broker.shut_down();
    check_drained(&to_end(&mut stream).await.1);

    call.send(whole.slice(whole.len() / 2..), true);
    let (messages, status, _) = call.response().await.finished().await;
    assert_eq!(status.code(), Code::Ok);
    let reply = PublishResponse::decode(messages[0].clone()).unwrap();
    assert_eq!((reply.sequence, reply.matched), (1, 0));
    // Then there is nothing left to wait for.
    raw.closed().await.unwrap();
    broker.stopped().await;
}

#[tokio::test]
async fn whoever_comes_too_late_is_refused() {
    let mut broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    // Holds the connection open.
    let whole = frame(&message("t", "x"));
    let mut call = raw.start(raw.grpc(PUBLISH)).await;
    call.send(whole.slice(..3), false);
    raw.get("/health").await;
    let mut stream = subscribe(&broker.client().await, filter("t")).await;
    broker.shut_down();
    to_end(&mut stream).await;

    let refused = within(TcpStream::connect(broker.address)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    call.send(whole.slice(3..), true);
    assert_eq!(call.response().await.status, 200);
    broker.stopped().await;
    let refused = within(TcpStream::connect(broker.address)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(broker.broker.snapshot().subscriptions, 0);
}

#[tokio::test]
async fn sockets_with_nothing_in_progress_do_not_hold_up_the_end() {
    let mut broker = start(ServerConfig {
        drain_timeout: Duration::from_secs(3_600),
        ..ServerConfig::default()
    })
    .await;
    let idle = Raw::connect(broker.address).await;
    let health = b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n";
    let mut sockets = Vec::new();
    for said in [b"", &PREFACE[..10], health] {
        sockets.push(raw::socket(broker.address, said).await);
    }
    broker.until_metric("fanfare_connections", 5).await;
    broker.shut_down();
    broker.stopped().await;
    drop((idle, sockets));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_over_in_time_whatever_the_clients_do() {
    let drain_timeout = Duration::from_secs(2);
    let mut broker = start(ServerConfig {
        drain_timeout,
        ..ServerConfig::default()
    })
    .await;
    let mut live = Vec::new();
    for _ in 0..4 {
        let client = broker.client().await;
        for _ in 0..250 {
            live.push(subscribe(&client, filter("t")).await);
        }
    }
    let mut stuck = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::connect_with_window(broker.address, 0).await;
        let streams = [
            raw.subscribe(filter("t")).await,
            raw.subscribe(filter("t")).await,
        ];
        stuck.push((raw, streams));
    }
    let mut frozen = Raw::connect(broker.address).await;
    let frozen_stream = frozen.subscribe(filter("t")).await;
    frozen.freeze().await;
    let mut half_sent = Raw::connect(broker.address).await;
    let mut call = half_sent.start(half_sent.grpc(PUBLISH)).await;
    call.send(Bytes::from_static(&[0, 0, 0, 0, 9]), false);
    half_sent.get("/health").await;
    let mut sockets = Vec::new();
    for said in [&b""[..], &PREFACE[..5], PREFACE, b"GET / HTTP/1.1\r\n"] {
        for _ in 0..5 {
            sockets.push(raw::socket(broker.address, said).await);
        }
    }
    for _ in 0..20 {
        assert_eq!(broker.publish("t", vec![0; 1_000]).matched, 1_021);
    }

    let started = Instant::now();
    broker.shut_down();
    broker.stopped().await;
    let took = started.elapsed();
    assert!(took < drain_timeout + Duration::from_secs(1), "{took:?}");
    let end = broker.until(|s| s.subscriptions == 0).await;
    assert_eq!(end.buffered_bytes, 0);
    assert!(end.ledger.balances());
    drop((live, stuck, frozen_stream, call, sockets));
}

#[tokio::test]
async fn a_reader_that_reads_gets_its_end_though_others_hold_up_the_drain() {
    let broker = Running::start().await;
    let mut frozen = Raw::connect(broker.address).await;
    let _frozen = frozen.subscribe(filter("t")).await;
    frozen.freeze().await;
    let mut stream = subscribe(&broker.client().await, filter("t")).await;
    broker.publish("t", "x");
    broker.shut_down();
    assert_eq!(next(&mut stream).await.payload, "x");
    check_drained(&within(stream.message()).await.unwrap_err());
}

#[tokio::test]
async fn a_reader_that_moves_may_use_all_of_the_drain_timeout() {
    let config = ServerConfig {
        stall_timeout: Duration::from_millis(20),
        ..ServerConfig::default()
    };
    let broker = start(config).await;
    let mut raw = Raw::connect_with_window(broker.address, 1_000).await;
    let mut stream = raw.subscribe(filter("t")).await;
    for _ in 0..1_000 {
        assert_eq!(broker.publish("t", vec![0; 2_000]).delivered, 1);
    }
    broker.shut_down();
    for sequence in 1..=1_000 {
        assert_eq!(stream.next().await.sequence, sequence);
    }
    let (rest, status, _) = stream.responses().await;
    assert_eq!(rest, []);
    check_drained(&status);
}
