//! Groups: each message goes to one member.

use super::*;

fn member(broker: &Broker, filter: &str, tags: &[&str], messages: usize) -> Subscription {
    let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let options = SubscribeOptions {
        tags,
        mailbox_capacity: Some(messages),
        ..in_group(filter, "g")
    };
    broker.subscribe(options).unwrap()
}

/// Publishes `messages` to the topic and says which members got which of them.
fn shares(
    broker: &Broker,
    topic: &str,
    messages: std::ops::Range<u64>,
    members: &mut [Subscription],
) -> Vec<Vec<u64>> {
    for index in messages {
        let receipt = publish(broker, topic, &index.to_string());
        assert_eq!((receipt.matched, receipt.delivered), (1, 1));
    }
    let numbers = |member| {
        payloads(member)
            .iter()
            .map(|p| p.parse().unwrap())
            .collect()
    };
    members.iter_mut().map(numbers).collect()
}

#[test]
fn members_with_room_take_turns() {
    let broker = broker();
    let mut members: Vec<_> = (0..3).map(|_| member(&broker, "t", &[], 10)).collect();
    assert_eq!(broker.snapshot().groups, 1);
    assert_eq!(
        shares(&broker, "t", 0..6, &mut members),
        [[0, 3], [1, 4], [2, 5]]
    );
}

#[test]
fn a_full_member_is_passed_over() {
    let broker = broker();
    let mut members = [member(&broker, "t", &[], 1), member(&broker, "t", &[], 10)];
    assert_eq!(
        shares(&broker, "t", 0..6, &mut members),
        [vec![0], vec![1, 2, 3, 4, 5]]
    );
    assert_eq!(broker.snapshot().ledger.missed_total(), 0);
}

#[test]
fn a_message_is_missed_only_if_no_member_has_room_and_by_one_member() {
    let broker = broker();
    let mut members: Vec<_> = (0..3).map(|_| member(&broker, "t", &[], 2)).collect();
    for _ in 0..6 {
        assert_eq!(publish(&broker, "t", "m").dropped, 0);
    }
    for missed in 1..=3 {
        let receipt = publish(&broker, "t", "too much");
        assert_eq!((receipt.matched, receipt.dropped), (1, 1));
        assert_eq!(broker.snapshot().ledger.missed_total(), missed);
    }
    for member in &mut members {
        let (missed, batch) = take(member).unwrap();
        assert_eq!((missed, batch.len()), (1, 2), "losses take turns, too");
    }
}

#[test]
fn the_member_that_takes_the_loss_does_so_by_its_own_policy() {
    let broker = broker();
    let oldest = SubscribeOptions {
        overflow: OverflowPolicy::DropOldest,
        mailbox_capacity: Some(1),
        ..in_group("t", "g")
    };
    let mut only = broker.subscribe(oldest).unwrap();
    publish(&broker, "t", "old");
    let receipt = publish(&broker, "t", "new");
    assert_eq!(
        (receipt.delivered, receipt.dropped, receipt.displaced),
        (1, 0, 1)
    );
    let (missed, batch) = take(&mut only).unwrap();
    assert_eq!((missed, payload(&batch[0]).as_str()), (1, "new"));
}

#[test]
fn members_with_different_filters_share_the_work() {
    let broker = broker();
    let mut members = [
        member(&broker, "a.b", &[], 10),
        member(&broker, "a.*", &[], 10),
        member(&broker, ">", &[], 10),
    ];
    assert_eq!(broker.snapshot().groups, 1);
    assert_eq!(
        shares(&broker, "a.b", 0..6, &mut members),
        [[0, 3], [1, 4], [2, 5]]
    );
    let elsewhere = shares(&broker, "z", 6..8, &mut members);
    assert_eq!(elsewhere, [vec![], vec![], vec![6, 7]]);
}

