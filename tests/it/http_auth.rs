//! Who calls over plain HTTP and gRPC-Web, and what it may do.

use std::{net::SocketAddr, time::Duration};

use fanfare::{
    auth::{Secret, TokenHash},
    server::ServerConfig,
};
use http::request;
use serde_json::{Value, json};

use crate::{
    auth::{Guarded, JWT, RULES, jwt},
    cli,
    raw::{PUBLISH, SUBSCRIBE, frame},
    support::{filter, message},
    web::{Got, VERSIONS, Version, Web},
};

fn authorized(request: request::Builder, token: &Secret) -> request::Builder {
    request.header("authorization", format!("Bearer {}", token.expose()))
}

/// The error that this is answered.
async fn refused(got: Got, status: u16) -> Value {
    assert_eq!(got.status, status);
    let mut body = got.json().await;
    body["error"].take()
}

#[tokio::test]
async fn the_same_rules_hold_for_every_route() {
    let guarded = Guarded::start(RULES).await;
    for version in VERSIONS {
        let mut web = Web::connect(guarded.address(), version).await;
        let publish = |web: &Web, topic: &str| web.post(&format!("/v1/topics/{topic}"));
        let messages = |web: &Web, topic: &str| web.get(&format!("/v1/topics/{topic}/messages"));
        let events = |web: &Web, topic: &str| web.get(&format!("/v1/events?topic={topic}"));

        for request in [
            publish(&web, "orders.eu"),
            messages(&web, "open"),
            events(&web, "open"),
        ] {
            let got = web.send(request, "x").await;
            assert_eq!(got.header("www-authenticate"), Some("Bearer"));
            let error = refused(got, 401).await;
            assert_eq!(error["code"], "UNAUTHENTICATED");
        }
        for request in [
            publish(&web, "orders.secret.x"),
            messages(&web, "orders.secret.x"),
            // One filter that reaches what is denied is refused as a whole, and so is one of several.
            events(&web, "%3E"),
            events(&web, "open&topic=orders.eu&topic=orders.secret.x"),
        ] {
            let got = web.send(authorized(request, &guarded.alice), "x").await;
            let error = refused(got, 403).await;
            assert_eq!(error["code"], "PERMISSION_DENIED");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with("user `alice` may not "), "{message}");
        }
        let request = authorized(events(&web, "open"), &guarded.alice);
        let mut stream = Web::connect(guarded.address(), version)
            .await
            .send(request, "")
            .await;
        assert_eq!(stream.status, 200);
        guarded.broker.publish("open", "hello");
        assert_eq!(stream.told().await.1, "hello");
        let request = authorized(publish(&web, "orders.eu"), &guarded.alice);
        assert_eq!(web.send(request, "x").await.status, 200);
        // The same connection, another caller.
        let request = authorized(publish(&web, "orders.eu"), &guarded.bob);
        refused(web.send(request, "x").await, 403).await;
    }
    assert_eq!(guarded.broker.broker.snapshot().published, 4);
}

#[tokio::test]
async fn a_token_in_the_query_is_taken_for_events_alone() {
    let guarded = Guarded::start(RULES).await;
    let token = guarded.alice.expose();
    for version in VERSIONS {
        let path = format!("/v1/events?topic=open&access_token={token}");
        let mut stream = Web::connect(guarded.address(), version)
            .await
            .open(&path)
            .await;
        assert_eq!(stream.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(stream.header("cache-control"), Some("no-store"));
        guarded.broker.publish("open", "hello");
        assert_eq!(stream.told().await.1, "hello");

        let mut web = Web::connect(guarded.address(), version).await;
        let path = format!("/v1/topics/open/messages?access_token={token}");
        // Nobody has said who calls yet, so that nothing else is told.
        let error = refused(web.send(web.get(&path), "").await, 401).await;
        assert_eq!(error["code"], "UNAUTHENTICATED");
        let request = authorized(web.get(&path), &guarded.alice);
        let error = refused(web.send(request, "").await, 400).await;
        assert_eq!(error["field"], "access_token");
        let path = format!("/v1/topics/orders.eu?access_token={token}");
        refused(web.send(web.post(&path), "x").await, 401).await;

        for (query, status) in [
            (format!("access_token={}", guarded.bob.expose()), 403),
            // Also to who has seen the end.
            (
                format!("access_token={}&last_event_id=end", guarded.bob.expose()),
                403,
            ),
            ("access_token=wrong".to_owned(), 401),
            ("access_token=".to_owned(), 400),
            (format!("access_token={token}&access_token={token}"), 400),
        ] {
            let path = format!("/v1/events?topic=open&{query}");
            let error = refused(web.send(web.get(&path), "").await, status).await;
            assert!(!error.to_string().contains(token));
        }
        // Which one would count?
        let path = format!("/v1/events?topic=open&access_token={token}");
        let request = authorized(web.get(&path), &guarded.bob);
        refused(web.send(request, "").await, 401).await;
    }
}

#[tokio::test]
async fn without_rules_a_token_in_the_query_is_of_no_matter() {
    let broker = crate::support::Running::start().await;
    let path = "/v1/events?topic=t&access_token=whatever";
    Web::http1(broker.address).await.open(path).await;
}

#[tokio::test]
async fn guesses_are_slowed_over_http_too() {
    let config = ServerConfig {
        guesses_max: 3,
        guess_interval: Duration::from_secs(60),
        ..ServerConfig::default()
    };
    let guarded = Guarded::start_with(config, RULES).await;
    let mut statuses = Vec::new();
    for guess in 0..5 {
        let mut web = Web::http1(guarded.address()).await;
        let path = format!("/v1/events?topic=open&access_token=guess{guess}");
        let got = web.send(web.get(&path), "").await;
        statuses.push(got.status.as_u16());
        if got.status == 429 {
            let after: u64 = got.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&after));
        }
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    assert_eq!(guarded.broker.broker.snapshot().subscriptions, 0);
}

