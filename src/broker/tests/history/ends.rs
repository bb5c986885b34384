//! The end of a topic: a clean end for who reads just this one, a mark on a message for others.

use super::*;

#[test]
fn a_topic_that_ends_ends_its_subscriptions_after_what_is_left() {
    for broker in [broker(), broker_keeping(9)] {
        let mut one = subscribe(&broker, "t");
        let mut single = broker.subscribe(options("t")).unwrap();
        let mut member = broker.subscribe(in_group("t", "g")).unwrap();
        let mut many = subscribe(&broker, "*");
        let mut other = subscribe(&broker, "u");
        publish(&broker, "t", "1");
        let receipt = publish_end(&broker, "t", "2");
        assert_eq!(receipt.sequence, Sequence(2));
        for subscription in [&mut one, &mut single, &mut member] {
            let expected = Got::of(&["1", "2"]).and_end(EndReason::TopicEnded);
            assert_eq!(read_all(subscription), expected);
        }
        assert_eq!(read_all(&mut many), Got::of(&["1", "2"]));
        publish(&broker, "u", "3");
        assert_eq!(read_all(&mut many), Got::of(&["3"]));
        assert_eq!(read_all(&mut other), Got::of(&["3"]));
        assert!(broker.snapshot().ledger.balances());
    }
}

#[test]
fn the_end_is_marked_on_the_message_and_not_in_it() {
    let broker = broker_keeping(9);
    let mut many = broker.subscribe(options("*")).unwrap();
    publish_end(&broker, "t", "");
    let mut late = broker.subscribe(from_start("*", StartAt::All)).unwrap();
    for subscription in [&mut many, &mut late] {
        let Poll::Ready(Ok((_, batch))) = poll_past(subscription, ALL, Waker::noop()) else {
            panic!("the end is a message");
        };
        assert!(batch[0].message.end && batch[0].message.payload.is_empty());
    }
}

#[test]
fn nothing_is_published_to_a_topic_that_has_ended_until_it_is_forgotten() {
    for broker in [broker(), broker_keeping(9)] {
        publish_end(&broker, "t", "last");
        for end in [false, true] {
            let mut message = Message::new(topic("t"), "more");
            message.end = end;
            let refused = broker.publish(message, SystemTime::UNIX_EPOCH);
            assert_eq!(refused.unwrap_err(), PublishError::TopicEnded);
        }
        assert_eq!(broker.snapshot().published, 1);
        broker.expire(SystemTime::UNIX_EPOCH + Bounds::default().age);
        broker.age_topics();
        broker.age_topics();
        let receipt = publish(&broker, "t", "anew");
        assert_eq!(receipt.sequence, Sequence(1));
    }
}

#[test]
fn a_topic_that_is_kept_stays_ended_for_as_long_as_it_is_kept() {
    let broker = broker_keeping(9);
    publish_end(&broker, "t", "last");
    for _ in 0..5 {
        broker.age_topics();
    }
    let message = Message::new(topic("t"), "more");
    let refused = broker.publish(message, SystemTime::UNIX_EPOCH);
    assert_eq!(refused.unwrap_err(), PublishError::TopicEnded);
}

#[test]
fn who_comes_after_the_end_gets_what_is_kept_and_the_end() {
    let broker = broker_keeping(2);
    publish_all(&broker, "t", 1..=2);
    let cursor = publish_end(&broker, "t", "3").cursor().unwrap();
    let check = |start, expected: Got| {
        for encoded in [false, true] {
            let options = from_start("t", start);
            let mut late = subscribe_either(&broker, options, encoded).unwrap();
            assert_eq!(late.end(), Some(EndReason::TopicEnded));
            let got = read_all(&mut late);
            assert_eq!(
                (&got.payloads, got.lost),
                (&expected.payloads, expected.lost)
            );
            assert_eq!(got.end, Some(EndReason::TopicEnded));
        }
    };
    check(StartAt::Now, Got::of(&[]));
    check(StartAt::All, Got::of(&["2", "3"]));
    check(StartAt::Last(1), Got::of(&["3"]));
    check(
        StartAt::Last(3),
        Got::of(&["2", "3"]).after_gap(Gap::exactly(1)),
    );
    check(StartAt::After(cursor), Got::of(&[]));
    let mut many = subscribe_from(&broker, "*", StartAt::All);
    assert_eq!(read_all(&mut many), Got::of(&["2", "3"]));
}

