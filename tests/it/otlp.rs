//! Spans, as a collector gets them: a small one in this process, and the built broker beside it.

use std::{collections::HashMap, sync::Arc};

use axum::{Router, body::Body, extract::State, routing::post};
use bytes::Bytes;
use fanfare::{
    broker::Limits,
    client::{Client, PublisherOptions},
    message::Message,
    server::ServerConfig,
    topic::TopicFilter,
    wire::pb::{PublishRequest, pub_sub_service_client::PubSubServiceClient},
};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use prost::Message as _;
use tonic::Request;

use crate::{
    cli,
    raw::frame_of,
    support::{Running, message, within},
};

/// What OTLP says of spans, as far as it is looked at here: `opentelemetry/proto/trace/v1/trace.proto`.
mod opentelemetry {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Export {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_spans: Vec<ResourceSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub(super) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(int32, tag = "6")]
        pub(super) kind: i32,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(message, optional, tag = "15")]
        pub(super) status: Option<Status>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(string, tag = "2")]
        pub(super) message: String,
        #[prost(int32, tag = "3")]
        pub(super) code: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub(super) text: Option<String>,
        #[prost(int64, optional, tag = "3")]
        pub(super) int: Option<i64>,
    }
}

const KIND_SERVER: i32 = 2;
const STATUS_ERROR: i32 = 2;
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

type Exports = Arc<Mutex<Vec<opentelemetry::Export>>>;

/// A collector that keeps what it is sent. Any server of HTTP/2 will do, and we have one.
async fn collector() -> (Running, Exports) {
    let exports = Exports::default();
    let routes = Router::new()
        .route(EXPORT, post(export))
        .with_state(Arc::clone(&exports));
    let config = ServerConfig::default();
    let collector = Running::start_with_routes(config, Limits::default(), routes).await;
    (collector, exports)
}

