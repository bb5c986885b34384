//! Publishing over plain HTTP, and what is refused: each with its status and its JSON.

use std::{collections::HashMap, future::poll_fn, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use fanfare::{broker::Limits, server::ServerConfig};
use http::Request;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::{
    raw::{self, Raw},
    support::{Running, filter, next, subscribe, within},
    web::{VERSIONS, Version, Web},
};

#[tokio::test]
async fn the_body_is_the_payload_and_headers_say_the_rest() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let mut stream = subscribe(&client, filter("orders.*")).await;
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        let request = web
            .post("/v1/topics/orders.eu")
            .header("Fanfare-Tag", "paid")
            .header("Fanfare-Key", "räume 42".as_bytes())
            .header("Fanfare-Id", "mine")
            .header("Fanfare-Attribute-Colour", "grün".as_bytes())
            .header("Fanfare-Attribute-x.y", "")
            .header("Content-Type", "application/octet-stream")
            .header("traceparent", "00-1-2-01")
            .header("tracestate", "a=1")
            .header("tracestate", "b=2");
        let payload: Vec<u8> = (0..=255).collect();
        let got = web.send(request, payload.clone()).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.header("cache-control"), Some("no-store"));
        let outcome = got.json().await;
        let message = next(&mut stream).await;
        let expected = json!({
            "id": "mine",
            "epoch": message.epoch.to_string(),
            "sequence": message.sequence.to_string(),
            "matched": 1,
            "delivered": 1,
            "dropped": 0,
            "displaced": "0",
        });
        assert_eq!(outcome, expected);
        assert_eq!(message.topic, "orders.eu");
        assert_eq!(message.payload, payload);
        assert_eq!(
            (&*message.tag, &*message.key, &*message.id),
            ("paid", "räume 42", "mine")
        );
        let attributes = [
            ("colour", "grün"),
            ("x.y", ""),
            ("content-type", "application/octet-stream"),
            ("traceparent", "00-1-2-01"),
            ("tracestate", "a=1,b=2"),
        ];
        let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(message.attributes, HashMap::from(attributes));
    }
}

#[tokio::test]
async fn an_attribute_that_is_given_wins_over_a_header_that_travels() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let mut stream = subscribe(&client, filter("t")).await;
    let mut web = Web::http1(broker.address).await;
    let request = web
        .post("/v1/topics/t")
        .header("content-type", "text/plain")
        .header("fanfare-attribute-content-type", "mine");
    web.send(request, "x").await;
    let message = next(&mut stream).await;
    assert_eq!(message.attributes["content-type"], "mine");
    // And without a word, there is nothing but the payload, which may be empty.
    let outcome = web.publish("t", "").await;
    let message = next(&mut stream).await;
    assert!(message.attributes.is_empty() && message.payload.is_empty());
    assert_eq!((&*message.tag, &*message.key), ("", ""));
    assert_eq!(outcome["id"], *message.id);
}

#[tokio::test]
async fn a_topic_may_hold_whatever_a_url_can_say() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let mut stream = subscribe(&client, filter(">")).await;
    let mut web = Web::http1(broker.address).await;
    for (path, topic) in [
        ("response:42", "response:42"),
        ("a%2Fb", "a/b"),
        ("r%C3%A4ume.k%C3%BCche", "räume.küche"),
        ("a%3Fb%23c%25", "a?b#c%"),
    ] {
        web.publish(path, "x").await;
        assert_eq!(next(&mut stream).await.topic, topic);
    }
}

#[track_caller]
fn error(code: &str, message: &str, field: Option<&str>) -> impl Fn(&Value, u16) + use<> {
    let mut expected = json!({ "code": code, "message": message });
    if let Some(field) = field {
        expected["field"] = field.into();
    }
    let expected = json!({ "error": expected });
    move |found, status| assert_eq!(*found, expected, "with status {status}")
}

