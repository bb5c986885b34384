//! Who gets what, in which order, and what a subscription says of itself.

use std::time::Duration;

use fanfare::{
    broker::Limits,
    server::ServerConfig,
    wire::pb::{PublishRequest, SubscribeRequest, SubscribeResponse},
};
use tonic::{Code, Streaming};

use crate::{
    raw::Raw,
    support::{Running, filter, message, next, payloads, subscribe, to_end, within},
};

fn with_tags(topic: &str, tags: &[&str]) -> SubscribeRequest {
    SubscribeRequest {
        tags: tags.iter().map(ToString::to_string).collect(),
        ..filter(topic)
    }
}

fn in_group(topic: &str, group: &str) -> SubscribeRequest {
    SubscribeRequest {
        group: group.to_owned(),
        ..filter(topic)
    }
}

/// Shuts the broker down, which ends every stream after its last message, and returns what each has
/// got, as texts.
async fn all_that_came<const N: usize>(
    broker: &Running,
    streams: [Streaming<SubscribeResponse>; N],
) -> [Vec<String>; N] {
    broker.shut_down();
    let mut all = [const { Vec::new() }; N];
    for (mut stream, all) in streams.into_iter().zip(&mut all) {
        let (responses, status) = to_end(&mut stream).await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(responses.iter().all(|response| response.missed == 0));
        let texts = responses.into_iter().map(|response| response.payload);
        *all = texts
            .map(|payload| String::from_utf8(payload.into()).unwrap())
            .collect();
    }
    all
}

#[tokio::test]
async fn a_message_reaches_every_one_of_many_subscribers() {
    let broker = Running::start().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let client = broker.client().await;
        for _ in 0..100 {
            streams.push(subscribe(&client, filter("news")).await);
        }
    }
    let mut publisher = broker.client().await;
    for number in 1..=10 {
        let reply = within(publisher.publish(message("news", &number.to_string()))).await;
        let reply = reply.unwrap().into_inner();
        assert_eq!(
            (reply.matched, reply.delivered, reply.dropped),
            (500, 500, 0)
        );
        assert_eq!((reply.sequence, reply.displaced), (number, 0));
    }
    for stream in &mut streams {
        for number in 1..=10 {
            let response = next(stream).await;
            assert_eq!(response.payload, number.to_string());
            assert_eq!((response.sequence, response.missed), (number, 0));
        }
    }
}

