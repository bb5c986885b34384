//! `PublishStream`: answers by position, bad messages in-band, and a broker that reads on.

use std::time::Duration;

use bytes::Bytes;
use fanfare::{
    broker::Limits,
    server::ServerConfig,
    wire::pb::{PublishRequest, PublishStreamRequest, PublishStreamResponse, Rejection},
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{
    raw::{Call, Raw, Response, frame, frame_of},
    support::{Running, filter, message, next, subscribe, to_end, within},
};

const PATH: &str = "/pubsub.v1.PubSubService/PublishStream";

async fn start(raw: &mut Raw) -> Call {
    let headers = raw.grpc(PATH);
    raw.start(headers).await
}

/// Frames of good messages to topic `t`, with payloads from `from` on.
fn good(range: std::ops::Range<u64>) -> Bytes {
    let frames: Vec<Bytes> = range
        .map(|index| frame(&message("t", &index.to_string())))
        .collect();
    frames.concat().into()
}

/// The answers to the stream's end, added up, and its status.
async fn answered(response: Response) -> (PublishStreamResponse, Code, String) {
    let (messages, status, _) = response.finished().await;
    let mut sum = PublishStreamResponse::default();
    for bytes in messages {
        let answer = PublishStreamResponse::decode(bytes).unwrap();
        assert!(answer.position > sum.position, "each answer goes further");
        sum.position = answer.position;
        sum.rejections.extend(answer.rejections);
        sum.matched += answer.matched;
        sum.delivered += answer.delivered;
        sum.dropped += answer.dropped;
        sum.displaced += answer.displaced;
    }
    (sum, status.code(), status.message().to_owned())
}

#[tokio::test]
async fn messages_are_published_in_their_order_and_answered_to_the_last() {
    const COUNT: u64 = 1_000;
    let broker = Running::start().await;
    let client = broker.client().await;
    let mut stream = subscribe(&client, filter("t")).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut call = start(&mut raw).await;
    // Cut without regard to messages.
    for part in good(0..COUNT).chunks(1_009) {
        call.send(part.to_vec(), false);
    }
    call.send(Bytes::new(), true);
    let (sum, code, _) = answered(call.response().await).await;
    assert_eq!((code, sum.position), (Code::Ok, COUNT));
    assert_eq!((sum.matched, sum.delivered, sum.dropped), (COUNT, COUNT, 0));
    assert_eq!(sum.rejections, []);
    for index in 0..COUNT {
        let response = next(&mut stream).await;
        assert_eq!(response.sequence, index + 1);
        assert_eq!(response.payload, index.to_string());
    }
}

#[tokio::test]
async fn answers_come_while_the_stream_goes_on() {
    let broker = Running::start().await;
    let (requests, receiver) = mpsc::channel(1);
    let mut client = broker.client().await;
    let answers = client.publish_stream(ReceiverStream::new(receiver));
    let mut answers = within(answers).await.unwrap().into_inner();
    for position in 1..=3 {
        let request = PublishStreamRequest {
            topic: "t".into(),
            ..Default::default()
        };
        requests.send(request).await.unwrap();
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.position, position);
    }
    drop(requests);
    assert!(within(answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_bad_message_is_answered_in_band_and_the_stream_goes_on() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut call = start(&mut raw).await;
    let bad_topic = frame(&message("a b", "x"));
    let too_large = frame(&message("t", &"x".repeat(2 * 1024 * 1024)));
    let over_payload = frame(&message("t", &"x".repeat(1024 * 1024 + 1)));
    let malformed = frame_of(&[0xff; 3]);
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 2, 7, 7]);
    for part in [
        good(0..1),
        bad_topic,
        too_large,
        over_payload,
        malformed,
        compressed,
        good(1..2),
    ] {
        call.send(part, false);
    }
    call.send(Bytes::new(), true);
    let (sum, code, _) = answered(call.response().await).await;
    assert_eq!((code, sum.position), (Code::Ok, 7));
    let rejected: Vec<_> = sum
        .rejections
        .iter()
        .map(|Rejection { position, code, .. }| (*position, Code::from_i32(*code)))
        .collect();
    let expected = [
        (2, Code::InvalidArgument),
        (3, Code::ResourceExhausted),
        (4, Code::ResourceExhausted),
        (5, Code::InvalidArgument),
        (6, Code::Unimplemented),
    ];
    assert_eq!(rejected, expected);
    assert_eq!(sum.rejections[0].field, "topic");
    assert_eq!(
        sum.rejections[2].message,
        "payload of 1048577 bytes exceeds the limit of 1048576"
    );
    assert_eq!(broker.broker.snapshot().published, 2);
}

