//! What people see who look: every topic and subscription, with exact figures, and no more rows than
//! they asked for.

use super::*;

fn topics(broker: &Broker, query: TopicQuery, at_s: u64) -> TopicList {
    broker.topics(&query, Duration::from_secs(at_s))
}

fn by_rate(limit: usize) -> TopicQuery {
    TopicQuery {
        limit,
        ..TopicQuery::default()
    }
}

fn names(list: &TopicList) -> Vec<&str> {
    list.topics.iter().map(|row| row.topic.as_str()).collect()
}

#[test]
fn topics_are_listed_by_rate_or_by_name_and_never_more_than_asked_for() {
    let broker = broker();
    let _all = subscribe(&broker, ">");
    for (name, count) in [("b", 2), ("a.x", 6), ("c", 4)] {
        for _ in 0..count {
            publish(&broker, name, "x");
        }
    }
    let list = topics(&broker, by_rate(2), 2);
    assert_eq!((list.total, list.found), (3, 3));
    assert_eq!(names(&list), ["a.x", "c"]);
    let by_name = TopicQuery {
        order: TopicOrder::Name,
        ..by_rate(10)
    };
    assert_eq!(names(&topics(&broker, by_name, 2)), ["a.x", "b", "c"]);
    let search = TopicQuery {
        search: ".x".to_owned(),
        ..by_rate(10)
    };
    let found = topics(&broker, search, 2);
    assert_eq!((found.total, found.found), (3, 1));
    assert_eq!(names(&found), ["a.x"]);
    assert!(topics(&broker, by_rate(0), 2).topics.is_empty());
}

#[test]
fn a_topics_rate_is_what_came_between_two_looks() {
    let broker = broker();
    let _all = subscribe(&broker, ">");
    let look = |at_s| topics(&broker, by_rate(1), at_s).topics[0].per_second;
    (0..6).for_each(|_| drop(publish(&broker, "t", "x")));
    assert_eq!(look(2), 3.0, "since the start, for who looks first");
    (0..10).for_each(|_| drop(publish(&broker, "t", "x")));
    assert_eq!(look(2), 3.0, "two who look at once see the same");
    assert_eq!(look(7), 2.0);
    assert_eq!(look(8), 0.0);
}

#[test]
fn a_topic_says_its_life_and_who_reads_it_through_wildcards_too() {
    let broker = broker();
    let start = subscribe(&broker, "a.b").start().unwrap();
    let lane: Vec<_> = (0..3).map(|_| subscribe(&broker, "a.*")).collect();
    let _member = broker.subscribe(in_group("a.b", "g")).unwrap();
    let _other = subscribe(&broker, "a");
    publish(&broker, "a.b", "x");
    let row = |broker: &Broker| {
        let list = topics(broker, by_rate(10), 1).topics;
        list.into_iter().find(|row| row.topic == topic("a.b"))
    };
    let found = row(&broker).unwrap();
    assert_eq!(found.epoch, start.epoch);
    assert_eq!((found.head, found.subscriptions), (Sequence(1), 4));
    drop(lane);
    assert_eq!(row(&broker).unwrap().subscriptions, 1);
    broker.age_topics();
    broker.age_topics();
    assert!(row(&broker).is_some(), "a member of a group has it pinned");
}

#[test]
fn subscriptions_are_listed_by_what_waits_for_them_with_exact_accounts() {
    let broker = broker();
    let arrival = Arrival {
        peer: Some("192.0.2.7".into()),
        at: Some(SystemTime::UNIX_EPOCH),
    };
    let tiny = SubscribeOptions {
        mailbox_capacity: Some(2),
        overflow: OverflowPolicy::DropOldest,
        arrival: arrival.clone(),
        tags: vec!["red".parse().unwrap()],
        ..in_group("t", "workers")
    };
    let _tiny = broker.subscribe(tiny).unwrap();
    // They share a lane: what is in its tail counts.
    let mut lane: Vec<_> = (0..3).map(|_| subscribe(&broker, "t")).collect();
    for _ in 0..5 {
        publish_tagged(&broker, "t", Some("red"), "12345");
    }
    take(&mut lane[1]).unwrap();
    let all = broker.subscriptions(&SubscriptionQuery {
        limit: 10,
        ..SubscriptionQuery::default()
    });
    assert_eq!((all.total, all.found), (4, 4));
    let waiting: Vec<_> = all
        .subscriptions
        .iter()
        .map(|s| s.ledger.buffered)
        .collect();
    assert_eq!(waiting, [5, 5, 2, 0]);
    for row in &all.subscriptions {
        assert!(row.ledger.balances(), "{row:?}");
        assert_eq!(row.ledger.matched, 5);
        assert!(row.held_bytes >= row.ledger.buffered as usize * 5);
    }
    let row = &all.subscriptions[2];
    assert_eq!(row.ledger.missed_total(), 3);
    assert_eq!(row.group, Some("workers".parse().unwrap()));
    assert_eq!(*row.tags, ["red".parse().unwrap()]);
    assert_eq!(row.overflow, OverflowPolicy::DropOldest);
    assert_eq!(row.mailbox.messages, 2);
    assert_eq!(row.arrival, arrival);
    let found = |search: &str| {
        let query = SubscriptionQuery {
            search: search.to_owned(),
            limit: 1,
        };
        let list = broker.subscriptions(&query);
        assert!(list.subscriptions.len() <= 1);
        (list.total, list.found)
    };
    assert_eq!(found("t"), (4, 4));
    assert_eq!(found("work"), (4, 1));
    assert_eq!(found("192.0.2."), (4, 1));
    assert_eq!(found("nobody"), (4, 0));
}
