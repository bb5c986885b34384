//! What subscribers that want the same are given together, and what each gets on its own.

use super::*;

/// What one message of `payload_bytes` takes in the encoding of these tests, on topic `t`.
const FRAME_OVERHEAD_BYTES: usize = 29;

fn subscribe_with(broker: &Broker, messages: usize) -> (Subscription, Arc<Subscriber>) {
    let wish = SubscribeOptions {
        mailbox_capacity: Some(messages),
        ..options("t")
    };
    let subscription = broker.subscribe_encoded(wish, &ENCODING).unwrap();
    (subscription, newest_subscriber(broker))
}

fn publish_bytes(broker: &Broker, payload_bytes: usize) {
    let message = Message::new(topic("t"), vec![0; payload_bytes]);
    broker.publish(message, SystemTime::UNIX_EPOCH).unwrap();
}

/// What has been handed over, without asking for more.
fn handed_over(subscriber: &Subscriber) -> u64 {
    subscriber.mailbox.ledger().buffered
}

/// How many messages come together with others' and how many on their own.
fn take_by_kind(subscription: &mut Subscription) -> (usize, usize) {
    let (mut together, mut alone) = (0, 0);
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(taken) = subscription.poll_take_encoded(&mut cx, ALL, |taken| match taken
    {
        Taken::Missed(_) | Taken::Gap(..) => {}
        Taken::Delivery(_) => alone += 1,
        Taken::Frames(mut frames) => {
            while frames.has_remaining() {
                decode(&mut frames);
                together += 1;
            }
        }
    }) {
        taken.unwrap();
    }
    (together, alone)
}

#[test]
fn a_tail_is_handed_over_at_256_messages_at_the_latest() {
    let broker = broker();
    let (_subscription, subscriber) = subscribe_with(&broker, 10_000);
    for _ in 0..2 {
        let before = handed_over(&subscriber);
        for _ in 0..256 {
            publish_bytes(&broker, 1);
            // The first of the second round hands over what is before it.
            assert!(handed_over(&subscriber) == before || before == 0);
        }
    }
    assert_eq!(handed_over(&subscriber), 256);
    publish_bytes(&broker, 1);
    assert_eq!(handed_over(&subscriber), 512);
}

#[test]
fn a_tail_is_handed_over_at_64_kib_at_the_latest() {
    let broker = broker();
    let (_subscription, subscriber) = subscribe_with(&broker, 10_000);
    // Exactly, after eight of them.
    for _ in 0..8 {
        publish_bytes(&broker, 8 * 1024 - FRAME_OVERHEAD_BYTES);
        assert_eq!(handed_over(&subscriber), 0);
    }
    publish_bytes(&broker, 1);
    assert_eq!(handed_over(&subscriber), 8);
}

#[test]
fn a_payload_of_16_kib_is_shared_and_a_smaller_one_is_copied() {
    let broker = broker();
    let (mut subscription, _) = subscribe_with(&broker, 10_000);
    publish_bytes(&broker, 16 * 1024 - 1);
    assert_eq!(take_by_kind(&mut subscription), (1, 0));
    for payload_bytes in [16 * 1024, 16 * 1024 + 1] {
        publish_bytes(&broker, payload_bytes);
        assert_eq!(take_by_kind(&mut subscription), (0, 1));
    }
}

#[test]
fn who_falls_behind_is_served_alone_and_keeps_nobody_from_being_served_together() {
    let broker = broker();
    let (mut quick, _) = subscribe_with(&broker, 10_000);
    let (mut slow, slow_subscriber) = subscribe_with(&broker, 100);
    let publish_some = |count| (0..count).for_each(|_| publish_bytes(&broker, 1));
    // Three quarters of its mailbox and one more: then it is behind.
    publish_some(75);
    assert_eq!(take_by_kind(&mut quick), (75, 0));
    publish_some(1);
    assert_eq!(take_by_kind(&mut quick), (1, 0));
    assert_eq!(handed_over(&slow_subscriber), 76);
    publish_some(50);
    assert_eq!(
        handed_over(&slow_subscriber),
        100,
        "at once, up to its bound"
    );
    assert_eq!(take_by_kind(&mut quick), (50, 0));
    assert_eq!(take_by_kind(&mut slow), (76, 24));

    // It comes back as soon as something is handed over.
    publish_some(1);
    assert_eq!(take_by_kind(&mut quick), (1, 0));
    assert_eq!(take_by_kind(&mut slow), (0, 1));
    publish_some(10);
    assert_eq!(take_by_kind(&mut slow), (10, 0));
    assert_eq!(take_by_kind(&mut quick), (10, 0));
    let ledger = broker.snapshot().ledger;
    assert!(ledger.balances());
    assert_eq!(ledger.missed_total(), 26);
}

#[test]
fn a_mailbox_too_small_for_a_lane_and_a_member_of_a_group_are_served_alone() {
    let broker = Broker::new(Limits::default(), 1).unwrap();
    let of_capacity = |messages, group: Option<&str>| {
        let wish = SubscribeOptions {
            mailbox_capacity: Some(messages),
            group: group.map(|name| name.parse().unwrap()),
            ..options("t")
        };
        broker.subscribe_encoded(wish, &ENCODING).unwrap()
    };
    let mut small = of_capacity(63, None);
    let mut large = of_capacity(64, None);
    let mut member = of_capacity(1_000, Some("g"));
    publish_bytes(&broker, 1);
    publish_bytes(&broker, 1);
    assert_eq!(take_by_kind(&mut small), (0, 2));
    assert_eq!(take_by_kind(&mut large), (2, 0));
    assert_eq!(take_by_kind(&mut member), (0, 2));
}

#[test]
fn a_lane_lets_through_what_its_tags_say_and_goes_with_its_last_member() {
    let broker = broker();
    let wish = SubscribeOptions {
        tags: vec!["x".parse().unwrap()],
        ..options("t")
    };
    let mut tagged = broker.subscribe_encoded(wish, &ENCODING).unwrap();
    for tag in [None, Some("x"), Some("y")] {
        let receipt = publish_tagged(&broker, "t", tag, "m");
        assert_eq!(receipt.matched, u32::from(tag == Some("x")));
    }
    assert_eq!(take_by_kind(&mut tagged), (1, 0));
    drop(tagged);
    assert!(broker.shared.registry.read().is_empty());
}