#[tokio::test]
async fn what_would_change_nothing_is_refused() {
    let broker = Running::start().await;
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        for (path, header, field, what) in [
            (
                "/v1/topics/t",
                "fanfare-tags",
                "headers",
                "`fanfare-tags` is not a header of this route",
            ),
            (
                "/v1/topics/t?tag=a",
                "fanfare-tag",
                "query",
                "`tag` is not a parameter of this route",
            ),
        ] {
            let request = web.post(path).header(header, "a");
            let got = web.send(request, "x").await;
            error("INVALID_ARGUMENT", what, Some(field))(&got.json().await, 400);
        }
    }
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn what_the_caller_must_change_is_named() {
    let broker = Running::start().await;
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        let mut check = async |path: &str, headers: &[(&str, &str)], field: &str, message: &str| {
            let mut request = web.post(path);
            for (name, value) in headers {
                request = request.header(*name, value.as_bytes());
            }
            let got = web.send(request, "x").await;
            assert_eq!(got.status, 400, "{path} {headers:?}");
            error("INVALID_ARGUMENT", message, Some(field))(&got.json().await, 400);
        };
        let forbidden = "topic has a blank or control character at byte 1";
        check("/v1/topics/a%20b", &[], "topic", forbidden).await;
        let wildcard = "topic has the wildcard `*` at byte 2: publish to a concrete topic";
        check("/v1/topics/a.*", &[], "topic", wildcard).await;
        let header = |name, value| [(name, value)];
        let path = "/v1/topics/t";
        check(
            path,
            &header("fanfare-tag", "a|b"),
            "fanfare-tag",
            "tag has a forbidden character at byte 1",
        )
        .await;
        check(
            path,
            &[("fanfare-key", "a"), ("fanfare-key", "b")],
            "fanfare-key",
            "fanfare-key is given twice",
        )
        .await;
        check(
            path,
            &header("fanfare-id", "é"),
            "fanfare-id",
            "id has a forbidden character at byte 0",
        )
        .await;
        check(
            path,
            &header("fanfare-end", "yes"),
            "fanfare-end",
            "fanfare-end is one of true, false",
        )
        .await;
        check(
            path,
            &header("fanfare-attribute-", "x"),
            "fanfare-attribute",
            "attribute name is empty",
        )
        .await;
        check(
            path,
            &[("fanfare-attribute-a", "1"), ("fanfare-attribute-a", "2")],
            "fanfare-attribute",
            "fanfare-attribute-a is given twice",
        )
        .await;
        for (name, twice) in [
            ("content-type", "content-type is given twice"),
            ("traceparent", "traceparent is given twice"),
        ] {
            check(path, &[(name, "a"), (name, "b")], name, twice).await;
        }
    }
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn what_is_not_utf8_is_refused_in_a_path_and_in_a_header() {
    let broker = Running::start().await;
    let mut web = Web::http1(broker.address).await;
    let got = web.send(web.post("/v1/topics/%FF"), "x").await;
    assert_eq!(got.status, 400);
    let body = got.json().await;
    assert_eq!(body["error"]["field"], "topic");
    let request = web.post("/v1/topics/t").header("fanfare-key", &b"\xff"[..]);
    let got = web.send(request, "x").await;
    assert_eq!(got.status, 400);
    let expected = error(
        "INVALID_ARGUMENT",
        "fanfare-key is not UTF-8",
        Some("fanfare-key"),
    );
    expected(&got.json().await, 400);
}

/// Some clients take a stream that ends with its answer, while they send, for a broken one.
#[tokio::test(start_paused = true)]
async fn over_http2_who_is_refused_is_told_first_and_sends_for_nobody_for_a_while() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let url = format!("{}/v1/topics/t", broker.url());
    let request = Request::post(url).header("content-length", 2_000_000);
    let (mut body, response) = raw.start(request).await.split();
    let began = tokio::time::Instant::now();
    let response = within(response).await;
    assert_eq!(response.status, 413);
    assert!(response.text().await.contains("2000000 bytes"));
    let told = began.elapsed();
    body.send_data(vec![0; 10_000].into(), false).unwrap();
    let reason = within(poll_fn(|cx| body.poll_reset(cx))).await.unwrap();
    assert_eq!(reason, h2::Reason::NO_ERROR);
    assert!(told < Duration::from_millis(250), "{told:?}");
    assert!(began.elapsed() >= Duration::from_millis(250));
}

#[tokio::test]
async fn what_is_too_large_is_refused_whether_announced_or_not() {
    let limits = Limits {
        payload_bytes_max: 1_000,
        attributes_max: 2,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        let largest = web.publish("t", vec![0; 1_000]).await;
        assert_eq!(largest["matched"], 0);
        let got = web.send(web.post("/v1/topics/t"), vec![0; 1_001]).await;
        assert_eq!(got.status, 413);
        let message = "payload of 1001 bytes exceeds the limit of 1000";
        error("RESOURCE_EXHAUSTED", message, None)(&got.json().await, 413);

        let mut web = Web::connect(broker.address, version).await;
        let (pieces, received) = mpsc::channel(4);
        for _ in 0..2 {
            pieces.send(Bytes::from(vec![0; 600])).await.unwrap();
        }
        // The end does not come: the answer does not wait for it.
        let got = web.send_in_pieces(web.post("/v1/topics/t"), received).await;
        assert_eq!(got.status, 413);
        drop(pieces);
        let body = got.json().await;
        assert_eq!(body["error"]["code"], "RESOURCE_EXHAUSTED");

        let mut web = Web::connect(broker.address, version).await;
        let request = web
            .post("/v1/topics/t")
            .header("fanfare-attribute-a", "")
            .header("fanfare-attribute-b", "")
            .header("fanfare-attribute-c", "");
        let got = web.send(request, "").await;
        assert_eq!(got.status, 431);
        let message = "3 attributes exceed the limit of 2";
        error("RESOURCE_EXHAUSTED", message, None)(&got.json().await, 431);
    }
    assert_eq!(broker.broker.snapshot().published, 2);
    assert_eq!(broker.rejected("payload_bytes").await, 4);
    assert_eq!(broker.rejected("attributes").await, 2);
}

