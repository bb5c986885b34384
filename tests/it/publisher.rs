//! The Rust client's publisher: order, bounds, and an exact account of what became of each message,
//! whatever happens to the stream.

use std::{
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use fanfare::{
    broker::Limits,
    client::{
        Answered, BYTES_IN_FLIGHT_MAX, CallError, Client, ClientOptions, MESSAGES_IN_FLIGHT_MAX,
        OverflowPolicy, Position, Publisher, PublisherError, PublisherOptions, SendError,
        TicketError,
    },
    message::Message,
    server::ServerConfig,
    wire::pb::{self, PublishStreamResponse},
};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tonic::Code;

use crate::{
    client::{connect, filter, message, subscribe, topic},
    raw::{OPEN, frame},
    support::{Running, within},
};

const NEVER: Duration = Duration::from_secs(60 * 60);

fn numbered(number: u64) -> Message {
    Message::new(topic("t"), number.to_string())
}

async fn publisher(client: &Client) -> Publisher {
    within(client.publisher(PublisherOptions::default()))
        .await
        .unwrap()
}

/// Sends messages, which have these positions.
async fn send(publisher: &mut Publisher, positions: std::ops::RangeInclusive<u64>) {
    for position in positions {
        let sent = within(publisher.send(numbered(position))).await.unwrap();
        assert_eq!(sent, Position(position));
    }
}

#[track_caller]
fn check_unanswered(publisher: &Publisher, expected: std::ops::RangeInclusive<u64>) {
    let unanswered = publisher.unanswered();
    assert_eq!(unanswered.start, Position(*expected.start()));
    assert_eq!(unanswered.end, Position(*expected.end() + 1));
}

/// A broker at the other end of one `PublishStream`, which answers what the test says.
struct Fake {
    requests: RecvStream,
    received: BytesMut,
    answers: SendStream<Bytes>,
    connection: JoinHandle<()>,
}

impl Fake {
    /// A publisher, and the broker that it speaks to.
    async fn start(options: PublisherOptions) -> (Publisher, Self) {
        Self::start_with_timeout(options, NEVER).await
    }

    async fn start_with_timeout(
        options: PublisherOptions,
        request_timeout: Duration,
    ) -> (Publisher, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = lazy(listener.local_addr().unwrap(), request_timeout);
        let accept = async { Self::accept(listener.accept().await.unwrap().0).await };
        let (publisher, fake) =
            within(async { tokio::join!(client.publisher(options), accept) }).await;
        (publisher.unwrap(), fake)
    }

    async fn accept(socket: TcpStream) -> Self {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(OPEN)
            .initial_connection_window_size(OPEN)
            .handshake(socket)
            .await
            .unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(
            request.uri().path(),
            "/pubsub.v1.PubSubService/PublishStream"
        );
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        let head = Response::builder().header("content-type", "application/grpc");
        let head = head.body(()).unwrap();
        Self {
            requests: request.into_body(),
            received: BytesMut::new(),
            answers: respond.send_response(head, false).unwrap(),
            connection: tokio::spawn(async move { while connection.accept().await.is_some() {} }),
        }
    }

    /// Whether there is another message, or the end of the stream.
    async fn receives(&mut self) -> bool {
        loop {
            if let Some((prefix, rest)) = self.received.split_at_checked(5) {
                let bytes = (&prefix[1..]).get_u32() as usize;
                if rest.len() >= bytes {
                    self.received.advance(5 + bytes);
                    return true;
                }
            }
            match within(self.requests.data()).await {
                Some(data) => self.received.extend_from_slice(&data.unwrap()),
                None => {
                    assert!(self.received.is_empty(), "the stream ends with a message");
                    return false;
                }
            }
        }
    }

    async fn receives_exactly(&mut self, messages: usize) {
        for _ in 0..messages {
            assert!(self.receives().await);
        }
        assert!(self.received.is_empty());
    }

    fn answer(&mut self, answer: &PublishStreamResponse) {
        self.answers.send_data(frame(answer), false).unwrap();
    }

    fn answer_to(&mut self, position: u64) {
        self.answer(&PublishStreamResponse {
            position,
            ..Default::default()
        });
    }

    fn end(&mut self, code: Code) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", (code as i32).into());
        self.answers.send_trailers(trailers).unwrap();
    }

    /// Closes the socket without a word.
    async fn cut(&mut self) {
        self.connection.abort();
        let cancelled = within(&mut self.connection).await;
        assert!(cancelled.is_err_and(|error| error.is_cancelled()));
    }
}

