//! Each limit and each kind of bad input: the exact status, what it says, that it is counted, and
//! that it harms nobody else.

use std::time::Duration;

use bytes::Bytes;
use fanfare::{
    broker::Limits,
    server::ServerConfig,
    wire::pb::{PublishRequest, SubscribeRequest, pub_sub_service_client::PubSubServiceClient},
};
use http::Request;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    raw::{self, PUBLISH, Raw, SUBSCRIBE, frame, frame_of},
    support::{Running, filter, message, next, subscribe, value_of, within},
};

type Client = PubSubServiceClient<Channel>;

async fn publish_status(client: &Client, request: PublishRequest) -> Status {
    within(client.clone().publish(request)).await.unwrap_err()
}

async fn subscribe_status(client: &Client, request: SubscribeRequest) -> Status {
    within(client.clone().subscribe(request)).await.unwrap_err()
}

#[track_caller]
fn check(status: &Status, code: Code, message: &str) {
    assert_eq!((status.code(), status.message()), (code, message));
}

#[track_caller]
fn check_field(status: &Status, field: &str, reason: &str) {
    check(status, Code::InvalidArgument, reason);
    let details = status.get_details_bad_request().unwrap();
    let violations = details.field_violations.iter();
    let violations: Vec<_> = violations
        .map(|violation| (violation.field.as_str(), violation.description.as_str()))
        .collect();
    assert_eq!(violations, [(field, reason)]);
}

async fn start_with_limits(limits: Limits) -> Running {
    Running::start_with(ServerConfig::default(), limits).await
}

#[tokio::test]
async fn a_payload_at_the_limit_arrives_and_one_byte_more_is_refused() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let mut stream = subscribe(&client, filter("t")).await;
    let with_payload = |bytes: usize| PublishRequest {
        payload: vec![b'x'; bytes].into(),
        ..message("t", "")
    };
    let reply = within(client.publish(with_payload(1_048_576))).await;
    assert_eq!(reply.unwrap().into_inner().delivered, 1);
    let status = publish_status(&client, with_payload(1_048_577)).await;
    check(
        &status,
        Code::ResourceExhausted,
        "payload of 1048577 bytes exceeds the limit of 1048576",
    );
    let got = next(&mut stream).await.payload;
    assert!(got.len() == 1_048_576 && got.iter().all(|byte| *byte == b'x'));
    assert_eq!(broker.rejected("payload_bytes").await, 1);
    assert_eq!(broker.broker.snapshot().published, 1);
}

#[tokio::test]
async fn a_request_that_announces_too_much_is_refused_before_it_is_sent() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    for path in [PUBLISH, SUBSCRIBE, "/proto.PubSubService/Publish"] {
        let mut call = raw.start(raw.grpc(path)).await;
        call.send(&[0, 0x40, 0, 0, 0][..], false);
        let (messages, status, _) = call.response().await.finished().await;
        assert_eq!(messages, Vec::<Bytes>::new());
        check(
            &status,
            Code::ResourceExhausted,
            "request of 1073741824 bytes exceeds the limit of 1114112",
        );
    }
    assert_eq!(broker.rejected("request_bytes").await, 3);
}

#[tokio::test]
async fn attributes_are_limited_in_number_and_in_bytes() {
    let limits = Limits {
        attributes_max: 2,
        attributes_bytes_max: 10,
        ..Limits::default()
    };
    let broker = start_with_limits(limits).await;
    let mut client = broker.client().await;
    let with_attributes = |attributes: &[(&str, &str)]| PublishRequest {
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..message("t", "")
    };
    let fits = with_attributes(&[("a", "1234"), ("b", "1234")]);
    within(client.publish(fits)).await.unwrap();
    let too_many = with_attributes(&[("a", ""), ("b", ""), ("c", "")]);
    let status = publish_status(&client, too_many).await;
    let text = "3 attributes exceed the limit of 2";
    check(&status, Code::ResourceExhausted, text);
    let too_large = with_attributes(&[("a", "1234"), ("b", "12345")]);
    let status = publish_status(&client, too_large).await;
    let text = "attributes of 11 bytes exceed the limit of 10";
    check(&status, Code::ResourceExhausted, text);
    assert_eq!(broker.rejected("attributes").await, 1);
    assert_eq!(broker.rejected("attributes_bytes").await, 1);
}

