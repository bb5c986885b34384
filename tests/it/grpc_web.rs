//! gRPC-Web: the same methods for browsers, in both encodings, over HTTP/1.1 and HTTP/2.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use fanfare::{
    server::ServerConfig,
    wire::pb::{PublishResponse, SubscribeResponse},
};
use http::HeaderMap;
use prost::Message;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::{
    raw::{PUBLISH, SUBSCRIBE, frame, frame_of},
    support::{Running, filter, message},
    web::{Got, VERSIONS, Version, Web},
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const TRAILERS: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Binary,
    Text,
}

const ENCODINGS: [Encoding; 2] = [Encoding::Binary, Encoding::Text];

/// A call's answer, read frame by frame.
struct Answer {
    got: Got,
    encoding: Encoding,
    text: BytesMut,
    received: BytesMut,
}

/// What a body holds.
#[derive(Debug)]
enum Part {
    Message(Bytes),
    Trailers(HeaderMap),
}

async fn call(web: &mut Web, encoding: Encoding, path: &str, body: Bytes) -> Answer {
    let (content_type, body) = match encoding {
        Encoding::Binary => ("application/grpc-web+proto", body),
        Encoding::Text => {
            let text = Bytes::from(BASE64_STANDARD.encode(body));
            ("application/grpc-web-text", text)
        }
    };
    let request = web.post(path).header("content-type", content_type);
    let got = web.send(request, body).await;
    assert_eq!(got.status, 200);
    let answered = got.header("content-type").unwrap();
    assert_eq!(
        answered.strip_suffix("+proto").unwrap(),
        match encoding {
            Encoding::Binary => "application/grpc-web",
            Encoding::Text => "application/grpc-web-text",
        }
    );
    Answer {
        got,
        encoding,
        text: BytesMut::new(),
        received: BytesMut::new(),
    }
}

impl Answer {
    /// The next part; `None` at the end of the body.
    async fn part(&mut self) -> Option<Part> {
        loop {
            if self.received.len() >= 5 {
                let bytes = (&self.received[1..5]).get_u32() as usize;
                if self.received.len() >= 5 + bytes {
                    let flag = self.received.get_u8();
                    self.received.advance(4);
                    let part = self.received.split_to(bytes).freeze();
                    return Some(match flag {
                        0 => Part::Message(part),
                        TRAILERS => Part::Trailers(trailers(&part)),
                        flag => panic!("what is {flag}?"),
                    });
                }
            }
            match self.got.piece().await {
                Some(piece) => self.take(&piece.unwrap()),
                None => {
                    assert!(self.received.is_empty() && self.text.is_empty());
                    return None;
                }
            }
        }
    }

    fn take(&mut self, piece: &[u8]) {
        if self.encoding == Encoding::Binary {
            self.received.extend_from_slice(piece);
            return;
        }
        self.text.extend_from_slice(piece);
        // Padding may come anywhere: each group of four is decoded on its own.
        while self.text.len() >= 4 {
            let group = self.text.split_to(4);
            let decoded = BASE64_STANDARD.decode(&group).unwrap();
            self.received.extend_from_slice(&decoded);
        }
    }

    async fn message<M: Message + Default>(&mut self) -> M {
        match self.part().await.expect("the stream goes on") {
            Part::Message(bytes) => M::decode(bytes).unwrap(),
            Part::Trailers(trailers) => panic!("ended: {trailers:?}"),
        }
    }

    /// The status that ends the answer, with what it came in.
    async fn status(mut self) -> (Status, HeaderMap) {
        let Some(part) = self.part().await else {
            let headers = self.got.headers;
            return (Status::from_header_map(&headers).unwrap(), headers);
        };
        let Part::Trailers(trailers) = part else {
            panic!("goes on with {part:?}");
        };
        assert!(self.part().await.is_none(), "trailers come last");
        (Status::from_header_map(&trailers).unwrap(), trailers)
    }
}

fn trailers(lines: &[u8]) -> HeaderMap {
    let lines = std::str::from_utf8(lines).unwrap();
    let pairs = lines.split_terminator("\r\n").map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        assert_eq!(name, name.to_ascii_lowercase());
        (name.parse().unwrap(), value.trim().parse().unwrap())
    });
    pairs.collect()
}