#[tokio::test]
async fn a_late_subscriber_gets_what_is_published_afterwards_and_an_early_one_gets_all() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let early = subscribe(&client, filter("t")).await;
    within(client.publish(message("t", "before")))
        .await
        .unwrap();
    let late = subscribe(&client, filter("t")).await;
    within(client.publish(message("t", "after"))).await.unwrap();
    let [early, late] = all_that_came(&broker, [early, late]).await;
    assert_eq!(early, ["before", "after"]);
    assert_eq!(late, ["after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_subscribe_has_returned_nothing_that_is_published_is_lost() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let mut elsewhere = broker.client().await;
    for round in 0..100 {
        let round = round.to_string();
        let mut stream = subscribe(&client, filter("t")).await;
        let reply = within(elsewhere.publish(message("t", &round))).await;
        assert_eq!(reply.unwrap().into_inner().delivered, 1);
        assert_eq!(payloads(&mut stream, 1).await, [round]);
        drop(stream);
        broker.until(|s| s.subscriptions == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_comes_right_after_the_head_that_the_headers_tell() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    // The topic stays in use, and busy, throughout.
    let _keeper = subscribe(&client, filter("t")).await;
    let mut publisher = broker.client().await;
    let publishing = tokio::spawn(async move {
        loop {
            within(publisher.publish(message("t", ""))).await.unwrap();
        }
    });
    for _ in 0..50 {
        let response = within(client.subscribe(filter("t"))).await.unwrap();
        let header = |name: &str| -> u64 {
            let value = response.metadata().get(name).unwrap();
            value.to_str().unwrap().parse().unwrap()
        };
        let (epoch, head) = (header("fanfare-epoch"), header("fanfare-head-sequence"));
        let first = next(&mut response.into_inner()).await;
        assert_eq!((first.epoch, first.sequence), (epoch, head + 1));
    }
    publishing.abort();
}

#[tokio::test]
async fn the_headers_tell_what_was_granted() {
    let limits = Limits {
        mailbox_capacity: 7,
        mailbox_capacity_max: 100,
        ..Limits::default()
    };
    let broker = Running::start_with(ServerConfig::default(), limits).await;
    let mut client = broker.client().await;
    for (asked, granted) in [(0, "7"), (1, "1"), (100, "100"), (101, "100")] {
        let request = SubscribeRequest {
            mailbox_capacity: asked,
            ..filter("a.*")
        };
        let response = within(client.subscribe(request)).await.unwrap();
        let metadata = response.metadata();
        assert_eq!(metadata.get("fanfare-mailbox-capacity").unwrap(), granted);
        assert_eq!(metadata.get("fanfare-mailbox-bytes").unwrap(), "8388608");
        // A filter with wildcards has no one head.
        assert_eq!(metadata.get("fanfare-epoch"), None);
        assert_eq!(metadata.get("fanfare-head-sequence"), None);
    }
}

#[tokio::test]
async fn a_star_is_one_token_and_a_tail_is_one_or_more() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let filters = ["a.b", "a.*", "*.b", "a.>", ">", "*", "a.*.c"];
    let mut streams = Vec::new();
    for request in filters {
        streams.push(subscribe(&client, filter(request)).await);
    }
    for topic in ["a", "b", "a.b", "b.b", "a.x", "a.b.c", "a.x.c", "a.b.c.d"] {
        broker.publish(topic, topic);
    }
    let streams: [_; 7] = streams.try_into().unwrap();
    let came = all_that_came(&broker, streams).await;
    let everything = ["a", "b", "a.b", "b.b", "a.x", "a.b.c", "a.x.c", "a.b.c.d"];
    let expected: [&[&str]; 7] = [
        &["a.b"],
        &["a.b", "a.x"],
        &["a.b", "b.b"],
        &["a.b", "a.x", "a.b.c", "a.x.c", "a.b.c.d"],
        &everything,
        &["a", "b"],
        &["a.b.c", "a.x.c"],
    ];
    assert_eq!(came, expected);
}

#[tokio::test]
async fn a_prefix_is_not_a_wildcard() {
    let broker = Running::start().await;
    let client = broker.client().await;
    let stream = subscribe(&client, filter("orders")).await;
    for topic in ["orders.eu", "orders2", "order", "Orders"] {
        assert_eq!(broker.publish(topic, topic).matched, 0, "{topic}");
    }
    assert_eq!(broker.publish("orders", "orders").matched, 1);
    assert_eq!(all_that_came(&broker, [stream]).await, [["orders"]]);
}

#[tokio::test]
async fn tags_choose_messages_and_no_tags_choose_all() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let red_or_blue = subscribe(&client, with_tags("t", &["red", "blue"])).await;
    let all = subscribe(&client, filter("t")).await;
    for (tag, matched) in [("red", 2), ("green", 1), ("", 1), ("blue", 2), ("re", 1)] {
        let request = PublishRequest {
            tag: tag.to_owned(),
            ..message("t", tag)
        };
        let reply = within(client.publish(request)).await.unwrap();
        assert_eq!(reply.into_inner().matched, matched, "{tag:?}");
    }
    let [red_or_blue, all] = all_that_came(&broker, [red_or_blue, all]).await;
    assert_eq!(red_or_blue, ["red", "blue"]);
    assert_eq!(all, ["red", "green", "", "blue", "re"]);
}

#[tokio::test]
async fn each_message_goes_to_one_member_of_a_group_in_turn() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    // Members may sit on different connections and use different filters.
    let first = subscribe(&client, in_group("jobs.new", "workers")).await;
    let second = subscribe(&broker.client().await, in_group("jobs.*", "workers")).await;
    let third = subscribe(&client, in_group("jobs.>", "workers")).await;
    let other_group = subscribe(&client, in_group("jobs.new", "auditors")).await;
    let alone = subscribe(&client, filter("jobs.new")).await;
    for number in 1..=6 {
        let reply = within(client.publish(message("jobs.new", &number.to_string()))).await;
        let reply = reply.unwrap().into_inner();
        assert_eq!((reply.matched, reply.delivered), (3, 3));
    }
    let streams = [first, second, third, other_group, alone];
    let [first, second, third, other_group, alone] = all_that_came(&broker, streams).await;
    assert_eq!(first, ["1", "4"]);
    assert_eq!(second, ["2", "5"]);
    assert_eq!(third, ["3", "6"]);
    assert_eq!(other_group, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(alone, ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn a_full_member_of_a_group_is_passed_over_and_loses_nothing() {
    let broker = Running::start().await;
    let mut stuck = Raw::connect_with_window(broker.address, 0).await;
    let request = SubscribeRequest {
        mailbox_capacity: 1,
        ..in_group("jobs", "workers")
    };
    let mut stuck_stream = stuck.subscribe(request).await;
    // The first message leaves the mailbox for the connection, and waits there.
    broker.publish("jobs", "0");
    broker.until(|s| s.ledger.delivered == 1).await;
    let free = subscribe(&broker.client().await, in_group("jobs", "workers")).await;
    for number in 1..=8 {
        let receipt = broker.publish("jobs", number.to_string());
        let counts = (receipt.matched, receipt.delivered, receipt.dropped);
        assert_eq!(counts, (1, 1, 0), "{number}");
    }
    stuck.set_window(65_535).await;
    let taken = [stuck_stream.next().await, stuck_stream.next().await];
    let [free] = all_that_came(&broker, [free]).await;
    let (rest, _, _) = stuck_stream.responses().await;
    assert_eq!(rest, []);
    assert!(taken.iter().all(|response| response.missed == 0));
    let mut everybody: Vec<_> = taken
        .into_iter()
        .map(|response| String::from_utf8(response.payload.into()).unwrap())
        .chain(free)
        .collect();
    everybody.sort();
    assert_eq!(everybody, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
}

#[tokio::test]
async fn a_message_that_finds_all_members_of_a_group_full_is_lost_once_and_told_once() {
    let broker = Running::start().await;
    let mut stuck = Raw::connect_with_window(broker.address, 0).await;
    let request = SubscribeRequest {
        mailbox_capacity: 1,
        ..in_group("jobs", "workers")
    };
    let first = stuck.subscribe(request.clone()).await;
    let second = stuck.subscribe(request).await;
    broker.publish("jobs", "");
    broker.publish("jobs", "");
    broker.until(|s| s.ledger.delivered == 2).await;
    let dropped: u32 = (0..5).map(|_| broker.publish("jobs", "").dropped).sum();
    assert_eq!(dropped, 3);
    stuck.set_window(65_535).await;
    broker.until(|s| s.ledger.buffered == 0).await;
    broker.shut_down();
    let mut missed = 0;
    let mut messages = 0;
    for stream in [first, second] {
        let (responses, _, _) = stream.responses().await;
        missed += responses.iter().map(|r| r.missed).sum::<u64>();
        messages += responses.iter().filter(|r| r.sequence > 0).count();
    }
    assert_eq!((messages, missed), (4, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_gets_a_topics_messages_in_the_order_of_their_sequence() {
    let broker = Running::start().await;
    let mut streams = Vec::new();
    for request in ["t", "*", ">"] {
        streams.push(subscribe(&broker.client().await, filter(request)).await);
    }
    let mut publishers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut client = broker.client().await;
        publishers.spawn(async move {
            let mut last = 0;
            for _ in 0..50 {
                let reply = within(client.publish(message("t", ""))).await.unwrap();
                let sequence = reply.into_inner().sequence;
                assert!(sequence > last, "a publisher's messages keep their order");
                last = sequence;
            }
        });
    }
    while let Some(done) = within(publishers.join_next()).await {
        done.unwrap();
    }
    for stream in &mut streams {
        for sequence in 1..=200 {
            assert_eq!(next(stream).await.sequence, sequence);
        }
    }
}

#[tokio::test]
async fn a_message_that_nobody_reads_is_accepted_and_costs_no_state() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let first = within(client.publish(message("t", "x"))).await.unwrap();
    let second = within(client.publish(message("t", "x"))).await.unwrap();
    let (first, second) = (first.into_inner(), second.into_inner());
    assert_eq!((first.matched, first.sequence), (0, 1));
    assert_eq!((second.matched, second.sequence), (0, 1));
    assert_ne!(first.epoch, second.epoch, "each is a life of its own");
    let snapshot = broker.broker.snapshot();
    assert_eq!((snapshot.topics, snapshot.unmatched), (0, 2));
}

#[tokio::test]
async fn text_is_a_payload_and_comes_back_as_text_where_it_is_asked_for() {
    let broker = Running::start().await;
    let mut client = broker.client().await;
    let as_text = SubscribeRequest {
        text: true,
        ..filter("t")
    };
    let mut as_text = subscribe(&client, as_text).await;
    let mut as_bytes = subscribe(&client, filter("t")).await;
    let typed = PublishRequest {
        topic: "t".to_owned(),
        text: "héllo".to_owned(),
        ..Default::default()
    };
    let binary = PublishRequest {
        payload: vec![0xff, 0xfe].into(),
        ..message("t", "")
    };
    for request in [typed, message("t", "plain"), binary] {
        within(client.publish(request)).await.unwrap();
    }
    let expected: [(&str, &[u8]); 3] = [("héllo", b""), ("plain", b""), ("", &[0xff, 0xfe])];
    for expected in expected {
        let got = next(&mut as_text).await;
        assert_eq!((got.text.as_str(), &got.payload[..]), expected);
    }
    for payload in ["héllo".as_bytes(), b"plain", &[0xff, 0xfe]] {
        let got = next(&mut as_bytes).await;
        assert_eq!((got.text.as_str(), &got.payload[..]), ("", payload));
    }
}

async fn start_with_short_heartbeats() -> Running {
    let config = ServerConfig {
        heartbeat_interval: Duration::from_millis(1)..=Duration::from_secs(60),
        ..ServerConfig::default()
    };
    Running::start_with(config, Limits::default()).await
}

fn with_heartbeats(topic: &str, interval: Duration) -> SubscribeRequest {
    SubscribeRequest {
        heartbeat_interval: Some(interval.try_into().unwrap()),
        ..filter(topic)
    }
}

#[tokio::test]
async fn a_silent_stream_carries_heartbeats_where_they_were_asked_for_and_only_there() {
    let broker = start_with_short_heartbeats().await;
    let client = broker.client().await;
    let interval = Duration::from_millis(20);
    let mut asked = subscribe(&client, with_heartbeats("t", interval)).await;
    let mut not_asked = subscribe(&client, filter("t")).await;
    let heartbeat = SubscribeResponse {
        heartbeat: true,
        ..Default::default()
    };
    let started = tokio::time::Instant::now();
    for _ in 0..5 {
        assert_eq!(next(&mut asked).await, heartbeat);
    }
    assert!(started.elapsed() >= 4 * interval, "no more than asked for");
    broker.publish("t", "x");
    assert_eq!(next(&mut not_asked).await.payload, "x");
    // A heartbeat may have gone out just before the message.
    let mut response = next(&mut asked).await;
    while response == heartbeat {
        response = next(&mut asked).await;
    }
    assert_eq!(
        (response.payload.as_ref(), response.heartbeat),
        (&b"x"[..], false)
    );
    assert_eq!(next(&mut asked).await, heartbeat);
}

#[tokio::test]
async fn a_stream_that_is_not_silent_carries_no_heartbeat() {
    let broker = start_with_short_heartbeats().await;
    let client = broker.client().await;
    let slow = Duration::from_secs(1);
    let mut busy = subscribe(&client, with_heartbeats("t", slow)).await;
    let mut clock = subscribe(&client, with_heartbeats("other", slow / 50)).await;
    // Twice the interval passes, and never a silent one.
    for _ in 0..100 {
        next(&mut clock).await;
        broker.publish("t", "x");
        assert_eq!(next(&mut busy).await.payload, "x");
    }
}