#[test]
fn a_group_and_a_subscriber_of_its_own_both_get_every_message() {
    let broker = broker();
    let mut single = subscribe(&broker, "t");
    let mut other = broker.subscribe(in_group("t", "other")).unwrap();
    let mut members = [member(&broker, "t", &[], 10), member(&broker, "t", &[], 10)];
    for payload in ["1", "2"] {
        assert_eq!(publish(&broker, "t", payload).matched, 3);
    }
    assert_eq!(payloads(&mut single), ["1", "2"]);
    assert_eq!(payloads(&mut other), ["1", "2"]);
    assert_eq!(payloads(&mut members[0]), ["1"]);
    assert_eq!(payloads(&mut members[1]), ["2"]);
}

#[test]
fn a_member_gets_only_the_tags_it_asks_for() {
    let broker = broker();
    let mut red = member(&broker, "t", &["red"], 10);
    let mut blue = member(&broker, "t", &["blue"], 10);
    for _ in 0..4 {
        assert_eq!(publish_tagged(&broker, "t", Some("red"), "red").matched, 1);
        assert_eq!(
            publish_tagged(&broker, "t", Some("blue"), "blue").matched,
            1
        );
        assert_eq!(publish_tagged(&broker, "t", Some("green"), "").matched, 0);
        assert_eq!(publish(&broker, "t", "").matched, 0);
    }
    assert_eq!(payloads(&mut red), ["red"; 4]);
    assert_eq!(payloads(&mut blue), ["blue"; 4]);
}

#[test]
fn a_full_member_is_not_relieved_by_one_that_does_not_want_the_tag() {
    let broker = broker();
    let mut red = member(&broker, "t", &["red"], 1);
    let mut blue = member(&broker, "t", &["blue"], 10);
    publish_tagged(&broker, "t", Some("red"), "1");
    let receipt = publish_tagged(&broker, "t", Some("red"), "2");
    assert_eq!((receipt.matched, receipt.dropped), (1, 1));
    assert_eq!(take(&mut red).unwrap().0, 1);
    assert_eq!(payloads(&mut blue), [""; 0]);
}

#[test]
fn a_group_goes_on_without_a_member_that_left_or_ended() {
    let broker = broker();
    let overflow = OverflowPolicy::Disconnect;
    let mailbox_capacity = Some(1);
    let fragile = SubscribeOptions {
        overflow,
        mailbox_capacity,
        ..in_group("t", "g")
    };
    let fragile = broker.subscribe(fragile).unwrap();
    let mut steady = member(&broker, "t", &[], 1);
    for _ in 0..3 {
        publish(&broker, "t", "m");
    }
    assert_eq!(fragile.end(), Some(EndReason::Overflow));
    assert_eq!(payloads(&mut steady), ["m"]);
    assert_eq!(publish(&broker, "t", "n").delivered, 1);
    assert_eq!(payloads(&mut steady), ["n"]);
    drop(steady);
    let receipt = publish(&broker, "t", "nobody");
    assert_eq!((receipt.matched, receipt.dropped), (0, 0));
    drop(fragile);
    assert_eq!(broker.snapshot().groups, 0);
}

#[test]
fn no_member_starves_where_tags_or_topics_alternate() {
    let broker = broker();
    let red = || SubscribeOptions {
        tags: vec!["red".parse().unwrap()],
        ..in_group("t", "tags")
    };
    let mut members = [red(), red()].map(|options| broker.subscribe(options).unwrap());
    for _ in 0..10 {
        publish_tagged(&broker, "t", Some("red"), "r");
        publish(&broker, "t", "untagged");
    }
    let got = members.each_mut().map(|member| payloads(member).len());
    assert_eq!(got, [5, 5]);

    let mut members = [
        in_group("a", "topics"),
        in_group("a", "topics"),
        in_group("b", "topics"),
    ]
    .map(|options| broker.subscribe(options).unwrap());
    for _ in 0..10 {
        publish(&broker, "a", "1");
        publish(&broker, "b", "1");
    }
    let got = members.each_mut().map(|member| payloads(member).len());
    assert_eq!(got, [5, 5, 10]);
}