#[tokio::test]
async fn a_browser_publishes_and_subscribes_in_both_encodings_over_both_versions() {
    let broker = Running::start().await;
    for version in VERSIONS {
        for encoding in ENCODINGS {
            let web = &mut Web::connect(broker.address, version).await;
            let mut stream = call(web, encoding, SUBSCRIBE, frame(&filter("t"))).await;
            assert_eq!(stream.got.header("fanfare-mailbox-capacity"), Some("1024"));
            let other = &mut Web::connect(broker.address, version).await;
            let request = frame(&message("t", "hello"));
            let mut answer = call(other, encoding, PUBLISH, request).await;
            let outcome: PublishResponse = answer.message().await;
            assert_eq!((outcome.matched, outcome.delivered), (1, 1));
            assert_eq!(answer.status().await.0.code(), Code::Ok);
            let received: SubscribeResponse = stream.message().await;
            assert_eq!(received.payload, "hello");
            assert_eq!(received.id, outcome.id);
            for count in 0..100 {
                broker.publish("t", count.to_string());
            }
            for count in 0..100 {
                let received: SubscribeResponse = stream.message().await;
                assert_eq!(received.payload, count.to_string());
            }
            drop(stream);
            broker.until(|snapshot| snapshot.subscriptions == 0).await;
        }
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_with_the_status_that_grpc_has() {
    let broker = Running::start().await;
    let version = VERSIONS.into_iter();
    for (version, encoding) in version.flat_map(|v| ENCODINGS.map(|e| (v, e))) {
        let check = async |path: &str, body: Bytes, code: Code, text: &str| {
            let web = &mut Web::connect(broker.address, version).await;
            let answer = call(web, encoding, path, body).await;
            let (status, _) = answer.status().await;
            assert_eq!((status.code(), status.message()), (code, text), "{path}");
        };
        let invalid = Code::InvalidArgument;
        let empty = "topic is empty";
        check(PUBLISH, frame(&message("", "x")), invalid, empty).await;
        check(SUBSCRIBE, frame(&filter("")), invalid, empty).await;
        let none = "request has no message: send exactly one message";
        check(PUBLISH, Bytes::new(), invalid, none).await;
        let large = frame(&message("t", &"x".repeat(1_048_577)));
        let limit = "payload of 1048577 bytes exceeds the limit of 1048576";
        check(PUBLISH, large, Code::ResourceExhausted, limit).await;
        let path = "/pubsub.v1.PubSubService/PublishStream";
        let stream = "gRPC-Web has no client streams: call Publish, or use gRPC";
        check(path, frame_of(b""), Code::Unimplemented, stream).await;
        let path = "/pubsub.v1.PubSubService/Unsubscribe";
        let unknown = "the broker has no method /pubsub.v1.PubSubService/Unsubscribe";
        check(path, frame_of(b""), Code::Unimplemented, unknown).await;
    }
    let mut web = Web::http1(broker.address).await;
    let request = web
        .post(PUBLISH)
        .header("content-type", "application/grpc-web-text");
    let got = web.send(request, "no base64!").await;
    let status = Status::from_header_map(&got.headers).unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "request is not valid base64");
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test]
async fn health_answers_in_grpc_web_too() {
    let broker = Running::start().await;
    for version in VERSIONS {
        for encoding in ENCODINGS {
            let web = &mut Web::connect(broker.address, version).await;
            let request = HealthCheckRequest::default();
            let mut answer = call(web, encoding, HEALTH, frame(&request)).await;
            let health: HealthCheckResponse = answer.message().await;
            assert_eq!(health.status, 1);
            assert_eq!(answer.status().await.0.code(), Code::Ok);
        }
    }
}

#[tokio::test]
async fn the_end_of_a_stream_is_told_in_its_last_frame() {
    for (version, encoding) in [
        (Version::Http1, Encoding::Text),
        (Version::Http1, Encoding::Binary),
        (Version::Http2, Encoding::Text),
    ] {
        let mut broker = Running::start().await;
        let web = &mut Web::connect(broker.address, version).await;
        let mut stream = call(web, encoding, SUBSCRIBE, frame(&filter("t"))).await;
        broker.publish("t", "last");
        broker.shut_down();
        let received: SubscribeResponse = stream.message().await;
        assert_eq!(received.payload, "last");
        let (status, trailers) = stream.status().await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(trailers.contains_key("grpc-status-details-bin"));
        broker.stopped().await;
    }
}

#[tokio::test]
async fn a_deadline_ends_a_stream_over_http1_too() {
    let broker = Running::start_with(ServerConfig::default(), Default::default()).await;
    let mut web = Web::http1(broker.address).await;
    let request = web
        .post(SUBSCRIBE)
        .header("content-type", "application/grpc-web")
        .header("grpc-timeout", "50m");
    let got = web.send(request, frame(&filter("t"))).await;
    let answer = Answer {
        got,
        encoding: Encoding::Binary,
        text: BytesMut::new(),
        received: BytesMut::new(),
    };
    let (status, _) = answer.status().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    broker.until(|snapshot| snapshot.subscriptions == 0).await;
}
