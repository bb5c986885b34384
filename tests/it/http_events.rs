//! Server-sent events and lines of JSON: what a live stream looks like, and how it ends.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use fanfare::{
    broker::{Limits, MissReason},
    message::Message,
    server::ServerConfig,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    raw::{SUBSCRIBE, frame, frame_of, read_to_close, socket},
    support::{Running, filter, within},
    web::{Block, Event, VERSIONS, Version, Web},
};

async fn start_with(config: ServerConfig) -> Running {
    Running::start_with(config, Limits::default()).await
}

/// A stream of events, live.
async fn open(broker: &Running, version: Version, path: &str) -> crate::web::Got {
    Web::connect(broker.address, version).await.open(path).await
}

#[tokio::test]
async fn a_stream_of_events_says_what_it_is_and_when_to_come_back() {
    let broker = Running::start().await;
    for version in VERSIONS {
        let mut events = open(&broker, version, "/v1/events?topic=t").await;
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("fanfare-mailbox-capacity", "1024"),
            ("fanfare-mailbox-bytes", "8388608"),
            ("fanfare-head-sequence", "0"),
        ] {
            assert_eq!(events.header(name), Some(value), "{name}");
        }
        assert!(events.header("fanfare-epoch").is_some());
        let Some(Block::Retry(retry)) = events.block().await else {
            panic!("the first thing is when to come back");
        };
        assert!((1_000..=3_000).contains(&retry), "{retry}");
        broker.publish("t", "x");
        let event = Event {
            event: "message".into(),
            data: "x".into(),
            // The topic has no history: there is nothing to go on from.
            id: String::new(),
        };
        assert_eq!(events.block().await, Some(Block::Event(event)));
        drop(events);
        broker.until(|snapshot| snapshot.subscriptions == 0).await;
        broker.broker.age_topics();
        broker.broker.age_topics();
    }
}

#[tokio::test]
async fn text_arrives_as_it_was_and_all_else_in_base64() {
    let broker = Running::start().await;
    let mut text = open(&broker, Version::Http1, "/v1/events?topic=t").await;
    let mut base64 = open(&broker, Version::Http2, "/v1/events?topic=t&base64=true").await;
    for payload in [
        "plain",
        "",
        " leading and trailing blanks ",
        "two\nlines",
        "\n",
        "ends with a line\n",
        "\n\nempty lines\n\n\n",
        "data: not a field",
        "id: 42\nevent: end\nretry: 0\n\ndata: x",
        ": no comment",
        "räume 🦀 \u{feff}\u{2028}\u{0}",
    ] {
        broker.publish("t", payload);
        let message = |data: String| ("message".to_owned(), data);
        assert_eq!(text.told().await, message(payload.to_owned()));
        let encoded = BASE64_STANDARD.encode(payload);
        assert_eq!(base64.told().await, message(encoded));
    }
    for payload in [&b"\xff\xfe"[..], b"a\r\nb", b"\r", &[0xc3; 1_000]] {
        broker.publish("t", payload);
        let encoded = BASE64_STANDARD.encode(payload);
        assert_eq!(text.told().await, ("base64".to_owned(), encoded.clone()));
        assert_eq!(base64.told().await, ("message".to_owned(), encoded));
    }
    assert_eq!(text.last_id(), "", "nothing in a payload is an id");
}

#[tokio::test]
async fn a_payload_too_large_to_be_shared_by_copy_arrives_all_the_same() {
    let broker = Running::start().await;
    let mut text = open(&broker, Version::Http1, "/v1/events?topic=t").await;
    let mut lines = open(&broker, Version::Http2, "/v1/topics/t/messages").await;
    let large = "a line of a large payload\n".repeat(20_000);
    broker.publish("t", large.as_str());
    broker.publish("t", "after it");
    assert_eq!(text.told().await.1, large);
    assert_eq!(text.told().await.1, "after it");
    assert_eq!(lines.json_line().await.unwrap()["payload"], large);
    assert_eq!(lines.json_line().await.unwrap()["payload"], "after it");
}

