//! Peers behind a bad network: each is answered or let go within its default limit, costs nobody else a
//! message, and is told exactly what it lost.
//!
//! Time is paused where it matters, and passes a little whenever there is nothing to do, so that the
//! limits are the real ones and the tests need none of it.

use std::{future::Future, time::Duration};

use fanfare::{
    broker::{Limits, Snapshot},
    client::{
        Backoff, CallError, Client, ClientOptions, Event, Gap, Position, Publisher, PublisherError,
        PublisherOptions, Subscription, TlsOptions,
    },
    message::Message,
};
use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::Instant,
};
use tonic::Code;

use crate::{
    client::topic,
    fault_proxy::{Cut, Fate, FaultProxy, Pass, Way},
    pki::{Authority, Files, over},
    raw::{self, PREFACE, PUBLISH, Raw, frame},
    support::{Running, filter, message, next, subscribe, within},
};

const PUBLISH_STREAM: &str = "/pubsub.v1.PubSubService/PublishStream";
/// How much time passes when nothing happens: less than anything is given, and more than sockets take.
const TICK: Duration = Duration::from_millis(1);
/// What a limit may be passed by: the steps in which it is looked at.
const SLACK: Duration = Duration::from_secs(1);
/// Cases of a random cut.
const SEEDS: u64 = 40;

/// Lets paused time pass in small steps: in one large step to the next timer, what is on its way through
/// a socket would be late. So would what the system holds back for real time to pass, as for sockets
/// without `nodelay`.
struct Clock(JoinHandle<()>);

