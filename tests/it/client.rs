//! The Rust client against a real broker: what it delivers, and what it tells when it cannot.

use std::{error::Error, net::SocketAddr, time::Duration};

use bytes::Bytes;
use fanfare::{
    broker::{Limits, PAYLOAD_BYTES_CEILING},
    client::{
        Client, ClientOptions, ConnectError, Event, Health, HealthError, OverflowPolicy,
        PublishError, Received, Subscribe, SubscribeError, Subscription,
    },
    message::Message,
    server::ServerConfig,
    topic::{Topic, TopicFilter},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::support::{Running, within};

pub(crate) fn topic(topic: &str) -> Topic {
    topic.parse().unwrap()
}

pub(crate) fn filter(filter: &str) -> Subscribe {
    Subscribe::new(filter.parse::<TopicFilter>().unwrap())
}

pub(crate) async fn connect(broker: &Running) -> Client {
    within(Client::connect(&broker.url())).await.unwrap()
}

pub(crate) async fn subscribe(client: &Client, subscribe: impl Into<Subscribe>) -> Subscription {
    within(client.subscribe(subscribe)).await.unwrap()
}

pub(crate) async fn event(subscription: &mut Subscription) -> Event {
    let event = within(subscription.next()).await;
    event.expect("the subscription goes on").unwrap()
}

pub(crate) async fn message(subscription: &mut Subscription) -> Received {
    match event(subscription).await {
        Event::Message(message) => message,
        other => panic!("not a message: {other:?}"),
    }
}

/// The error that ends the subscription; after it comes nothing.
pub(crate) async fn end(subscription: &mut Subscription) -> SubscribeError {
    let error = within(subscription.next()).await.unwrap().unwrap_err();
    assert!(within(subscription.next()).await.is_none());
    error
}

/// A whole error in one line, as `{:#}` of anyhow prints it.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[tokio::test]
async fn a_message_arrives_as_it_was_published() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let mut subscription = subscribe(&client, filter("a.*")).await;
    let attributes = [("ce-id".parse().unwrap(), "1".to_owned())];
    let sent = Message {
        attributes: attributes.into_iter().collect(),
        tag: Some("tag".parse().unwrap()),
        key: Some("the key".parse().unwrap()),
        id: Some("mine".parse().unwrap()),
        ..Message::new(topic("a.b"), vec![0, 0xff])
    };
    let receipt = within(client.publish(sent.clone())).await.unwrap();
    assert_eq!(
        (receipt.matched, receipt.delivered, receipt.dropped),
        (1, 1, 0)
    );
    let got = message(&mut subscription).await;
    assert_eq!((&got.topic, &got.payload), (&sent.topic, &sent.payload));
    assert_eq!(
        (got.attributes, got.tag, got.key),
        (sent.attributes, sent.tag, sent.key)
    );
    assert_eq!((got.id.as_str(), receipt.id.as_str()), ("mine", "mine"));
    assert_eq!((got.epoch, got.sequence), (receipt.epoch, receipt.sequence));
    assert!(got.published_at.elapsed().unwrap() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_subscription_knows_what_it_was_granted() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let mut first = subscribe(&client, topic("t")).await;
    within(client.publish(Message::new(topic("t"), "x")))
        .await
        .unwrap();
    let got = message(&mut first).await;
    let second = subscribe(&client, filter("t").mailbox_capacity(7)).await;
    let start = second.facts().start.unwrap();
    assert_eq!((start.epoch, start.head), (got.epoch, got.sequence));
    assert_eq!(second.facts().mailbox_capacity, Some(7));
    assert!(second.facts().mailbox_bytes.is_some());
    assert_eq!(subscribe(&client, filter(">")).await.facts().start, None);
}

#[tokio::test]
async fn dropping_a_subscription_unsubscribes() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let subscription = subscribe(&client, topic("t")).await;
    assert_eq!(broker.broker.snapshot().subscriptions, 1);
    drop(subscription);
    broker.until(|snapshot| snapshot.subscriptions == 0).await;
}

