//! A broker that dies in the middle of it, with all that it has kept: nobody waits for ever.

use std::{thread, time::Duration};

use fanfare::{client::Client, message::Message, topic::Topic};

use crate::{
    http::{Event, data, tokens},
    support::{Chat, Settings},
};

const PROMPT: &str = "one two three four five six";

/// A gap that nobody can count.
const UNKNOWN: &str = r#"{"at_least":true,"missing":0}"#;

/// That a reader of some of the tokens is told of those that it has not got, and comes to an end.
#[track_caller]
fn check_told(events: Vec<Event>) {
    let (gaps, tokens_seen): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| event.kind == "gap");
    for gap in &gaps {
        assert_eq!(gap.data, UNKNOWN);
    }
    let mut seen = data(tokens_seen);
    let expected = tokens(PROMPT);
    if seen == expected {
        return;
    }
    let last = seen.last().expect("there is an end").clone();
    if last.contains(r#""error":"#) {
        seen.pop();
    } else {
        assert_ne!(gaps, [], "what is missing is told");
    }
    let mut left = expected.iter();
    let is_part = seen.iter().all(|token| left.any(|other| other == token));
    assert!(is_part, "no token comes twice, or out of order: {seen:?}");
}

/// Kills the broker after the first token, starts another one after so much time, and reads on.
#[track_caller]
fn check_restart(word_delay: &'static str, away: Duration) {
    let mut chat = Chat::start_with(Settings {
        word_delay,
        claim_timeout: "500ms",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    let mut cut_off = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(cut_off.next().unwrap().data, tokens(PROMPT)[0]);
    let (http, path, secret) = (chat.http.clone(), asked.path.clone(), asked.secret.clone());
    let reading = thread::spawn(move || http.all_events(&path, &[("stream-secret", &secret)]));
    chat.kill_broker();
    thread::sleep(away);
    chat.start_broker();
    check_told(reading.join().unwrap());
    let rest: Vec<_> = cut_off.collect();
    assert!(rest.len() < tokens(PROMPT).len());
    check_told(chat.http.all_events(&asked.path, &[asked.shown()]));
    chat.check_answers();
}

#[test]
fn readers_are_told_that_the_broker_was_away_while_tokens_were_made() {
    check_restart("100ms", Duration::from_secs(2));
}

#[test]
fn readers_are_told_that_the_broker_was_away_for_a_moment() {
    check_restart("200ms", Duration::ZERO);
}

#[test]
fn readers_are_told_that_the_broker_was_away_while_the_model_was_silent() {
    check_restart("1s", Duration::ZERO);
}

#[tokio::test]
async fn who_comes_after_a_restart_is_told_that_the_beginning_is_forgotten() {
    let mut chat = Chat::start_with(Settings {
        word_delay: "1h",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    chat.kill_broker();
    chat.start_broker();
    // The last token comes to the broker that knows nothing of those before it.
    let last = r#"{"token":"six","done":true}"#;
    let topic: Topic = format!("response:{}", asked.id).parse().unwrap();
    let mut message = Message::new(topic, last);
    let dispatcher = ("generated-by".parse().unwrap(), "x".to_owned());
    message.attributes = [dispatcher].into_iter().collect();
    message.end = true;
    let client = Client::connect(&chat.broker_url).await.unwrap();
    client.publish(message).await.unwrap();
    let events = chat.http.all_events(&asked.path, &[asked.shown()]);
    let [gap, token] = &events[..] else {
        panic!("there are a gap and a token: {events:?}")
    };
    assert_eq!((&*gap.kind, &*gap.data), ("gap", UNKNOWN));
    assert_eq!((&*token.data, &*token.id), (last, "end"));
}

#[test]
fn what_was_claimed_before_a_restart_and_again_after_it_is_not_generated_twice() {
    let mut chat = Chat::start_with(Settings {
        word_delay: "3s",
        dispatchers: 2,
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(events.next().unwrap().data, tokens(PROMPT)[0]);
    drop(events);
    chat.kill_broker();
    chat.start_broker();
    // The dispatchers' four, and the API's own, which are back before the next token.
    chat.wait_for_subscriptions(5);
    // As if it had waited in the queue of the other dispatcher: one for each of them.
    chat.publish_job(&asked.id, PROMPT);
    chat.publish_job(&asked.id, PROMPT);
    let events = chat.http.all_events(&asked.path, &[asked.shown()]);
    let last = events.last().expect("there is an end");
    let told = "the broker has forgotten the beginning of the answer";
    assert!(last.data.contains(told), "{events:?}");
}

#[test]
fn a_request_that_waits_for_a_dispatcher_outlives_the_broker() {
    let mut chat = Chat::start_with(Settings {
        word_delay: "1ms",
        claim_timeout: "2s",
        dispatchers: 0,
        ..Settings::default()
    });
    chat.add_dispatcher(&["--batch-window", "1h"]);
    let asked = chat.ask(PROMPT);
    chat.kill_broker();
    drop(chat.dispatchers.pop());
    chat.start_broker();
    chat.add_dispatcher(&[]);
    let events = chat.http.all_events(&asked.path, &[asked.shown()]);
    assert_eq!(data(events), tokens(PROMPT));
}