/// A message with all that one can have, and as JSON what of it depends on no clock.
fn full_message() -> (Message, Value) {
    let mut message = Message::new("orders.eu".parse().unwrap(), "two\n\"lines\"");
    message.tag = Some("paid".parse().unwrap());
    message.key = Some("räume".parse().unwrap());
    message.id = Some("mine".parse().unwrap());
    let attributes = [("colour", "grün"), ("empty", "")];
    message.attributes = attributes
        .map(|(name, value)| (name.parse().unwrap(), value.to_owned()))
        .into_iter()
        .collect();
    let json = json!({
        "topic": "orders.eu",
        "sequence": "1",
        "id": "mine",
        "time": "2033-05-18T03:33:20.000000007Z",
        "tag": "paid",
        "key": "räume",
        "attributes": { "colour": "grün", "empty": "" },
        "payload": "two\n\"lines\"",
    });
    (message, json)
}

#[tokio::test]
async fn as_json_a_message_has_all_that_it_has_in_grpc() {
    let broker = Running::start().await;
    let mut events = open(
        &broker,
        Version::Http1,
        "/v1/events?topic=orders.*&format=json",
    )
    .await;
    let mut lines = open(&broker, Version::Http1, "/v1/topics/orders.%3E/messages").await;
    let path = "/v1/events?topic=orders.eu&format=json&base64=true";
    let mut base64 = open(&broker, Version::Http1, path).await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.header("cache-control"), Some("no-store"));
    let (message, mut json) = full_message();
    let at = SystemTime::UNIX_EPOCH + Duration::new(2_000_000_000, 7);
    let receipt = broker.broker.publish(message, at).unwrap();
    json["epoch"] = receipt.epoch.0.to_string().into();
    let (event, data) = events.told().await;
    assert_eq!(event, "message");
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), json);
    assert_eq!(lines.json_line().await.unwrap(), json);
    let object = json.as_object_mut().unwrap();
    object.remove("payload");
    object.insert("payload_base64".into(), "dHdvCiJsaW5lcyI=".into());
    let data = base64.told().await.1;
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), json);

    // And what a message does not have is not there.
    let receipt = broker.publish("orders.x", &b"\xff"[..]);
    let line = lines.json_line().await.unwrap();
    assert_eq!(line["id"], *receipt.id());
    let names: Vec<_> = line.as_object().unwrap().keys().collect();
    let expected = ["epoch", "id", "payload_base64", "sequence", "time", "topic"];
    assert_eq!(names, expected);
    assert_eq!(line["payload_base64"], "/w==");
}

