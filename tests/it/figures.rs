//! The broker in figures, as JSON and through the client, and the page that shows them.

use fanfare::{
    client::{CallError, Client, ClientOptions, FiguresError},
    message::Message,
    wire::pb::{OverflowPolicy, SubscribeRequest},
};
use serde_json::{Value, json};

use crate::{
    raw::Raw,
    support::{Running, filter, message, next, subscribe, within},
};

async fn client(broker: &Running) -> Client {
    within(Client::connect(&broker.url())).await.unwrap()
}

async fn json(broker: &Running, path: &str) -> (u16, Value) {
    let (status, body) = broker.get(path).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn the_stats_add_up_over_both_versions_of_http() {
    let broker = Running::start().await;
    let mut publisher = broker.client().await;
    let mut stream = subscribe(&publisher, filter("t")).await;
    for topic in ["t", "t", "nobody"] {
        within(publisher.publish(message(topic, "12345")))
            .await
            .unwrap();
    }
    next(&mut stream).await;
    next(&mut stream).await;
    let too_large = message("t", &"x".repeat(1_048_577));
    within(publisher.publish(too_large)).await.unwrap_err();

    let (status, stats) = json(&broker, "/v1/stats").await;
    assert_eq!(status, 200);
    let expected = [
        ("/version", json!(env!("CARGO_PKG_VERSION"))),
        ("/ready", json!(true)),
        ("/published", json!({"messages": 3, "bytes": 15})),
        ("/unmatched_messages", json!(1)),
        ("/matched_messages", json!(2)),
        ("/delivered", json!({"messages": 2, "bytes": 10})),
        ("/missed_messages/drop_newest", json!(0)),
        ("/waiting", json!({"messages": 0, "bytes": 0, "deepest": 0})),
        ("/subscriptions", json!(1)),
        ("/topics", json!(1)),
        ("/rejected", json!({"payload_bytes": 1})),
        ("/limits/payload_bytes_max", json!(1_048_576)),
        ("/limits/connections_max", json!(10_000)),
    ];
    for (path, value) in expected {
        assert_eq!(stats.pointer(path), Some(&value), "{path}: {stats}");
    }
    assert!(stats["uptime_s"].as_f64() > Some(0.0));
    assert!(stats["memory"]["used_bytes"].as_u64() > Some(0));
    assert!(stats["process"]["resident_bytes"].as_u64() > Some(0));

    let read = within(client(&broker).await.stats()).await.unwrap();
    assert_eq!(read.published.messages, 3);
    assert_eq!(read.limits.connections_max, 10_000);
    assert!(read.uptime_s > stats["uptime_s"].as_f64().unwrap());
    broker.shut_down();
}

#[tokio::test]
async fn topics_and_subscribers_are_listed_as_asked_for() {
    let broker = Running::start().await;
    let slow = SubscribeRequest {
        group: "workers".to_owned(),
        tags: vec!["red".to_owned()],
        mailbox_capacity: 2,
        overflow_policy: OverflowPolicy::DropOldest.into(),
        ..filter("orders.*")
    };
    // Takes nothing, but for what flow control lets out at once.
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let _slow = raw.subscribe(slow).await;
    let reader = broker.client().await;
    let mut stream = subscribe(&reader, filter("orders.eu")).await;
    for _ in 0..10 {
        let mut red = Message::new("orders.eu".parse().unwrap(), "42");
        red.tag = Some("red".parse().unwrap());
        broker
            .broker
            .publish(red, std::time::SystemTime::now())
            .unwrap();
        next(&mut stream).await;
    }
    broker.publish("orders.<us>", "x");

    let (_, topics) = json(&broker, "/v1/topics?sort=name").await;
    let row = |topic: &str, sequence: &str, subscribers: u64| {
        let mut rows = topics["topics"].as_array().unwrap().iter();
        let row = rows.find(|row| row["topic"] == topic).unwrap();
        assert_eq!(row["sequence"], sequence);
        assert_eq!(row["subscribers"], subscribers);
        assert!(row["epoch"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    };
    row("orders.<us>", "1", 1);
    row("orders.eu", "10", 2);
    assert_eq!((&topics["total"], &topics["found"]), (&json!(2), &json!(2)));
    assert_eq!(topics["topics"][0]["topic"], "orders.<us>");
    let (_, found) = json(&broker, "/v1/topics?search=%3Cus%3E&limit=5").await;
    assert_eq!((&found["total"], &found["found"]), (&json!(2), &json!(1)));

    let (_, list) = json(&broker, "/v1/subscribers?limit=1").await;
    assert_eq!((&list["total"], &list["found"]), (&json!(2), &json!(2)));
    let rows = list["subscribers"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{list}");
    let expected = [
        ("filters", json!(["orders.*"])),
        ("group", json!("workers")),
        ("tags", json!(["red"])),
        ("overflow", json!("drop_oldest")),
        ("mailbox_capacity", json!(2)),
        ("waiting", json!(2)),
        ("peer", json!("127.0.0.1")),
    ];
    for (name, value) in expected {
        assert_eq!(rows[0][name], value, "{name}: {list}");
    }
    let number = |name: &str| rows[0][name].as_u64().unwrap();
    assert_eq!(number("delivered") + number("missed"), 8, "{list}");
    assert!(number("missed") > 0 && rows[0]["age_s"].as_f64() > Some(0.0));

    let client = client(&broker).await;
    let read = within(client.subscribers("orders.e", 10)).await.unwrap();
    assert_eq!(read.subscribers[0].filters, ["orders.eu"]);
    assert_eq!(read.subscribers[0].delivered, 10);
    let read = within(client.topics("e&u=1", "rate", 10)).await.unwrap();
    assert_eq!((read.total, read.found), (2, 0), "text is text");
}

#[tokio::test]
async fn a_query_that_is_wrong_is_refused_with_the_field_at_fault() {
    let broker = Running::start().await;
    for (path, field) in [
        ("/v1/topics?limit=1001", "limit"),
        ("/v1/topics?limit=-1", "limit"),
        ("/v1/topics?sort=size", "sort"),
        ("/v1/topics?searhc=x", "query"),
        ("/v1/subscribers?sort=rate", "query"),
        ("/v1/stats?limit=1", "query"),
        ("/v1/subscribers?search=a&search=b", "search"),
    ] {
        let (status, body) = json(&broker, path).await;
        assert_eq!(status, 400, "{path}");
        assert_eq!(body["error"]["code"], "INVALID_ARGUMENT", "{path}");
        assert_eq!(body["error"]["field"], field, "{path}");
        let message = body["error"]["message"].as_str().unwrap();
        let named = path.split(['?', '=']).nth(1).unwrap();
        assert!(message.contains(named), "{path}: {message}");
    }
    let error = within(client(&broker).await.topics("", "size", 1)).await;
    let Err(FiguresError::Call(CallError::Unexpected { status })) = error else {
        panic!("{error:?}");
    };
    assert_eq!(status.message(), "sort is one of rate, name");
}

#[tokio::test]
async fn figures_take_a_right_and_the_page_does_not() {
    let rules = r#"
        [users.alice]
        tokens = ["HASH(alice)"]
        rights = ["metrics"]
        [users.bob]
        tokens = ["HASH(bob)"]
    "#;
    let guarded = crate::auth::Guarded::start(rules).await;
    let broker = &guarded.broker;
    let page = broker.get("/").await;
    assert_eq!(page.0, 200);
    for path in ["/v1/stats", "/v1/topics", "/v1/subscribers"] {
        assert_eq!(broker.get(path).await.0, 401, "{path}");
    }
    let client = async |token: &fanfare::auth::Secret| {
        let options = ClientOptions {
            bearer_token: Some(token.expose().parse().unwrap()),
            ..ClientOptions::default()
        };
        within(Client::with_options(&broker.url(), options))
            .await
            .unwrap()
    };
    let alice = client(&guarded.alice).await;
    within(alice.stats()).await.unwrap();
    within(alice.topics("", "rate", 1)).await.unwrap();
    within(alice.subscribers("", 1)).await.unwrap();
    let bob = client(&guarded.bob).await;
    for refused in [
        within(bob.stats()).await.unwrap_err(),
        within(bob.topics("", "rate", 1)).await.unwrap_err(),
        within(bob.subscribers("", 1)).await.unwrap_err(),
    ] {
        let FiguresError::Call(CallError::PermissionDenied { status }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(status.message(), "user `bob` may not use metrics");
    }
}

#[tokio::test]
async fn the_page_allows_its_own_script_and_nothing_else() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let request = http::Request::get(format!("{}/", broker.url()));
    let response = raw.call(request, bytes::Bytes::new()).await;
    let header = |name: &str| response.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("x-content-type-options"), "nosniff");
    let policy = header("content-security-policy");
    for part in [
        "default-src 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "script-src 'sha256-",
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
    assert!(response.text().await.starts_with("<!doctype html>"));
}