impl Clock {
    fn start() -> Self {
        Self(tokio::spawn(async {
            loop {
                tokio::time::sleep(TICK).await;
            }
        }))
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits in paused time for the broker's figures, and says how long that took.
async fn elapsed_until(
    broker: &Running,
    bound: Duration,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Duration {
    let began = Instant::now();
    while !wanted(&broker.broker.snapshot()) {
        assert!(began.elapsed() < bound, "{:?}", broker.broker.snapshot());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

/// Waits in paused time for what must not take long.
async fn within_bound<F: Future>(bound: Duration, future: F) -> (F::Output, Duration) {
    let began = Instant::now();
    let output = tokio::time::timeout(bound, future).await;
    (output.expect("it is over in time"), began.elapsed())
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn connections_are(broker: &Running, count: u64) {
    // The one that asks is among them.
    let metric = "fanfare_connections";
    let began = Instant::now();
    while broker.metric(metric).await != count + 1 {
        assert!(began.elapsed() < SLACK);
    }
}

/// One of a hundred, whose way back passes as said.
async fn check_stalled(pass: Pass) {
    let _clock = Clock::start();
    let broker = Running::start().await;
    let proxy = FaultProxy::start(broker.address).await;
    let mut readers = Vec::new();
    for _ in 0..9 {
        let client = broker.client().await;
        for _ in 0..11 {
            readers.push(subscribe(&client, filter("t")).await);
        }
    }
    let mut stalled = Raw::connect(proxy.address).await;
    let _stream = stalled.subscribe(filter(">")).await;
    proxy.set(Way::ToClient, pass);
    // Until all that is between them is full: then it takes nothing.
    let mut last_taken = (0, Instant::now());
    let mut filled = 0;
    while last_taken.1.elapsed() < SLACK {
        broker.publish("fill", vec![0; 64 << 10]);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let taken = broker.broker.snapshot().ledger.delivered;
        if taken != last_taken.0 {
            last_taken = (taken, Instant::now());
        }
        filled += 1;
        assert!(filled < 2_000, "who takes all this?");
    }
    let (mut sequence, mut slowest) = (0, Duration::ZERO);
    while broker.broker.snapshot().subscriptions == 100 {
        assert!(
            last_taken.1.elapsed() < secs(11) + SLACK,
            "it is still there"
        );
        sequence += 1;
        let published = Instant::now();
        broker.publish("t", "x");
        for reader in &mut readers {
            let response = next(reader).await;
            assert_eq!((response.sequence, response.missed), (sequence, 0));
        }
        slowest = slowest.max(published.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let gone = last_taken.1.elapsed();
    assert!(gone >= secs(9) && gone <= secs(11) + SLACK, "{gone:?}");
    assert!(sequence > 30 && slowest < SLACK, "{sequence} {slowest:?}");
    assert_eq!(broker.rejected("stalled").await, 1);
    let ledger = broker.broker.snapshot().ledger;
    assert!(ledger.balances() && ledger.buffered == 0, "{ledger:?}");
    assert_eq!(broker.publish("t", "").delivered, 99);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_subscriber_in_a_hundred_is_gone_in_11_seconds_and_the_others_miss_nothing() {
    check_stalled(Pass::Held).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_one_byte_a_second_is_gone_like_one_that_takes_nothing() {
    check_stalled(Pass::Slowly(1)).await;
}

/// A subscriber whose network goes away in this manner, with messages for it or without.
async fn check_half_open(ways: &[Way], has_messages: bool) {
    let broker = Running::start().await;
    let proxy = FaultProxy::start(broker.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    let _stream = raw.subscribe(filter("t")).await;
    for way in ways {
        proxy.set(*way, Pass::Swallowed);
    }
    let began = Instant::now();
    while broker.broker.snapshot().subscriptions == 1 {
        assert!(began.elapsed() <= secs(35), "{ways:?} {has_messages}");
        if has_messages {
            broker.publish("t", "x");
        }
        tokio::time::sleep(secs(1)).await;
    }
    connections_are(&broker, 0).await;
    assert_eq!(broker.rejected("keepalive").await, 1);
    let snapshot = broker.broker.snapshot();
    assert!(snapshot.ledger.balances());
    assert_eq!(snapshot.buffered_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_peer_is_gone_in_35_seconds_whichever_way_is_lost() {
    let _clock = Clock::start();
    for ways in [
        &[Way::ToBroker, Way::ToClient][..],
        &[Way::ToBroker],
        &[Way::ToClient],
    ] {
        for has_messages in [false, true] {
            check_half_open(ways, has_messages).await;
        }
    }
}

/// What is said over a connection that passes one byte a second, and how long the broker listens.
async fn read_slowly(broker: &Running, said: &[u8], bound: Duration) -> (Vec<u8>, Duration) {
    let proxy = FaultProxy::start(broker.address).await;
    proxy.set(Way::ToBroker, Pass::Slowly(1));
    let socket = raw::socket(proxy.address, said).await;
    within_bound(bound, raw::read_to_close(socket)).await
}

#[tokio::test(start_paused = true)]
async fn a_handshake_of_one_byte_a_second_is_closed_after_5_seconds() {
    let _clock = Clock::start();
    let broker = Running::start().await;
    let (answer, elapsed) = read_slowly(&broker, PREFACE, secs(6)).await;
    assert_eq!(answer, b"");
    assert!(elapsed >= secs(5), "{elapsed:?}");
    assert_eq!(broker.rejected("first_bytes").await, 1);
    connections_are(&broker, 0).await;

    let authority = Authority::new("slow");
    let files = Files::new(&authority);
    let broker = Running::start_with(over(files.server()), Limits::default()).await;
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[0; 506]].concat();
    let (answer, elapsed) = read_slowly(&broker, &hello, secs(6)).await;
    assert_eq!(answer, b"");
    assert!(elapsed >= secs(5), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_of_one_byte_a_second_is_closed_with_its_limit() {
    let _clock = Clock::start();
    let broker = Running::start().await;
    // One second to know what is spoken, and five for the head.
    let head = b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n";
    let (answer, elapsed) = read_slowly(&broker, head, secs(7)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
        "{answer}"
    );
    assert!(elapsed >= secs(5), "{elapsed:?}");

    // No answer to a ping comes through what is as slow.
    let proxy = FaultProxy::start(broker.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.get("/nope").await;
    proxy.set(Way::ToBroker, Pass::Slowly(1));
    let request = raw.grpc(PUBLISH);
    let _call = raw.start(request).await;
    let (_, elapsed) = within_bound(secs(35), raw.closed()).await;
    assert!(elapsed >= secs(25), "{elapsed:?}");
    assert_eq!(broker.rejected("keepalive").await, 1);
    connections_are(&broker, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_of_one_byte_a_second_ends_with_deadline_exceeded_after_30_seconds() {
    let _clock = Clock::start();
    let broker = Running::start().await;
    let whole = frame(&message("t", &"x".repeat(100)));
    for path in [PUBLISH, PUBLISH_STREAM] {
        let mut raw = Raw::connect(broker.address).await;
        let call = raw.start(raw.grpc(path)).await;
        let (mut body, response) = call.split();
        let began = Instant::now();
        let bytes = whole.clone();
        // Each in a frame of its own, as a program does that flushes each byte.
        let trickling = tokio::spawn(async move {
            for at in 0..bytes.len() {
                if body.send_data(bytes.slice(at..=at), false).is_err() {
                    break;
                }
                tokio::time::sleep(secs(1)).await;
            }
        });
        let (_, status, _) = within(response.await.finished()).await;
        trickling.abort();
        let elapsed = began.elapsed();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{path}");
        assert_eq!(
            status.message(),
            "request did not arrive within 30 s",
            "{path}"
        );
        assert!(
            elapsed >= secs(30) && elapsed <= secs(30) + 2 * SLACK,
            "{elapsed:?}"
        );
    }
    assert_eq!(broker.rejected("request_timeout").await, 2);
    assert_eq!(broker.broker.snapshot().published, 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_far_away_misses_nothing_and_is_taken_for_no_other() {
    let _clock = Clock::start();
    let away = Duration::from_millis(400);
    let broker = Running::start().await;
    let proxy = FaultProxy::start(broker.address).await;
    for way in [Way::ToBroker, Way::ToClient] {
        proxy.set(way, Pass::Late(away));
    }
    let client = client(&proxy).await;
    let mut subscription = client.subscribe(topic("t")).await.unwrap();
    let began = Instant::now();
    let receipt = client.publish(Message::new(topic("t"), "x")).await.unwrap();
    assert_eq!(receipt.delivered, 1);
    assert!(began.elapsed() >= 2 * away);
    assert_eq!(payload(&mut subscription).await, "x");
    for minute in 0..2 {
        tokio::time::sleep(secs(60)).await;
        for number in 0..1_000 {
            broker.publish("t", format!("{minute} {number}"));
        }
        for number in 0..1_000 {
            assert_eq!(
                payload(&mut subscription).await,
                format!("{minute} {number}")
            );
        }
    }
    for limit in ["stalled", "keepalive", "idle"] {
        assert_eq!(broker.rejected(limit).await, 0, "{limit}");
    }
}

/// A client that is back as soon as it can.
async fn client(proxy: &FaultProxy) -> Client {
    client_with(proxy, None).await
}

async fn client_with(proxy: &FaultProxy, tls: Option<TlsOptions>) -> Client {
    let options = ClientOptions {
        backoff: Backoff {
            min: Duration::from_millis(10),
            max: Duration::from_millis(20),
        },
        tls,
        ..ClientOptions::default()
    };
    let scheme = if options.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let url = format!("{scheme}://{}", proxy.address);
    Client::connect_lazy(&url, options).unwrap()
}

async fn payload(subscription: &mut Subscription) -> String {
    match within(subscription.next()).await.unwrap().unwrap() {
        Event::Message(message) => String::from_utf8(message.payload.to_vec()).unwrap(),
        other => panic!("not a message: {other:?}"),
    }
}

/// A cut of the first connection, somewhere within so many bytes of either way.
fn fate_of_first(rng: &mut Rng, to_broker: u64, to_client: u64) -> Fate {
    let (way, bytes) = if rng.bool() {
        (Way::ToBroker, to_broker)
    } else {
        (Way::ToClient, to_client)
    };
    Fate {
        way,
        after_bytes: rng.u64(1..=bytes),
        cut: if rng.bool() { Cut::Fin } else { Cut::Reset },
    }
}

async fn start_cut_once(broker: &Running, fate: Fate) -> FaultProxy {
    let mut fates = vec![fate];
    FaultProxy::start_with_fates(broker.address, move || fates.pop()).await
}

/// Waits until the broker knows that nobody is there any more but `subscribers`.
async fn until_alone(broker: &Running, subscribers: u64) {
    let bound = Instant::now();
    while broker.metric("fanfare_streams").await != subscribers {
        assert!(bound.elapsed() < secs(5));
    }
}

/// Sends numbered messages, now and then with a pause or until all are answered; says how many went.
async fn send_until_cut(publisher: &mut Publisher, rng: &mut Rng, name: &str, count: u64) -> u64 {
    let mut sent = 0;
    for number in 1..=count {
        let padding = "x".repeat(rng.usize(0..1_000));
        let message = Message::new(topic(name), format!("{number} {padding}"));
        match within(publisher.send(message)).await {
            Ok(position) => assert_eq!(position, Position(number)),
            Err(_) => break,
        }
        sent = number;
        match rng.u8(0..20) {
            0 => tokio::time::sleep(Duration::from_millis(rng.u64(1..20))).await,
            1 => match within(publisher.flush()).await {
                Ok(answered) => assert_eq!(answered.accepted, number),
                Err(_) => break,
            },
            _ => {}
        }
    }
    sent
}

/// Whatever breaks: what is answered was published, each message at most once and in its order, and what
/// is not answered is told as that.
#[tokio::test(start_paused = true)]
async fn a_publish_stream_cut_at_any_byte_leaves_exactly_what_was_answered_or_more() {
    const COUNT: u64 = 200;
    let _clock = Clock::start();
    let broker = Running::start().await;
    let reader = broker.client().await;
    let (mut partial, mut unanswered_but_published) = (0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let name = format!("t.{seed}");
        let mut stream = subscribe(&reader, filter(&name)).await;
        let fate = fate_of_first(&mut rng, COUNT * 600, 800);
        let proxy = start_cut_once(&broker, fate).await;
        let client = client(&proxy).await;
        let Ok(mut publisher) = within(client.publisher(PublisherOptions::default())).await else {
            until_alone(&broker, 1).await;
            assert!(fate.after_bytes < 1_000, "{fate:?}");
            continue;
        };
        let sent = send_until_cut(&mut publisher, &mut rng, &name, COUNT).await;
        let finished = within(publisher.finish()).await;
        let answered = publisher.answered();
        let unanswered = publisher.unanswered();
        until_alone(&broker, 1).await;

        let published = broker.publish(&name, "end").sequence.0 - 1;
        for number in 1..=published {
            let response = next(&mut stream).await;
            assert_eq!(
                (response.sequence, response.missed),
                (number, 0),
                "{fate:?}"
            );
            let payload = String::from_utf8(response.payload.to_vec()).unwrap();
            assert!(
                payload.starts_with(&format!("{number} ")),
                "{fate:?}: {payload}"
            );
        }
        assert_eq!(next(&mut stream).await.payload, "end");
        let accepted = answered.accepted;
        assert!(accepted <= published && published <= sent, "{fate:?}");
        assert_eq!(
            (answered.position, answered.rejected),
            (Position(accepted), 0)
        );
        assert_eq!(unanswered, Position(accepted + 1)..Position(sent + 1));
        match finished {
            // The cut may also come when nothing is unanswered.
            Ok(_) => assert_eq!((accepted, published), (sent, sent)),
            Err(error) => {
                let is_lost = matches!(
                    error,
                    PublisherError::Call(CallError::ConnectionLost { .. })
                );
                assert!(is_lost && error.may_be_published(), "{error:?}");
            }
        }
        partial += u32::from(published > 0 && published < COUNT);
        unanswered_but_published += u32::from(accepted < published);
        let snapshot = broker.broker.snapshot();
        assert!(
            snapshot.ledger.balances() && snapshot.buffered_bytes == 0,
            "{snapshot:?}"
        );
    }
    assert!(
        partial >= 5 && unanswered_but_published >= 2,
        "the cuts come at the wrong places: {partial} {unanswered_but_published}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_at_any_byte_is_published_once_or_not_at_all_and_says_which_if_it_can() {
    let _clock = Clock::start();
    let broker = Running::start().await;
    let mut outcomes = [0; 3];
    for seed in 0..2 * SEEDS {
        let mut rng = Rng::with_seed(seed);
        let fate = fate_of_first(&mut rng, 600, 300);
        let proxy = start_cut_once(&broker, fate).await;
        let client = client(&proxy).await;
        let before = broker.broker.snapshot().published;
        let message = Message::new(topic("t"), "x".repeat(100));
        let published = within(client.publish(message)).await;
        drop(client);
        connections_are(&broker, 0).await;
        let count = broker.broker.snapshot().published - before;
        match published {
            Ok(_) => {
                assert_eq!(count, 1, "{fate:?}");
                outcomes[0] += 1;
            }
            Err(error) if error.may_be_published() => {
                assert!(count <= 1, "{fate:?}");
                outcomes[1] += 1;
            }
            Err(error) => {
                assert_eq!(count, 0, "{fate:?}: {error:?}");
                outcomes[2] += 1;
            }
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_through_any_cut_and_tells_each_gap_exactly() {
    const CUTS: usize = 30;
    let _clock = Clock::start();
    let broker = Running::start().await;
    // The topic lives on while nobody else is there.
    let _keeper = subscribe(&broker.client().await, filter("t")).await;
    broker.publish("t", "before");
    let mut rng = Rng::with_seed(4);
    let mut left = CUTS;
    let fates = move || {
        left = left.checked_sub(1)?;
        let mut fate = fate_of_first(&mut rng, 800, 6_000);
        // Room for a subscription to come about, often enough.
        fate.after_bytes += if rng.u8(0..4) > 0 { 400 } else { 0 };
        Some(fate)
    };
    let proxy = FaultProxy::start_with_fates(broker.address, fates).await;
    let client = client(&proxy).await;
    let mut subscription = loop {
        if let Ok(subscription) = within(client.subscribe(topic("t"))).await {
            break subscription;
        }
    };
    let mut seen = subscription.facts().start.unwrap().head.0;
    let (mut gaps, mut lost, mut received) = (0, 0, 0);
    while proxy.connections() <= CUTS || received < 1_000 {
        for _ in 0..5 {
            broker.publish("t", "x".repeat(50));
        }
        // All that is there, and nothing more if the connection is away.
        while let Ok(event) =
            tokio::time::timeout(Duration::from_millis(5), subscription.next()).await
        {
            match event.unwrap().unwrap() {
                Event::Message(message) => {
                    seen += 1;
                    received += 1;
                    assert_eq!(message.sequence.0, seen);
                }
                Event::Resubscribed { gap, .. } => {
                    gaps += 1;
                    match gap {
                        Gap::None => {}
                        Gap::Exactly(count) => {
                            seen += count;
                            lost += count;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(gaps >= 5 && lost > 0, "{gaps} {lost}");
    let last = broker.publish("t", "last").sequence.0;
    let Event::Message(message) = within(subscription.next()).await.unwrap().unwrap() else {
        panic!("nothing is to come but the last message");
    };
    assert_eq!((message.sequence.0, seen), (last, last - 1));
    let snapshot = broker.broker.snapshot();
    assert!(snapshot.ledger.balances());
}

#[tokio::test(start_paused = true)]
async fn a_client_in_a_half_open_connection_is_back_in_35_seconds_and_knows_what_it_lost() {
    let _clock = Clock::start();
    let broker = Running::start().await;
    let _keeper = subscribe(&broker.client().await, filter("t")).await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(&proxy).await;
    let mut subscription = client.subscribe(topic("t")).await.unwrap();
    broker.publish("t", "one");
    assert_eq!(payload(&mut subscription).await, "one");
    for way in [Way::ToBroker, Way::ToClient] {
        proxy.set_present(way, Pass::Swallowed);
    }
    for _ in 0..7 {
        broker.publish("t", "lost");
    }
    let (event, elapsed) = within_bound(secs(35), subscription.next()).await;
    let Event::Resubscribed { gap, .. } = event.unwrap().unwrap() else {
        panic!("nothing else can have come");
    };
    assert_eq!(gap, Gap::Exactly(7));
    assert!(elapsed >= secs(10), "{elapsed:?}");
    broker.publish("t", "two");
    assert_eq!(payload(&mut subscription).await, "two");
    // The broker notices for itself.
    let elapsed = elapsed_until(&broker, secs(35), |s| s.subscriptions == 2).await;
    assert!(elapsed <= secs(35), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_cut_at_any_byte_leaves_nothing_behind() {
    let _clock = Clock::start();
    let authority = Authority::new("cut");
    let files = Files::new(&authority);
    let broker = Running::start_with(over(files.server()), Limits::default()).await;
    let mut failed = 0;
    for seed in 0..SEEDS / 2 {
        let mut rng = Rng::with_seed(seed);
        let proxy = start_cut_once(&broker, fate_of_first(&mut rng, 1_000, 2_000)).await;
        let client = client_with(&proxy, Some(files.client())).await;
        let message = Message::new(topic("t"), "x");
        failed += u32::from(within(client.publish(message)).await.is_err());
        drop(client);
        let metric = "fanfare_connections";
        crate::tls::until_metric(&broker, &authority, metric, 1).await;
    }
    assert!(failed > 10, "{failed}");
    assert!(broker.broker.snapshot().ledger.balances());
}

#[tokio::test]
async fn the_proxy_cuts_after_exactly_so_many_bytes_and_passes_all_others() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for cut in [Cut::Fin, Cut::Reset] {
        let fate = Fate {
            way: Way::ToBroker,
            after_bytes: 7,
            cut,
        };
        let mut fates = vec![fate];
        let fates = move || fates.pop();
        let address = listener.local_addr().unwrap();
        let proxy = FaultProxy::start_with_fates(address, fates).await;
        let mut near = raw::socket(proxy.address, b"0123456789").await;
        let (mut far, _) = within(listener.accept()).await.unwrap();
        let mut read = Vec::new();
        let ended = within(far.read_to_end(&mut read)).await;
        assert!(b"0123456".starts_with(&read[..]));
        match cut {
            Cut::Fin => assert_eq!(ended.unwrap(), 7),
            Cut::Reset => {
                let error = ended.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
        }
        assert!(within(near.read_to_end(&mut read)).await.is_err() == (cut == Cut::Reset));
        // The next one has no such fate.
        let mut near = raw::socket(proxy.address, b"0123456789").await;
        let (mut far, _) = within(listener.accept()).await.unwrap();
        near.shutdown().await.unwrap();
        let mut read = Vec::new();
        within(far.read_to_end(&mut read)).await.unwrap();
        assert_eq!(read, b"0123456789");
        far.write_all(b"back").await.unwrap();
        drop(far);
        let mut read = Vec::new();
        within(near.read_to_end(&mut read)).await.unwrap();
        assert_eq!(read, b"back");
    }
}
