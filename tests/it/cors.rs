//! Web pages of other origins: which may use the broker, and how a browser is told.

use fanfare::{broker::Limits, server::ServerConfig};
use http::{Request, StatusCode};
use serde_json::json;

use crate::{
    raw::{PUBLISH, frame},
    support::{Running, message},
    web::{Got, VERSIONS, Version, Web},
};

const PAGE: &str = "https://page.example";

async fn allowing(origins: &[&str]) -> Running {
    let config = ServerConfig {
        cors_origins: origins
            .iter()
            .map(|origin| origin.parse().unwrap())
            .collect(),
        ..ServerConfig::default()
    };
    Running::start_with(config, Limits::default()).await
}

async fn preflight(web: &mut Web, path: &str, origin: &str) -> Got {
    let request = Request::options(web.get(path).body(()).unwrap().uri())
        .header("host", "broker")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type,fanfare-attribute-colour,x-grpc-web",
        );
    web.send(request, "").await
}

#[tokio::test]
async fn a_page_of_another_origin_can_do_nothing_unless_it_is_allowed() {
    for (broker, origin) in [
        (allowing(&[]).await, PAGE),
        (allowing(&["https://other.example"]).await, PAGE),
        (allowing(&["https://other.example"]).await, "null"),
    ] {
        for version in VERSIONS {
            let mut web = Web::connect(broker.address, version).await;
            for request in [
                web.post("/v1/topics/t"),
                web.get("/v1/events?topic=t"),
                web.get("/v1/topics/t/messages"),
            ] {
                let got = web.send(request.header("origin", origin), "x").await;
                assert_eq!(got.status, 403);
                assert_eq!(got.header("access-control-allow-origin"), None);
                let message = format!(
                    "web pages of {origin} may not use this broker: its operator can allow them \
                     (--cors-origin)"
                );
                let error =
                    json!({ "code": "PERMISSION_DENIED", "message": message, "field": "origin" });
                assert_eq!(got.json().await, json!({ "error": error }));
            }
        }
        let snapshot = broker.broker.snapshot();
        assert_eq!((snapshot.published, snapshot.subscriptions), (0, 0));
    }
}

#[tokio::test]
async fn markup_of_another_site_joins_no_group_and_the_page_can_be_linked_to() {
    for allowed in [&[][..], &["https://other.example"]] {
        let broker = allowing(allowed).await;
        let mut web = Web::http1(broker.address).await;
        for path in ["/v1/topics/jobs/messages?group=w", "/v1/events?topic=jobs"] {
            let request = web.get(path).header("sec-fetch-site", "cross-site");
            let got = web.send(request, "").await;
            assert_eq!(got.status, 403, "{path}");
            let error = &got.json().await["error"];
            assert_eq!(error["code"], "PERMISSION_DENIED");
        }
        assert_eq!(broker.broker.snapshot().subscriptions, 0);
        let link = web.get("/").header("sec-fetch-site", "cross-site");
        assert_eq!(web.send(link, "").await.status, 200);
    }
}

