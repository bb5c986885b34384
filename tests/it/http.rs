//! What is served beside publishing and subscribing: HTTP, metrics, health, reflection, and what an
//! embedding program adds.

use axum::{Router, routing::get};
use fanfare::{broker::Limits, server::ServerConfig};
use http::StatusCode;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    raw::{Raw, frame_of, http1, read_to_close, socket},
    support::{Running, filter, message, next, subscribe, value_of, within},
};

const SERVICES: [&str; 3] = ["", "pubsub.v1.PubSubService", "proto.PubSubService"];

async fn channel(broker: &Running) -> Channel {
    let endpoint = tonic::transport::Endpoint::new(broker.url()).unwrap();
    within(endpoint.connect()).await.unwrap()
}

#[tokio::test]
async fn one_port_speaks_http1_and_http2() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    for (path, status, body) in [
        ("/health", 200, "ok\n"),
        ("/ready", 200, "ready\n"),
        ("/nope", 404, ""),
    ] {
        assert_eq!(broker.get(path).await, (status, body.to_owned()), "{path}");
        let (over_http2, text) = raw.get(path).await;
        assert_eq!(
            (over_http2.as_u16(), text.as_str()),
            (status, body),
            "{path}"
        );
    }
    // And gRPC, on the very same connection.
    let mut stream = raw.subscribe(filter("t")).await;
    broker.publish("t", "x");
    assert_eq!(stream.next().await.payload, "x");
}

#[tokio::test]
async fn http1_is_answered_in_http1_also_when_it_is_wrong() {
    let broker = Running::start().await;
    let request =
        "POST /health HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(http1(broker.address, request).await.0, 405);
    assert_eq!(http1(broker.address, "nonsense\r\n\r\n").await.0, 400);
    for (version, hosts, expected) in [
        ("1.1", "", 400),
        ("1.1", "host: a\r\nhost: b\r\n", 400),
        ("1.0", "", 200),
        ("1.0", "host: a\r\nhost: b\r\n", 400),
    ] {
        let request = format!("GET /health HTTP/{version}\r\n{hosts}connection: close\r\n\r\n");
        assert_eq!(
            http1(broker.address, &request).await.0,
            expected,
            "{request}"
        );
    }
}

#[tokio::test]
async fn the_metrics_are_all_there_and_add_up() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let mut stream = subscribe(&client, filter("t")).await;
    for topic in ["t", "t", "nobody"] {
        within(client.publish(message(topic, "12345")))
            .await
            .unwrap();
    }
    next(&mut stream).await;
    next(&mut stream).await;
    let too_large = message("t", &"x".repeat(1_048_577));
    within(client.publish(too_large)).await.unwrap_err();
    let (status, metrics) = broker.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.ends_with("# EOF\n"));
    let expected = [
        ("fanfare_published_messages_total", 3),
        ("fanfare_published_bytes_total", 15),
        ("fanfare_unmatched_messages_total", 1),
        ("fanfare_matched_messages_total", 2),
        ("fanfare_delivered_messages_total", 2),
        ("fanfare_delivered_bytes_total", 10),
        ("fanfare_buffered_bytes_refusals_total", 0),
        ("fanfare_buffered_messages", 0),
        ("fanfare_buffered_bytes", 0),
        ("fanfare_mailbox_depth_max", 0),
        ("fanfare_subscriptions", 1),
        ("fanfare_groups", 0),
        ("fanfare_topics", 1),
        ("fanfare_missed_messages_total{reason=\"drop_newest\"}", 0),
        ("fanfare_missed_messages_total{reason=\"drop_oldest\"}", 0),
        ("fanfare_missed_messages_total{reason=\"disconnect\"}", 0),
        ("fanfare_missed_messages_total{reason=\"stalled\"}", 0),
        ("fanfare_missed_messages_total{reason=\"departed\"}", 0),
        ("fanfare_missed_messages_total{reason=\"shed\"}", 0),
        ("fanfare_rejected_total{limit=\"payload_bytes\"}", 1),
        ("fanfare_connections", 2),
        ("fanfare_connections_accepted_total", 2),
        ("fanfare_streams", 1),
        ("fanfare_publish_duration_seconds_count", 3),
        ("fanfare_build_info{version=\"0.1.0\"}", 1),
    ];
    for (name, value) in expected {
        assert!(metrics.contains(&format!("\n{name} ")), "{name}");
        assert_eq!(value_of(&metrics, name), value, "{name}");
    }
    // Two connections, one of them of HTTP/1.1 with a request, a subscription, and perhaps a topic.
    let memory = value_of(&metrics, "fanfare_memory_bytes") / 1_024;
    let least = 2 * 6 + 24 + 14 + 2;
    assert!((least..least + 10).contains(&memory), "{memory}");
    let types = metrics.lines().filter(|line| line.starts_with("# TYPE "));
    assert_eq!(types.count(), 27, "a new metric belongs in this test");
}

