//! Two APIs that share the work: neither ends what it knows nothing of.

use tokio::time::{Duration, Instant};

use crate::{
    http::{data, tokens},
    support::{Chat, Settings},
};

const PROMPT: &str = "one two three four five six seven eight nine ten";

#[test]
fn another_api_leaves_a_request_that_waits_to_who_has_accepted_it() {
    let mut chat = Chat::start_with(Settings {
        word_delay: "300ms",
        claim_timeout: "1s",
        dispatchers: 0,
        ..Settings::default()
    });
    chat.add_dispatcher(&["--batch-size", "1", "--batches", "1"]);
    let (_api, other) = chat.other_api();
    // For 3.3 s, in which the second one waits, and for a part of them with the dispatcher.
    let first = chat.ask(PROMPT);
    let second = chat.ask("the second");
    let here = chat.http.events(&second.path, &[second.shown()]);
    let there = other.events(&second.path, &[second.shown()]);
    assert_eq!(data(here), tokens("the second"));
    assert_eq!(data(there), tokens("the second"));
    let first = chat.http.events(&first.path, &[first.shown()]);
    assert_eq!(data(first), tokens(PROMPT));
}

#[test]
fn another_api_leaves_a_response_whose_claim_is_no_longer_kept_to_its_dispatcher() {
    let chat = Chat::start_with(Settings {
        word_delay: "400ms",
        claim_timeout: "300ms",
        history: "*=messages:2",
        ..Settings::default()
    });
    let asked = chat.ask(PROMPT);
    let mut here = chat.http.events(&asked.path, &[asked.shown()]);
    for token in &tokens(PROMPT)[..3] {
        assert_eq!(here.next().unwrap().data, *token);
    }
    let (_api, other) = chat.other_api();
    let mut there = other.events(&asked.path, &[asked.shown()]);
    assert_eq!(data(here), tokens(PROMPT)[3..]);
    // The claim and two tokens were published before what is kept.
    assert_eq!(there.next().unwrap().kind, "gap");
    let there = data(there);
    assert!(
        there.len() >= 2 && tokens(PROMPT).ends_with(&there),
        "{there:?}"
    );
}

#[test]
fn what_no_api_knows_is_told_to_those_alone_who_ask_for_it() {
    let mut chat = Chat::start_with(Settings {
        word_delay: "1ms",
        claim_timeout: "300ms",
        dispatchers: 0,
        ..Settings::default()
    });
    chat.add_dispatcher(&["--batch-window", "1h"]);
    let asked = chat.ask(PROMPT);
    // With the API that has accepted it, the last dispatcher that got it dies.
    chat.replace_api();
    drop(chat.dispatchers.pop());
    let since = Instant::now();
    let one = chat.http.events(&asked.path, &[asked.shown()]);
    let other = chat.http.events(&asked.path, &[asked.shown()]);
    for events in [one, other] {
        let events: Vec<_> = events.collect();
        let [only] = &events[..] else {
            panic!("there is one event: {events:?}")
        };
        let told = r#"{"token":"","done":true,"error":"nothing is known of the request"}"#;
        assert_eq!((&*only.data, &*only.id), (told, "end"));
    }
    // Not before whoever has accepted it would have given it up, if it were alive.
    let took = since.elapsed();
    assert!(took > Duration::from_millis(1_500), "told after {took:?}");
    assert!(took < Duration::from_secs(10), "told after {took:?}");
    // It has not been ended: a dispatcher may yet do it.
    chat.add_dispatcher(&[]);
    chat.publish_job(&asked.id, PROMPT);
    let late = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(data(late), tokens(PROMPT));
}
