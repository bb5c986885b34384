//! The front door answers our own methods itself and passes all else to a router: what holds for every
//! call must hold on both ways.

use bytes::Bytes;
use fanfare::wire::pb::PublishRequest;
use http::{StatusCode, request};
use prost::Message;
use tonic::Code;

use crate::{
    raw::{PUBLISH, Raw, frame_of},
    support::Running,
};

/// Served by the router.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// What every caller can see of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    http: StatusCode,
    content_type: Option<String>,
    code: Code,
    messages: usize,
}

async fn seen(raw: &mut Raw, request: request::Builder, body: Bytes) -> Seen {
    let response = raw.call(request, body).await;
    let (http, headers) = (response.status, response.headers.clone());
    let content_type = headers.get("content-type");
    let content_type = content_type.map(|value| value.to_str().unwrap().to_owned());
    let (messages, status, _) = response.finished().await;
    Seen {
        http,
        content_type,
        code: status.code(),
        messages: messages.len(),
    }
}

/// A body that each method takes.
fn good(path: &str) -> Vec<u8> {
    let publish = PublishRequest {
        topic: "t".to_owned(),
        ..PublishRequest::default()
    };
    if path == PUBLISH {
        publish.encode_to_vec()
    } else {
        Vec::new()
    }
}

type Head = fn(request::Builder) -> request::Builder;

/// A request for a path, and the body that goes with it.
struct Odd {
    what: &'static str,
    head: Head,
    body: fn(Vec<u8>) -> Bytes,
}

const GOOD: Odd = Odd {
    what: "good",
    head: |head| head,
    body: |good| frame_of(&good),
};

/// The head of a request, of which `raw.grpc` made a good one, without this header.
fn without(head: request::Builder, name: &str) -> request::Builder {
    let mut head = head;
    head.headers_mut().unwrap().remove(name);
    head
}

fn with_content_type(head: request::Builder, value: &'static str) -> request::Builder {
    without(head, "content-type").header("content-type", value)
}

#[tokio::test]
async fn odd_requests_are_answered_alike_on_both_ways() {
    let broker = Running::start().await;
    let heads: [(&str, Head); 8] = [
        ("a codec", |head| {
            with_content_type(head, "application/grpc+proto")
        }),
        ("no te", |head| without(head, "te")),
        ("json", |head| with_content_type(head, "application/json")),
        ("no content type", |head| without(head, "content-type")),
        ("get", |head| head.method("GET")),
        ("put", |head| head.method("PUT")),
        ("a bad timeout", |head| head.header("grpc-timeout", "soon")),
        ("a timeout that is over", |head| {
            head.header("grpc-timeout", "0n")
        }),
    ];
    let odd_heads = heads.map(|(what, head)| Odd { what, head, ..GOOD });
    let compressed = Odd {
        what: "compressed",
        head: |head| head.header("grpc-encoding", "gzip"),
        body: |good| {
            let mut framed = frame_of(&good).to_vec();
            framed[0] = 1;
            framed.into()
        },
    };
    let mut raw = Raw::connect(broker.address).await;
    for odd in odd_heads.into_iter().chain([GOOD, compressed]) {
        let mut answers = Vec::new();
        for path in [PUBLISH, CHECK] {
            let head = (odd.head)(raw.grpc(path));
            answers.push(seen(&mut raw, head, (odd.body)(good(path))).await);
        }
        assert_eq!(answers[0], answers[1], "{}", odd.what);
    }
}

/// The router's methods are tonic's, which has words of its own for what is wrong with a message. What
/// matters is that each is refused, and the connection goes on.
#[tokio::test]
async fn what_is_no_message_is_refused_on_both_ways() {
    let broker = Running::start().await;
    let bodies: [(&[u8], Code, Code); 4] = [
        (&[0, 0, 0, 0, 9, 1], Code::InvalidArgument, Code::Internal),
        (
            &[0, 0, 0, 0, 2, 0xff, 0xff],
            Code::InvalidArgument,
            Code::Internal,
        ),
        (&[], Code::InvalidArgument, Code::Internal),
        (
            &[0, 0xff, 0, 0, 0, 1],
            Code::ResourceExhausted,
            Code::ResourceExhausted,
        ),
    ];
    let mut raw = Raw::connect(broker.address).await;
    for (body, ours, routed) in bodies {
        for (path, expected) in [(PUBLISH, ours), (CHECK, routed)] {
            let head = raw.grpc(path);
            let seen = seen(&mut raw, head, Bytes::from_static(body)).await;
            assert_eq!(
                (seen.code, seen.messages),
                (expected, 0),
                "{path}: {body:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_page_is_no_method() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let head = raw.grpc("/metrics").method("GET");
    let seen = seen(&mut raw, head, Bytes::new()).await;
    assert_eq!((seen.code, seen.messages), (Code::Unimplemented, 0));
}