/// In one frame of HTTP/2, so that they are there to be published at once.
#[tokio::test]
async fn what_stands_among_messages_like_each_other_is_answered_in_its_place() {
    let limits = Limits {
        payload_bytes_max: 100,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let client = broker.client().await;
    let mut stream = subscribe(&client, filter(">")).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut call = start(&mut raw).await;
    let tagged = PublishRequest {
        tag: "x".into(),
        ..message("t", "tagged")
    };
    let last = PublishRequest {
        end: true,
        ..message("t", "last")
    };
    let parts = [
        good(0..3),
        frame(&message("t", &"x".repeat(101))),
        good(3..5),
        frame(&tagged),
        good(5..6),
        Bytes::from_static(&[1, 0, 0, 0, 2, 7, 7]),
        good(6..8),
        frame(&message("other", "8")),
        frame(&message("other", "9")),
        frame_of(&[0xff; 3]),
        good(10..12),
        frame(&last),
        good(12..14),
    ];
    call.send(parts.concat(), true);
    let (sum, code, _) = answered(call.response().await).await;
    assert_eq!((code, sum.position), (Code::Ok, 19));
    assert_eq!((sum.matched, sum.delivered), (14, 14));
    let rejected = sum.rejections.iter();
    let rejected: Vec<_> = rejected
        .map(|r| (r.position, Code::from_i32(r.code)))
        .collect();
    let expected = [
        (4, Code::ResourceExhausted),
        (9, Code::Unimplemented),
        (14, Code::InvalidArgument),
        (18, Code::FailedPrecondition),
        (19, Code::FailedPrecondition),
    ];
    assert_eq!(rejected, expected);
    let mut got = Vec::new();
    for _ in 0..14 {
        let response = next(&mut stream).await;
        assert_eq!(
            response.id,
            format!("{:x}-{:x}", response.epoch, response.sequence)
        );
        let payload = String::from_utf8(response.payload.to_vec()).unwrap();
        got.push((response.topic, response.sequence, payload));
    }
    let numbers = |range: std::ops::Range<u64>| range.map(|number| number.to_string());
    let payloads = numbers(0..5).chain(["tagged".into()]).chain(numbers(5..8));
    let payloads = payloads.chain(numbers(10..12)).chain(["last".into()]);
    let of_t = (1..)
        .zip(payloads)
        .map(|(at, payload)| ("t".to_owned(), at, payload));
    let others = (1..)
        .zip(numbers(8..10))
        .map(|(at, payload)| ("other".to_owned(), at, payload));
    let mut expected: Vec<_> = of_t.collect();
    expected.splice(9..9, others);
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_caller_that_takes_no_answer_does_not_stop_the_reading() {
    const COUNT: u64 = 50_000;
    let broker = Running::start().await;
    // No window: no answer can leave the broker.
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let mut call = start(&mut raw).await;
    for part in good(0..COUNT).chunks(16 * 1024) {
        call.send(part.to_vec(), false);
    }
    broker.until(|s| s.published == COUNT).await;
    call.send(Bytes::new(), true);
    raw.set_window(64 * 1024).await;
    let (sum, code, _) = answered(call.response().await).await;
    assert_eq!((code, sum.position), (Code::Ok, COUNT));
}

#[tokio::test]
async fn more_rejections_than_are_kept_end_the_stream() {
    let broker = Running::start().await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let mut call = start(&mut raw).await;
    let bad = frame(&message("", ""));
    call.send(bad.repeat(20_000), false);
    let rejections = "fanfare_rejected_total{limit=\"rejections\"}";
    broker.until_metric(rejections, 1).await;
    raw.set_window(1024 * 1024).await;
    let (sum, code, text) = answered(call.response().await).await;
    assert_eq!(code, Code::ResourceExhausted);
    assert_eq!(
        text,
        "more than 1024 rejections wait to be taken: read the responses"
    );
    assert_eq!(sum.rejections.len() as u64, sum.position);
}

#[tokio::test]
async fn a_stream_that_breaks_off_in_a_message_is_answered_to_the_one_before() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut call = start(&mut raw).await;
    let frames = good(0..3);
    call.send(frames.slice(..frames.len() - 1), true);
    let (sum, code, text) = answered(call.response().await).await;
    assert_eq!((code, sum.position), (Code::InvalidArgument, 2));
    assert_eq!(text, "the stream ends in the middle of a message");
}

#[tokio::test]
async fn a_message_that_never_arrives_whole_ends_the_stream_and_a_silent_stream_does_not_end() {
    let config = ServerConfig {
        request_timeout: Duration::from_millis(50),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut silent = start(&mut raw).await;
    silent.send(good(0..1), false);
    let mut half = start(&mut raw).await;
    half.send(good(0..1).slice(..4), false);
    let (_, code, text) = answered(half.response().await).await;
    assert_eq!(code, Code::DeadlineExceeded);
    assert_eq!(text, "request did not arrive within 0.05 s");
    silent.send(good(1..2), true);
    let (sum, code, _) = answered(silent.response().await).await;
    assert_eq!((code, sum.position), (Code::Ok, 2));
}

#[tokio::test]
async fn a_deadline_and_a_drain_answer_what_was_received() {
    let mut broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let headers = raw.grpc(PATH).header("grpc-timeout", "50m");
    let mut late = raw.start(headers).await;
    late.send(good(0..2), false);
    let (sum, code, _) = answered(late.response().await).await;
    assert_eq!((code, sum.position), (Code::DeadlineExceeded, 2));

    let mut drained = start(&mut raw).await;
    drained.send(good(0..5), false);
    broker.until(|s| s.published == 7).await;
    broker.shut_down();
    let (sum, code, _) = answered(drained.response().await).await;
    assert_eq!((code, sum.position), (Code::Unavailable, 5));
    drop(raw);
    broker.stopped().await;
}

#[tokio::test]
async fn what_a_stream_publishes_is_what_subscribers_are_promised() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let mut request = filter("t");
    request.mailbox_capacity = 10;
    let mut slow = Raw::connect_with_window(broker.address, 0).await;
    let slow = slow.subscribe(request).await;
    let mut stream = subscribe(&client, filter("t")).await;
    let mut raw = Raw::connect(broker.address).await;
    let mut call = start(&mut raw).await;
    call.send(good(0..100), true);
    let (sum, _, _) = answered(call.response().await).await;
    assert_eq!((sum.matched, sum.delivered + sum.dropped), (200, 200));
    assert!(sum.dropped > 0, "ten places do not hold a hundred messages");
    let missed = broker.broker.snapshot().ledger.missed_total();
    assert_eq!(missed, sum.dropped);
    for sequence in 1..=100 {
        assert_eq!(next(&mut stream).await.sequence, sequence);
    }
    drop(slow);
    broker.shut_down();
    assert_eq!(to_end(&mut stream).await.1.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_burst_of_bad_messages_does_not_end_the_stream_of_a_caller_that_reads() {
    let broker = Running::start().await;
    let mut raw = Raw::connect(broker.address).await;
    let mut call = start(&mut raw).await;
    let bad = frame(&message("", ""));
    call.send(bad.repeat(1_500), true);
    let (sum, code, _) = answered(call.response().await).await;
    assert_eq!((code, sum.position), (Code::Ok, 1_500));
    assert_eq!(sum.rejections.len(), 1_500);
}

#[tokio::test]
async fn a_stream_that_is_over_does_not_wait_for_ever_for_its_caller() {
    let config = ServerConfig {
        stall_timeout: Duration::from_millis(50),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let mut raw = Raw::connect_with_window(broker.address, 0).await;
    let mut call = start(&mut raw).await;
    call.send(good(0..10), true);
    let reset = call.response().await.reset().await;
    assert_eq!(reset.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    broker.until_metric("fanfare_streams", 0).await;
}
