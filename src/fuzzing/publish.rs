//! Publish calls, from gRPC's framing to what a subscriber gets, cut into pieces anywhere; against one
//! who waits until all has come and cuts it then.

use std::{
    convert::Infallible,
    str::FromStr,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::input::Input;
use crate::{
    access::Peer,
    broker::{BatchLimit, Broker, Limits, Lost, SubscribeOptions, Subscription},
    grpc::Method,
    message::{AttributeName, Attributes, Key, Message, MessageId, Tag},
    metrics::Metrics,
    service::{ConnectionShare, PubSub, Receiving},
    topic::{Topic, TopicFilter},
    wire::pb,
};

/// Fewer messages than a mailbox holds: nothing is lost.
const BYTES_MAX: usize = 4 * 1024;
/// Limits that small inputs pass.
const PAYLOAD_BYTES_MAX: usize = 48;
const ATTRIBUTES_MAX: usize = 2;
const ATTRIBUTES_BYTES_MAX: usize = 24;
/// A deadline below this may pass, and the call with it.
const TIME_ENOUGH: Duration = Duration::from_secs(60);

/// A deadline, and the body of one unary call.
pub(super) fn publish(data: &[u8]) {
    let mut input = Input::new(&data[..data.len().min(BYTES_MAX)]);
    let timeout = input.flag().then(|| input.bytes());
    let (whole, pieces) = input.cut();
    let timeout = timeout.and_then(|value| HeaderValue::from_bytes(value).ok());
    let service = service();
    let mut subscription = subscribe(&service.broker);
    let mut request = request(&pieces);
    if let Some(timeout) = timeout.clone() {
        request.headers_mut().insert("grpc-timeout", timeout);
    }
    let (code, answers) = with_runtime(|runtime| {
        runtime.block_on(async {
            let share = share();
            let answer = Method::Publish.call(&service, &share, request).await;
            read::<pb::PublishResponse>(answer.response).await
        })
    });
    let mut expected = one_message(whole);
    if let Some(timeout) = &timeout {
        match timeout.to_str().ok().and_then(parse_timeout) {
            None => expected = Err(Code::InvalidArgument),
            Some(timeout) if timeout < TIME_ENOUGH && code == Code::DeadlineExceeded => {
                expected = Err(Code::DeadlineExceeded);
            }
            Some(_) => {}
        }
    }
    match expected {
        Ok(message) => {
            assert_eq!((code, answers.len()), (Code::Ok, 1));
            let answer = &answers[0];
            assert_eq!(
                (answer.sequence, answer.matched, answer.delivered),
                (1, 1, 1)
            );
            assert_eq!(waiting(&mut subscription), [message]);
        }
        Err(expected) => {
            assert_eq!((code, answers.len()), (expected, 0));
            assert_eq!(waiting(&mut subscription), []);
        }
    }
    check_given_back(&service);
}

/// A stream of messages.
pub(super) fn publish_stream(data: &[u8]) {
    let data = &data[..data.len().min(BYTES_MAX)];
    let (whole, pieces) = Input::new(data).cut();
    let service = service();
    let mut subscription = subscribe(&service.broker);
    let request = request(&pieces);
    let (code, answers) = with_runtime(|runtime| {
        runtime.block_on(async {
            let share = share();
            let answer = Method::PublishStream.call(&service, &share, request).await;
            let reading = answer.reading.expect("a stream is read on");
            let (read, ()) =
                futures_util::join!(read::<pb::PublishStreamResponse>(answer.response), reading);
            read
        })
    });
    let expected = Stream::of(whole);
    assert_eq!(code, expected.end);
    let sum = |of: fn(&pb::PublishStreamResponse) -> u64| answers.iter().map(of).sum::<u64>();
    let accepted = expected.accepted.len() as u64;
    assert_eq!(sum(|answer| answer.matched), accepted);
    assert_eq!(sum(|answer| answer.delivered), accepted);
    assert_eq!(sum(|answer| answer.dropped + answer.displaced), 0);
    assert!(answers.is_sorted_by(|before, after| before.position < after.position));
    let position = answers.last().map_or(0, |answer| answer.position);
    assert_eq!(position, accepted + expected.rejected.len() as u64);
    let rejections = answers.iter().flat_map(|answer| {
        assert!(
            answer
                .rejections
                .iter()
                .all(|r| r.position <= answer.position)
        );
        answer.rejections.iter()
    });
    let rejected: Vec<_> = rejections
        .map(|rejection| (rejection.position, Code::from(rejection.code)))
        .collect();
    assert_eq!(rejected, expected.rejected);
    assert_eq!(waiting(&mut subscription), expected.accepted);
    check_given_back(&service);
}

fn limits() -> Limits {
    Limits {
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        attributes_max: ATTRIBUTES_MAX,
        attributes_bytes_max: ATTRIBUTES_BYTES_MAX,
        ..Limits::default()
    }
}

fn service() -> PubSub {
    let broker = Broker::new(limits(), 1).expect("the limits fit together");
    PubSub {
        metrics: Arc::new(Metrics::new(broker.clone())),
        receiving: Receiving {
            request_bytes_max: PubSub::request_bytes_max(broker.limits()),
            patience: TIME_ENOUGH,
            bytes_max: 1 << 20,
            bytes: AtomicUsize::new(0),
            memory: Arc::clone(broker.memory()),
        },
        rejections: Arc::default(),
        drain: CancellationToken::new(),
        heartbeat_interval: Duration::ZERO..=TIME_ENOUGH,
        access: None,
        broker,
    }
}

fn share() -> ConnectionShare {
    ConnectionShare::new(1, Peer::default())
}

fn request(pieces: &[&[u8]]) -> Request {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
        .collect();
    let mut request = Request::new(Body::from_stream(tokio_stream::iter(pieces)));
    *request.method_mut() = http::Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

fn with_runtime<T>(act: impl FnOnce(&Runtime) -> T) -> T {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a thread without sockets is all that it needs");
    }
    RUNTIME.with(act)
}

/// What a call ended with, and the messages before that.
async fn read<M: prost::Message + Default>(response: Response<Body>) -> (Code, Vec<M>) {
    let in_head = code(response.headers());
    let mut body = response.into_body();
    let (mut data, mut in_trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.expect("an answer does not break off");
        match frame.into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(frame) => {
                let trailers = frame.into_trailers().expect("there is no third kind");
                in_trailers = code(&trailers);
            }
        }
    }
    let (mut data, mut messages) = (Bytes::from(data), Vec::new());
    while data.has_remaining() {
        assert_eq!(data.get_u8(), 0);
        let bytes = data.get_u32() as usize;
        let message = M::decode(data.split_to(bytes));
        messages.push(message.expect("an answer is well-formed"));
    }
    let code = in_trailers.or(in_head).expect("a call ends with a status");
    (code, messages)
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get("grpc-status")?;
    Some(Code::from_bytes(code.as_bytes()))
}

