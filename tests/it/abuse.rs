//! Abuse of HTTP/2 and of gRPC's framing, on both ways through the front door: the methods that it serves
//! itself, and those that go through the router. Each attack is answered as it should be, within a bound
//! of frames or streams, and a client beside it sees nothing of it.

use std::time::Duration;

use bytes::Bytes;
use fanfare::{broker::Limits, server::ServerConfig, wire::pb::SubscribeRequest};
use http::Request;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tonic::Code;

use crate::{
    attack::{
        self, Answer, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Flood,
        HEADERS, PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, WINDOW_UPDATE, attack, last_message,
        request, stream,
    },
    raw::{self, PREFACE, PUBLISH, Raw, SUBSCRIBE, frame, frame_of},
    support::{Running, filter, message, next, subscribe, within},
};

const SOON: Duration = Duration::from_millis(100);

const PUBLISH_STREAM: &str = "/pubsub.v1.PubSubService/PublishStream";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// A method that the front door serves itself, and one that goes through the router; a call to either
/// goes on until its request ends.
const BOTH_PATHS: [&str; 2] = [PUBLISH_STREAM, REFLECTION];

/// The control frames that a connection may send at once, and some more for the time that passes.
const CONTROL_FRAMES_MAX: usize = 2_000 + 5_000;
/// What the system holds of frames that were sent and not read.
const UNREAD_BYTES_MAX: usize = 8 << 20;

/// Runs an attack beside a client that publishes and reads all the while, on two connections, and must
/// see no failure, no loss and no other order.
async fn beside_a_good_client<T>(broker: &Running, attack: impl Future<Output = T>) -> T {
    let mut reader = subscribe(&broker.client().await, filter("good")).await;
    let mut publisher = broker.client().await;
    let mut attack = std::pin::pin!(within(attack));
    let mut ended = None;
    let first = within(publisher.publish(message("good", ""))).await;
    let mut sequence = first.unwrap().into_inner().sequence;
    assert_eq!(next(&mut reader).await.sequence, sequence);
    // Some messages after the attack, too.
    let mut left = 10;
    while left > 0 {
        let good = async {
            let reply = within(publisher.publish(message("good", "x")))
                .await
                .unwrap();
            assert_eq!(reply.into_inner().delivered, 1);
            next(&mut reader).await
        };
        let response = if ended.is_some() {
            left -= 1;
            good.await
        } else {
            let mut good = std::pin::pin!(good);
            tokio::select! {
                response = &mut good => response,
                done = &mut attack => {
                    ended = Some(done);
                    good.await
                }
            }
        };
        sequence += 1;
        assert_eq!((response.sequence, response.missed), (sequence, 0));
    }
    ended.expect("the attack is over by now")
}

/// Floods until it is cut off; at most `frames_max` frames were read by then.
async fn check_cut_off(flood: Flood, code: u32, frames_max: usize) {
    for path in BOTH_PATHS {
        let broker = Running::start().await;
        let count = 10 * frames_max + UNREAD_BYTES_MAX / 9;
        let attack = flood.run(broker.address, path, count);
        let answer = beside_a_good_client(&broker, attack).await;
        assert!(answer.is_closed, "{flood:?} at {path}: {answer:?}");
        // A reset of the connection may overtake the GOAWAY.
        assert!(
            answer.goaway.is_none_or(|told| told == code),
            "{flood:?} at {path}: {answer:?}"
        );
        assert!(answer.sent < count, "{flood:?} at {path}: {answer:?}");
        // What is left is the connection that asks.
        broker.until_metric("fanfare_connections", 1).await;
    }
}