#[tokio::test]
async fn each_connection_is_a_task_which_ends_with_it() {
    let broker = Running::start().await;
    let (_, metrics) = broker.get("/metrics").await;
    let alone = value_of(&metrics, "fanfare_tasks");
    assert!(alone >= 2, "the server and who asks: {alone}");
    let mut guests = Vec::new();
    for _ in 0..5 {
        guests.push(TcpStream::connect(broker.address).await.unwrap());
    }
    broker.until_metric("fanfare_tasks", alone + 5).await;
    drop(guests);
    broker.until_metric("fanfare_tasks", alone).await;
}

#[tokio::test]
async fn health_answers_for_every_service() {
    let broker = Running::start().await;
    let mut health = HealthClient::new(channel(&broker).await);
    let request = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in SERVICES {
        let checked = within(health.check(request(service))).await.unwrap();
        assert_eq!(checked.into_inner().status(), ServingStatus::Serving);
        let watch = within(health.watch(request(service))).await.unwrap();
        let seen = within(watch.into_inner().message()).await.unwrap().unwrap();
        assert_eq!(seen.status(), ServingStatus::Serving);
    }
    let unknown = within(health.check(request("nope"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

/// The names of services that this version of reflection lists.
macro_rules! listed_services {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let requests = tokio_stream::once(request);
        let mut client = ServerReflectionClient::new($channel);
        let answers = within(client.server_reflection_info(requests)).await;
        let answer = within(answers.unwrap().into_inner().next()).await;
        match answer.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => list
                .service
                .into_iter()
                .map(|service| service.name)
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_its_versions() {
    let broker = Running::start().await;
    let v1 = listed_services!(v1, channel(&broker).await);
    let v1alpha = listed_services!(v1alpha, channel(&broker).await);
    for mut services in [v1, v1alpha] {
        services.retain(|name| !name.starts_with("grpc.reflection."));
        services.sort();
        assert_eq!(
            services,
            ["grpc.health.v1.Health", "pubsub.v1.PubSubService"]
        );
    }
}

#[tokio::test]
async fn a_panic_is_answered_and_the_broker_lives_on() {
    let routes = Router::new()
        .route("/panic", get(panics).post(panics))
        .route("/extra", get(async || "extra"));
    let limits = Limits::default();
    let broker = Running::start_with_routes(ServerConfig::default(), limits, routes).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut stream = raw.subscribe(filter("t")).await;
    for sequence in 1..=3 {
        let status = raw.status_of(raw.grpc("/panic"), frame_of(b"")).await;
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("on purpose"), "no internals");
        assert_eq!(raw.get("/panic").await.0, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(broker.get("/panic").await.0, 500);
        // The same connection, its other streams and new connections go on.
        broker.publish("t", "x");
        assert_eq!(stream.next().await.sequence, sequence);
        assert_eq!(broker.get("/extra").await, (200, "extra".to_owned()));
    }
}

async fn panics() -> &'static str {
    panic!("on purpose")
}

#[tokio::test]
async fn a_health_check_that_never_arrives_and_a_watch_past_its_deadline_are_ended() {
    let config = ServerConfig {
        request_timeout: std::time::Duration::from_millis(50),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut raw = Raw::connect(broker.address).await;
    let check = raw.grpc("/grpc.health.v1.Health/Check");
    let never = raw.start(check).await;
    let (_, status, _) = within(never.response()).await.finished().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);

    let mut health = HealthClient::new(channel(&broker).await);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request
        .metadata_mut()
        .insert("grpc-timeout", "100m".parse().unwrap());
    let mut watch = within(health.watch(request)).await.unwrap().into_inner();
    let first = within(watch.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let status = within(watch.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn grpc_needs_http2() {
    let broker = Running::start().await;
    for method in ["Publish", "PublishStream", "Subscribe"] {
        let request = format!(
            "POST /pubsub.v1.PubSubService/{method} HTTP/1.1\r\nhost: t\r\n\
             content-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let answer = read_to_close(socket(broker.address, request.as_bytes()).await).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("grpc-status: 12"), "{answer}");
    }
    assert_eq!(broker.broker.snapshot().subscriptions, 0);
}