fn subscribe(broker: &Broker) -> Subscription {
    let all: TopicFilter = ">".parse().expect("it is a filter");
    let subscribed = broker.subscribe(SubscribeOptions::new(all));
    subscribed.expect("there is room for one")
}

/// The messages that a subscriber has not taken yet.
fn waiting(subscription: &mut Subscription) -> Vec<Message> {
    const ALL: BatchLimit = BatchLimit {
        messages: usize::MAX,
        bytes: usize::MAX,
    };
    let mut deliveries = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    match subscription.poll_take(&mut cx, ALL, &mut deliveries) {
        Poll::Ready(taken) => assert_eq!(taken, Ok(Lost::default())),
        Poll::Pending => {}
    }
    subscription.pass_on();
    deliveries
        .iter()
        .map(|delivery| delivery.message.clone())
        .collect()
}

fn check_given_back(service: &PubSub) {
    assert_eq!(
        service
            .receiving
            .bytes
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    assert_eq!(
        service
            .rejections
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

/// What should become of a stream, all of which is there.
#[derive(Debug)]
struct Stream {
    accepted: Vec<Message>,
    /// With their positions.
    rejected: Vec<(u64, Code)>,
    end: Code,
}

impl Stream {
    fn of(mut bytes: &[u8]) -> Self {
        let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
        let mut position = 0;
        let end = loop {
            if bytes.is_empty() {
                break Code::Ok;
            }
            let Some((flag, length, rest)) = prefix(bytes) else {
                break Code::InvalidArgument;
            };
            let refused = match (flag, length) {
                (_, length) if length > request_bytes_max() => Some(Code::ResourceExhausted),
                (0, _) => None,
                _ => Some(Code::Unimplemented),
            };
            // What is refused by its prefix is answered before it has come.
            if let Some(code) = refused {
                position += 1;
                rejected.push((position, code));
            }
            let Some((contents, next)) = rest.split_at_checked(length) else {
                break Code::InvalidArgument;
            };
            if refused.is_none() {
                position += 1;
                match message(contents) {
                    Ok(message) => accepted.push(message),
                    Err(code) => rejected.push((position, code)),
                }
            }
            bytes = next;
        };
        Self {
            accepted,
            rejected,
            end,
        }
    }
}

fn request_bytes_max() -> usize {
    PubSub::request_bytes_max(&limits())
}

fn prefix(bytes: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (prefix, rest) = bytes.split_at_checked(5)?;
    let length = prefix[1..]
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    Some((prefix[0], length, rest))
}

fn one_message(bytes: &[u8]) -> Result<Message, Code> {
    match prefix(bytes) {
        Some((1.., _, _)) => Err(Code::Unimplemented),
        Some((_, length, _)) if length > request_bytes_max() => Err(Code::ResourceExhausted),
        Some((_, length, contents)) if length == contents.len() => message(contents),
        _ => Err(Code::InvalidArgument),
    }
}

/// The message that a request asks to publish, as prost and the names' own rules have it.
fn message(bytes: &[u8]) -> Result<Message, Code> {
    let invalid = Code::InvalidArgument;
    let request = pb::PublishRequest::decode(bytes).map_err(|_| invalid)?;
    let topic: Topic = request.topic.parse().map_err(|_| invalid)?;
    if !request.text.is_empty() && !request.payload.is_empty() {
        return Err(invalid);
    }
    let payload = match request.text.is_empty() {
        true => request.payload,
        false => request.text.into(),
    };
    let attributes = request.attributes.into_iter().map(|(name, value)| {
        let name: AttributeName = name.parse().map_err(|_| invalid)?;
        Ok((name, value))
    });
    let message = Message {
        attributes: attributes.collect::<Result<Attributes, Code>>()?,
        tag: optional::<Tag>(&request.tag)?,
        key: optional::<Key>(&request.key)?,
        id: optional::<MessageId>(&request.id)?,
        topic,
        payload,
        end: request.end,
    };
    let fits = message.payload.len() <= PAYLOAD_BYTES_MAX
        && message.attributes.len() <= ATTRIBUTES_MAX
        && message.attributes.bytes() <= ATTRIBUTES_BYTES_MAX;
    fits.then_some(message).ok_or(Code::ResourceExhausted)
}

fn optional<T: FromStr>(text: &str) -> Result<Option<T>, Code> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Code::InvalidArgument),
    }
}

/// The syntax of "gRPC over HTTP2".
fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let nanos: u128 = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let is_number = (1..=8).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit());
    let count: u128 = digits.parse().ok().filter(|_| is_number)?;
    let nanos = count * nanos;
    Some(Duration::new(
        (nanos / 1_000_000_000) as u64,
        (nanos % 1_000_000_000) as u32,
    ))
}