#[tokio::test]
async fn tags_and_groups_choose_as_in_grpc() {
    let broker = Running::start().await;
    let mut red = open(
        &broker,
        Version::Http1,
        "/v1/events?topic=t&tag=red&tag=blue",
    )
    .await;
    let path = "/v1/topics/t/messages?group=g&mailbox=7";
    let mut one = open(&broker, Version::Http1, path).await;
    let mut other = open(&broker, Version::Http2, path).await;
    assert_eq!(one.header("fanfare-mailbox-capacity"), Some("7"));
    for (payload, tag) in [
        ("1", None),
        ("2", Some("red")),
        ("3", Some("green")),
        ("4", Some("blue")),
    ] {
        let mut message = Message::new("t".parse().unwrap(), payload);
        message.tag = tag.map(|tag| tag.parse().unwrap());
        broker.broker.publish(message, SystemTime::now()).unwrap();
    }
    assert_eq!(red.told().await.1, "2");
    assert_eq!(red.told().await.1, "4");
    let mut shared = Vec::new();
    for lines in [&mut one, &mut other] {
        for _ in 0..2 {
            let line = lines.json_line().await.unwrap();
            shared.push(line["payload"].as_str().unwrap().to_owned());
        }
    }
    shared.sort_unstable();
    assert_eq!(shared, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_message_that_several_filters_match_is_one_event() {
    let broker = Running::start().await;
    for version in VERSIONS {
        let path = "/v1/events?topic=a.*&topic=a.b&topic=%3E&topic=x";
        let mut events = open(&broker, version, path).await;
        for (topic, payload) in [("a.b", "1"), ("x", "2"), ("y", "3"), ("a.c", "4")] {
            let receipt = broker.publish(topic, payload);
            assert_eq!((receipt.matched, receipt.delivered), (1, 1));
            assert_eq!(events.told().await.1, payload);
        }
        drop(events);
        broker.until(|snapshot| snapshot.subscriptions == 0).await;
    }
    let filters: Vec<_> = (0..65).map(|count| format!("topic=t{count}")).collect();
    let path = format!("/v1/events?{}", filters.join("&"));
    let mut web = Web::http1(broker.address).await;
    let got = web.send(web.get(&path), "").await;
    assert_eq!(got.status, 429);
    let message = "65 filters exceed the limit of 64";
    let error = json!({ "code": "RESOURCE_EXHAUSTED", "message": message });
    assert_eq!(got.json().await, json!({ "error": error }));
    assert_eq!(broker.rejected("filters").await, 1);
}

#[tokio::test]
async fn silence_is_filled_with_comments_and_for_who_asks_with_empty_lines() {
    let config = ServerConfig {
        sse_heartbeat_interval: Duration::from_millis(20),
        heartbeat_interval: Duration::from_millis(10)..=Duration::from_secs(60),
        ..ServerConfig::default()
    };
    let broker = start_with(config).await;
    for version in VERSIONS {
        let mut events = open(&broker, version, "/v1/events?topic=t").await;
        assert!(matches!(events.block().await, Some(Block::Retry(_))));
        for _ in 0..3 {
            assert_eq!(events.block().await, Some(Block::Comment));
        }
        let path = "/v1/topics/t/messages?heartbeat=10ms";
        let mut lines = open(&broker, version, path).await;
        for _ in 0..3 {
            assert_eq!(lines.line().await.unwrap(), "");
        }
    }
}

#[tokio::test]
async fn a_query_that_is_wrong_is_refused_by_name() {
    let broker = Running::start().await;
    let mut web = Web::http1(broker.address).await;
    let mut check = async |path: &str, field: &str, message: &str| {
        let got = web.send(web.get(path), "").await;
        assert_eq!(got.status, 400, "{path}");
        let error = json!({ "code": "INVALID_ARGUMENT", "message": message, "field": field });
        assert_eq!(got.json().await, json!({ "error": error }), "{path}");
    };
    let no_topic = "say what to subscribe to, such as topic=orders.*";
    check("/v1/events", "topic", no_topic).await;
    check("/v1/events?topic=", "topic", "topic is empty").await;
    check(
        "/v1/topics/a..b/messages",
        "topic",
        "topic has an empty token at byte 2",
    )
    .await;
    check("/v1/events?topic=t&tag=", "tag", "tag is empty").await;
    let choices = "overflow is one of drop_newest, drop_oldest, disconnect";
    check("/v1/events?topic=t&overflow=block", "overflow", choices).await;
    let zero = "mailbox is 0: it must be more";
    check("/v1/events?topic=t&mailbox=0", "mailbox", zero).await;
    let number = "mailbox is a whole number, 0 or more";
    for wrong in ["many", "-1", ""] {
        let path = format!("/v1/events?topic=t&mailbox={wrong}");
        check(&path, "mailbox", number).await;
    }
    // Not even as a character that stands for what is none.
    for (wrong, what) in [
        ("topic=%ff", "`topic`"),
        ("topic=a.%C3+b", "`topic`"),
        ("topic=t&tag=%ed%a0%80", "`tag`"),
        ("%FF=t", "the name of a parameter"),
    ] {
        let path = format!("/v1/events?{wrong}");
        check(&path, "query", &format!("{what} is not UTF-8")).await;
    }
    let twice = "mailbox is given twice";
    check("/v1/events?topic=t&mailbox=1&mailbox=2", "mailbox", twice).await;
    let unit = "heartbeat is a time with its unit, such as 15s";
    check("/v1/events?topic=t&heartbeat=15", "heartbeat", unit).await;
    let bounds = "heartbeat interval of 1 s is outside 5 to 60 s";
    check("/v1/events?topic=t&heartbeat=1s", "heartbeat", bounds).await;
    let format = "format is one of text, json";
    check("/v1/events?topic=t&format=xml", "format", format).await;
    let start = "start is now, all, last:N, a time such as 2026-01-31T12:00:00Z, or a cursor";
    for wrong in ["soon", "last:", "last:-1", "2026-01-31", "12:00", "1-2"] {
        check(&format!("/v1/events?topic=t&start={wrong}"), "start", start).await;
    }
    let cursor = "cursor is malformed: it is to be given back as it came";
    check(
        "/v1/events?topic=t&last_event_id=x",
        "last_event_id",
        cursor,
    )
    .await;
    for (path, name) in [
        ("/v1/events?topic=t&Topic=x", "Topic"),
        ("/v1/events?topic=t&group=g", "group"),
        ("/v1/topics/t/messages?format=json", "format"),
        ("/v1/topics/t/messages?topic=t", "topic"),
    ] {
        let unknown = format!("`{name}` is not a parameter of this route");
        check(path, "query", &unknown).await;
    }
    assert_eq!(broker.broker.snapshot().subscriptions, 0);
}

#[tokio::test]
async fn more_subscriptions_than_a_connection_may_hold_are_refused() {
    let config = ServerConfig {
        subscriptions_per_connection_max: 1,
        ..ServerConfig::default()
    };
    let broker = start_with(config).await;
    let mut web = Web::connect(broker.address, Version::Http2).await;
    let live = web.open("/v1/events?topic=t").await;
    let got = web.send(web.get("/v1/topics/t/messages"), "").await;
    assert_eq!(got.status, 429);
    let message = "1 subscriptions are live on this connection, which is the limit";
    let error = json!({ "code": "RESOURCE_EXHAUSTED", "message": message });
    assert_eq!(got.json().await, json!({ "error": error }));
    assert_eq!(broker.rejected("subscriptions_per_connection").await, 1);
    drop(live);
    broker.until(|snapshot| snapshot.subscriptions == 0).await;
    web.open("/v1/events?topic=t").await;
}

#[tokio::test]
async fn a_reader_that_leaves_is_gone_at_once() {
    let broker = Running::start().await;
    let request = b"GET /v1/events?topic=t HTTP/1.1\r\nhost: x\r\n\r\n";
    let socket = socket(broker.address, request).await;
    broker.until(|snapshot| snapshot.subscriptions == 1).await;
    drop(socket);
    broker.until(|snapshot| snapshot.subscriptions == 0).await;
    let mut web = Web::connect(broker.address, Version::Http2).await;
    let live = web.open("/v1/events?topic=t").await;
    broker.until(|snapshot| snapshot.subscriptions == 1).await;
    drop(live);
    broker.until(|snapshot| snapshot.subscriptions == 0).await;
    // The connection itself goes on.
    assert_eq!(web.publish("t", "x").await["matched"], 0);
}

#[tokio::test]
async fn a_reader_that_sent_more_before_it_left_is_gone_all_the_same() {
    let broker = Running::start().await;
    for path in ["/v1/events?topic=t", "/v1/topics/t/messages"] {
        // An empty line too many, and another request.
        for more in ["\r\n", "GET /health HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n{more}");
            let socket = socket(broker.address, request.as_bytes()).await;
            broker.until(|snapshot| snapshot.subscriptions == 1).await;
            drop(socket);
            broker.until(|snapshot| snapshot.subscriptions == 0).await;
        }
    }
}

#[tokio::test]
async fn a_reader_whose_request_is_odd_is_gone_when_it_leaves() {
    let broker = Running::start().await;
    let grpc_web = |path: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc-web\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body, b"\r\n"].concat()
    };
    let get = |more: &str| {
        let head = "GET /v1/topics/t/messages HTTP/1.1\r\nhost: x\r\n";
        format!("{head}{more}").into_bytes()
    };
    let subscribe = grpc_web(SUBSCRIBE, &frame(&filter("t")));
    for request in [
        get("connection: close\r\n\r\n\r\n"),
        get("content-length: 5\r\n\r\nabcde\r\n"),
        get("content-length: 5\r\n\r\n"),
        get("content-length: 5\r\n\r\nab"),
        get(&format!(
            "content-length: 500000\r\n\r\n{}",
            "x".repeat(1_000)
        )),
        get("transfer-encoding: chunked\r\n\r\n5\r\nab"),
        get("transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\r\n"),
        get("content-length: 5\r\nexpect: 100-continue\r\n\r\n"),
        subscribe,
    ] {
        for is_late in [false, true] {
            let mut socket = socket(broker.address, &request).await;
            broker.until(|snapshot| snapshot.subscriptions == 1).await;
            if is_late {
                // What was sent is read by now.
                let mut answer = [0; 12];
                within(socket.read_exact(&mut answer)).await.unwrap();
                assert_eq!(answer, *b"HTTP/1.1 200");
                socket.write_all(b"\r\n").await.unwrap();
            }
            drop(socket);
            broker.until(|snapshot| snapshot.subscriptions == 0).await;
        }
    }
    // Who goes on and on is not waited for.
    let mut endless = socket(broker.address, &get("\r\n\r\n")).await;
    broker.until(|snapshot| snapshot.subscriptions == 1).await;
    within(endless.write_all(&[b'\n'; 1 << 16])).await.unwrap();
    broker.until(|snapshot| snapshot.subscriptions == 0).await;
    drop(endless);
    // Who watches health has no subscription, but a connection.
    let watch = grpc_web("/grpc.health.v1.Health/Watch", &frame_of(b""));
    let mut socket = socket(broker.address, &watch).await;
    let mut answer = [0; 12];
    within(socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *b"HTTP/1.1 200");
    broker.until_metric("fanfare_connections", 2).await;
    drop(socket);
    broker.until_metric("fanfare_connections", 1).await;
}

