//! What is refused, in which words, and that a refusal leaves nothing behind.

use super::*;
use crate::message::Attributes;

fn strict() -> Limits {
    Limits {
        payload_bytes_max: 10,
        attributes_max: 2,
        attributes_bytes_max: 6,
        subscriptions_max: 2,
        tags_max: 1,
        mailbox_capacity: 3,
        mailbox_capacity_max: 5,
        ..Limits::default()
    }
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.parse().unwrap(), (*value).to_owned()))
        .collect()
}

#[track_caller]
fn check_publish(payload: &str, pairs: &[(&str, &str)], expected: Result<(), &str>) {
    let broker = broker_with(strict());
    let mut reader = subscribe(&broker, "t");
    let before = broker.snapshot();
    let mut message = Message::new(topic("t"), payload.to_owned());
    message.attributes = attributes(pairs);
    let result = broker.publish(message, SystemTime::UNIX_EPOCH);
    let text = result.as_ref().map(|_| ()).map_err(ToString::to_string);
    assert_eq!(text, expected.map_err(str::to_owned));
    if expected.is_err() {
        assert_eq!(broker.snapshot(), before, "nothing is left behind");
        assert!(payloads(&mut reader).is_empty());
        assert_eq!(publish(&broker, "t", "next").sequence, Sequence(1));
    }
}

#[test]
fn a_broker_tells_the_limits_that_are_in_force() {
    assert_eq!(broker_with(strict()).limits(), &strict());
}

#[test]
fn a_message_that_passes_a_limit_is_refused_with_limit_and_value() {
    check_publish("0123456789", &[("a", "12"), ("b", "12")], Ok(()));
    check_publish(
        "0123456789x",
        &[],
        Err("payload of 11 bytes exceeds the limit of 10"),
    );
    check_publish(
        "",
        &[("a", ""), ("b", ""), ("c", "")],
        Err("3 attributes exceed the limit of 2"),
    );
    check_publish(
        "",
        &[("a", "123"), ("b", "12")],
        Err("attributes of 7 bytes exceed the limit of 6"),
    );
}

#[test]
fn a_subscriber_may_ask_for_so_many_tags() {
    let broker = broker_with(strict());
    let mut wish = options("t");
    wish.tags = vec!["a".parse().unwrap(), "b".parse().unwrap()];
    let error = broker.subscribe(wish.clone()).unwrap_err();
    assert_eq!(error.to_string(), "2 tags exceed the limit of 1");
    assert_eq!(broker.snapshot(), Snapshot::default());
    wish.tags.pop();
    assert!(broker.subscribe(wish).is_ok());
}

#[test]
fn so_many_subscriptions_may_live_at_once() {
    let broker = broker_with(strict());
    let _first = subscribe(&broker, "t");
    let second = subscribe(&broker, ">");
    for wish in [options("t"), options("u"), in_group("*", "g")] {
        let error = broker.subscribe(wish).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 subscriptions are live, which is the limit"
        );
    }
    let snapshot = broker.snapshot();
    assert_eq!((snapshot.subscriptions, snapshot.groups), (2, 0));
    drop(second);
    assert!(broker.subscribe(options("t")).is_ok());
}

#[test]
fn a_refused_subscription_does_not_keep_its_topic() {
    let broker = broker_with(strict());
    let _live = [subscribe(&broker, "t"), subscribe(&broker, "t")];
    assert!(broker.subscribe(options("u")).is_err());
    broker.age_topics();
    broker.age_topics();
    assert_eq!(broker.snapshot().topics, 1);
}

#[test]
fn a_broker_that_drains_says_so() {
    let broker = broker();
    broker.drain();
    let error = broker.subscribe(options("t")).unwrap_err();
    assert_eq!(error.to_string(), "the broker is shutting down");
}

