//! The reference's clients, compiled years ago against three fields: they publish and subscribe under
//! their own path, and never see a frame that they cannot know.

use std::time::Duration;

use bytes::Bytes;
use fanfare::{broker::Limits, server::ServerConfig};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    raw::{Raw, frame, frame_of},
    support::{Running, filter, message, next, subscribe, within},
};

const PUBLISH: &str = "/proto.PubSubService/Publish";
const SUBSCRIBE: &str = "/proto.PubSubService/Subscribe";

/// The reference's own messages.
#[derive(Clone, PartialEq, Message)]
struct PublishRequest {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct SubscribeRequest {
    #[prost(string, tag = "1")]
    topic: String,
}

#[derive(Clone, PartialEq, Message)]
struct SubscribeResponse {
    #[prost(bytes = "vec", tag = "1")]
    payload: Vec<u8>,
}

/// `google.protobuf.Empty`.
#[derive(Clone, PartialEq, Message)]
struct Empty {}

async fn client(broker: &Running) -> Grpc<Channel> {
    let endpoint = tonic::transport::Endpoint::new(broker.url()).unwrap();
    Grpc::new(within(endpoint.connect()).await.unwrap())
}

async fn publish(client: &mut Grpc<Channel>, topic: &str, payload: &str) -> Result<Empty, Status> {
    let request = Request::new(PublishRequest {
        topic: topic.to_owned(),
        payload: payload.into(),
    });
    within(client.ready()).await.unwrap();
    let codec = ProstCodec::<PublishRequest, Empty>::default();
    let reply = client.unary(request, PathAndQuery::from_static(PUBLISH), codec);
    within(reply).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_references_clients_publish_and_subscribe_unchanged() {
    let broker = Running::start().await;
    let mut client = client(&broker).await;
    let request = Request::new(SubscribeRequest {
        topic: "gocn".to_owned(),
    });
    within(client.ready()).await.unwrap();
    let codec = ProstCodec::<SubscribeRequest, SubscribeResponse>::default();
    let path = PathAndQuery::from_static(SUBSCRIBE);
    let stream = within(client.server_streaming(request, path, codec)).await;
    let mut stream = stream.unwrap().into_inner();
    for payload in ["hello, gophers!", "", "again"] {
        let reply = publish(&mut client, "gocn", payload).await;
        assert_eq!(reply.unwrap(), Empty {});
        let response = within(stream.message()).await.unwrap().unwrap();
        assert_eq!(response.payload, payload.as_bytes());
    }
}

#[tokio::test]
async fn both_names_of_the_service_are_one_broker() {
    let broker = Running::start().await;
    let mut new = broker.client().await;
    let mut old = client(&broker).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut new_stream = subscribe(&new, filter("t")).await;
    let request = SubscribeRequest {
        topic: "t".to_owned(),
    };
    let mut old_stream = raw.call(raw.grpc(SUBSCRIBE), frame(&request)).await;
    publish(&mut old, "t", "from old").await.unwrap();
    within(new.publish(message("t", "from new"))).await.unwrap();
    for payload in ["from old", "from new"] {
        assert_eq!(next(&mut new_stream).await.payload, payload);
        let bytes = old_stream.next_bytes().await.unwrap().unwrap();
        let response = SubscribeResponse::decode(bytes).unwrap();
        assert_eq!(response.payload, payload.as_bytes());
    }
}

#[tokio::test]
async fn a_frame_has_the_payload_and_nothing_else_whatever_was_published() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    // A field of today's request, which the reference's clients do not know, changes nothing.
    let request = fanfare::wire::pb::SubscribeRequest {
        text: true,
        ..filter("t")
    };
    let mut stream = raw.call(raw.grpc(SUBSCRIBE), frame(&request)).await;
    let mut everything = message("t", "abc");
    everything.attributes = [("name".to_owned(), "value".to_owned())].into();
    everything.tag = "tag".to_owned();
    everything.key = "key".to_owned();
    everything.id = "id".to_owned();
    let mut client = broker.client().await;
    within(client.publish(everything)).await.unwrap();
    within(client.publish(message("t", ""))).await.unwrap();
    let large = vec![7; 100_000];
    broker.publish("t", large.clone());
    assert_eq!(
        stream.next_bytes().await.unwrap().unwrap(),
        b"\x0a\x03abc"[..]
    );
    assert_eq!(stream.next_bytes().await.unwrap().unwrap(), b""[..]);
    let expected = [&[0x0a, 0xa0, 0x8d, 0x06][..], &large].concat();
    assert_eq!(stream.next_bytes().await.unwrap().unwrap(), expected);
}

#[tokio::test]
async fn an_overflow_sends_no_notice_and_is_counted() {
    let broker = Running::start().await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let request = fanfare::wire::pb::SubscribeRequest {
        mailbox_capacity: 2,
        ..filter("t")
    };
    let mut stream = raw.call(raw.grpc(SUBSCRIBE), frame(&request)).await;
    broker.publish("t", "1");
    broker.until(|s| s.ledger.delivered == 1).await;
    let dropped: u32 = (2..=9)
        .map(|n| broker.publish("t", n.to_string()).dropped)
        .sum();
    assert_eq!(dropped, 6);
    raw.set_window(65_535).await;
    for payload in ["1", "2", "3"] {
        let expected = [b"\x0a\x01", payload.as_bytes()].concat();
        assert_eq!(stream.next_bytes().await.unwrap().unwrap(), expected);
    }
    broker.publish("t", "10");
    assert_eq!(
        stream.next_bytes().await.unwrap().unwrap(),
        b"\x0a\x0210"[..]
    );
    let missed = "fanfare_missed_messages_total{reason=\"drop_newest\"}";
    assert_eq!(broker.metric(missed).await, 6);
}

#[tokio::test]
async fn a_loss_without_a_message_sends_no_frame() {
    let limits = Limits {
        payload_bytes_max: 1_000,
        attributes_bytes_max: 0,
        ..Limits::default()
    };
    let limits = Limits {
        buffered_bytes_max: limits.message_bytes_max(),
        ..limits
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let mut slow = Raw::connect_with_window(broker.address, 0).await;
    let _slow = slow.subscribe(filter("slow")).await;
    broker.publish("slow", "1");
    broker.until(|s| s.ledger.delivered == 1).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut stream = raw.call(raw.grpc(SUBSCRIBE), frame(&filter("t"))).await;
    broker.publish("slow", [0; 1_000]);
    assert_eq!(broker.publish("t", [0; 1_000]).dropped, 1);
    // The reader has taken note of the loss before the next message is there.
    raw.get("/health").await;
    broker.publish("t", "x");
    assert_eq!(
        stream.next_bytes().await.unwrap().unwrap(),
        b"\x0a\x01x"[..]
    );
}

#[tokio::test]
async fn there_is_no_heartbeat_even_if_asked_for() {
    let config = ServerConfig {
        heartbeat_interval: Duration::from_millis(1)..=Duration::from_secs(60),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut request = filter("t");
    request.heartbeat_interval = Some(prost_types::Duration {
        seconds: 0,
        nanos: 5_000_000,
    });
    let mut stream = raw.call(raw.grpc(SUBSCRIBE), frame(&request)).await;
    let mut beating = subscribe(&broker.client().await, request).await;
    for _ in 0..10 {
        assert!(next(&mut beating).await.heartbeat);
    }
    broker.publish("t", "x");
    assert_eq!(
        stream.next_bytes().await.unwrap().unwrap(),
        b"\x0a\x01x"[..]
    );
}

#[tokio::test]
async fn bad_input_is_refused_like_under_the_new_name() {
    let broker = Running::start().await;
    let mut client = client(&broker).await;
    let status = publish(&mut client, "a b", "x").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::InvalidArgument,
            "topic has a blank or control character at byte 1"
        )
    );
    let mut raw = Raw::connect(broker.address).await;
    let status = raw.status_of(raw.grpc(SUBSCRIBE), frame_of(&[0xff])).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = raw.status_of(raw.grpc(SUBSCRIBE), Bytes::new()).await;
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_default_address_is_where_the_references_clients_look() {
    assert_eq!(ServerConfig::default().listen.to_string(), "127.0.0.1:1234");
}

#[tokio::test]
async fn a_drain_ends_the_references_streams_with_unavailable() {
    let mut broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let stream = raw.call(raw.grpc(SUBSCRIBE), frame(&filter("t"))).await;
    broker.publish("t", "last");
    broker.shut_down();
    let (messages, status, _) = stream.finished().await;
    assert_eq!(messages, [&b"\x0a\x04last"[..]]);
    assert_eq!(status.code(), Code::Unavailable);
    broker.stopped().await;
}