#[tokio::test]
async fn a_page_of_another_origin_calls_nothing_in_grpc_web_and_a_program_may_say_what_it_likes() {
    let broker = allowing(&["https://other.example"]).await;
    let call = async |version, content_type: &str, path: &str, header: (&str, &str)| {
        let mut web = Web::connect(broker.address, version).await;
        let request = web
            .post(path)
            .header("content-type", content_type)
            .header("te", "trailers")
            .header(header.0, header.1);
        web.send(request, frame(&message("t", "x"))).await
    };
    let foreign = [("origin", PAGE), ("sec-fetch-site", "cross-site")];
    let own = broker.url();
    for version in VERSIONS {
        for content_type in ["application/grpc-web+proto", "application/grpc-web-text"] {
            for path in [PUBLISH, "/grpc.health.v1.Health/Check"] {
                for header in foreign {
                    let got = call(version, content_type, path, header).await;
                    assert_eq!(got.status, 403, "{path}");
                    assert_eq!(got.header("access-control-allow-origin"), None);
                    let error = &got.json().await["error"];
                    assert_eq!(error["code"], "PERMISSION_DENIED");
                }
            }
        }
        assert_eq!(broker.broker.snapshot().published, 0);
    }
    let mut published = 0;
    for (version, content_type, header) in [
        (Version::Http1, "application/grpc-web", ("origin", &*own)),
        (Version::Http1, "application/grpc-web", ("x-grpc-web", "1")),
        (
            Version::Http2,
            "application/grpc-web",
            ("origin", "https://other.example"),
        ),
        (Version::Http2, "application/grpc", ("origin", PAGE)),
    ] {
        let got = call(version, content_type, PUBLISH, header).await;
        assert_eq!(got.status, 200, "{header:?}");
        published += 1;
        assert_eq!(broker.broker.snapshot().published, published, "{header:?}");
    }
    // Health and reflection take the other way through the door.
    let health = "/grpc.health.v1.Health/Check";
    let got = call(Version::Http2, "application/grpc", health, ("origin", PAGE)).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.header("content-type"), Some("application/grpc"));
}

#[tokio::test]
async fn without_an_allowed_origin_a_preflight_allows_nothing() {
    let broker = Running::start().await;
    let mut web = Web::http1(broker.address).await;
    for path in ["/v1/topics/t", "/v1/events", PUBLISH] {
        let got = preflight(&mut web, path, PAGE).await;
        assert_ne!(got.status, StatusCode::OK, "{path}");
        assert_eq!(got.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn an_allowed_page_is_told_what_it_may() {
    for (broker, allowed) in [
        (allowing(&["https://other.example", PAGE]).await, PAGE),
        (allowing(&["*"]).await, "*"),
    ] {
        for version in VERSIONS {
            let mut web = Web::connect(broker.address, version).await;
            for path in ["/v1/topics/t", "/v1/events?topic=t", PUBLISH] {
                let got = preflight(&mut web, path, PAGE).await;
                assert_eq!(got.status, 200);
                assert_eq!(got.header("access-control-allow-origin"), Some(allowed));
                assert_eq!(got.header("access-control-allow-methods"), Some("GET,POST"));
                assert_eq!(
                    got.header("access-control-allow-headers"),
                    Some("authorization,content-type,fanfare-attribute-colour,x-grpc-web")
                );
                assert_eq!(got.header("access-control-max-age"), Some("7200"));
                assert_eq!(got.header("access-control-allow-credentials"), None);
                // One at a time, for the connection's sake.
                got.text().await;
            }
            let request = web.post("/v1/topics/t").header("origin", PAGE);
            let got = web.send(request, "x").await;
            assert_eq!(got.status, 200);
            assert_eq!(got.header("access-control-allow-origin"), Some(allowed));
            got.text().await;
            // Errors can be read, too.
            let request = web.post("/v1/topics/a..b").header("origin", PAGE);
            let got = web.send(request, "x").await;
            assert_eq!(got.status, 400);
            assert_eq!(got.header("access-control-allow-origin"), Some(allowed));
            got.text().await;
            let request = web
                .post(PUBLISH)
                .header("origin", PAGE)
                .header("content-type", "application/grpc-web");
            let got = web.send(request, frame(&message("t", "x"))).await;
            assert_eq!(got.header("access-control-allow-origin"), Some(allowed));
            let exposed = got.header("access-control-expose-headers").unwrap();
            for name in [
                "grpc-status",
                "grpc-message",
                "fanfare-epoch",
                "retry-after",
            ] {
                assert!(
                    exposed.split(',').any(|it| it == name),
                    "{name} in {exposed}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_the_brokers_own_origin_needs_no_leave() {
    let broker = Running::start().await;
    let mut web = Web::connect(broker.address, Version::Http1).await;
    let request = web.post("/v1/topics/t").header("origin", broker.url());
    assert_eq!(web.send(request, "x").await.status, 200);
}