#[test]
fn a_mailbox_is_granted_as_asked_within_its_bounds() {
    let broker = broker_with(strict());
    for (asked, granted) in [(None, 3), (Some(0), 1), (Some(4), 4), (Some(6), 5)] {
        let mut wish = options("t");
        wish.mailbox_capacity = asked;
        let size = broker.subscribe(wish).unwrap().mailbox_size();
        assert_eq!(size.messages, granted);
        assert_eq!(size.bytes, strict().mailbox_bytes);
    }
}

#[test]
fn limits_that_do_not_fit_together_make_no_broker() {
    let limits = Limits {
        mailbox_capacity: 6,
        ..strict()
    };
    assert_eq!(
        Broker::new(limits, 1).unwrap_err().to_string(),
        "mailbox_capacity of 6 exceeds mailbox_capacity_max of 5"
    );
    let limits = Limits {
        payload_bytes_max: PAYLOAD_BYTES_CEILING + 1,
        ..Limits::default()
    };
    assert_eq!(
        Broker::new(limits, 1).unwrap_err().to_string(),
        "payload_bytes_max of 16777217 exceeds the ceiling of 16777216"
    );
}

#[test]
fn all_mailboxes_together_hold_no_more_than_their_bound() {
    let limits = Limits {
        payload_bytes_max: 100,
        attributes_bytes_max: 0,
        mailbox_bytes: 1_300,
        buffered_bytes_max: 1_300,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let mut readers: Vec<_> = (0..4).map(|_| subscribe(&broker, "t")).collect();
    let receipts: Vec<_> = (0..3).map(|_| publish(&broker, "t", "m")).collect();
    let snapshot = broker.snapshot();
    assert!(snapshot.buffered_bytes <= 1_300);
    assert_eq!(snapshot.buffered_bytes_refusals, 7);
    let delivered: u32 = receipts.iter().map(|receipt| receipt.delivered).sum();
    assert_eq!((delivered, snapshot.ledger.buffered), (5, 5));
    let told: u64 = readers.iter_mut().map(|r| take(r).unwrap().0).sum();
    assert_eq!(told, 7);
    assert_eq!(publish(&broker, "t", "m").delivered, 4);
}

#[test]
fn a_message_that_finds_no_room_is_counted_once() {
    let limits = Limits {
        payload_bytes_max: 100,
        attributes_bytes_max: 0,
        mailbox_bytes: 1_300,
        buffered_bytes_max: 1_300,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let _hog = subscribe(&broker, "h");
    for _ in 0..4 {
        publish(&broker, "h", "m");
    }
    let options = SubscribeOptions {
        overflow: OverflowPolicy::DropOldest,
        ..in_group("t", "g")
    };
    let _member = broker.subscribe(options).unwrap();
    publish(&broker, "t", "x");
    let before = broker.snapshot().buffered_bytes_refusals;
    publish(&broker, "t", &"x".repeat(100));
    assert_eq!(broker.snapshot().buffered_bytes_refusals - before, 1);
}

#[test]
fn a_refused_subscription_leaves_idle_topics_alone() {
    let broker = broker_with(Limits {
        idle_topics_max: 64,
        subscriptions_max: 1,
        ..Limits::default()
    });
    let epoch = subscribe(&broker, "mine").start().unwrap().epoch;
    let one = subscribe(&broker, "one");
    for index in 0..1_000 {
        let refused = broker.subscribe(options(&format!("x{index}")));
        assert!(refused.is_err());
    }
    drop(one);
    assert_eq!(subscribe(&broker, "mine").start().unwrap().epoch, epoch);
}

#[test]
fn a_subscription_counts_and_so_does_each_filter_after_the_first() {
    let broker = broker_with(Limits::default());
    let memory = |broker: &Broker| broker.snapshot().memory_bytes;
    let one = broker.subscribe(options("a.*")).unwrap();
    let first = memory(&broker);
    assert_eq!(first, pressure::SUBSCRIPTION_BYTES);
    let more = SubscribeOptions {
        filters: filters("a.* b.* c.*"),
        ..options("a.*")
    };
    let three = broker.subscribe(more).unwrap();
    let filters = 2 * pressure::FILTER_BYTES;
    assert_eq!(memory(&broker), 2 * first + filters);
    drop((one, three));
    assert_eq!(memory(&broker), 0);
}

#[test]
fn a_mailbox_may_be_as_large_as_the_largest_by_default() {
    let capacity = |value, max| Limits {
        mailbox_capacity: value,
        mailbox_capacity_max: max,
        ..Limits::default()
    };
    assert!(Broker::new(capacity(5, 5), 1).is_ok());
    let error = Broker::new(capacity(6, 5), 1).unwrap_err();
    assert!(matches!(
        error,
        LimitsError::CapacityAboveMax { value: 6, max: 5 }
    ));
}

#[test]
fn what_the_process_takes_counts_and_leaves_most_of_the_budget() {
    let limits = Limits {
        memory_budget: 80_000_000,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    broker.count_process(3_000_000);
    assert_eq!(broker.snapshot().memory_bytes, 3_000_000);
    // Said again, it counts once; and a small budget is not used up by it.
    broker.count_process(70_000_000);
    assert_eq!(broker.snapshot().memory_bytes, 10_000_000);
}

#[test]
fn the_largest_mailboxes_are_shed_until_memory_is_no_longer_critical() {
    let limits = Limits {
        memory_budget: 2 << 20,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let mut readers: Vec<_> = ["a", "b", "c"]
        .map(|topic| subscribe(&broker, topic))
        .into();
    let payload = "x".repeat(50_000);
    let fill = |topic, messages| {
        for _ in 0..messages {
            assert_eq!(publish(&broker, topic, &payload).delivered, 1);
        }
    };
    fill("a", 20);
    fill("b", 10);
    assert_eq!(broker.relieve(), 0);
    fill("a", 10);
    assert!(broker.snapshot().memory_bytes >= (2 << 20) / 100 * 95);
    assert_eq!(broker.relieve(), 1);
    let ended = Ended {
        reason: EndReason::Shed,
        missed: 30,
    };
    assert_eq!(take(&mut readers[0]).unwrap_err(), ended);
    assert_eq!(take(&mut readers[1]).unwrap().1.len(), 10);
    assert!(take(&mut readers[2]).unwrap().1.is_empty());
    let snapshot = broker.snapshot();
    assert!(snapshot.ledger.balances());
    assert_eq!(snapshot.ledger.missed[MissReason::Shed as usize], 30);
    drop(readers);
    assert_eq!(broker.snapshot().memory_bytes, 0);
    subscribe(&broker, "a");
}

#[test]
fn when_memory_is_full_messages_find_no_room_and_the_loss_is_told_later() {
    let limits = Limits {
        memory_budget: 2 << 20,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let hog = SubscribeOptions {
        mailbox_capacity: Some(10_000),
        ..options("h")
    };
    let hog = broker.subscribe_encoded(hog, &ENCODING).unwrap();
    let mut quick = subscribe(&broker, "t");
    let payload = "x".repeat(50_000);
    while publish(&broker, "h", &payload).delivered == 1 {}
    // The last small rest of the room, too: a tail that is handed over gives some of it back.
    let mut refused = 0;
    while refused < 10 {
        refused = match publish(&broker, "h", "x").delivered {
            0 => refused + 1,
            _ => 0,
        };
    }
    assert!(broker.subscribe(options("t")).is_err());
    let wakes = Arc::new(Wakes::default());
    let waker = Arc::clone(&wakes).into();
    assert_eq!(publish(&broker, "t", "1").dropped, 1);
    assert!(poll_take(&mut quick, ALL, &waker).is_pending());
    drop(hog);
    broker.tick(10);
    assert_eq!(wakes.count(), 1);
    assert_eq!(take(&mut quick).unwrap().0, 1);
    assert_eq!(publish(&broker, "t", "2").delivered, 1);
}
