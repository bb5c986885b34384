//! What a client that comes back gets of what was published meanwhile: each message once, or the count of
//! those that are gone.

use std::time::{Duration, SystemTime};

use fanfare::{
    broker::{Bounds, HistoryLimits, Limits, Retention},
    client::{Backoff, Client, ClientOptions, Event, Gap, Received, Subscribe, Subscription},
    cursor,
    server::ServerConfig,
};
use fastrand::Rng;

use crate::{
    client::{event, filter, message, subscribe, topic},
    fault_proxy::{Cut, Fate, FaultProxy, Way},
    support::{Running, within},
};

const TOPICS: usize = 3;
/// How long messages are kept: longer than any test takes.
const AGE: Duration = Duration::from_secs(3_600);

/// Topics keep so many messages each, but those called `free`.
fn keeping(messages: usize) -> Limits {
    let rule = |filter: &str, bounds| Retention {
        filter: filter.parse().unwrap(),
        bounds,
    };
    let bounds = Bounds {
        messages,
        age: AGE,
        ..Bounds::default()
    };
    let rules = vec![rule("free", None), rule(">", Some(bounds))];
    Limits {
        history: HistoryLimits {
            rules,
            ..HistoryLimits::default()
        },
        ..Limits::default()
    }
}

async fn start(messages: usize) -> Running {
    Running::start_with(ServerConfig::default(), keeping(messages)).await
}

async fn client(address: impl ToString) -> Client {
    let options = ClientOptions {
        backoff: Backoff {
            min: Duration::from_millis(1),
            max: Duration::from_millis(10),
        },
        ..ClientOptions::default()
    };
    Client::connect_lazy(&format!("http://{}", address.to_string()), options).unwrap()
}

async fn resubscribed(subscription: &mut Subscription) -> Gap {
    match event(subscription).await {
        Event::Resubscribed { gap, .. } => gap,
        other => panic!("not resubscribed: {other:?}"),
    }
}

async fn sequences(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut sequences = Vec::new();
    for _ in 0..count {
        sequences.push(message(subscription).await.sequence.0);
    }
    sequences
}

