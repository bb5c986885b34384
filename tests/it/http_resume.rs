//! Readers over plain HTTP that come late, come back, or come after the end.

use std::time::{Duration, SystemTime};

use fanfare::{
    broker::{Bounds, HistoryLimits, Limits, Retention},
    message::Message,
    server::ServerConfig,
};
use serde_json::{Value, json};

use crate::{
    support::{Running, within},
    web::{Block, Event, Got, VERSIONS, Version, Web},
};

/// A broker that keeps the newest messages of the topics of one token.
async fn keeping(messages: usize) -> Running {
    let kept = Retention {
        filter: "*".parse().unwrap(),
        bounds: Some(Bounds {
            messages,
            // Some messages here are of 2001, and none is to be given up for that.
            age: Duration::from_secs(100 * 365 * 24 * 60 * 60),
            ..Bounds::default()
        }),
    };
    let limits = Limits {
        history: HistoryLimits {
            rules: vec![kept],
            ..HistoryLimits::default()
        },
        ..Limits::default()
    };
    Running::start_with(ServerConfig::default(), limits).await
}

fn publish_last(broker: &Running, topic: &str, payload: &str) {
    let message = Message {
        end: true,
        ..Message::new(topic.parse().unwrap(), payload.to_owned())
    };
    broker.broker.publish(message, SystemTime::now()).unwrap();
}

async fn come_back(web: &mut Web, path: &str, last_id: &str) -> Got {
    let request = web.get(path).header("last-event-id", last_id);
    web.send(request, "").await
}

async fn data(events: &mut Got, count: usize) -> Vec<String> {
    let mut data = Vec::new();
    while data.len() < count {
        data.push(events.told().await.1);
    }
    data
}

#[tokio::test]
async fn an_id_is_where_to_go_on_from_and_so_is_the_beginning() {
    let broker = keeping(100).await;
    for version in VERSIONS {
        for filter in ["t", "*"] {
            broker.publish("t", "before");
            let mut web = Web::connect(broker.address, version).await;
            let path = format!("/v1/events?topic={filter}");
            let mut events = web.open(&path).await;
            assert!(matches!(events.block().await, Some(Block::Retry(_))));
            let Some(Block::Silent { id: beginning }) = events.block().await else {
                panic!("the beginning has an id");
            };
            broker.publish("t", "1");
            broker.publish("t", "2");
            let first = events.event().await.unwrap();
            let second = events.event().await.unwrap();
            assert_eq!((&*first.data, &*second.data), ("1", "2"));
            assert!(first.id != beginning && first.id != second.id);
            drop(events);
            broker.publish("t", "3");
            for (id, expected) in [
                (&beginning, &["1", "2", "3"][..]),
                (&first.id, &["2", "3"]),
                (&second.id, &["3"]),
            ] {
                let mut web = Web::connect(broker.address, version).await;
                let mut events = come_back(&mut web, &path, id).await;
                assert_eq!(events.status, 200);
                assert_eq!(
                    data(&mut events, expected.len()).await,
                    expected,
                    "{path} {id}"
                );
                // As a parameter it does the same, and a header is newer than a URL.
                let mut web = Web::connect(broker.address, version).await;
                let url = format!("{path}&last_event_id={id}");
                let mut events = web.open(&url).await;
                assert_eq!(data(&mut events, expected.len()).await, expected);
                let mut events = come_back(
                    &mut Web::connect(broker.address, version).await,
                    &url,
                    &second.id,
                )
                .await;
                assert_eq!(events.told().await.1, "3");
            }
        }
    }
}

#[tokio::test]
async fn a_reader_starts_where_it_wants_to() {
    let broker = keeping(4).await;
    let mut cursors = Vec::new();
    let mut times = Vec::new();
    let now = SystemTime::now();
    for (second, payload) in (1_u32..).zip(["1", "2", "3", "4", "5", "6"]) {
        let at = now - Duration::from_secs(60) + second * Duration::from_secs(1);
        let message = Message::new("t".parse().unwrap(), payload);
        let receipt = broker.broker.publish(message, at).unwrap();
        cursors.push(receipt.cursor().unwrap().to_string());
        times.push(humantime::format_rfc3339_nanos(at).to_string());
    }
    let mut streams = Vec::new();
    for (start, expected) in [
        ("all", &["3", "4", "5", "6"][..]),
        ("last:2", &["5", "6"]),
        (&times[4], &["5", "6"]),
        (&cursors[3], &["5", "6"]),
        (&cursors[5], &[]),
        ("now", &[]),
    ] {
        let path = format!("/v1/topics/t/messages?start={start}");
        let mut lines = Web::http1(broker.address).await.open(&path).await;
        for payload in expected {
            let line = lines.json_line().await.unwrap();
            assert_eq!(line["payload"], *payload, "{start}");
        }
        streams.push(lines);
    }
    let live = broker.publish("t", "live");
    for mut lines in streams {
        let line = lines.json_line().await.unwrap();
        assert_eq!(line["payload"], "live");
        assert_eq!(line["cursor"], live.cursor().unwrap().to_string());
    }
}

