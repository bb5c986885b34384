//! What a client does, and tells, when its connection breaks or its broker restarts.

use std::time::Duration;

use fanfare::{
    broker::Limits,
    client::{
        Backoff, CallError, Client, ClientOptions, Event, Gap, PublishError, Subscribe,
        SubscribeError, Subscription,
    },
    message::Message,
    server::ServerConfig,
};

use crate::{
    client::{connect, end, event, filter, message, subscribe, topic},
    fault_proxy::{Cut, FaultProxy, Pass, Way},
    support::{Running, within},
};

const NEVER: Duration = Duration::from_secs(60 * 60);

async fn resubscribed(subscription: &mut Subscription) -> Gap {
    match event(subscription).await {
        Event::Resubscribed { gap, facts } => {
            assert_eq!(&facts, subscription.facts());
            gap
        }
        other => panic!("not resubscribed: {other:?}"),
    }
}

async fn client(proxy: &FaultProxy, reconnect: bool) -> Client {
    let options = ClientOptions {
        reconnect,
        // Neither of these is to notice anything before what is tested does.
        keepalive_interval: NEVER,
        request_timeout: NEVER,
        backoff: Backoff {
            min: Duration::from_millis(1),
            max: Duration::from_millis(10),
        },
        ..ClientOptions::default()
    };
    let url = proxy.address.to_string();
    within(Client::with_options(&url, options)).await.unwrap()
}

#[tokio::test]
async fn a_client_outlives_its_broker() {
    let mut first = Running::start().await;
    let client = connect(&first).await;
    let mut subscription = subscribe(&client, topic("t")).await;
    first.publish("t", "one");
    assert_eq!(message(&mut subscription).await.payload, "one");
    first.shut_down();
    first.stopped().await;

    let error = within(client.publish(Message::new(topic("t"), "lost")))
        .await
        .unwrap_err();
    assert!(
        matches!(error, PublishError::Call(CallError::Unreachable { .. })),
        "{error:?}"
    );
    assert!(error.is_retryable() && !error.may_be_published());

    let config = ServerConfig {
        listen: first.address,
        ..ServerConfig::default()
    };
    let back = tokio::spawn(async move { (resubscribed(&mut subscription).await, subscription) });
    let second = Running::start_with(config, Limits::default()).await;
    let (gap, mut subscription) = within(back).await.unwrap();
    assert_eq!(gap, Gap::Unknown, "a restart begins a new epoch");
    within(client.publish(Message::new(topic("t"), "two")))
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await.payload, "two");
    drop(second);
}

/// Cuts the connection once 3 messages have arrived, and publishes 7 more that are lost.
async fn check_cut(subscribe_to: Subscribe, expected: Gap) {
    let broker = Running::start().await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(&proxy, true).await;
    // The topic has a past, so that the subscription does not start at 0.
    let keeper = subscribe(&connect(&broker).await, topic("t")).await;
    broker.publish("t", "before");
    let mut subscription = subscribe(&client, subscribe_to).await;
    for _ in 0..3 {
        let tagged = Message {
            tag: Some("tag".parse().unwrap()),
            ..Message::new(topic("t"), "seen")
        };
        within(client.publish(tagged)).await.unwrap();
    }
    for _ in 0..3 {
        assert_eq!(message(&mut subscription).await.payload, "seen");
    }
    proxy.cut(Cut::Fin).await;
    for _ in 0..7 {
        broker.publish("t", "lost");
    }
    assert_eq!(resubscribed(&mut subscription).await, expected);
    proxy.cut(Cut::Fin).await;
    let again = resubscribed(&mut subscription).await;
    match expected {
        Gap::Unknown => assert_eq!(again, Gap::Unknown),
        _ => assert_eq!(again, Gap::None, "no loss is told twice"),
    }
    drop(keeper);
}

#[tokio::test]
async fn a_broken_connection_is_told_with_what_it_cost() {
    check_cut(filter("t"), Gap::Exactly(7)).await;
    check_cut(filter("t").tags(["tag".parse().unwrap()]), Gap::AtMost(7)).await;
    check_cut(filter("t").group("g".parse().unwrap()), Gap::AtMost(7)).await;
    check_cut(filter(">"), Gap::Unknown).await;
}

#[tokio::test]
async fn a_miss_that_was_told_is_not_part_of_the_gap() {
    let broker = Running::start().await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(&proxy, true).await;
    let mut subscription = subscribe(&client, filter("t").mailbox_capacity(4)).await;
    for _ in 0..10 {
        broker.publish("t", "x");
    }
    assert_eq!(event(&mut subscription).await, Event::Missed(6));
    for sequence in 1..=4 {
        assert_eq!(message(&mut subscription).await.sequence.0, sequence);
    }
    proxy.cut(Cut::Fin).await;
    for _ in 0..3 {
        broker.publish("t", "lost");
    }
    assert_eq!(resubscribed(&mut subscription).await, Gap::Exactly(3));
    broker.publish("t", "after");
    assert_eq!(message(&mut subscription).await.sequence.0, 14);
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_by_its_silence() {
    let broker = Running::start().await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(&proxy, true).await;
    let interval = Duration::from_secs(5);
    let request = filter("t").heartbeat_interval(interval);
    let mut subscription = subscribe(&client, request).await;
    broker.publish("t", "one");
    assert_eq!(message(&mut subscription).await.payload, "one");
    for way in [Way::ToBroker, Way::ToClient] {
        proxy.set_present(way, Pass::Held);
    }
    tokio::time::pause();
    tokio::time::advance(2 * interval + Duration::from_millis(5_500)).await;
    tokio::time::resume();
    assert_eq!(resubscribed(&mut subscription).await, Gap::None);
    broker.publish("t", "two");
    assert_eq!(message(&mut subscription).await.payload, "two");
}

#[tokio::test]
async fn without_reconnecting_a_broken_connection_is_the_end() {
    let broker = Running::start().await;
    let proxy = FaultProxy::start(broker.address).await;
    let client = client(&proxy, false).await;
    let mut subscription = subscribe(&client, topic("t")).await;
    proxy.cut(Cut::Fin).await;
    let error = end(&mut subscription).await;
    assert!(error.is_retryable());
    assert!(
        matches!(
            error,
            SubscribeError::Call(CallError::ConnectionLost { .. })
        ),
        "{error:?}"
    );
}