#[tokio::test]
async fn a_request_behind_one_that_ends_is_answered_next() {
    let broker = Running::start().await;
    let events = "GET /v1/events?topic=t HTTP/1.1\r\nhost: x\r\n\r\n";
    let health = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut socket = socket(broker.address, events.as_bytes()).await;
    broker.until(|snapshot| snapshot.subscriptions == 1).await;
    // The broker has read the first and waits: this comes in a packet of its own, in two.
    let (first, second) = health.split_at(20);
    for part in ["\r\n", first, second] {
        within(socket.write_all(part.as_bytes())).await.unwrap();
    }
    let mut web = Web::http1(broker.address).await;
    let request = web.post("/v1/topics/t").header("fanfare-end", "true");
    assert_eq!(web.send(request, "last").await.status, 200);
    let answers = String::from_utf8(read_to_close(socket).await).unwrap();
    assert!(answers.contains("data: last"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
}

/// Large enough that few fill the buffers of sockets.
fn large() -> Vec<u8> {
    vec![b'x'; 1 << 19]
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed_before_what_follows() {
    let broker = Running::start().await;
    let path = "/v1/events?topic=t&mailbox=2";
    let mut events = open(&broker, Version::Http1, path).await;
    let path = "/v1/topics/t/messages?mailbox=2";
    let mut lines = open(&broker, Version::Http1, path).await;
    // Neither is read from: what lies in between fills up, and then their mailboxes.
    let mut dropped = 0;
    while dropped < 10 {
        dropped += u64::from(broker.publish("t", large()).dropped);
        tokio::task::yield_now().await;
    }
    broker.publish("t", "last");
    let published = broker.broker.snapshot().published;
    let count = async {
        let (mut received, mut missed) = (0, 0);
        while received + missed < published {
            match events.event().await.unwrap() {
                Event { event, data, .. } if event == "missed" => {
                    let told: Value = serde_json::from_str(&data).unwrap();
                    missed += told["missed"].as_u64().unwrap();
                }
                _ => received += 1,
            }
        }
        (received, missed)
    };
    let (received, missed) = count.await;
    assert!(missed > 0);
    let (mut lines_received, mut lines_missed) = (0, 0);
    while lines_received + lines_missed < published {
        let line = lines.json_line().await.unwrap();
        match line["missed"].as_u64() {
            Some(count) => lines_missed += count,
            None => lines_received += 1,
        }
    }
    let ledger = broker.broker.snapshot().ledger;
    assert_eq!(ledger.delivered, received + lines_received);
    assert_eq!(ledger.missed.iter().sum::<u64>(), missed + lines_missed);
    assert_eq!(ledger.matched, 2 * published);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_ended_like_any_other() {
    let config = ServerConfig {
        stall_timeout: Duration::from_millis(200),
        ..ServerConfig::default()
    };
    let broker = start_with(config).await;
    for version in VERSIONS {
        let connections = broker.metric("fanfare_connections").await;
        let web = &mut Web::connect(broker.address, version).await;
        let mut events = web.open("/v1/events?topic=t").await;
        while broker.broker.snapshot().ledger.buffered < 3 {
            broker.publish("t", large());
            tokio::task::yield_now().await;
        }
        let snapshot = broker.until(|snapshot| snapshot.subscriptions == 0).await;
        let stalled = MissReason::ALL
            .iter()
            .position(|reason| *reason == MissReason::Stalled)
            .unwrap();
        assert!(snapshot.ledger.missed[stalled] > 0);
        // Who comes back within the grace is told why; then the stream is let go of, with all that was on
        // its way.
        match version {
            Version::Http1 => {
                broker
                    .until_metric("fanfare_connections", connections)
                    .await
            }
            Version::Http2 => broker.until_metric("fanfare_streams", 0).await,
        }
        broker.until(|snapshot| snapshot.buffered_bytes == 0).await;
        loop {
            match events.piece().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => break,
                None => panic!("a stream that is cut off does not end in order"),
            }
        }
    }
    assert_eq!(broker.rejected("stalled").await, 2);
}

#[tokio::test]
async fn a_reader_that_overflows_and_wants_to_be_cut_off_is_told_so() {
    let broker = Running::start().await;
    let path = "/v1/events?topic=t&mailbox=1&overflow=disconnect";
    let mut events = open(&broker, Version::Http1, path).await;
    let path = "/v1/topics/t/messages?mailbox=1&overflow=disconnect";
    let mut lines = open(&broker, Version::Http1, path).await;
    while broker.broker.snapshot().ledger.missed.iter().sum::<u64>() < 2 {
        broker.publish("t", large());
        tokio::task::yield_now().await;
    }
    let message = "the mailbox overflowed and its policy is to disconnect: read faster, or ask for \
                   another policy or a larger mailbox";
    let error = json!({ "code": "RESOURCE_EXHAUSTED", "message": message });
    let mut seen = Vec::new();
    while let Some(event) = events.event().await {
        seen.push(event);
    }
    let last = seen.pop().unwrap();
    assert_eq!(last.event, "closed");
    assert_eq!(serde_json::from_str::<Value>(&last.data).unwrap(), error);
    let missed = seen.pop().unwrap();
    assert_eq!(missed.event, "missed");
    let mut last = Value::Null;
    while let Some(line) = lines.json_line().await {
        last = line;
    }
    assert_eq!(last, json!({ "error": error }));
}

#[tokio::test]
async fn on_drain_a_stream_ends_after_what_its_mailbox_holds_and_says_why() {
    for version in VERSIONS {
        let mut broker = Running::start().await;
        let mut events = open(&broker, version, "/v1/events?topic=t").await;
        let mut lines = open(&broker, version, "/v1/topics/t/messages").await;
        for count in 0..100 {
            broker.publish("t", count.to_string());
        }
        broker.shut_down();
        for count in 0..100 {
            assert_eq!(events.told().await.1, count.to_string());
            let line = lines.json_line().await.unwrap();
            assert_eq!(line["payload"], count.to_string());
        }
        let error = json!({ "code": "UNAVAILABLE", "message": "the broker is shutting down" });
        let (event, data) = events.told().await;
        assert_eq!(event, "closed");
        assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), error);
        assert_eq!(events.event().await, None);
        assert_eq!(lines.json_line().await.unwrap(), json!({ "error": error }));
        assert_eq!(lines.line().await, None);
        within(broker.stopped()).await;
    }
}

#[tokio::test]
async fn over_http1_a_connection_serves_on_after_a_stream_has_ended() {
    let config = ServerConfig {
        // So short that a lifeline that outlives its stream would cut the connection.
        stall_timeout: Duration::from_millis(50),
        ..ServerConfig::default()
    };
    let broker = start_with(config).await;
    let mut web = Web::http1(broker.address).await;
    let path = "/v1/topics/t/messages?mailbox=1&overflow=disconnect";
    let mut lines = web.open(path).await;
    while broker.broker.snapshot().subscriptions > 0 {
        broker.publish("t", large());
        broker.broker.tick(1_000);
        tokio::task::yield_now().await;
    }
    while lines.line().await.is_some() {}
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(web.publish("t", "x").await["matched"], 0);
}