#[tokio::test]
async fn what_is_gone_is_told_before_what_is_not() {
    let broker = keeping(3).await;
    let mut web = Web::http1(broker.address).await;
    let mut cursors = Vec::new();
    for count in 1..=8 {
        let outcome = web.publish("t", count.to_string()).await;
        cursors.push(outcome["cursor"].as_str().unwrap().to_owned());
    }
    let mut events = come_back(&mut web, "/v1/events?topic=t", &cursors[1]).await;
    let (event, told) = events.told().await;
    let gap = json!({ "missing": 3, "at_least": false });
    assert_eq!(
        (&*event, serde_json::from_str(&told).unwrap()),
        ("gap", gap.clone())
    );
    assert_eq!(data(&mut events, 3).await, ["6", "7", "8"]);
    // The event has an id: whoever comes back after it is not told it again, and gets what followed.
    let mut web = Web::http1(broker.address).await;
    let mut events = come_back(&mut web, "/v1/events?topic=t", &cursors[1]).await;
    let gap_event = events.event().await.unwrap();
    assert_eq!((&*gap_event.event, &gap_event.id), ("gap", &cursors[4]));
    let mut web = Web::http1(broker.address).await;
    let mut events = come_back(&mut web, "/v1/events?topic=t", &gap_event.id).await;
    assert_eq!(data(&mut events, 3).await, ["6", "7", "8"]);

    let path = format!("/v1/topics/t/messages?start={}", cursors[1]);
    let mut lines = Web::http1(broker.address).await.open(&path).await;
    let told = json!({ "gap": gap, "cursor": cursors[4] });
    assert_eq!(lines.json_line().await.unwrap(), told);
    assert_eq!(lines.json_line().await.unwrap()["payload"], "6");

    // Of another broker's life nothing is known, and everything that is kept is sent.
    let path = "/v1/topics/t/messages?start=1-2-3";
    let mut lines = Web::http1(broker.address).await.open(path).await;
    let unknown = json!({ "gap": { "missing": 0, "at_least": true } });
    let told = json!({ "gap": unknown["gap"], "cursor": cursors[4] });
    assert_eq!(lines.json_line().await.unwrap(), told);
    assert_eq!(lines.json_line().await.unwrap()["payload"], "6");
    // And so it is where nothing is kept.
    let path = "/v1/topics/a.b/messages?start=1-2-3";
    let mut lines = Web::http1(broker.address).await.open(path).await;
    assert_eq!(lines.json_line().await.unwrap(), unknown);
}