#[tokio::test]
async fn a_message_at_the_ceiling_arrives() {
    let limits = Limits {
        payload_bytes_max: PAYLOAD_BYTES_CEILING,
        mailbox_bytes: 2 * PAYLOAD_BYTES_CEILING,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let client = connect(&broker).await;
    let mut subscription = subscribe(&client, topic("t")).await;
    let sent = Message::new(topic("t"), vec![7; PAYLOAD_BYTES_CEILING]);
    within(client.publish(sent.clone())).await.unwrap();
    assert!(message(&mut subscription).await.payload == sent.payload);
}

#[tokio::test]
async fn a_refusal_says_what_to_change() {
    let broker = Running::start().await;
    let client = connect(&broker).await;

    let hasty = filter("t").heartbeat_interval(Duration::from_secs(1));
    let error = within(client.subscribe(hasty)).await.unwrap_err();
    assert!(!error.is_retryable());
    let SubscribeError::Invalid { field, .. } = error else {
        panic!("not Invalid: {error}")
    };
    assert_eq!(field.as_deref(), Some("heartbeat_interval"));

    let tags = (0..65).map(|n| format!("tag-{n}").parse().unwrap());
    let error = within(client.subscribe(filter("t").tags(tags)))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the subscription passes a limit of the broker: 65 tags exceed the limit of 64"
    );

    let heavy = Message::new(topic("t"), vec![0; 1024 * 1024 + 1]);
    let error = within(client.publish(heavy)).await.unwrap_err();
    assert!(matches!(
        error,
        PublishError::LimitExceeded {
            retry_after: None,
            ..
        }
    ));
    assert!(!error.is_retryable() && !error.may_be_published());
    assert_eq!(
        error.to_string(),
        "the message passes a limit of the broker: payload of 1048577 bytes exceeds the limit of 1048576"
    );
}

#[tokio::test]
async fn a_broker_says_how_it_is() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    for service in ["", "pubsub.v1.PubSubService"] {
        assert_eq!(
            within(client.health(service)).await.unwrap(),
            Health::Serving
        );
    }
    let error = within(client.health("nope")).await.unwrap_err();
    assert!(matches!(&error, HealthError::UnknownService { service } if service == "nope"));
    assert_eq!(error.to_string(), "the broker has no service `nope`");
}

#[tokio::test]
async fn connecting_tells_why_no_broker_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());

    let options = ClientOptions {
        connect_timeout: Duration::from_millis(50),
        ..ClientOptions::default()
    };
    let error = within(Client::with_options(&url, options))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("nothing was heard from {url} within 50ms")
    );

    let (error, ()) = tokio::join!(within(Client::connect(&url)), async {
        // The first connection is the one that was given up on.
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.unwrap();
            drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Broken { .. }), "{error:?}");

    drop(listener);
    let error = within(Client::connect(&url)).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(
        chain(&error),
        format!("no broker answers at {url}: Connection refused (os error 111)")
    );
    let error = within(Client::connect("ftp://h:1")).await.unwrap_err();
    assert!(matches!(error, ConnectError::InvalidUrl(_)) && !error.is_retryable());
}

#[tokio::test]
async fn a_reader_that_overflows_is_told_how_much_it_missed() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let newest = filter("t").mailbox_capacity(10);
    let oldest = newest.clone().overflow_policy(OverflowPolicy::DropOldest);
    for (request, kept) in [(newest, 1..=10), (oldest, 191..=200)] {
        let mut subscription = subscribe(&client, request).await;
        for _ in 0..100 {
            broker.publish("t", "x");
        }
        assert_eq!(event(&mut subscription).await, Event::Missed(90));
        for sequence in kept {
            assert_eq!(message(&mut subscription).await.sequence.0, sequence);
        }
    }
}

#[tokio::test]
async fn a_reader_that_asked_to_be_disconnected_is_told_and_ended() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let request = filter("t")
        .mailbox_capacity(10)
        .overflow_policy(OverflowPolicy::Disconnect);
    let mut subscription = subscribe(&client, request).await;
    for _ in 0..11 {
        broker.publish("t", "x");
    }
    assert_eq!(event(&mut subscription).await, Event::Missed(11));
    let error = end(&mut subscription).await;
    assert!(
        matches!(error, SubscribeError::FellBehind { .. }),
        "{error:?}"
    );
}

