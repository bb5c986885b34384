//! The HTTP API's answers, exactly.

use serde_json::Value;

use crate::support::{Asked, Chat, Settings};

const ID: &str = "123e4567-e89b-42d3-a456-426614174000";

#[test]
fn a_prompt_is_accepted_with_a_request_id() {
    let chat = Chat::start();
    for body in [
        r#"{"prompt":"hello"}"#,
        r#"{"prompt":"hello","max_tokens":3}"#,
        r#"{"prompt":"hello","max_tokens":null,"other":1}"#,
    ] {
        let answer = chat.http.post("/v1/chat", body);
        let asked = Asked::new(&answer);
        assert_eq!(answer.body, format!(r#"{{"request_id":"{}"}}"#, asked.id));
        assert_eq!(asked.id.len(), ID.len());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let cookie = format!(
            "stream-secret={}; Path=/stream/{}; Max-Age=3600; HttpOnly; SameSite=Strict",
            asked.secret, asked.id
        );
        assert_eq!(answer.header("set-cookie"), Some(&*cookie));
    }
}

#[test]
fn what_is_no_prompt_is_answered_with_400() {
    let chat = Chat::start();
    let long = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(3 * 1024 * 1024));
    let escaped = format!(r#"{{"prompt":"{}"}}"#, r"\u0001".repeat(200_000));
    for body in [
        "",
        "hello",
        "{}",
        r#"{"prompt":""}"#,
        r#"{"prompt":7}"#,
        r#"{"prompt":"x","max_tokens":"many"}"#,
        r#"{"prompt":"x","max_tokens":1.5}"#,
        r#"{"prompt":"x","max_tokens":-1}"#,
        r#"{"prompt":"x","max_tokens":3000000000}"#,
        r#"["x",3]"#,
        &long,
        // Within the limits of HTTP, and not within those of the broker.
        &escaped,
    ] {
        let answer = chat.http.post("/v1/chat", body);
        assert_eq!(answer.status, 400, "{:.40}", body);
        let error: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(error.as_object().unwrap().len(), 1, "{error}");
        assert!(!error["error"].as_str().unwrap().is_empty());
    }
}

#[test]
fn without_a_dispatcher_nothing_is_accepted() {
    let chat = Chat::start_with(Settings {
        dispatchers: 0,
        ..Settings::default()
    });
    let answer = chat.http.post("/v1/chat", r#"{"prompt":"hello"}"#);
    assert_eq!(answer.status, 500);
    assert_eq!(answer.body, r#"{"error":"enqueue failed"}"#);
    assert_eq!(answer.header("set-cookie"), None);
}

#[test]
fn a_stream_is_read_with_its_secret_or_not_at_all() {
    let chat = Chat::start();
    let (asked, other) = (chat.ask("hello"), chat.ask("hello"));
    let cookie = format!("a=b; stream-secret={}; c=d", asked.secret);
    let in_query = format!("{}?secret={}", asked.path, asked.secret);
    for (path, headers) in [
        (&asked.path, vec![asked.shown()]),
        (&asked.path, vec![("cookie", &*cookie)]),
        (&in_query, vec![]),
        // One that is right is enough.
        (&in_query, vec![other.shown()]),
        // Nor is the id of an event that has none anything.
        (&asked.path, vec![asked.shown(), ("last-event-id", "")]),
    ] {
        let events = chat.http.events(path, &headers);
        let header = |name| events.answer.header(name);
        assert_eq!(header("content-type"), Some("text/event-stream"));
        assert_eq!(header("cache-control"), Some("no-cache"));
    }

    let unknown = format!("/stream/{ID}");
    let refused = chat.http.get(&unknown, &[other.shown()]);
    assert_eq!(refused.status, 404);
    let wrong = format!("{}?secret={}", asked.path, other.secret);
    let cut = format!("stream-secret={}", &asked.secret[1..]);
    let longer = format!("{}A", asked.secret);
    for (path, headers) in [
        (&asked.path, vec![]),
        (&asked.path, vec![other.shown()]),
        (&asked.path, vec![("cookie", &*cut)]),
        (&asked.path, vec![("stream-secret", &*longer)]),
        (&asked.path, vec![("stream-secret", "")]),
        (&wrong, vec![]),
        (&unknown, vec![]),
        (&"/stream/x".to_owned(), vec![asked.shown()]),
        (&"/stream/%ff".to_owned(), vec![asked.shown()]),
        (
            &asked.path.to_uppercase().replace("STREAM", "stream"),
            vec![asked.shown()],
        ),
        // Nor does it tell whether it has ended.
        (&asked.path, vec![("last-event-id", "end")]),
    ] {
        let answer = chat.http.get(path, &headers);
        let same = (answer.status, &answer.body, answer.header("content-type"));
        let known = (
            refused.status,
            &refused.body,
            refused.header("content-type"),
        );
        assert_eq!(same, known, "{path} {headers:?}");
    }
}

#[test]
fn the_metrics_tell_queue_latency_and_tokens() {
    let chat = Chat::start();
    let asked = chat.ask("one two");
    let read = chat.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(read.count(), 3);
    // The API's own reader has read as much, though maybe not yet.
    let text = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let text = chat.http.get("/metrics", &[]).body;
        text.contains("\nchat_generation_seconds_count 1\n")
            .then_some(text)
    });
    let text = text.expect("the generation is counted");
    for line in [
        "chat_queue_length 0",
        "chat_tokens_total 3",
        "chat_failed_responses_total 0",
        "chat_first_token_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn the_page_brings_all_it_needs() {
    let chat = Chat::start();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = chat.http.get(path, &[]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(kind));
        assert!(!answer.body.contains("://"), "{path} names another place");
    }
}
