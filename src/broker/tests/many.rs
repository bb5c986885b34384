//! One subscription to many topics: each message once, in one order, and an end when all have ended.

use super::{
    history::{Got, broker_keeping, publish_end, read_all, subscribe_from},
    *,
};
use crate::cursor::StartAt;

fn got(payloads: &[&str], end: Option<EndReason>) -> Got {
    Got {
        payloads: payloads.iter().map(|text| (*text).to_owned()).collect(),
        end,
        ..Got::default()
    }
}

#[test]
fn a_message_that_several_filters_match_comes_once_and_all_in_one_order() {
    let broker = broker();
    let asked = "a a.* a.> > b";
    let mut encoded = subscribe(&broker, asked);
    let mut plain = broker.subscribe(options(asked)).unwrap();
    for (topic, payload) in [("b", "1"), ("a", "2"), ("a.x", "3"), ("b", "4"), ("a", "5")] {
        let receipt = publish(&broker, topic, payload);
        assert_eq!((receipt.matched, receipt.delivered), (2, 2));
    }
    for reader in [&mut encoded, &mut plain] {
        assert_eq!(read_all(reader), got(&["1", "2", "3", "4", "5"], None));
        assert_eq!(reader.start(), None);
    }
    assert!(broker.snapshot().ledger.balances());
}

#[test]
fn each_topic_asked_for_by_name_keeps_its_epoch_and_all_is_given_back() {
    let broker = broker();
    let reader = subscribe(&broker, "a b c.*");
    let epochs = ["a", "b"].map(|topic| publish(&broker, topic, "x").epoch);
    broker.age_topics();
    broker.age_topics();
    let again = ["a", "b"].map(|topic| publish(&broker, topic, "x"));
    assert_eq!(again.clone().map(|receipt| receipt.epoch), epochs);
    assert!(again.iter().all(|receipt| receipt.sequence == Sequence(2)));
    drop(reader);
    assert!(broker.shared.registry.read().is_empty());
    broker.age_topics();
    broker.age_topics();
    assert_eq!(broker.snapshot().topics, 0);
}

#[test]
fn who_asks_for_the_same_shares_a_lane_whatever_the_order() {
    let broker = broker();
    let _readers = ["a b", "b a", "b a b"].map(|asked| subscribe(&broker, asked));
    let registry = broker.shared.registry.read();
    let shared = registry.subscribers().map(|s| s.lane.as_ref().unwrap().id);
    assert_eq!(shared.collect::<HashSet<_>>().len(), 1);
}

#[test]
fn a_subscription_refused_gives_back_what_it_pinned() {
    let limits = Limits {
        subscriptions_max: 1,
        filters_max: 3,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let error = broker.subscribe(options("a b c d")).unwrap_err();
    assert_eq!(error.to_string(), "4 filters exceed the limit of 3");
    let first = broker.subscribe(options("a b c")).unwrap();
    assert!(broker.subscribe(options("x y")).is_err());
    drop(first);
    broker.age_topics();
    broker.age_topics();
    assert_eq!(broker.snapshot().topics, 0);
}

#[test]
fn the_end_comes_when_all_topics_have_ended_after_what_is_left() {
    for encoded in [true, false] {
        let broker = broker();
        let mut reader = subscribe_either(&broker, options("a b"), encoded).unwrap();
        let mut mixed = subscribe_either(&broker, options("a b c.*"), encoded).unwrap();
        publish(&broker, "a", "1");
        publish_end(&broker, "b", "2");
        assert_eq!(read_all(&mut reader), got(&["1", "2"], None));
        publish(&broker, "a", "3");
        publish_end(&broker, "a", "4");
        let ended = Some(EndReason::TopicEnded);
        assert_eq!(read_all(&mut reader), got(&["3", "4"], ended));
        assert_eq!(read_all(&mut mixed), got(&["1", "2", "3", "4"], None));
        publish(&broker, "c.x", "5");
        assert_eq!(read_all(&mut mixed), got(&["5"], None));
        // Who comes after the end is told.
        let mut late = subscribe_either(&broker, options("b a"), encoded).unwrap();
        assert_eq!(read_all(&mut late), got(&[], ended));
    }
}

#[test]
fn a_reader_that_waits_is_woken_by_the_last_end_though_it_is_not_for_it() {
    for encoded in [true, false] {
        let broker = broker();
        let wish = SubscribeOptions {
            tags: vec!["x".parse().unwrap()],
            ..options("a b")
        };
        let mut reader = subscribe_either(&broker, wish, encoded).unwrap();
        assert_eq!(read_all(&mut reader), got(&[], None));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        for topic in ["b", "a"] {
            let before = wakes.count();
            let waiting = reader.poll_take_encoded(&mut cx, ALL, |_| {});
            assert!(waiting.is_pending());
            assert_eq!(publish_end(&broker, topic, "").matched, 0);
            assert_eq!(wakes.count(), before + 1, "{topic}");
        }
        assert_eq!(read_all(&mut reader), got(&[], Some(EndReason::TopicEnded)));
    }
}

#[test]
fn one_cursor_is_a_place_in_all_topics() {
    let broker = broker_keeping(100);
    let mut reader = subscribe(&broker, "a b.*");
    let beginning = reader.cursor().unwrap();
    let mut cursors = vec![beginning];
    for (topic, payload) in [
        ("a", "1"),
        ("b.x", "2"),
        ("a", "3"),
        ("b.y", "4"),
        ("c", "-"),
        ("a", "5"),
    ] {
        let receipt = publish(&broker, topic, payload);
        if topic != "c" {
            cursors.push(receipt.cursor().unwrap());
        }
    }
    let all = ["1", "2", "3", "4", "5"];
    assert_eq!(read_all(&mut reader), got(&all, None));
    for (seen, cursor) in cursors.into_iter().enumerate() {
        for asked in ["a b.*", "b.x a b.y"] {
            let mut back = subscribe_from(&broker, asked, StartAt::After(cursor));
            assert_eq!(read_all(&mut back), got(&all[seen..], None), "{asked}");
        }
    }
    let mut last = subscribe_from(&broker, "a b.x", StartAt::Last(3));
    assert_eq!(read_all(&mut last), got(&["2", "3", "5"], None));
}

#[test]
fn topics_that_have_ended_are_replayed_to_who_comes_late() {
    let broker = broker_keeping(100);
    for topic in ["a", "b"] {
        publish(&broker, topic, "token");
        publish_end(&broker, topic, "end");
    }
    let mut late = subscribe_from(&broker, "a b", StartAt::All);
    let all = ["token", "end", "token", "end"];
    assert_eq!(read_all(&mut late), got(&all, Some(EndReason::TopicEnded)));
}
