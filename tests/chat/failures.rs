//! What dies, and who is told. Nobody waits for ever.

use tokio::time::{Duration, Instant};

use crate::{
    http::{Event, data, tokens},
    support::{Asked, Chat, Settings},
};

const PROMPT: &str = "one two three four five six seven eight nine ten";

/// That the reader, who has seen the first token, is told why there are no more, within `bound`.
#[track_caller]
fn check_told(events: impl Iterator<Item = Event>, error: &str, bound: Duration) {
    let since = Instant::now();
    let mut events = events.collect::<Vec<_>>();
    let took = since.elapsed();
    let last = events.pop().expect("the reader is told");
    let failure = format!(r#"{{"token":"","done":true,"error":"{error}"}}"#);
    assert_eq!((last.data, &*last.id), (failure, "end"));
    assert!(took < bound, "the reader is told after {took:?}");
    let expected = tokens(PROMPT);
    assert!(events.len() < expected.len() && data(events) < expected);
}

fn start_slow() -> (Chat, Asked) {
    let chat = Chat::start_with(Settings {
        word_delay: "2s",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    (chat, asked)
}

#[test]
fn readers_of_a_dead_dispatcher_are_told() {
    let (mut chat, asked) = start_slow();
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(events.next().unwrap().data, tokens(PROMPT)[0]);
    let beside = chat.http.events(&asked.path, &[asked.shown()]);
    // Kills it.
    drop(chat.dispatchers.pop());
    check_told(events, "the dispatcher is gone", Duration::from_secs(8));
    check_told(beside, "the dispatcher is gone", Duration::from_secs(5));
    let late = chat.http.events(&asked.path, &[asked.shown()]);
    check_told(late, "the dispatcher is gone", Duration::from_secs(5));
}

#[test]
fn a_reader_who_finds_a_dead_dispatcher_at_another_api_is_told() {
    let (mut chat, asked) = start_slow();
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(events.next().unwrap().data, tokens(PROMPT)[0]);
    drop(chat.dispatchers.pop());
    chat.replace_api();
    let late = chat.http.events(&asked.path, &[asked.shown()]);
    check_told(late, "the dispatcher is gone", Duration::from_secs(8));
}

#[test]
fn readers_are_told_at_once_that_the_model_is_down() {
    let mut chat = Chat::start();
    chat.model = None;
    let asked = chat.ask(PROMPT);
    let events = chat.http.events(&asked.path, &[asked.shown()]);
    check_told(
        events,
        "the model cannot be reached",
        Duration::from_secs(5),
    );
}

#[test]
fn readers_are_told_at_once_that_the_model_died() {
    let (mut chat, asked) = start_slow();
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(events.next().unwrap().data, tokens(PROMPT)[0]);
    chat.model = None;
    check_told(events, "the model broke off", Duration::from_secs(5));
}

#[test]
fn readers_are_told_that_the_model_takes_too_long() {
    let mut chat = Chat::start_with(Settings {
        word_delay: "1h",
        dispatchers: 0,
        ..Settings::default()
    });
    chat.add_dispatcher(&["--model-timeout", "500ms"]);
    let asked = chat.ask(PROMPT);
    let events = chat.http.events(&asked.path, &[asked.shown()]);
    check_told(events, "the model took too long", Duration::from_secs(5));
}

#[test]
fn what_a_dead_dispatcher_had_not_begun_is_done_by_another() {
    let mut chat = Chat::start_with(Settings {
        word_delay: "1ms",
        claim_timeout: "2s",
        dispatchers: 0,
        ..Settings::default()
    });
    // It waits for company, and claims nothing meanwhile.
    chat.add_dispatcher(&["--batch-window", "1h"]);
    let asked = chat.ask(PROMPT);
    drop(chat.dispatchers.pop());
    chat.add_dispatcher(&[]);
    let events = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(data(events), tokens(PROMPT));
}

#[test]
fn what_is_sent_to_a_dispatcher_that_hangs_is_done_by_another_when_the_broker_notices() {
    let chat = Chat::start_with(Settings {
        word_delay: "1ms",
        // All times are a tenth of the defaults.
        broker: &["--keepalive-interval", "2s", "--keepalive-timeout", "1s"],
        claim_timeout: "1s",
        dispatchers: 4,
        ..Settings::default()
    });
    for dispatcher in &chat.dispatchers[1..] {
        dispatcher.signal("-STOP");
    }
    let asked = [(); 16].map(|()| chat.ask(PROMPT));
    for asked in asked {
        let events = chat.http.events(&asked.path, &[asked.shown()]);
        assert_eq!(data(events), tokens(PROMPT));
    }
}

#[test]
fn what_nobody_begins_ends_with_an_error() {
    let mut chat = Chat::start_with(Settings {
        claim_timeout: "300ms",
        dispatchers: 0,
        ..Settings::default()
    });
    chat.add_dispatcher(&["--batch-window", "1h"]);
    let asked = chat.ask(PROMPT);
    let events = chat.http.events(&asked.path, &[asked.shown()]);
    let error = "no dispatcher has taken the request";
    check_told(events, error, Duration::from_secs(5));
}

#[test]
fn a_dispatcher_that_is_asked_to_stop_ends_what_it_has_begun() {
    let mut chat = Chat::start();
    let asked = chat.ask(PROMPT);
    let mut events = chat.http.events(&asked.path, &[asked.shown()]);
    let first = events.next().unwrap();
    let dispatcher = chat.dispatchers.pop().unwrap();
    dispatcher.terminate();
    let seen = [vec![first.data], data(events)].concat();
    assert_eq!(seen, tokens(PROMPT));
    dispatcher.succeed();
}

#[test]
fn a_broker_that_keeps_nothing_is_no_broker_for_this() {
    let chat = Chat::start_with(Settings {
        history: "",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    // The error is not kept either: whoever comes after it is told that.
    let errors = [
        "the broker keeps no history of responses",
        "the end of the answer is no longer kept",
    ];
    for _ in 0..2 {
        let events = chat.http.events(&asked.path, &[asked.shown()]);
        let last = events.last().expect("the reader is told");
        assert!(errors.iter().any(|error| last.data.contains(error)));
    }
}