fn lazy(address: SocketAddr, request_timeout: Duration) -> Client {
    let options = ClientOptions {
        request_timeout,
        keepalive_interval: NEVER,
        ..ClientOptions::default()
    };
    Client::connect_lazy(&address.to_string(), options).unwrap()
}

/// Whether a send waits, with nothing but the bounds to wait for.
fn waits(publisher: &mut Publisher, message: Message) -> bool {
    let send = pin!(tokio::task::unconstrained(publisher.send(message)));
    match send.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(sent) => {
            sent.unwrap();
            false
        }
    }
}

#[tokio::test]
async fn messages_arrive_in_the_order_in_which_they_were_sent() {
    const COUNT: u64 = 10_000;
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let request = filter("t").mailbox_capacity(COUNT as u32);
    let mut subscription = subscribe(&client, request).await;
    let mut publisher = publisher(&connect(&broker).await).await;
    send(&mut publisher, 1..=COUNT).await;
    let answered = within(publisher.flush()).await.unwrap();
    let expected = Answered {
        position: Position(COUNT),
        accepted: COUNT,
        matched: COUNT,
        delivered: COUNT,
        ..Answered::default()
    };
    assert_eq!(answered, expected);
    for number in 1..=COUNT {
        let got = message(&mut subscription).await;
        assert_eq!(got.sequence.0, number);
        assert_eq!(got.payload, number.to_string());
    }
}

#[tokio::test]
async fn what_is_sent_arrives_whole() {
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let mut subscription = subscribe(&client, filter(">")).await;
    let mut publisher = publisher(&client).await;
    let attributes = [("ce-id".parse().unwrap(), "ü".to_owned())];
    let sent = Message {
        attributes: attributes.into_iter().collect(),
        tag: Some("tag".parse().unwrap()),
        key: Some("the key".parse().unwrap()),
        id: Some("mine".parse().unwrap()),
        ..Message::new(topic("a.b"), vec![7; 1_000_000])
    };
    for sent in [sent, Message::new(topic("c"), "")] {
        within(publisher.send(sent.clone())).await.unwrap();
        let got = message(&mut subscription).await;
        assert_eq!((&got.topic, &got.payload), (&sent.topic, &sent.payload));
        assert_eq!(
            (got.attributes, got.tag, got.key),
            (sent.attributes, sent.tag, sent.key)
        );
        if let Some(id) = sent.id {
            assert_eq!(got.id, id.as_str());
        }
    }
}