/// Small messages that wait unread in a client look like an attack to its HTTP/2 library, which then
/// disconnects: see `CONNECTION_WINDOW_BYTES` of the client.
#[tokio::test]
async fn a_reader_that_pauses_loses_no_small_message() {
    const MESSAGES: u64 = 20_000;
    let config = ServerConfig {
        stall_timeout: Duration::from_secs(600),
        ..ServerConfig::default()
    };
    let broker = Running::start_with(config, Limits::default()).await;
    let client = connect(&broker).await;
    let request = filter("t").mailbox_capacity(65_536);
    let mut subscription = subscribe(&client, request).await;
    for _ in 0..MESSAGES {
        broker.publish("t", "twenty bytes, no more");
        // Lets the connection send each message in a frame of its own.
        tokio::task::yield_now().await;
    }
    for sequence in 1..=MESSAGES {
        assert_eq!(message(&mut subscription).await.sequence.0, sequence);
    }
}

#[tokio::test]
async fn subscriptions_that_nobody_reads_hold_up_no_other_of_their_client() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let mut unread = Vec::new();
    for _ in 0..200 {
        unread.push(subscribe(&client, topic("large")).await);
    }
    let mut read = subscribe(&client, topic("small")).await;
    // More than what one stream may be sent unasked, and together more than many connections.
    assert_eq!(broker.publish("large", vec![0; 100_000]).matched, 200);
    for count in 0..10 {
        let sent = Message::new(topic("small"), count.to_string());
        within(client.publish(sent)).await.unwrap();
        assert_eq!(message(&mut read).await.payload, count.to_string());
    }
}

/// Answers every call with this body and these trailers, whatever it asks.
async fn fake_broker(
    body: &'static [u8],
    trailers: &'static [(&'static str, &'static str)],
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let trailers = trailers.iter().map(|(name, value)| {
        let value = HeaderValue::from_static(value);
        (HeaderName::from_static(name), value)
    });
    let trailers: HeaderMap = trailers.collect();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let trailers = trailers.clone();
            let answer = hyper::service::service_fn(move |_| {
                let trailers = (!trailers.is_empty()).then(|| Ok(trailers.clone()));
                let body = Full::new(Bytes::from_static(body));
                let response = http::Response::builder()
                    .header("content-type", "application/grpc")
                    .header("fanfare-epoch", "-1")
                    .header("fanfare-head-sequence", "many")
                    .body(body.with_trailers(std::future::ready(trailers)));
                std::future::ready(response)
            });
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http2.serve_connection(TokioIo::new(socket), answer));
        }
    });
    address
}

/// Reads a subscription to such a broker, to its end.
async fn check_malformed(
    body: &'static [u8],
    trailers: &'static [(&'static str, &'static str)],
    expected: &str,
) {
    let url = fake_broker(body, trailers).await.to_string();
    let options = ClientOptions {
        reconnect: false,
        ..ClientOptions::default()
    };
    let client = within(Client::with_options(&url, options)).await.unwrap();
    let mut subscription = subscribe(&client, topic("t")).await;
    assert_eq!(subscription.facts().start, None);
    assert_eq!(chain(&end(&mut subscription).await), expected);
}

#[tokio::test]
async fn what_a_broker_may_not_send_is_an_error() {
    check_malformed(
        b"\0\0\0\0\x05\x12\x01*\x18\x01",
        &[],
        "the broker sent a malformed response: publish_time: publish time is missing",
    )
    .await;
    check_malformed(
        b"\0\0\0\0\x07\x12\x01*\x18\x01\x32\0",
        &[],
        "the broker sent a malformed response: topic: topic has the wildcard `*` at byte 0: publish \
         to a concrete topic",
    )
    .await;
    check_malformed(
        b"\0\0\0\0\x02\xff\xff",
        &[],
        "the broker failed: failed to decode Protobuf message: invalid varint (Internal)",
    )
    .await;
    check_malformed(
        b"",
        &[],
        "the broker failed: protocol error: missing grpc-status trailer, stream was terminated \
         without a final status (possible truncation by a proxy or load balancer) (Unknown)",
    )
    .await;
    check_malformed(
        b"",
        &[
            ("grpc-status", "7"),
            ("grpc-message", "no"),
            ("grpc-status-details-bin", "*!*"),
            ("fanfare-missed", "-5"),
        ],
        "the broker does not allow this: no",
    )
    .await;
}