/// Reads on with this path until `count` messages have come, through connections that break after a few
/// messages each.
async fn read_with_breaks(
    broker: &Running,
    version: Version,
    path: &str,
    count: u64,
) -> Vec<Value> {
    let mut seen = Vec::new();
    let mut last_id: Option<String> = None;
    while (seen.len() as u64) < count {
        let mut web = Web::connect(broker.address, version).await;
        let mut events = match &last_id {
            Some(id) => come_back(&mut web, path, id).await,
            None => web.open(path).await,
        };
        assert_eq!(events.status, 200);
        // Some connections break before they have said more than where they begin.
        let patience = fastrand::usize(0..200);
        assert!(matches!(events.block().await, Some(Block::Retry(_))));
        for _ in 0..patience {
            if seen.len() as u64 == count {
                break;
            }
            match within(events.block()).await.expect("the stream goes on") {
                Block::Event(event) => {
                    assert_eq!(event.event, "message", "{}", event.data);
                    last_id = Some(event.id);
                    seen.push(serde_json::from_str(&event.data).unwrap());
                }
                Block::Silent { id } => last_id = Some(id),
                Block::Comment => {}
                Block::Retry(_) => panic!("it says that once"),
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_breaks_off_and_comes_back_gets_everything_once_under_publishing() {
    const EACH: u64 = 3_000;
    const TOPICS: [&str; 3] = ["a", "b", "c"];
    let broker = keeping(100_000).await;
    let publishing: Vec<_> = TOPICS
        .map(|topic| {
            let broker = broker.broker.clone();
            std::thread::spawn(move || {
                for count in 1..=EACH {
                    let message = Message::new(topic.parse().unwrap(), count.to_string());
                    broker.publish(message, SystemTime::now()).unwrap();
                    if count % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .into();
    let path = |filter: &str| format!("/v1/events?topic={filter}&format=json&start=all");
    let (one, all) = (path("a"), path("*"));
    let (one, all) = tokio::join!(
        read_with_breaks(&broker, Version::Http1, &one, EACH),
        read_with_breaks(&broker, Version::Http2, &all, EACH * TOPICS.len() as u64),
    );
    for thread in publishing {
        thread.join().unwrap();
    }
    let counts = |messages: &[Value], topic: &str| -> Vec<u64> {
        let of_topic = messages.iter().filter(|message| message["topic"] == topic);
        of_topic
            .map(|message| message["payload"].as_str().unwrap().parse().unwrap())
            .collect()
    };
    let expected: Vec<u64> = (1..=EACH).collect();
    assert!(counts(&one, "a") == expected);
    for topic in TOPICS {
        assert!(counts(&all, topic) == expected, "{topic}");
    }
}

#[tokio::test]
async fn an_ended_topic_takes_no_more_messages() {
    let broker = keeping(100).await;
    publish_last(&broker, "t", "");
    for version in VERSIONS {
        let mut web = Web::connect(broker.address, version).await;
        let got = web.send(web.post("/v1/topics/t"), "x").await;
        assert_eq!(got.status, 409);
        let message = "the topic has ended: its last message has been published";
        let error = json!({ "code": "FAILED_PRECONDITION", "message": message });
        assert_eq!(got.json().await, json!({ "error": error }));
    }
}

#[tokio::test]
async fn an_ended_topic_ends_its_streams_and_keeps_its_readers_from_coming_back() {
    let broker = keeping(100).await;
    for version in VERSIONS {
        let topic = format!("answer-{version:?}");
        let path = format!("/v1/events?topic={topic}");
        let mut web = Web::connect(broker.address, version).await;
        let mut events = web.open(&path).await;
        let mut all = Web::connect(broker.address, version)
            .await
            .open("/v1/events?topic=*&format=json")
            .await;
        let lines = format!("/v1/topics/{topic}/messages");
        let mut lines = Web::connect(broker.address, version)
            .await
            .open(&lines)
            .await;
        broker.publish(&topic, "token");
        publish_last(&broker, &topic, "");

        let token = events.event().await.unwrap();
        assert_eq!(token.data, "token");
        // The mark is no message to who asks for payloads, but it has its place.
        let Some(Block::Silent { id: mark }) = events.block().await else {
            panic!("the mark has an id");
        };
        let end = Event {
            event: "end".into(),
            data: "{}".into(),
            id: "end".into(),
        };
        assert_eq!(events.event().await, Some(end.clone()));
        assert_eq!(events.event().await, None);
        assert_eq!(lines.json_line().await.unwrap()["payload"], "token");
        assert_eq!(lines.json_line().await.unwrap()["end"], true);
        assert_eq!(lines.json_line().await.unwrap(), json!({ "end": true }));
        assert_eq!(lines.line().await, None);

        // A filter sees the end of a topic, and goes on.
        assert_eq!(all.told().await.0, "message");
        let ended: Value = serde_json::from_str(&all.told().await.1).unwrap();
        assert_eq!(
            (&ended["end"], &ended["topic"]),
            (&json!(true), &json!(topic))
        );
        let other = format!("other-{version:?}");
        broker.publish(&other, "on and on");
        let next: Value = serde_json::from_str(&all.told().await.1).unwrap();
        assert_eq!(next["topic"], other);

        // Whoever comes back gets what it has not seen, be it the end alone, and then nothing more, which
        // is told by 204.
        for (id, expected) in [(&token.id, 200), (&mark, 200), (&"end".to_owned(), 204)] {
            let mut web = Web::connect(broker.address, version).await;
            let mut got = come_back(&mut web, &path, id).await;
            assert_eq!(got.status, expected, "{id}");
            if expected == 200 {
                assert_eq!(got.event().await, Some(end.clone()));
            } else {
                assert_eq!(got.text().await, "");
            }
        }
        // Who comes for the first time is told, and may ask for what is kept.
        let mut web = Web::connect(broker.address, version).await;
        assert_eq!(web.open(&path).await.event().await, Some(end.clone()));
        let mut web = Web::connect(broker.address, version).await;
        let mut late = web.open(&format!("{path}&start=all")).await;
        assert_eq!(late.told().await.1, "token");
        assert_eq!(late.event().await, Some(end));
        assert_eq!(late.event().await, None);

        drop(all);
    }
    broker.until(|snapshot| snapshot.subscriptions == 0).await;
}

#[tokio::test]
async fn several_topics_share_one_stream_one_id_and_one_end() {
    let broker = keeping(100).await;
    for version in VERSIONS {
        let [a, b] = ["a", "b"].map(|name| format!("{name}-{version:?}"));
        let path = format!("/v1/events?topic={a}&topic={a}&topic={b}&format=json");
        let mut events = Web::connect(broker.address, version)
            .await
            .open(&path)
            .await;
        let mut ids = vec![];
        for (topic, payload) in [(&a, "1"), (&b, "2"), (&a, "3")] {
            let receipt = broker.publish(topic, payload);
            assert_eq!((receipt.matched, receipt.delivered), (1, 1));
            let event = events.event().await.unwrap();
            let message: Value = serde_json::from_str(&event.data).unwrap();
            assert_eq!(
                (&message["topic"], &message["payload"]),
                (&json!(topic), &json!(payload))
            );
            assert_eq!(message["cursor"], event.id);
            ids.push(event.id);
        }
        drop(events);
        broker.publish(&b, "4");
        publish_last(&broker, &a, "5");
        for (id, expected) in [(&ids[0], &["2", "3", "4", "5"][..]), (&ids[2], &["4", "5"])] {
            let mut web = Web::connect(broker.address, version).await;
            let mut events = come_back(&mut web, &path, id).await;
            for payload in expected {
                let message: Value = serde_json::from_str(&events.told().await.1).unwrap();
                assert_eq!(message["payload"], *payload);
            }
        }
        // One has ended, and the stream goes on.
        let mut web = Web::connect(broker.address, version).await;
        let mut events = come_back(&mut web, &path, &ids[2]).await;
        assert_eq!(data(&mut events, 2).await.len(), 2);
        publish_last(&broker, &b, "6");
        let last = events.event().await.unwrap();
        let message: Value = serde_json::from_str(&last.data).unwrap();
        assert_eq!(
            (&message["payload"], &message["end"]),
            (&json!("6"), &json!(true))
        );
        assert_eq!(events.event().await.unwrap().event, "end");
        assert_eq!(events.event().await, None);
        let mut web = Web::connect(broker.address, version).await;
        let mut events = come_back(&mut web, &path, &last.id).await;
        assert_eq!(events.event().await.unwrap().event, "end");
        assert_eq!(events.event().await, None);
        assert_eq!(events.last_id(), "end");
        let got = come_back(&mut web, &path, events.last_id()).await;
        assert_eq!(got.status, 204);
    }
}

#[tokio::test]
async fn a_topic_without_history_can_end_over_http_too() {
    let broker = Running::start().await;
    let mut web = Web::http1(broker.address).await;
    let mut events = web.open("/v1/events?topic=t").await;
    let mut publisher = Web::http1(broker.address).await;
    let request = publisher.post("/v1/topics/t").header("fanfare-end", "true");
    let got = publisher.send(request, "the last word").await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json().await.get("cursor"), None);
    assert_eq!(events.told().await.1, "the last word");
    let end = events.event().await.unwrap();
    assert_eq!((&*end.event, &*end.id), ("end", "end"));
    assert_eq!(events.event().await, None);
    // The connection serves on.
    let got = within(come_back(&mut web, "/v1/events?topic=t", "end")).await;
    assert_eq!(got.status, 204);
}

/// As after a restart, or of a topic that nobody has used for long.
#[tokio::test]
async fn whoever_has_seen_the_end_is_kept_away_also_where_it_is_forgotten() {
    let broker = keeping(1).await;
    let mut web = Web::http1(broker.address).await;
    for path in [
        "/v1/events?topic=t",
        "/v1/events?topic=a.*&topic=b&start=all",
    ] {
        let got = come_back(&mut web, path, "end").await;
        assert_eq!(got.status, 204, "{path}");
    }
}

#[tokio::test]
async fn an_id_that_no_broker_gave_is_refused() {
    let broker = keeping(1).await;
    let mut web = Web::http1(broker.address).await;
    let got = come_back(&mut web, "/v1/events?topic=t", "nonsense").await;
    assert_eq!(got.status, 400);
    assert_eq!(got.json().await["error"]["field"], "last_event_id");
    // An empty one is none.
    let got = come_back(&mut web, "/v1/events?topic=t", "").await;
    assert_eq!(got.status, 200);
}

#[tokio::test]
async fn a_group_has_no_past() {
    let broker = keeping(1).await;
    let mut web = Web::http1(broker.address).await;
    let path = "/v1/topics/t/messages?group=g&start=all";
    let got = web.send(web.get(path), "").await;
    assert_eq!(got.status, 400);
    let error = json!({
        "code": "INVALID_ARGUMENT",
        "message": "a group can only start now",
        "field": "group",
    });
    assert_eq!(got.json().await, json!({ "error": error }));
}