#[tokio::test]
async fn a_body_that_is_encoded_is_refused() {
    let broker = Running::start().await;
    let mut web = Web::http1(broker.address).await;
    let request = web.post("/v1/topics/t").header("content-encoding", "gzip");
    let got = web.send(request, "x").await;
    assert_eq!(got.status, 415);
    let message = "request is compressed: the broker takes `identity` only";
    error("UNIMPLEMENTED", message, None)(&got.json().await, 415);
    let request = web
        .post("/v1/topics/t")
        .header("content-encoding", "identity");
    assert_eq!(web.send(request, "x").await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up_and_gives_its_bytes_back() {
    let config = ServerConfig {
        request_timeout: Duration::from_millis(50),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let idle = broker.broker.snapshot().memory_bytes;
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        let (pieces, received) = mpsc::channel(1);
        pieces.send(Bytes::from(vec![0; 10_000])).await.unwrap();
        let got = web.send_in_pieces(web.post("/v1/topics/t"), received).await;
        assert_eq!(got.status, 408, "{version:?}");
        let message = "request did not arrive within 0.05 s";
        error("DEADLINE_EXCEEDED", message, None)(&got.json().await, 408);
    }
    assert_eq!(broker.rejected("request_timeout").await, 2);
    broker.until(|snapshot| snapshot.memory_bytes <= idle).await;
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn requests_that_arrive_count_for_their_connection_and_for_all() {
    let limits = Limits {
        payload_bytes_max: 100_000,
        ..Limits::default()
    };
    // A connection may have two of the largest requests arriving.
    let config = ServerConfig {
        receiving_bytes_max: 1_000_000,
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, limits).await;
    let web = Web::connect(broker.address, Version::Http2).await;
    let mut held = Vec::new();
    let mut refused = None;
    for _ in 0..5 {
        let (pieces, received) = mpsc::channel(1);
        pieces.send(Bytes::from(vec![0; 90_000])).await.unwrap();
        let request = web.post("/v1/topics/t");
        let mut web = web.another();
        let task = tokio::spawn(async move { web.send_in_pieces(request, received).await });
        held.push((pieces, task));
    }
    for (_, task) in &mut held {
        tokio::select! {
            got = task => {
                let got = got.unwrap();
                assert_eq!(got.status, 429);
                assert_eq!(got.header("retry-after"), Some("1"));
                refused = Some(got.json().await);
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
    let refused = refused.expect("one is too much");
    assert_eq!(refused["error"]["code"], "RESOURCE_EXHAUSTED");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("on this connection"), "{message}");
}

#[tokio::test]
async fn a_connection_publishes_no_faster_than_it_may() {
    let config = ServerConfig {
        publish_rate_max: NonZeroU32::new(2),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        let mut statuses = Vec::new();
        loop {
            let got = web.send(web.post("/v1/topics/t"), "x").await;
            statuses.push(got.status.as_u16());
            if got.status != 200 {
                assert_eq!(got.header("retry-after"), Some("1"));
                let message =
                    "this connection publishes more than 2 messages a second, which is the limit";
                error("RESOURCE_EXHAUSTED", message, None)(&got.json().await, 429);
                break;
            }
        }
        assert_eq!(statuses[..2], [200, 200]);
        assert_eq!(statuses.last(), Some(&429));
    }
}

#[tokio::test]
async fn where_there_is_nothing_an_error_says_so() {
    let broker = Running::start().await;
    let mut web = Web::http1(broker.address).await;
    for path in [
        "/v1/nope",
        "/v1/topic",
        "/v1/topics/a/b",
        "/v1/topics/a/messages/x",
    ] {
        let got = web.send(web.get(path), "").await;
        assert_eq!(got.status, 404, "{path}");
        assert_eq!(got.json().await["error"]["code"], "NOT_FOUND");
    }
    for (method, path, allowed) in [
        ("GET", "/v1/topics/a", "POST"),
        ("DELETE", "/v1/topics/a", "POST"),
        ("POST", "/v1/events", "GET,HEAD"),
        ("POST", "/v1/topics/a/messages", "GET,HEAD"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x");
        let got = web.send(request, "").await;
        assert_eq!(got.status, 405, "{method} {path}");
        assert_eq!(got.header("allow"), Some(allowed));
        assert_eq!(got.json().await["error"]["code"], "UNIMPLEMENTED");
    }
}

#[tokio::test]
async fn a_request_in_progress_is_finished_while_the_broker_drains() {
    let mut broker = Running::start().await;
    let client = broker.client().await;
    let mut stream = subscribe(&client, filter("t")).await;
    let mut web = Web::http1(broker.address).await;
    let (pieces, received) = mpsc::channel(1);
    let request = web.post("/v1/topics/t");
    let publishing = tokio::spawn(async move { web.send_in_pieces(request, received).await });
    pieces.send("half".into()).await.unwrap();
    pieces.reserve().await.unwrap();
    broker.shut_down();
    let ended = within(stream.message()).await.unwrap_err();
    assert_eq!(ended.code(), tonic::Code::Unavailable);
    pieces.send(" and half".into()).await.unwrap();
    drop(pieces);
    let got = within(publishing).await.unwrap();
    assert_eq!(got.status, 200);
    assert_eq!(got.header("connection"), Some("close"));
    broker.stopped().await;
}

#[tokio::test]
async fn as_many_attributes_as_are_allowed_fit_into_a_request() {
    let limits = Limits {
        attributes_max: 200,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        for (count, status) in [(200, 200), (201, 431)] {
            let mut request = web.post("/v1/topics/t");
            for number in 0..count {
                request = request.header(format!("fanfare-attribute-a{number}"), "x");
            }
            let got = web.send(request, "").await;
            assert_eq!(got.status, status, "{version:?}");
            if status == 431 {
                let message = "201 attributes exceed the limit of 200";
                error("RESOURCE_EXHAUSTED", message, None)(&got.json().await, 431);
            } else {
                got.json().await;
            }
        }
    }
}

#[tokio::test]
async fn a_body_in_another_transfer_coding_than_chunks_is_refused() {
    let broker = Running::start().await;
    let ask = async |codings: &str| {
        let request = format!(
            "POST /v1/topics/t HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{codings}\r\n\
             1\r\nx\r\n0\r\n\r\n"
        );
        raw::http1(broker.address, &request).await
    };
    for codings in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
    ] {
        let (status, body) = ask(codings).await;
        assert_eq!(status, 501, "{codings}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"]["code"], "UNIMPLEMENTED");
        assert_eq!(body["error"]["field"], "transfer-encoding");
    }
    assert_eq!(broker.broker.snapshot().published, 0);
    assert_eq!(ask("Transfer-Encoding: Chunked\r\n").await.0, 200);
    assert_eq!(broker.broker.snapshot().published, 1);
}

/// More than sockets hold, so that it only leaves if somebody reads it.
const LARGE: usize = 12 * 1024 * 1024;

#[tokio::test]
async fn over_http1_who_sends_all_before_it_reads_is_told_why_it_is_refused() {
    let broker = Running::start().await;
    for (topic, status) in [("t", "413"), ("a..b", "400")] {
        for framing in ["content-length: 12582912", "transfer-encoding: chunked"] {
            let head = format!("POST /v1/topics/{topic} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
            let mut socket = raw::socket(broker.address, head.as_bytes()).await;
            if framing.ends_with("chunked") {
                socket.write_all(b"c00000\r\n").await.unwrap();
            }
            within(socket.write_all(&vec![b'x'; LARGE])).await.unwrap();
            let mut answer = [0; 12];
            within(socket.read_exact(&mut answer)).await.unwrap();
            assert_eq!(answer, *format!("HTTP/1.1 {status}").as_bytes());
        }
    }
    // And so is who sends too many headers.
    let mut socket = raw::socket(broker.address, b"POST / HTTP/1.1\r\nhost: x\r\n").await;
    within(socket.write_all(&vec![b'x'; LARGE])).await.unwrap();
    let mut answer = [0; 12];
    within(socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *b"HTTP/1.1 431");
}

#[tokio::test]
async fn over_http1_who_is_refused_and_never_stops_sending_is_cut_off() {
    let mut broker = Running::start().await;
    let head = b"POST /v1/topics/t HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n";
    let mut socket = raw::socket(broker.address, head).await;
    let part = vec![b'x'; 1 << 20];
    within(async { while socket.write_all(&part).await.is_ok() {} }).await;
    // A drain waits for none that is refused.
    let _refused = raw::socket(broker.address, head).await;
    broker.until_metric("fanfare_connections", 2).await;
    let began = tokio::time::Instant::now();
    broker.shut_down();
    broker.stopped().await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}
