//! Readers who come late, come back, or come together: every token, once, in order.

use fanfare::{
    client::{Client, Event, Subscribe},
    cursor::StartAt,
    message::Message,
    topic::Topic,
};
use tokio::time::{Duration, Instant, timeout};

use crate::{
    connections::Connections,
    http::{data, tokens},
    support::{Asked, Chat, Settings},
};

const PROMPT: &str = "one two three four five";

#[test]
fn tokens_come_as_they_are_made() {
    let chat = Chat::start_with(Settings {
        word_delay: "300ms",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    let first = events.next().unwrap();
    let started = Instant::now();
    let rest = data(events);
    // Five words at 300 ms each are still to come when the first is here; allows for a slow machine.
    assert!(started.elapsed() > Duration::from_millis(600));
    assert_eq!([vec![first.data], rest].concat(), tokens(PROMPT));
}

#[test]
fn who_comes_late_gets_every_token() {
    let chat = Chat::start();
    let asked = chat.ask(PROMPT);
    // The first reader sees to it that all is over before the second one comes.
    for _ in 0..2 {
        let events = chat.http.events(&asked.path, &[asked.shown()]);
        assert_eq!(data(events), tokens(PROMPT));
    }
}

#[test]
fn who_comes_too_late_for_the_first_tokens_is_told_how_many_are_gone() {
    let chat = Chat::start_with(Settings {
        word_delay: "1ms",
        history: "*=messages:4",
        ..Settings::default()
    });
    let expected = tokens(PROMPT);
    let asked = chat.ask(PROMPT);
    let all = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(all.last().expect("there is an end").data, expected[5]);
    let mut late = chat.http.events(&asked.path, &[asked.shown()]);
    let gap = late.next().unwrap();
    let two = r#"{"at_least":false,"missing":2}"#;
    assert_eq!((&*gap.kind, &*gap.data, &*gap.id), ("gap", two, ""));
    assert_eq!(data(late), expected[2..]);
}

#[test]
fn who_misses_nothing_but_the_claim_is_told_of_no_gap() {
    let chat = Chat::start_with(Settings {
        word_delay: "1ms",
        history: "*=messages:6",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    for _ in 0..2 {
        let events = chat.http.events(&asked.path, &[asked.shown()]);
        assert_eq!(data(events), tokens(PROMPT));
    }
}

#[test]
fn who_comes_back_loses_no_token_and_sees_none_twice() {
    let chat = Chat::start();
    let asked = chat.ask(PROMPT);
    let mut seen = Vec::new();
    let mut last = None::<String>;
    loop {
        let mut headers = vec![asked.shown()];
        headers.extend(last.as_deref().map(|id| ("last-event-id", id)));
        let mut events = chat.http.events(&asked.path, &headers);
        let Some(event) = events.next() else { break };
        seen.push(event.data);
        if event.id == "end" {
            break;
        }
        last = Some(event.id);
    }
    assert_eq!(seen, tokens(PROMPT));

    let header = ("last-event-id", "end");
    let after = chat.http.get(&asked.path, &[asked.shown(), header]);
    assert_eq!((after.status, &*after.body), (204, ""));
    let header = ("last-event-id", "something else");
    assert_eq!(
        chat.http.get(&asked.path, &[asked.shown(), header]).status,
        400
    );
}

#[test]
fn readers_beside_each_other_see_the_same() {
    let chat = Chat::start();
    let asked = chat.ask(PROMPT);
    let one = chat.http.events(&asked.path, &[asked.shown()]);
    let other = chat.http.events(&asked.path, &[asked.shown()]);
    let gone = chat.http.events(&asked.path, &[asked.shown()]);
    drop(gone);
    assert_eq!(data(one), tokens(PROMPT));
    assert_eq!(data(other), tokens(PROMPT));
}

#[test]
fn another_api_goes_on_where_the_first_was() {
    let mut chat = Chat::start();
    let asked = chat.ask(PROMPT);
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    let first = events.next().unwrap();
    chat.replace_api();
    let header = ("last-event-id", &*first.id);
    let rest = chat.http.events(&asked.path, &[asked.shown(), header]);
    let seen = [vec![first.data], data(rest)].concat();
    assert_eq!(seen, tokens(PROMPT));
}

#[test]
fn many_requests_at_once_share_the_dispatchers() {
    let chat = Chat::start_with(Settings {
        word_delay: "10ms",
        dispatchers: 2,
        ..Settings::default()
    });
    let asked: Vec<_> = (0..40).map(|n| chat.ask(&format!("number {n}"))).collect();
    for (n, asked) in asked.iter().enumerate() {
        let events = chat.http.events(&asked.path, &[asked.shown()]);
        assert_eq!(data(events), tokens(&format!("number {n}")));
    }
}

#[test]
fn one_api_carries_more_than_one_connection_to_the_broker_may() {
    let chat = Chat::start_with(Settings {
        word_delay: "1h",
        ..Settings::default()
    });
    let asked: Vec<_> = (0..200).map(|n| chat.ask(&format!("number {n}"))).collect();
    let open = |asked: &Asked| chat.http.events(&asked.path, &[asked.shown()]);
    let readers: Vec<_> = asked.iter().map(open).collect();
    // The dispatcher's two, and for each response the API's own and its reader's.
    chat.wait_for_subscriptions(402);
    drop(readers);
    chat.wait_for_subscriptions(202);
}

#[test]
fn a_silent_stream_shows_that_it_is_alive() {
    let chat = Chat::start_with(Settings {
        word_delay: "1h",
        heartbeat: "100ms",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    events.heartbeats(3);
}

#[test]
fn who_leaves_is_unsubscribed() {
    let chat = Chat::start_with(Settings {
        word_delay: "1h",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    // The dispatcher's two, and the API's own.
    chat.wait_for_subscriptions(3);
    let readers = [(); 5].map(|()| chat.http.events(&asked.path, &[asked.shown()]));
    chat.wait_for_subscriptions(8);
    drop(readers);
    chat.wait_for_subscriptions(3);
}

#[tokio::test]
async fn a_request_that_is_published_twice_is_generated_once() {
    let chat = Chat::start_with(Settings {
        dispatchers: 2,
        ..Settings::default()
    });
    let client = Client::connect(&chat.broker_url).await.unwrap();
    let id = "123e4567-e89b-42d3-a456-426614174000";
    let job = format!(r#"{{"request_id":"{id}","prompt":"{PROMPT}","max_tokens":0}}"#);
    let topic: Topic = "inference-requests".parse().unwrap();
    // One for each of the two, and one for either again.
    for _ in 0..3 {
        let message = Message::new(topic.clone(), job.clone());
        assert_eq!(client.publish(message).await.unwrap().delivered, 1);
    }
    let response: Topic = format!("response:{id}").parse().unwrap();
    let subscribe = Subscribe::new(response).start_at(StartAt::All);
    let mut response = client.subscribe(subscribe).await.unwrap();
    let mut seen = Vec::new();
    let reading = async {
        while let Some(event) = response.next().await {
            let Event::Message(message) = event.unwrap() else {
                panic!("nothing but messages")
            };
            if !message
                .attributes
                .iter()
                .any(|(name, _)| name == "dispatcher")
            {
                seen.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
        }
    };
    timeout(Duration::from_secs(30), reading).await.unwrap();
    assert_eq!(seen, tokens(PROMPT));
}

#[tokio::test]
async fn readers_who_do_not_read_hold_up_nobody_else() {
    let chat = Chat::start();
    let connections = Connections::open(&chat.broker_url).await.unwrap();
    let publish = async |topic: &str, payload: String| {
        let message = Message::new(topic.parse().unwrap(), payload);
        let published = connections.publish(message);
        timeout(Duration::from_secs(5), published).await
    };
    let open = async |topic: &str| {
        let topic: Topic = topic.parse().unwrap();
        let subscribe = Subscribe::new(topic).start_at(StartAt::All);
        connections.subscribe(subscribe).await.unwrap()
    };
    // For each reader more than what is taken ahead of it; for all more than a connection takes.
    for _ in 0..4 {
        let published = publish("response:long", "x".repeat(50_000)).await;
        published.unwrap().unwrap();
    }
    let mut readers = Vec::new();
    for _ in 0..200 {
        readers.push(open("response:long").await);
    }
    let mut other = open("response:short").await;
    let published = publish("response:short", "y".to_owned()).await;
    published.expect("it is answered").unwrap();
    let event = timeout(Duration::from_secs(5), other.next()).await;
    let event = event.expect("it is read").unwrap().unwrap();
    assert!(matches!(event, Event::Message(message) if message.payload == "y"));
}
