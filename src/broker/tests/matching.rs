//! Which messages a subscriber gets, and how long a topic remembers its place.

use super::*;

fn tagged(filter: &str, tags: &[&str]) -> SubscribeOptions {
    SubscribeOptions {
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        ..options(filter)
    }
}

#[test]
fn a_subscriber_gets_what_matches_its_filter_and_nothing_else() {
    let broker = broker();
    let topics = ["a", "ab", "a.b", "a.b.c", "x.b"];
    let expected = [
        ("a", vec!["a"]),
        ("a.b", vec!["a.b"]),
        ("a.*", vec!["a.b"]),
        ("a.>", vec!["a.b", "a.b.c"]),
        ("*.b", vec!["a.b", "x.b"]),
        ("*", vec!["a", "ab"]),
        ("*.*.>", vec!["a.b.c"]),
        (">", topics.to_vec()),
        ("b", vec![]),
    ];
    let mut readers = expected.map(|(filter, expected)| (subscribe(&broker, filter), expected));
    for topic in topics {
        publish(&broker, topic, topic);
    }
    for (reader, expected) in &mut readers {
        assert_eq!(payloads(reader), *expected);
    }
}

#[test]
fn a_prefix_is_not_a_wildcard() {
    let broker = broker();
    let mut reader = subscribe(&broker, "response");
    for topic in ["response:42", "response.42", "respons", "response-"] {
        assert_eq!(publish(&broker, topic, "").matched, 0);
    }
    assert!(payloads(&mut reader).is_empty());
}

#[test]
fn a_subscriber_with_tags_gets_only_those() {
    let broker = broker();
    let mut all = subscribe(&broker, "t");
    let mut red = broker.subscribe(tagged("t", &["red"])).unwrap();
    let mut warm = broker.subscribe(tagged(">", &["red", "orange"])).unwrap();
    for (tag, matched) in [
        (Some("red"), 3),
        (Some("orange"), 2),
        (Some("blue"), 1),
        (Some("re"), 1),
        (None, 1),
    ] {
        let receipt = publish_tagged(&broker, "t", tag, tag.unwrap_or("none"));
        assert_eq!(receipt.matched, matched, "{tag:?}");
    }
    assert_eq!(payloads(&mut all).len(), 5);
    assert_eq!(payloads(&mut red), ["red"]);
    assert_eq!(payloads(&mut warm), ["red", "orange"]);
}

#[test]
fn a_subscriber_shares_the_message_and_gets_it_as_it_was_published() {
    let broker = broker();
    let mut readers = ["t", ">"].map(|filter| broker.subscribe(options(filter)).unwrap());
    let mut message = Message::new(topic("t"), "payload");
    message.id = Some("mine".parse().unwrap());
    message.key = Some("key".parse().unwrap());
    let receipt = broker.publish(message.clone(), SystemTime::UNIX_EPOCH);
    assert_eq!(receipt.unwrap().id(), "mine");
    let [first, second] = readers.each_mut().map(|r| take(r).unwrap().1.remove(0));
    assert_eq!(first.message, message);
    assert!(Arc::ptr_eq(&first, &second));
    let receipt = publish(&broker, "t", "");
    let place = format!("{:x}-{:x}", receipt.epoch.0, receipt.sequence.0);
    assert_eq!(receipt.id(), place);
    assert_eq!(take(&mut readers[0]).unwrap().1[0].id(), place);
}

#[test]
fn a_topic_that_nobody_reads_has_no_state() {
    let broker = broker();
    let _elsewhere = subscribe(&broker, "a.*");
    let before = broker.snapshot().topics;
    let mut epochs = HashSet::new();
    for index in 0..100_000 {
        let receipt = publish(&broker, &format!("b.{}", index % 1_000), "m");
        assert_eq!((receipt.matched, receipt.sequence), (0, Sequence(1)));
        assert!(epochs.insert(receipt.epoch), "each is a life of its own");
    }
    let snapshot = broker.snapshot();
    assert_eq!((before, snapshot.topics), (0, 0));
    assert_eq!((snapshot.published, snapshot.unmatched), (100_000, 100_000));
}

#[test]
fn a_million_short_lived_topics_are_remembered_up_to_the_bound() {
    let limits = Limits {
        idle_topics_max: 1_000,
        ..Limits::default()
    };
    let broker = broker_with(limits);
    let reader = subscribe(&broker, ">");
    for index in 0..1_000_000 {
        publish(&broker, &format!("response:{index}"), "");
        if index % 100_000 == 0 {
            assert!(broker.snapshot().topics <= 1_000);
        }
    }
    let snapshot = broker.snapshot();
    assert!(snapshot.topics <= 1_000);
    assert_eq!(snapshot.ledger.matched, 1_000_000);
    broker.age_topics();
    broker.age_topics();
    assert_eq!(broker.snapshot().topics, 0);
    drop(reader);
}

#[test]
fn a_topic_that_was_forgotten_begins_a_new_epoch() {
    let broker = broker();
    let mut reader = subscribe(&broker, ">");
    let first = publish(&broker, "t", "m");
    let second = publish(&broker, "t", "m");
    assert_eq!(second.epoch, first.epoch);
    assert_eq!(second.sequence, Sequence(2));
    broker.age_topics();
    broker.age_topics();
    let third = publish(&broker, "t", "m");
    assert!(third.epoch > first.epoch);
    assert_eq!(third.sequence, Sequence(1));
    let mut order = OrderCheck::default();
    let (_, batch) = take(&mut reader).unwrap();
    batch.iter().for_each(|delivery| order.see(delivery));
}

#[test]
fn a_topic_that_is_used_or_has_a_subscriber_of_its_own_is_not_forgotten() {
    let broker = broker();
    let own = subscribe(&broker, "own");
    let _all = subscribe(&broker, ">");
    let used = publish(&broker, "used", "m").epoch;
    for sequence in 2..10 {
        broker.age_topics();
        let receipt = publish(&broker, "used", "m");
        assert_eq!(
            (receipt.epoch, receipt.sequence),
            (used, Sequence(sequence))
        );
    }
    let receipt = publish(&broker, "own", "m");
    assert_eq!(Some(receipt.epoch), own.start().map(|start| start.epoch));
    assert_eq!(receipt.sequence, Sequence(1));
}

#[test]
fn a_subscriber_that_comes_back_soon_can_tell_what_it_missed() {
    let broker = broker();
    let reader = subscribe(&broker, "t");
    let start = reader.start().unwrap();
    assert_eq!(start.head, Sequence(0));
    publish(&broker, "t", "read");
    drop(reader);
    for _ in 0..3 {
        let receipt = publish(&broker, "t", "missed");
        assert_eq!((receipt.epoch, receipt.matched), (start.epoch, 0));
    }
    broker.age_topics();
    publish(&broker, "t", "missed");
    let mut reader = subscribe(&broker, "t");
    let again = reader.start().unwrap();
    assert_eq!((again.epoch, again.head), (start.epoch, Sequence(5)));
    publish(&broker, "t", "live");
    assert_eq!(take(&mut reader).unwrap().1[0].sequence, Sequence(6));

    drop(reader);
    broker.age_topics();
    broker.age_topics();
    let late = subscribe(&broker, "t").start().unwrap();
    assert!(late.epoch > start.epoch, "too late: that life is over");
    assert_eq!(late.head, Sequence(0));
}

#[test]
fn a_filter_with_wildcards_has_no_start() {
    assert_eq!(subscribe(&broker(), "a.*").start(), None);
}