#[test]
fn who_comes_late_to_a_topic_without_history_is_not_left_hanging() {
    let broker = broker();
    publish_end(&broker, "t", "unread");
    let mut late = subscribe(&broker, "t");
    assert_eq!(
        read_all(&mut late),
        Got::of(&[]).and_end(EndReason::TopicEnded)
    );
}

#[test]
fn a_topic_may_end_while_its_history_is_read() {
    let broker = broker_keeping(1_000);
    publish_all(&broker, "t", 1..=600);
    let mut readers = [
        subscribe_from(&broker, "t", StartAt::All),
        broker.subscribe(from_start("t", StartAt::All)).unwrap(),
    ];
    let limit = BatchLimit { messages: 7, ..ALL };
    for subscription in &mut readers {
        assert!(poll_past(subscription, limit, Waker::noop()).is_ready());
    }
    publish_end(&broker, "t", "601");
    for subscription in &mut readers {
        let got = read_all_by(subscription, limit);
        assert_eq!(got.payloads.len(), 594);
        assert_eq!(got.payloads.last().unwrap(), "601");
        assert_eq!(
            (got.lost, got.end),
            (Lost::default(), Some(EndReason::TopicEnded))
        );
    }
}

#[test]
fn who_wants_other_tags_or_has_no_room_learns_of_the_end_all_the_same() {
    let broker = broker();
    let with_tag = SubscribeOptions {
        tags: vec!["x".parse().unwrap()],
        ..options("t")
    };
    let mut tagged = broker.subscribe_encoded(with_tag, &ENCODING).unwrap();
    let mut full = broker
        .subscribe(endings::capacity("t", 1, OverflowPolicy::DropNewest))
        .unwrap();
    publish(&broker, "t", "1");
    publish_end(&broker, "t", "2");
    assert_eq!(
        read_all(&mut tagged),
        Got::of(&[]).and_end(EndReason::TopicEnded)
    );
    let got = read_all(&mut full);
    assert_eq!(got.payloads, ["1"]);
    assert_eq!((got.lost.missed, got.end), (1, Some(EndReason::TopicEnded)));
}

#[test]
fn readers_are_woken_by_the_end() {
    let broker = broker();
    let mut one = subscribe(&broker, "t");
    let with_tag = SubscribeOptions {
        tags: vec!["x".parse().unwrap()],
        ..options("t")
    };
    let mut tagged = broker.subscribe(with_tag).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(poll_past(&mut one, ALL, &waker).is_pending());
    assert!(poll_past(&mut tagged, ALL, &waker).is_pending());
    publish_end(&broker, "t", "last");
    assert_eq!(wakes.count(), 2);
}

#[test]
fn whoever_does_not_read_what_is_left_of_an_ended_topic_stalls() {
    let broker = broker();
    let mut slow = subscribe(&broker, "t");
    let mut watch = slow.watch_end().unwrap();
    publish_end(&broker, "t", "last");
    assert_eq!(slow.end(), Some(EndReason::TopicEnded));
    assert!(
        poll_end(&mut watch, Waker::noop()).is_pending(),
        "it may still be read"
    );
    assert_eq!(broker.tick(2), 0);
    assert_eq!(broker.tick(2), 1);
    assert_eq!(
        poll_end(&mut watch, Waker::noop()),
        Poll::Ready(EndReason::Stalled)
    );
    let got = read_all(&mut slow);
    assert_eq!((got.lost.missed, got.end), (1, Some(EndReason::Stalled)));
    assert_eq!(broker.snapshot().subscriptions, 0);
}

#[test]
fn whoever_has_read_to_the_end_does_not_stall_and_leaves_nothing() {
    let broker = broker();
    let mut done = subscribe(&broker, "t");
    publish_end(&broker, "t", "last");
    assert_eq!(read_all(&mut done).end, Some(EndReason::TopicEnded));
    for _ in 0..5 {
        assert_eq!(broker.tick(1), 0);
    }
    drop(done);
    assert!(broker.shared.registry.read().is_empty());
    let ledger = broker.snapshot().ledger;
    assert_eq!((ledger.matched, ledger.delivered), (1, 1));
}