async fn check_control_flood(flood: Flood) {
    for path in BOTH_PATHS {
        let broker = Running::start().await;
        let count = 2 * CONTROL_FRAMES_MAX;
        let attack = flood.run(broker.address, path, count);
        let answer = beside_a_good_client(&broker, attack).await;
        assert!(answer.is_closed, "{flood:?} at {path}: {answer:?}");
        assert_eq!(broker.rejected("control_frames").await, 1, "{flood:?}");
        let told = answer.goaway;
        assert!(
            told.is_none_or(|told| told == ENHANCE_YOUR_CALM),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_ping_flood_is_cut_off() {
    check_control_flood(Flood::Ping).await;
}

#[tokio::test]
async fn a_settings_flood_is_cut_off() {
    check_control_flood(Flood::Settings).await;
}

#[tokio::test]
async fn a_priority_flood_is_cut_off() {
    check_control_flood(Flood::Priority).await;
}

#[tokio::test]
async fn a_window_update_flood_is_cut_off() {
    check_control_flood(Flood::WindowUpdate).await;
}

/// A busy client that stands still for a moment opens the windows of all that it was sent at once.
#[tokio::test]
async fn whoever_was_sent_much_may_open_many_windows_at_once() {
    const OWED: usize = 6_000;
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    const LARGE: usize = 900_000;
    let broker = Running::start().await;
    let window = (1_u32 << 30).to_be_bytes();
    let settings = [&INITIAL_WINDOW_SIZE[..], &window].concat();
    let beginning = [
        PREFACE,
        &attack::frame(attack::SETTINGS, 0, 0, &settings),
        &attack::frame(WINDOW_UPDATE, 0, 0, &window),
        &request(stream(0), SUBSCRIBE),
        &last_message(stream(0), &filter("t").encode_to_vec()),
    ];
    let mut socket = raw::socket(broker.address, &beginning.concat()).await;
    broker.until(|snapshot| snapshot.subscriptions == 1).await;
    (0..5).for_each(|_| drop(broker.publish("t", vec![0; LARGE])));
    let mut left = 5 * LARGE;
    let mut received = vec![0; 1 << 16];
    while left > 0 {
        let bytes = within(socket.read(&mut received)).await.unwrap();
        assert_ne!(bytes, 0);
        left = left.saturating_sub(bytes);
    }
    let opened = attack::frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    within(socket.write_all(&opened.repeat(OWED)))
        .await
        .unwrap();
    broker.publish("t", "still there");
    let mut seen = Vec::new();
    while !seen.ends_with(b"still there") {
        let bytes = within(socket.read_buf(&mut seen)).await.unwrap();
        assert_ne!(bytes, 0, "cut off");
    }
    // And no more than what it is owed.
    let more = opened.repeat(5 * OWED);
    drop(within(socket.write_all(&more)).await);
    raw::read_to_close(socket).await;
    assert_eq!(broker.rejected("control_frames").await, 1);
}

/// To cut a flood off is work, too: whoever comes back at once waits for its turn.
#[tokio::test]
async fn whoever_was_cut_off_comes_back_slowly_and_others_go_on() {
    const TURN: Duration = Duration::from_millis(10);
    let broker = Running::start().await;
    let mut before = Raw::connect(broker.address).await;
    for flood in [Flood::Ping, Flood::MalformedRequest] {
        let answer = flood.run(broker.address, PUBLISH_STREAM, 20_000);
        assert!(beside_a_good_client(&broker, answer).await.is_closed);
        let began = Instant::now();
        for _ in 0..3 {
            let mut again = Raw::connect(broker.address).await;
            let request = again.grpc(PUBLISH);
            let status = again.status_of(request, frame(&message("t", "x"))).await;
            assert_eq!(status.code(), Code::Ok);
        }
        assert!(began.elapsed() >= 3 * TURN, "{:?}", began.elapsed());
    }
    let request = before.grpc(PUBLISH);
    let status = before.status_of(request, frame(&message("t", "x"))).await;
    assert_eq!(status.code(), Code::Ok);
}

#[tokio::test]
async fn a_flood_of_unknown_frames_is_cut_off() {
    check_control_flood(Flood::Unknown).await;
}

#[tokio::test]
async fn an_empty_data_flood_is_cut_off() {
    // `h2` finds it first.
    check_cut_off(Flood::EmptyData, ENHANCE_YOUR_CALM, 10_000).await;
}

#[tokio::test]
async fn a_continuation_flood_is_cut_off() {
    check_cut_off(Flood::Continuation, ENHANCE_YOUR_CALM, 1_000).await;
    check_cut_off(Flood::EmptyContinuation, ENHANCE_YOUR_CALM, 1_000).await;
}

#[tokio::test]
async fn rapid_reset_is_cut_off() {
    check_cut_off(Flood::RapidReset, ENHANCE_YOUR_CALM, CONTROL_FRAMES_MAX).await;
}

#[tokio::test]
async fn a_flood_of_malformed_requests_is_cut_off() {
    check_cut_off(Flood::MalformedRequest, ENHANCE_YOUR_CALM, 2_000).await;
    check_cut_off(Flood::EmptyHeaders, ENHANCE_YOUR_CALM, 2_000).await;
}

#[tokio::test]
async fn few_control_frames_are_answered_and_the_connection_stays() {
    for flood in [
        Flood::Ping,
        Flood::Settings,
        Flood::Priority,
        Flood::WindowUpdate,
        Flood::Unknown,
    ] {
        for path in BOTH_PATHS {
            let broker = Running::start().await;
            let answer = within(flood.run(broker.address, path, 1_500)).await;
            assert!(!answer.is_closed, "{flood:?} at {path}: {answer:?}");
            assert_eq!((answer.goaway, answer.sent), (None, 1_500));
        }
    }
}

/// A client that gives up all it has open is not an attacker.
#[tokio::test]
async fn as_many_calls_as_may_be_open_may_be_taken_back_at_once() {
    for path in BOTH_PATHS {
        let broker = Running::start().await;
        let answer = within(Flood::RapidReset.run(broker.address, path, 300)).await;
        assert!(!answer.is_closed, "{path}: {answer:?}");
        assert_eq!(answer.goaway, None);
        // The call that was open before goes on, and so does the one that asks.
        broker.until_metric("fanfare_connections", 1).await;
    }
}

/// The subscriptions of a connection, and other calls beside them.
const STREAMS_MAX: usize = 256 + 64;

/// Calls that are all in one go, and whose answers nobody takes.
async fn open_unread_calls(broker: &Running, path: &str, body: &[u8], count: usize) -> Answer {
    let call = |round| {
        let stream = stream(round);
        [request(stream, path), last_message(stream, body)].concat()
    };
    let no_window = [0, 4, 0, 0, 0, 0];
    let opening = attack(broker.address, &no_window, &[], count, call);
    beside_a_good_client(broker, opening).await
}

#[tokio::test]
async fn streams_above_a_connections_limit_are_refused_and_thousands_are_cut_off() {
    let subscription = prost::Message::encode_to_vec(&filter("t"));
    for (path, body) in [(SUBSCRIBE, &subscription[..]), (WATCH, &[])] {
        let broker = Running::start().await;
        let answer = open_unread_calls(&broker, path, body, 2 * STREAMS_MAX).await;
        assert!(!answer.is_closed, "{path}: {answer:?}");
        let refused = answer.resets.get(&REFUSED_STREAM).copied();
        assert!(
            refused.is_none_or(|refused| refused <= STREAMS_MAX),
            "{path}: {answer:?}"
        );
        let answer = open_unread_calls(&broker, path, body, 5_000).await;
        assert!(answer.is_closed, "{path}: {answer:?}");
        assert!(
            answer.goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM),
            "{path}: {answer:?}"
        );
        broker.until(|s| s.subscriptions == 0).await;
        broker.until_metric("fanfare_streams", 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_reset() {
    let config = ServerConfig {
        stall_timeout: 2 * SOON,
        ..ServerConfig::default()
    };
    let publish = frame(&message("t", "x"));
    for (path, body) in [
        (PUBLISH, publish),
        (CHECK, frame_of(b"")),
        (WATCH, frame_of(b"")),
    ] {
        let broker = Running::start_with(config.clone(), Limits::default()).await;
        let mut raw = Raw::connect_with_window(broker.address, 0).await;
        let response = raw.call(raw.grpc(path), body).await;
        let reset = response.reset().await;
        assert!(reset.is_reset() && reset.is_remote(), "{path}: {reset:?}");
        assert_eq!(reset.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
        assert_eq!(broker.rejected("answer_untaken").await, 1);
        broker.until_metric("fanfare_streams", 0).await;
    }
}

#[tokio::test]
async fn too_many_headers_are_answered_431_and_an_hpack_bomb_is_cut_off() {
    for path in BOTH_PATHS {
        let broker = Running::start().await;
        let mut block = attack::grpc_request(path);
        // Enters the table: a name of 5 bytes, a value of 3,000. Then that entry again and again, so that the
        // list would be a thousand times its bytes.
        block.extend(b"\x40\x05x-hpk\x7f\xb9\x16");
        block.extend([b'x'; 3_000]);
        block.extend([0xbe; 4_000]);
        let bomb = attack::frame(HEADERS, END_HEADERS | END_STREAM, stream(0), &block);
        let attack = attack(broker.address, &[], &bomb, 0, |_| Vec::new());
        let answer = beside_a_good_client(&broker, attack).await;
        assert!(answer.is_closed, "{path}: {answer:?}");
        assert!(
            answer.goaway.is_none_or(|code| code == ENHANCE_YOUR_CALM),
            "{path}: {answer:?}"
        );
    }
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    for path in BOTH_PATHS {
        let request = raw.grpc(path).header("x-large", "x".repeat(17 * 1024));
        assert_eq!(raw.call(request, Bytes::new()).await.status, 431);
    }
    let large = format!(
        "GET /health HTTP/1.1\r\nhost: t\r\nx-large: {}\r\n\r\n",
        "x".repeat(17 * 1024)
    );
    assert_eq!(raw::http1(broker.address, &large).await.0, 431);
}

#[tokio::test]
async fn frames_out_of_place_end_the_stream_or_the_connection() {
    let cases: [(&str, Vec<u8>); 5] = [
        (
            "data on a stream that was never opened",
            attack::frame(DATA, 0, 1, b"x"),
        ),
        (
            "headers on a stream of the server",
            attack::frame(HEADERS, END_HEADERS, 2, &[0x83]),
        ),
        (
            "a continuation of nothing",
            attack::frame(CONTINUATION, END_HEADERS, 1, &[]),
        ),
        (
            "a reset of a stream that was never opened",
            attack::frame(RST_STREAM, 0, 1, &[0; 4]),
        ),
        (
            "a window update of nothing",
            attack::frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
    ];
    for (what, bytes) in cases {
        let broker = Running::start().await;
        let attack = attack(broker.address, &[], &bytes, 0, |_| Vec::new());
        let answer = beside_a_good_client(&broker, attack).await;
        assert!(answer.is_closed, "{what}: {answer:?}");
        assert!(
            answer.goaway.is_none_or(|code| code == PROTOCOL_ERROR),
            "{what}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_compressed_message_is_never_expanded() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut body = frame_of(&[0; 1_000]).to_vec();
    body[0] = 1;
    for path in [PUBLISH, SUBSCRIBE, CHECK, WATCH] {
        for encoding in ["gzip", "zstd", "deflate"] {
            let request = raw.grpc(path).header("grpc-encoding", encoding);
            let status = raw.status_of(request, body.clone().into()).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
        }
    }
}

#[tokio::test]
async fn an_oversized_message_is_refused_by_its_announcement() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    for path in [PUBLISH, SUBSCRIBE, CHECK, WATCH] {
        let mut call = raw.start(raw.grpc(path)).await;
        call.send(&[0, 0x40, 0, 0, 0][..], false);
        let (_, status, _) = call.response().await.finished().await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{path}: {status:?}");
    }
    let mut call = raw.start(raw.grpc(REFLECTION)).await;
    call.send(&[0, 0x40, 0, 0, 0][..], false);
    // tonic's reflection ends its stream at a message that it cannot read, and says no more.
    let (messages, status, _) = call.response().await.finished().await;
    assert_eq!((messages.len(), status.code()), (0, Code::Ok));
}

#[tokio::test]
async fn headers_that_never_end_are_closed_with_the_keepalive() {
    let config = ServerConfig {
        keepalive_interval: SOON,
        keepalive_timeout: 5 * SOON,
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut socket = raw::socket(broker.address, PREFACE).await;
    let settings = attack::frame(attack::SETTINGS, 0, 0, &[]);
    let half = attack::frame(HEADERS, 0, 1, &attack::grpc_request(PUBLISH));
    socket.write_all(&[settings, half].concat()).await.unwrap();
    // No PING can be answered within a header block, so that whoever stays in one answers none.
    raw::read_to_close(socket).await;
    assert_eq!(broker.rejected("keepalive").await, 1);
}

#[tokio::test]
async fn silent_sockets_are_refused_above_half_of_the_handshakes_for_one_address() {
    let config = ServerConfig {
        handshakes_max: 16,
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut reader = subscribe(&broker.client().await, filter("t")).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut silent = Vec::new();
    for said in 0..8 {
        silent.push(raw::socket(broker.address, &PREFACE[..said]).await);
    }
    let refused = raw::socket(broker.address, b"").await;
    assert_eq!(raw::read_to_close(refused).await, b"");
    let metric = "fanfare_rejected_total{limit=\"handshakes\"}";
    assert_eq!(
        crate::support::value_of(&raw.get("/metrics").await.1, metric),
        1
    );
    // Those inside go on.
    assert_eq!(broker.publish("t", "x").delivered, 1);
    assert_eq!(next(&mut reader).await.payload, "x");
    drop(silent);
    let open = "fanfare_connections";
    within(async { while crate::support::value_of(&raw.get("/metrics").await.1, open) != 2 {} })
        .await;
    assert_eq!(broker.get("/health").await.0, 200);
}

#[tokio::test]
async fn one_address_has_a_part_of_the_connections() {
    let config = ServerConfig {
        connections_per_address_max: 2,
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut first = Raw::connect(broker.address).await;
    let second = Raw::connect(broker.address).await;
    let refused = raw::socket(broker.address, b"").await;
    assert_eq!(raw::read_to_close(refused).await, b"");
    let metric = "fanfare_rejected_total{limit=\"connections_per_address\"}";
    let metrics = first.get("/metrics").await.1;
    assert_eq!(crate::support::value_of(&metrics, metric), 1);
    second.kill();
    let open = "fanfare_connections";
    within(async { while crate::support::value_of(&first.get("/metrics").await.1, open) != 1 {} })
        .await;
    assert_eq!(broker.get("/health").await.0, 200);
}

#[tokio::test]
async fn plain_http_floods_harm_nobody() {
    let broker = Running::start().await;
    let attack = async {
        for _ in 0..20 {
            let request = format!("GET {} HTTP/1.1\r\nhost: t\r\n\r\n", "/nope".repeat(100));
            let socket = raw::socket(broker.address, request.repeat(20).as_bytes()).await;
            drop(socket);
            let garbage = raw::socket(broker.address, &[0xff; 10_000]).await;
            raw::read_to_close(garbage).await;
        }
        let url = format!("http://{}/health", broker.address);
        let mut raw = Raw::connect(broker.address).await;
        for _ in 0..1_000 {
            let request = Request::post(&url).header("content-type", "text/plain");
            let response = raw.call(request, Bytes::new()).await;
            assert_eq!(response.status, 405);
        }
    };
    beside_a_good_client(&broker, attack).await;
}

#[tokio::test]
async fn whoever_subscribes_and_floods_is_cut_off_and_its_subscription_is_gone() {
    let broker = Running::start().await;
    let subscription = prost::Message::encode_to_vec(&SubscribeRequest {
        topic: "t".to_owned(),
        ..SubscribeRequest::default()
    });
    let opening = [request(1, SUBSCRIBE), last_message(1, &subscription)].concat();
    let ping = |_| attack::frame(attack::PING, 0, 0, &[0; 8]);
    let flood = attack(broker.address, &[], &opening, 3 * CONTROL_FRAMES_MAX, ping);
    let answer = beside_a_good_client(&broker, flood).await;
    assert!(answer.is_closed);
    broker.until(|s| s.subscriptions == 0).await;
}