async fn export(State(exports): State<Exports>, request: Bytes) -> Response<Body> {
    exports
        .lock()
        .push(opentelemetry::Export::decode(&request[5..]).unwrap());
    let ok = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(0))]);
    let frames = [Frame::data(frame_of(b"")), Frame::trailers(ok)];
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(Body::new(StreamBody::new(tokio_stream::iter(frames))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}

/// One span, by what is looked at.
#[derive(Debug, PartialEq)]
struct Seen {
    name: String,
    trace: String,
    parent: String,
    topic: Option<String>,
    outcome: Result<Option<i64>, String>,
}

fn seen(span: &opentelemetry::Span) -> Seen {
    assert_eq!(span.kind, KIND_SERVER, "{span:?}");
    let attributes = span.attributes.iter();
    let attributes: HashMap<_, _> = attributes
        .map(|attribute| (attribute.key.as_str(), attribute.value.clone().unwrap()))
        .collect();
    let text = |name: &str| attributes.get(name).and_then(|value| value.text.clone());
    assert_eq!(text("messaging.system").as_deref(), Some("fanfare"));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let failed = span
        .status
        .as_ref()
        .filter(|status| status.code == STATUS_ERROR);
    Seen {
        name: span.name.clone(),
        trace: hex(&span.trace_id),
        parent: hex(&span.parent_span_id),
        topic: text("messaging.destination.name").or(text("messaging.destination.template")),
        outcome: match failed {
            Some(status) => Err(status.message.clone()),
            None => Ok(attributes
                .get("fanfare.matched")
                .and_then(|value| value.int)),
        },
    }
}

/// A `traceparent` of the trace that is this digit all over.
fn traceparent(trace: char, sampled: bool) -> String {
    let trace = trace.to_string().repeat(32);
    format!("00-{trace}-00f067aa0ba902b7-0{}", u8::from(sampled))
}

fn traced(topic: &str, trace: char, sampled: bool) -> PublishRequest {
    let attributes = [("traceparent".to_owned(), traceparent(trace, sampled))];
    PublishRequest {
        attributes: attributes.into(),
        ..message(topic, "x")
    }
}

/// All spans that came, each of the service that the broker calls itself.
fn all_seen(exports: &[opentelemetry::Export]) -> Vec<Seen> {
    let mut all = Vec::new();
    for spans in exports.iter().flat_map(|export| &export.resource_spans) {
        let attributes = &spans.resource.as_ref().unwrap().attributes;
        let name = attributes.iter().find(|it| it.key == "service.name");
        let name = name.and_then(|name| name.value.as_ref()).unwrap();
        assert_eq!(name.text.as_deref(), Some("fanfare"));
        let spans = spans.scope_spans.iter().flat_map(|scope| &scope.spans);
        all.extend(spans.map(seen));
    }
    all
}

/// Publishes to a topic each: with a trace in an attribute, in a header, none, one not sampled, and too much.
async fn publish_singly(url: String) {
    let mut rpc = within(PubSubServiceClient::connect(url)).await.unwrap();
    within(rpc.publish(traced("a.attribute", '1', true)))
        .await
        .unwrap();
    let mut by_header = Request::new(message("a.header", "x"));
    let header = traceparent('2', true).parse().unwrap();
    by_header.metadata_mut().insert("traceparent", header);
    within(rpc.publish(by_header)).await.unwrap();
    within(rpc.publish(message("nobody", "x"))).await.unwrap();
    within(rpc.publish(traced("a.unsampled", '3', false)))
        .await
        .unwrap();
    let mut too_large = traced("a.large", '4', true);
    too_large.payload = vec![0; 1_048_577].into();
    within(rpc.publish(too_large)).await.unwrap_err();
}

/// Publishes on one stream a message without a trace and one with.
async fn publish_streaming(client: &Client) {
    let publisher = client.publisher(PublisherOptions::default());
    let mut publisher = within(publisher).await.unwrap();
    for (topic, trace) in [
        ("a.plain", None),
        ("a.stream", Some(traceparent('5', true))),
    ] {
        let mut message = Message::new(topic.parse().unwrap(), "x");
        message.attributes = trace
            .into_iter()
            .map(|trace| ("traceparent".parse().unwrap(), trace))
            .collect();
        within(publisher.send(message)).await.unwrap();
    }
    within(publisher.flush()).await.unwrap();
}

// The collector goes on while the test waits for the broker's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_calls_are_children_of_the_spans_that_callers_were_in() {
    let (collector, exports) = collector().await;
    let (mut broker, url) = cli::serve(&["--otlp-endpoint", &collector.url()]);
    let client = within(Client::connect(&url)).await.unwrap();
    let filter: TopicFilter = "a.*".parse().unwrap();
    let mut subscription = within(client.subscribe(filter)).await.unwrap();
    publish_singly(url).await;
    publish_streaming(&client).await;
    within(subscription.next()).await.unwrap().unwrap();

    drop((subscription, client));
    broker.signal("-TERM");
    assert_eq!(broker.exit_code(), Some(0));
    let all = all_seen(&exports.lock());
    let find = |topic: &str| {
        let mut found = all
            .iter()
            .filter(|span| span.topic.as_deref() == Some(topic));
        let span = found.next();
        assert!(found.next().is_none(), "two spans for {topic}");
        span
    };
    for (topic, trace) in [("a.attribute", '1'), ("a.header", '2'), ("a.stream", '5')] {
        let span = find(topic).unwrap_or_else(|| panic!("no span for {topic} in {all:?}"));
        assert_eq!(span.name, "publish");
        assert_eq!(span.trace, trace.to_string().repeat(32));
        assert_eq!(span.parent, "00f067aa0ba902b7");
        assert_eq!(span.outcome, Ok(Some(1)));
    }
    let root = find("nobody").unwrap();
    assert_eq!((&*root.parent, &root.outcome), ("", &Ok(Some(0))));
    let failed = find("a.large").unwrap();
    let reason = "payload of 1048577 bytes exceeds the limit of 1048576";
    assert_eq!(failed.outcome, Err(reason.to_owned()));
    // Whoever decided at the beginning of the trace that it is not looked at is obeyed.
    assert_eq!(find("a.unsampled"), None);
    assert_eq!(find("a.plain"), None, "one that nobody traces, on a stream");
    let subscribed = find("a.*").unwrap();
    assert_eq!((&*subscribed.name, &*subscribed.parent), ("subscribe", ""));
    assert_eq!(all.len(), 6, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_the_broker_serves_and_ends_all_the_same() {
    // Nobody listens there: it was somebody's port a moment ago.
    let gone = Running::start().await.address;
    let (mut broker, url) = cli::serve(&["--otlp-endpoint", &format!("http://{gone}")]);
    let client = within(Client::connect(&url)).await.unwrap();
    let message = Message::new("t".parse().unwrap(), "x");
    within(client.publish(message)).await.unwrap();
    drop(client);
    broker.signal("-TERM");
    assert_eq!(broker.exit_code(), Some(0));
    let log = broker.rest_of_log();
    assert!(log.contains("BatchSpanProcessor.ExportError"), "{log}");
}