#[tokio::test]
async fn rejections_are_told_by_position_and_the_publisher_goes_on() {
    let limits = Limits {
        payload_bytes_max: 10,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let mut publisher = publisher(&connect(&broker).await).await;
    let heavy = || Message::new(topic("t"), "x".repeat(11));
    send(&mut publisher, 1..=2).await;
    within(publisher.send(heavy())).await.unwrap();
    send(&mut publisher, 4..=4).await;
    let rejected = within(publisher.send_tracked(heavy())).await.unwrap();
    let accepted = within(publisher.send_tracked(numbered(6))).await.unwrap();
    assert_eq!((rejected.position().0, accepted.position().0), (5, 6));
    let huge = Message::new(topic("t"), "x".repeat(1024 * 1024));
    within(publisher.send(huge)).await.unwrap();
    send(&mut publisher, 8..=8).await;

    let answered = within(publisher.flush()).await.unwrap();
    assert_eq!((answered.accepted, answered.rejected), (5, 3));
    let over = "payload of 11 bytes exceeds the limit of 10";
    let rejections = publisher.take_rejections();
    assert_eq!(rejections.missed, 0);
    let told: Vec<_> = rejections
        .list
        .iter()
        .map(|r| (r.position.0, r.code, r.field.as_deref()))
        .collect();
    let code = Code::ResourceExhausted;
    assert_eq!(told, [(3, code, None), (7, code, None)]);
    assert_eq!(rejections.list[0].message, over);
    assert!(!rejections.list[0].is_retryable());

    within(accepted).await.unwrap();
    let TicketError::Rejected(rejection) = within(rejected).await.unwrap_err() else {
        panic!("not rejected")
    };
    assert_eq!(
        (rejection.position.0, rejection.message.as_str()),
        (5, over)
    );
    assert_eq!(broker.broker.snapshot().published, 5);
}

#[tokio::test]
async fn what_no_broker_takes_is_not_sent() {
    let broker = Running::start().await;
    let mut publisher = publisher(&connect(&broker).await).await;
    let huge = Message::new(topic("t"), vec![0; 17 * 1024 * 1024]);
    let error = within(publisher.send(huge)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "message of 17826049 bytes exceeds the limit of 16842752"
    );
    assert!(!error.is_retryable());
    send(&mut publisher, 1..=1).await;
    assert_eq!(within(publisher.finish()).await.unwrap().accepted, 1);
}

/// A message of `bytes` fits `expected` times.
async fn check_bound(options: PublisherOptions, payload_bytes: usize, expected: u64) {
    let (mut publisher, mut fake) = Fake::start(options).await;
    let message = Message::new(topic("t"), vec![0; payload_bytes]);
    for _ in 0..expected {
        assert!(!waits(&mut publisher, message.clone()));
    }
    for _ in 0..3 {
        assert!(waits(&mut publisher, message.clone()));
    }
    fake.receives_exactly(expected as usize).await;
    assert!(waits(&mut publisher, message.clone()));
    check_unanswered(&publisher, 1..=expected);
    let (sent, ()) = tokio::join!(within(publisher.send(message.clone())), async {
        fake.answer_to(1);
    });
    assert_eq!(sent.unwrap(), Position(expected + 1));
    assert!(waits(&mut publisher, message));
    fake.receives_exactly(1).await;
}

#[tokio::test]
async fn what_is_in_flight_is_bounded() {
    let default = PublisherOptions::default();
    check_bound(default.clone(), 20, MESSAGES_IN_FLIGHT_MAX as u64).await;
    check_bound(default.clone(), 1024 * 1024 - 1_000, 4).await;
    let few = PublisherOptions {
        messages_in_flight_max: 3,
        ..default.clone()
    };
    check_bound(few, 20, 3).await;
    check_bound(default, 2 * BYTES_IN_FLIGHT_MAX, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_never_looks_at_answers_does_not_stall() {
    const COUNT: u64 = 50_000;
    let broker = Running::start().await;
    let options = PublisherOptions {
        messages_in_flight_max: 100,
        ..PublisherOptions::default()
    };
    let client = connect(&broker).await;
    let mut publisher = within(client.publisher(options)).await.unwrap();
    send(&mut publisher, 1..=COUNT).await;
    drop(publisher);
    broker.until(|s| s.published == COUNT).await;
}

#[tokio::test]
async fn many_rejections_do_not_end_the_publisher() {
    const COUNT: u64 = 20_000;
    let limits = Limits {
        payload_bytes_max: 1,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let mut publisher = publisher(&connect(&broker).await).await;
    for _ in 1..=COUNT {
        // As fast as there is room: many in one frame.
        let send = tokio::task::unconstrained(publisher.send(numbered(10)));
        within(send).await.unwrap();
    }
    let answered = within(publisher.flush()).await.unwrap();
    assert_eq!((answered.accepted, answered.rejected), (0, COUNT));
    let rejections = publisher.take_rejections();
    assert_eq!(rejections.list.len() as u64 + rejections.missed, COUNT);
}

#[tokio::test]
async fn a_cut_connection_leaves_an_exact_account() {
    let (mut publisher, mut fake) = Fake::start(PublisherOptions::default()).await;
    send(&mut publisher, 1..=3).await;
    let fourth = within(publisher.send_tracked(numbered(4))).await.unwrap();
    send(&mut publisher, 5..=8).await;
    let last = within(publisher.send_tracked(numbered(9))).await.unwrap();
    fake.receives_exactly(9).await;
    let rejection = pb::Rejection {
        position: 2,
        code: 3,
        ..Default::default()
    };
    fake.answer(&PublishStreamResponse {
        position: 4,
        rejections: vec![rejection],
        ..Default::default()
    });
    within(fourth).await.unwrap();
    fake.cut().await;

    let error = within(publisher.flush()).await.unwrap_err();
    assert!(
        matches!(
            error,
            PublisherError::Call(CallError::ConnectionLost { .. })
        ),
        "{error:?}"
    );
    assert!(error.is_retryable() && error.may_be_published());
    check_unanswered(&publisher, 5..=9);
    let answered = publisher.answered();
    assert_eq!((answered.accepted, answered.rejected), (3, 1));
    assert_eq!(publisher.take_rejections().list[0].position, Position(2));
    let untold = within(last).await.unwrap_err();
    assert!(matches!(untold, TicketError::Unanswered(_)), "{untold:?}");
    let error = within(publisher.send(numbered(10))).await.unwrap_err();
    assert!(matches!(error, SendError::Ended(_)) && error.is_retryable());
    within(publisher.finish()).await.unwrap_err();
    check_unanswered(&publisher, 5..=9);
}

#[tokio::test]
async fn an_end_that_comes_while_a_send_waits_is_told_to_it() {
    let options = PublisherOptions {
        messages_in_flight_max: 2,
        ..PublisherOptions::default()
    };
    let (mut publisher, mut fake) = Fake::start(options).await;
    send(&mut publisher, 1..=2).await;
    fake.receives_exactly(2).await;
    let (sent, ()) = tokio::join!(within(publisher.send(numbered(3))), async {
        fake.end(Code::ResourceExhausted);
    });
    let error = sent.unwrap_err();
    assert!(
        matches!(
            error,
            SendError::Ended(PublisherError::LimitExceeded { .. })
        ),
        "{error:?}"
    );
    check_unanswered(&publisher, 1..=2);
}

#[tokio::test]
async fn finishing_tells_what_the_broker_counted() {
    const COUNT: u64 = 1_000;
    let broker = Running::start().await;
    let client = connect(&broker).await;
    let newest = subscribe(&client, filter("t").mailbox_capacity(100)).await;
    let oldest = filter("t")
        .mailbox_capacity(100)
        .overflow_policy(OverflowPolicy::DropOldest);
    let oldest = subscribe(&client, oldest).await;
    let mut publisher = publisher(&connect(&broker).await).await;
    send(&mut publisher, 1..=COUNT).await;
    let total = within(publisher.finish()).await.unwrap();
    assert_eq!((total.position, total.accepted), (Position(COUNT), COUNT));
    assert_eq!((total.matched, total.rejected), (2 * COUNT, 0));
    assert_eq!(total.matched, total.delivered + total.dropped);
    assert!(total.delivered >= COUNT + 100);
    let snapshot = broker.broker.snapshot();
    assert_eq!(snapshot.published, COUNT);
    assert_eq!(snapshot.ledger.matched, total.matched);
    assert_eq!(
        snapshot.ledger.missed_total(),
        total.dropped + total.displaced
    );
    assert_eq!(within(publisher.finish()).await.unwrap(), total);
    assert_eq!(within(publisher.flush()).await.unwrap(), total);
    let error = within(publisher.send(numbered(0))).await.unwrap_err();
    assert!(matches!(error, SendError::Finished), "{error:?}");
    drop((newest, oldest));
}

#[tokio::test]
async fn a_dropped_publisher_ends_its_stream_after_what_was_sent() {
    let (mut publisher, mut fake) = Fake::start(PublisherOptions::default()).await;
    send(&mut publisher, 1..=4).await;
    let ticket = within(publisher.send_tracked(numbered(5))).await.unwrap();
    drop(publisher);
    fake.receives_exactly(5).await;
    assert!(!fake.receives().await);
    fake.answer_to(5);
    within(ticket).await.unwrap();
}

#[tokio::test]
async fn a_drain_answers_what_was_received_and_ends_the_publisher() {
    const COUNT: u64 = 5_000;
    let mut broker = Running::start().await;
    let mut publisher = publisher(&connect(&broker).await).await;
    send(&mut publisher, 1..=100).await;
    within(publisher.flush()).await.unwrap();
    send(&mut publisher, 101..=COUNT).await;
    broker.shut_down();
    let error = match within(publisher.flush()).await {
        Err(error) => error,
        // Everything was received before the drain began.
        Ok(_) => {
            let sent = within(async {
                loop {
                    if let Err(error) = publisher.send(numbered(0)).await {
                        return error;
                    }
                    drop(publisher.flush().await);
                }
            });
            match sent.await {
                SendError::Ended(error) => error,
                other => panic!("not ended: {other}"),
            }
        }
    };
    assert!(
        matches!(error, PublisherError::Call(CallError::Unavailable { .. })),
        "{error:?}"
    );
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    assert!(error.is_retryable() && !error.may_be_published());
    let accepted = publisher.answered().accepted;
    assert_eq!(broker.broker.snapshot().published, accepted);
    assert!(accepted >= 100);
    broker.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_a_publisher_that_sends_without_a_pause() {
    let mut broker = Running::start().await;
    let mut publisher = publisher(&connect(&broker).await).await;
    send(&mut publisher, 1..=100).await;
    let sending = tokio::spawn(async move {
        loop {
            if let Err(error) = publisher.send(numbered(0)).await {
                return (error, publisher);
            }
        }
    });
    broker.until(|s| s.published > 10_000).await;
    broker.shut_down();
    let (error, publisher) = within(sending).await.unwrap();
    assert!(
        matches!(
            error,
            SendError::Ended(PublisherError::Call(CallError::Unavailable { .. }))
        ),
        "{error:?}"
    );
    let accepted = publisher.answered().accepted;
    assert_eq!(broker.broker.snapshot().published, accepted);
    broker.stopped().await;
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_given_up() {
    let timeout = Duration::from_secs(10);
    let (mut publisher, mut fake) =
        Fake::start_with_timeout(PublisherOptions::default(), timeout).await;
    send(&mut publisher, 1..=3).await;
    fake.receives_exactly(3).await;
    tokio::time::pause();
    tokio::time::advance(timeout + Duration::from_millis(500)).await;
    tokio::time::resume();
    let error = within(publisher.flush()).await.unwrap_err();
    assert_eq!(error.to_string(), "the broker did not answer within 10s");
    assert!(error.may_be_published());
    check_unanswered(&publisher, 1..=3);
}

#[tokio::test]
async fn a_publisher_that_has_nothing_to_say_is_not_given_up() {
    let timeout = Duration::from_secs(10);
    let (mut publisher, mut fake) =
        Fake::start_with_timeout(PublisherOptions::default(), timeout).await;
    send(&mut publisher, 1..=1).await;
    fake.receives_exactly(1).await;
    fake.answer_to(1);
    within(publisher.flush()).await.unwrap();
    tokio::time::pause();
    for _ in 0..50 {
        tokio::time::advance(timeout / 20).await;
    }
    tokio::time::resume();
    send(&mut publisher, 2..=2).await;
    fake.receives_exactly(1).await;
    fake.answer_to(2);
    let (total, ()) = tokio::join!(within(publisher.finish()), async {
        assert!(!fake.receives().await);
        fake.end(Code::Ok);
    });
    assert_eq!(total.unwrap().accepted, 2);
}

/// Two messages go out, and this is what comes back.
async fn check_malformed(answers: &[u64], end: Option<Code>, expected: &str) {
    let (mut publisher, mut fake) = Fake::start(PublisherOptions::default()).await;
    send(&mut publisher, 1..=2).await;
    fake.receives_exactly(2).await;
    for position in answers {
        fake.answer_to(*position);
    }
    if let Some(code) = end {
        fake.end(code);
    }
    let error = within(publisher.flush()).await.unwrap_err();
    let PublisherError::Malformed(malformed) = error else {
        panic!("not malformed: {error}")
    };
    assert_eq!(malformed.to_string(), expected);
}

#[tokio::test]
async fn what_a_broker_may_not_answer_is_an_error() {
    check_malformed(&[3], None, "position: 3 is not within 0 to 2").await;
    let short = "position: the stream ended at 1, before the publisher did";
    check_malformed(&[1], Some(Code::Ok), short).await;
}

#[tokio::test]
async fn there_is_no_publisher_without_a_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = lazy(address, NEVER);
    let error = within(client.publisher(PublisherOptions::default()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, PublisherError::Call(CallError::Unreachable { .. })),
        "{error:?}"
    );
    assert!(error.is_retryable() && !error.may_be_published());
}