/// Publishes in bursts to a few topics, through cuts at random bytes, and sees each message once, in order.
async fn check_cuts(subscribe_to: Subscribe, gap_expected: Gap, seed: u64) {
    const CUTS: usize = 25;
    let broker = start(100_000).await;
    let mut rng = Rng::with_seed(seed);
    let mut left = CUTS;
    let fates = move || {
        left = left.checked_sub(1)?;
        Some(Fate {
            way: if rng.u8(0..8) == 0 {
                Way::ToBroker
            } else {
                Way::ToClient
            },
            after_bytes: rng.u64(1..=8_000),
            cut: if rng.bool() { Cut::Fin } else { Cut::Reset },
        })
    };
    let proxy = FaultProxy::start_with_fates(broker.address, fates).await;
    let client = client(proxy.address).await;
    let mut subscription = loop {
        if let Ok(subscription) = within(client.subscribe(subscribe_to.clone())).await {
            break subscription;
        }
    };
    let mut published = [0; TOPICS];
    let mut seen = [0; TOPICS];
    let mut resumed = 0;
    while proxy.connections() <= CUTS || seen.iter().sum::<u64>() < 3_000 {
        for burst in 0..30 {
            let at = burst % TOPICS;
            let receipt = broker.publish(&format!("t.{at}"), "x".repeat(50));
            published[at] = receipt.sequence.0;
        }
        while seen[0] < published[0] {
            match event(&mut subscription).await {
                Event::Message(Received {
                    topic, sequence, ..
                }) => {
                    let at: usize = topic.as_str()[2..].parse().unwrap();
                    seen[at] += 1;
                    assert_eq!(sequence.0, seen[at], "{topic}");
                }
                Event::Resubscribed { gap, .. } => {
                    resumed += 1;
                    assert_eq!(gap, gap_expected);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(resumed >= 5, "{resumed}");
    assert!(broker.broker.snapshot().ledger.balances());
}

#[tokio::test]
async fn within_history_nothing_is_lost_and_nothing_comes_twice_wherever_the_connection_is_cut() {
    check_cuts(filter("t.0"), Gap::None, 1).await;
    check_cuts(filter("t.*"), Gap::NotKept, 2).await;
}

#[tokio::test]
async fn what_is_no_longer_kept_is_told_exactly_once() {
    let broker = start(5).await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(proxy.address).await;
    let mut subscription = subscribe(&client, topic("t")).await;
    broker.publish("t", "1");
    assert_eq!(sequences(&mut subscription, 1).await, [1]);
    for _ in 0..2 {
        proxy.cut(Cut::Reset).await;
        let mut last = 0;
        for _ in 0..20 {
            last = broker.publish("t", "x").sequence.0;
        }
        assert_eq!(resubscribed(&mut subscription).await, Gap::None);
        let gap = event(&mut subscription).await;
        assert_eq!(gap, Event::Gap(cursor::Gap::exactly(15)));
        let kept: Vec<u64> = (last - 4..=last).collect();
        assert_eq!(sequences(&mut subscription, 5).await, kept);
    }
}

/// Nothing is published after the gap was told: no message brings a cursor with it.
#[tokio::test]
async fn a_gap_with_nothing_behind_it_is_told_once_however_often_the_connection_breaks() {
    let long_ago = SystemTime::now() - Duration::from_secs(3_600);
    let of_another: cursor::Cursor = "1-2-3".parse().unwrap();
    // Without a start: after the first message.
    for (filter_text, start, told) in [
        ("t", None, cursor::Gap::exactly(4)),
        ("*", None, cursor::Gap::UNKNOWN),
        (
            "t",
            Some(cursor::StartAt::Since(long_ago)),
            cursor::Gap::exactly(5),
        ),
        (
            "*",
            Some(cursor::StartAt::Since(long_ago)),
            cursor::Gap::UNKNOWN,
        ),
        (
            "t",
            Some(cursor::StartAt::After(of_another)),
            cursor::Gap::UNKNOWN,
        ),
        (
            "*",
            Some(cursor::StartAt::After(of_another)),
            cursor::Gap::UNKNOWN,
        ),
        (
            "free",
            Some(cursor::StartAt::After(of_another)),
            cursor::Gap::UNKNOWN,
        ),
    ] {
        let broker = self::start(5).await;
        let from = broker.publish("t", "1").cursor().unwrap();
        (2..=5).for_each(|_| drop(broker.publish("t", "x")));
        broker.broker.expire(SystemTime::now() + AGE);
        let start = start.unwrap_or(cursor::StartAt::After(from));
        let proxy = FaultProxy::start(broker.address).await;
        let client = client(proxy.address).await;
        let mut subscription = subscribe(&client, filter(filter_text).start_at(start)).await;
        assert_eq!(event(&mut subscription).await, Event::Gap(told));
        for _ in 0..3 {
            proxy.cut(Cut::Fin).await;
            let gap = resubscribed(&mut subscription).await;
            let is_one = filter_text != "*";
            assert_eq!(gap, if is_one { Gap::None } else { Gap::NotKept });
        }
        let to = if filter_text == "free" { "free" } else { "t" };
        let sequence = broker.publish(to, "next").sequence;
        let next = message(&mut subscription).await;
        assert_eq!(next.sequence, sequence, "{filter_text} {start:?}");
    }
}

#[tokio::test]
async fn a_subscription_that_got_nothing_yet_misses_nothing_either() {
    for start in [
        cursor::StartAt::Now,
        cursor::StartAt::All,
        cursor::StartAt::Last(2),
    ] {
        for filter_text in ["t", "*"] {
            let broker = self::start(100).await;
            let proxy = FaultProxy::start(broker.address).await;
            let client = client(proxy.address).await;
            let mut subscription = subscribe(&client, filter(filter_text).start_at(start)).await;
            proxy.cut(Cut::Fin).await;
            for _ in 0..3 {
                broker.publish("t", "x");
            }
            let gap = resubscribed(&mut subscription).await;
            let expected = if filter_text == "t" {
                Gap::None
            } else {
                Gap::NotKept
            };
            assert_eq!(gap, expected, "{start:?} {filter_text}");
            assert_eq!(
                sequences(&mut subscription, 3).await,
                [1, 2, 3],
                "{start:?} {filter_text}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_kept_is_counted_as_ever() {
    let broker = start(100).await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(proxy.address).await;
    let _keeper = subscribe(&self::client(broker.address).await, topic("free")).await;
    let mut subscription = subscribe(&client, topic("free")).await;
    broker.publish("free", "1");
    assert_eq!(sequences(&mut subscription, 1).await, [1]);
    proxy.cut(Cut::Fin).await;
    for _ in 0..7 {
        broker.publish("free", "lost");
    }
    assert_eq!(resubscribed(&mut subscription).await, Gap::Exactly(7));
}

#[tokio::test]
async fn a_topic_that_ended_meanwhile_is_read_to_its_end() {
    let broker = start(100).await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(proxy.address).await;
    let mut subscription = subscribe(&client, topic("t")).await;
    broker.publish("t", "1");
    assert_eq!(sequences(&mut subscription, 1).await, [1]);
    proxy.cut(Cut::Fin).await;
    broker.publish("t", "2");
    let publisher = self::client(broker.address).await;
    let last = fanfare::message::Message {
        end: true,
        ..fanfare::message::Message::new(topic("t"), "3")
    };
    within(publisher.publish(last)).await.unwrap();
    assert_eq!(resubscribed(&mut subscription).await, Gap::None);
    assert_eq!(sequences(&mut subscription, 2).await, [2, 3]);
    assert!(within(subscription.next()).await.is_none());
}

#[tokio::test]
async fn a_broker_that_restarts_has_kept_nothing_and_says_that_it_does_not_know() {
    let mut first = start(100).await;
    let client = client(first.address).await;
    let mut subscription = subscribe(&client, topic("t")).await;
    first.publish("t", "1");
    assert_eq!(sequences(&mut subscription, 1).await, [1]);
    first.shut_down();
    first.stopped().await;
    let config = ServerConfig {
        listen: first.address,
        ..ServerConfig::default()
    };
    let back = tokio::spawn(async move {
        let gap = resubscribed(&mut subscription).await;
        (gap, event(&mut subscription).await, subscription)
    });
    let second = Running::start_with(config, keeping(100)).await;
    let (gap, told, mut subscription) = within(back).await.unwrap();
    assert_eq!(gap, Gap::None, "beyond what is told next");
    assert_eq!(told, Event::Gap(cursor::Gap::UNKNOWN));
    second.publish("t", "new");
    assert_eq!(sequences(&mut subscription, 1).await, [1]);
}