#[tokio::test]
async fn a_malformed_topic_is_named() {
    let broker = Running::start().await;
    let client = broker.client().await;
    for (topic, reason) in [
        ("", "topic is empty"),
        (
            &"x".repeat(256),
            "topic of 256 bytes exceeds the limit of 255",
        ),
        ("a b", "topic has a blank or control character at byte 1"),
        ("a\n", "topic has a blank or control character at byte 1"),
        ("a..b", "topic has an empty token at byte 2"),
        (
            "a.*",
            "topic has the wildcard `*` at byte 2: publish to a concrete topic",
        ),
        (
            ">",
            "topic has the wildcard `>` at byte 0: publish to a concrete topic",
        ),
    ] {
        let status = publish_status(&client, message(topic, "")).await;
        check_field(&status, "topic", reason);
    }
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn a_malformed_field_of_a_message_is_named() {
    type Change = fn(&mut PublishRequest);
    let broker = Running::start().await;
    let client = broker.client().await;
    let cases: [(Change, &str, &str); 6] = [
        (
            |request| request.tag = "a|b".to_owned(),
            "tag",
            "tag has a forbidden character at byte 1",
        ),
        (
            |request| request.key = "k".repeat(256),
            "key",
            "key of 256 bytes exceeds the limit of 255",
        ),
        (
            |request| request.id = "é".to_owned(),
            "id",
            "id has a forbidden character at byte 0",
        ),
        (
            |request| request.id = "i".repeat(129),
            "id",
            "id of 129 bytes exceeds the limit of 128",
        ),
        (
            |request| request.attributes = [(String::new(), String::new())].into(),
            "attributes",
            "attribute name is empty",
        ),
        (
            |request| request.text = "beside a payload".to_owned(),
            "text",
            "both payload and text are set",
        ),
    ];
    for (change, field, reason) in cases {
        let mut request = message("t", "x");
        change(&mut request);
        check_field(&publish_status(&client, request).await, field, reason);
    }
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn a_malformed_field_of_a_subscription_is_named() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let cases: [(SubscribeRequest, &str, &str); 6] = [
        (filter(""), "topic", "topic is empty"),
        (
            filter("a.>.b"),
            "topic",
            "topic filter has `>` at byte 2: it may only be the last token",
        ),
        (
            SubscribeRequest {
                group: "a b".to_owned(),
                ..filter("t")
            },
            "group",
            "group has a forbidden character at byte 1",
        ),
        (
            SubscribeRequest {
                tags: vec!["ok".to_owned(), String::new()],
                ..filter("t")
            },
            "tags",
            "tag is empty",
        ),
        (
            SubscribeRequest {
                overflow_policy: 4,
                ..filter("t")
            },
            "overflow_policy",
            "overflow policy 4 is not known: use 1, 2 or 3",
        ),
        (
            SubscribeRequest {
                overflow_policy: -1,
                ..filter("t")
            },
            "overflow_policy",
            "overflow policy -1 is not known: use 1, 2 or 3",
        ),
    ];
    for (request, field, reason) in cases {
        check_field(&subscribe_status(&client, request).await, field, reason);
    }
    assert_eq!(broker.broker.snapshot().subscriptions, 0);
}

#[tokio::test]
async fn a_heartbeat_interval_outside_the_range_is_refused() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let every = |seconds, nanos| SubscribeRequest {
        heartbeat_interval: Some(prost_types::Duration { seconds, nanos }),
        ..filter("t")
    };
    for inside in [every(5, 0), every(60, 0)] {
        within(client.subscribe(inside)).await.unwrap();
    }
    let field = "heartbeat_interval";
    for (request, reason) in [
        (
            every(4, 999_000_000),
            "heartbeat interval of 4.999 s is outside 5 to 60 s",
        ),
        (
            every(61, 0),
            "heartbeat interval of 61 s is outside 5 to 60 s",
        ),
        (
            every(0, 0),
            "heartbeat interval of 0 s is outside 5 to 60 s",
        ),
    ] {
        check_field(&subscribe_status(&client, request).await, field, reason);
    }
    let negative = subscribe_status(&client, every(-5, 0)).await;
    assert_eq!(negative.code(), Code::InvalidArgument);
    let details = negative.get_details_bad_request().unwrap();
    assert_eq!(details.field_violations[0].field, field);
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_at_once() {
    let config = ServerConfig {
        connections_max: 2,
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut stream = raw.subscribe(filter("t")).await;
    let second = Raw::connect(broker.address).await;
    for _ in 0..3 {
        let refused = raw::socket(broker.address, b"").await;
        assert_eq!(raw::read_to_close(refused).await, b"");
    }
    let (_, metrics) = raw.get("/metrics").await;
    let rejected = "fanfare_rejected_total{limit=\"connections\"}";
    assert_eq!(value_of(&metrics, rejected), 3);
    assert_eq!(value_of(&metrics, "fanfare_connections"), 2);

    // Those inside go on, and a place that becomes free is given to the next.
    broker.publish("t", "x");
    assert_eq!(stream.next().await.payload, "x");
    second.kill();
    within(async { while value_of(&raw.get("/metrics").await.1, "fanfare_connections") != 1 {} })
        .await;
    assert_eq!(broker.get("/health").await.0, 200);
}

#[tokio::test]
async fn subscriptions_above_a_connections_limit_are_refused_and_other_calls_go_on() {
    let config = ServerConfig {
        subscriptions_per_connection_max: 2,
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut client = broker.client().await;
    let mut first = subscribe(&client, filter("t")).await;
    let second = subscribe(&client, filter("t")).await;
    let status = subscribe_status(&client, filter("t")).await;
    check(
        &status,
        Code::ResourceExhausted,
        "2 subscriptions are live on this connection, which is the limit",
    );
    assert_eq!(broker.rejected("subscriptions_per_connection").await, 1);
    // Both names of the service count together.
    let other = subscribe(&broker.client().await, filter("t")).await;
    let reply = within(client.publish(message("t", "x"))).await.unwrap();
    assert_eq!(reply.into_inner().delivered, 3);
    assert_eq!(next(&mut first).await.payload, "x");
    drop((second, other));
    broker.until(|s| s.subscriptions == 1).await;
    let mut third = subscribe(&client, filter("t")).await;
    broker.publish("t", "y");
    assert_eq!(next(&mut third).await.payload, "y");
}

#[tokio::test]
async fn subscriptions_above_the_brokers_limit_are_refused() {
    let limits = Limits {
        subscriptions_max: 2,
        ..Limits::default()
    };
    let broker = start_with_limits(limits).await;
    let first = subscribe(&broker.client().await, filter("t")).await;
    let _second = subscribe(&broker.client().await, filter("t")).await;
    let client = broker.client().await;
    let status = subscribe_status(&client, filter("t")).await;
    check(
        &status,
        Code::ResourceExhausted,
        "2 subscriptions are live, which is the limit",
    );
    assert_eq!(broker.rejected("subscriptions").await, 1);
    drop(first);
    broker.until(|s| s.subscriptions == 1).await;
    subscribe(&client, filter("t")).await;
}

#[tokio::test]
async fn tags_of_a_subscription_are_limited() {
    let limits = Limits {
        tags_max: 2,
        ..Limits::default()
    };
    let broker = start_with_limits(limits).await;
    let mut client = broker.client().await;
    let with_tags = |tags: &[&str]| SubscribeRequest {
        tags: tags.iter().map(ToString::to_string).collect(),
        ..filter("t")
    };
    within(client.subscribe(with_tags(&["a", "b"])))
        .await
        .unwrap();
    let status = subscribe_status(&client, with_tags(&["a", "b", "c"])).await;
    let text = "3 tags exceed the limit of 2";
    check(&status, Code::ResourceExhausted, text);
    assert_eq!(broker.rejected("tags").await, 1);
}

#[tokio::test]
async fn a_request_that_is_not_exactly_one_message_is_refused() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let one = frame(&message("t", "x"));
    let two = [&one[..], &one].concat();
    let cases: [(&[u8], &str); 4] = [
        (b"", "request has no message: send exactly one message"),
        (
            &one[..4],
            "request has no message: send exactly one message",
        ),
        (
            &one[..one.len() - 1],
            "request has a part of a message: send exactly one message",
        ),
        (
            &two,
            "request has more than one message: send exactly one message",
        ),
    ];
    for path in [PUBLISH, SUBSCRIBE] {
        for (body, text) in cases {
            let body = Bytes::copy_from_slice(body);
            let status = raw.status_of(raw.grpc(path), body).await;
            check(&status, Code::InvalidArgument, text);
        }
    }
    let snapshot = broker.broker.snapshot();
    assert_eq!((snapshot.published, snapshot.subscriptions), (0, 0));
}

#[tokio::test]
async fn bytes_that_are_no_protobuf_message_are_refused() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    // A field that ends too early, a wire type that does not exist, a topic that is not UTF-8.
    let bodies: [&[u8]; 3] = [&[0x0a, 9, b'x'], &[0xff, 0xff, 0xff], &[0x0a, 1, 0xff]];
    for path in [PUBLISH, SUBSCRIBE] {
        for body in bodies {
            let status = raw.status_of(raw.grpc(path), frame_of(body)).await;
            assert_eq!(status.code(), Code::InvalidArgument);
            let text = status.message();
            assert!(
                text.starts_with("request is not a valid message: "),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn a_compressed_request_is_unimplemented() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut body = frame(&message("t", "x")).to_vec();
    body[0] = 1;
    let request = raw.grpc(PUBLISH).header("grpc-encoding", "gzip");
    let status = raw.status_of(request, body.into()).await;
    check(
        &status,
        Code::Unimplemented,
        "request is compressed: the broker takes `identity` only",
    );
    // The header alone says nothing of this message, whose flag says `identity`.
    let request = raw.grpc(PUBLISH).header("grpc-encoding", "gzip");
    let status = raw.status_of(request, frame(&message("t", "x"))).await;
    assert_eq!(status.code(), Code::Ok);
}

#[tokio::test]
async fn an_unknown_method_or_service_is_unimplemented() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    for path in [
        "/pubsub.v1.PubSubService/Nope",
        "/pubsub.v1.Nope/Publish",
        "/proto.PubSubService/publish",
        "/grpc.health.v1.Health/Nope",
        "/",
    ] {
        let status = raw.status_of(raw.grpc(path), frame_of(b"")).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_grpc_is_answered_in_http() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let url = |path: &str| format!("http://{}{path}", broker.address);
    for path in [PUBLISH, SUBSCRIBE] {
        let request = Request::post(url(path)).header("content-type", "application/json");
        let response = raw.call(request, Bytes::from_static(b"{}")).await;
        assert_eq!(response.status, 415);
        let request = Request::post(url(path));
        assert_eq!(raw.call(request, Bytes::new()).await.status, 415);
        assert_eq!(raw.get(path).await.0, 405);
    }
    let request = raw.grpc(PUBLISH);
    let response = raw.call(request, frame(&message("t", "x"))).await;
    assert_eq!(response.headers["content-type"], "application/grpc");
    let request = Request::post(url(PUBLISH)).header("content-type", "application/grpc+proto");
    let status = raw.status_of(request, frame(&message("t", "x"))).await;
    assert_eq!(status.code(), Code::Ok);
}

#[tokio::test]
async fn a_malformed_deadline_is_refused() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    for path in [PUBLISH, SUBSCRIBE] {
        for value in ["5", "1.5S", "123456789S", "soon", ""] {
            let request = raw.grpc(path).header("grpc-timeout", value);
            let status = raw.status_of(request, frame(&message("t", "x"))).await;
            check(
                &status,
                Code::InvalidArgument,
                &format!(
                    "grpc-timeout `{value}` is not valid: use up to 8 digits and one of H, M, S, m, u, n"
                ),
            );
        }
    }
}

#[tokio::test]
async fn the_callers_deadline_ends_a_subscription() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let started = tokio::time::Instant::now();
    let request = raw.grpc(SUBSCRIBE).header("grpc-timeout", "500m");
    let stream = raw.call(request, frame(&filter("t"))).await;
    broker.publish("t", "in time");
    let (responses, status, _) = stream.responses().await;
    assert!(started.elapsed() >= Duration::from_millis(500));
    let payloads: Vec<_> = responses.iter().map(|r| r.payload.clone()).collect();
    assert_eq!(payloads, ["in time"]);
    check(
        &status,
        Code::DeadlineExceeded,
        "the caller's deadline ended the stream",
    );
    broker.until(|s| s.subscriptions == 0).await;
}

#[tokio::test]
async fn a_request_whose_body_never_arrives_runs_into_a_deadline() {
    let config = ServerConfig {
        request_timeout: Duration::from_millis(250),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut raw = Raw::connect(broker.address).await;
    let whole = frame(&message("t", "x"));
    for path in [PUBLISH, SUBSCRIBE] {
        for part in [&whole[..0], &whole[..3], &whole[..whole.len() - 1]] {
            let mut ours = raw.start(raw.grpc(path)).await;
            ours.send(part.to_vec(), false);
            let request = raw.grpc(path).header("grpc-timeout", "50m");
            let mut callers = raw.start(request).await;
            callers.send(part.to_vec(), false);
            let (_, status, _) = callers.response().await.finished().await;
            let text = "the caller's deadline passed before the request had arrived";
            check(&status, Code::DeadlineExceeded, text);
            let (_, status, _) = ours.response().await.finished().await;
            let text = "request did not arrive within 0.25 s";
            check(&status, Code::DeadlineExceeded, text);
        }
    }
    assert_eq!(broker.rejected("request_timeout").await, 6);
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn bad_input_harms_nobody_else_on_the_connection() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut stream = raw.subscribe(filter("t")).await;
    let bad: [(&str, Bytes); 5] = [
        (PUBLISH, Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])),
        (PUBLISH, frame_of(&[0xff; 100])),
        (PUBLISH, frame(&message("a b", "x"))),
        (SUBSCRIBE, frame(&filter("..."))),
        ("/nope", Bytes::from_static(b"nope")),
    ];
    for round in 1..=20 {
        for (path, body) in &bad {
            let status = raw.status_of(raw.grpc(path), body.clone()).await;
            assert_ne!(status.code(), Code::Ok);
        }
        let mut broken_off = raw.start(raw.grpc(PUBLISH)).await;
        broken_off.send(&[0, 0, 0, 0, 9, 1][..], false);
        broken_off.cancel();
        let status = raw
            .status_of(raw.grpc(PUBLISH), frame(&message("t", "good")))
            .await;
        assert_eq!(status.code(), Code::Ok);
        let response = stream.next().await;
        assert_eq!((response.sequence, response.missed), (round, 0));
    }
}

#[tokio::test]
async fn headers_above_the_limit_are_refused() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut stream = raw.subscribe(filter("t")).await;
    let request = raw.grpc(PUBLISH).header("x-large", "x".repeat(17 * 1024));
    let response = raw.call(request, frame(&message("t", "x"))).await;
    assert_eq!(response.status, 431);
    broker.publish("t", "x");
    assert_eq!(stream.next().await.payload, "x");
}