#[tokio::test]
async fn a_stream_ends_when_its_right_does_and_says_so() {
    let guarded = Guarded::start(RULES).await;
    let path = format!(
        "/v1/events?topic=open&access_token={}",
        guarded.alice.expose()
    );
    let mut streams = Vec::new();
    for version in VERSIONS {
        let events = Web::connect(guarded.address(), version)
            .await
            .open(&path)
            .await;
        let mut web = Web::connect(guarded.address(), version).await;
        let request = authorized(web.get("/v1/topics/open/messages"), &guarded.alice);
        streams.push((events, web.send(request, "").await));
    }
    guarded.rewrite(&RULES.replace(r#", "open"]"#, "]"));
    let error = json!({
        "code": "PERMISSION_DENIED",
        "message": "user `alice` may not subscribe to `open`",
    });
    for (mut events, mut lines) in streams {
        let (event, data) = events.told().await;
        assert_eq!(event, "closed");
        assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), error);
        assert_eq!(events.event().await, None);
        assert_eq!(lines.json_line().await.unwrap(), json!({ "error": error }));
        assert_eq!(lines.line().await, None);
    }
    // Who comes back is refused, which EventSource takes for an answer.
    let mut web = Web::http1(guarded.address()).await;
    refused(web.send(web.get(&path), "").await, 403).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_runs_out() {
    let guarded = Guarded::start(JWT).await;
    let token = jwt("alice", Duration::from_secs(2));
    let path = format!("/v1/events?topic=u.alice.x&access_token={}", token.expose());
    let mut events = Web::http1(guarded.address()).await.open(&path).await;
    let (event, data) = events.told().await;
    assert_eq!(event, "closed");
    let told: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(told["code"], "UNAUTHENTICATED");
    assert_eq!(events.event().await, None);
}

#[tokio::test]
async fn rules_hold_in_grpc_web() {
    let guarded = Guarded::start(RULES).await;
    for version in VERSIONS {
        let mut web = Web::connect(guarded.address(), version).await;
        let mut status = async |path: &str, body, token: Option<&Secret>| {
            let mut request = web
                .post(path)
                .header("content-type", "application/grpc-web");
            if let Some(token) = token {
                request = authorized(request, token);
            }
            let got = web.send(request, body).await;
            let status = got.header("grpc-status").map(str::to_owned);
            got.bytes().await;
            status
        };
        let order = || frame(&message("orders.eu", "x"));
        let unauthenticated = Some("16".to_owned());
        assert_eq!(status(PUBLISH, order(), None).await, unauthenticated);
        let denied = Some("7".to_owned());
        assert_eq!(status(PUBLISH, order(), Some(&guarded.bob)).await, denied);
        let subscribe = || frame(&filter("open"));
        assert_eq!(
            status(SUBSCRIBE, subscribe(), Some(&guarded.bob)).await,
            denied
        );
        // Trailers come in the body where there is one.
        assert_eq!(status(PUBLISH, order(), Some(&guarded.alice)).await, None);
    }
}

#[test]
fn no_token_is_in_the_log_whatever_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.toml");
    let token = Secret::new_token().unwrap();
    let hash = TokenHash::of(&token);
    let rules = format!("[users.alice]\ntokens = [\"{hash}\"]\nsubscribe.allow = [\"open\"]");
    std::fs::write(&path, rules).unwrap();
    let auth_file = path.to_str().unwrap();
    let (mut broker, url) = cli::serve(&["--auth-file", auth_file, "--log-level", "trace"]);
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for version in [Version::Http1, Version::Http2] {
            for (query, status) in [
                ("topic=open", 200),
                ("topic=closed", 403),
                ("topic=open&mailbox=0", 400),
                ("topic=open&unknown=1", 400),
            ] {
                let mut web = Web::connect(address, version).await;
                let token = token.expose();
                let path = format!("/v1/events?{query}&access_token={token}");
                assert_eq!(web.send(web.get(&path), "").await.status, status);
                let mut web = Web::connect(address, version).await;
                let path = format!("/nothing/here?access_token={token}");
                assert_eq!(web.send(web.get(&path), "").await.status, 404);
            }
        }
    });
    drop(runtime);
    broker.signal("-TERM");
    let log = broker.rest_of_log();
    assert_eq!(broker.exit_code(), Some(0));
    assert!(
        log.contains("/v1/events"),
        "requests are in a log of everything"
    );
    assert!(!log.contains(token.expose()));
    assert!(!log.contains("access_token"));
}
