//! Topics and filters: what is one, and what matches what.

use std::time::SystemTime;

use crate::{
    broker::{Broker, Limits, SubscribeOptions, Subscription},
    message::Message,
    topic::{TOPIC_BYTES_MAX, Topic, TopicError, TopicFilter},
    wire::frame::Form,
};

/// Each line is compared with each.
const LINES_MAX: usize = 16;

/// Each line of the text is tried as a topic and as a filter.
pub(super) fn topics(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').take(LINES_MAX).collect();
    lines.iter().for_each(|line| check_syntax(line));
    let topics: Vec<Topic> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    let filters: Vec<TopicFilter> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    for filter in &filters {
        for topic in &topics {
            let expected = matches(filter.as_str(), topic.as_str());
            assert_eq!(filter.matches(topic), expected, "{filter} {topic}");
        }
    }
    check_broker(&topics, &filters);
}

/// Whether a filter matches a topic, by recursion from token to token. Both are valid.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let split = |text: &str| -> Vec<String> { text.split('.').map(str::to_owned).collect() };
    tokens_match(&split(filter), &split(topic))
}

fn tokens_match(filter: &[String], topic: &[String]) -> bool {
    let Some((token, filter)) = filter.split_first() else {
        return topic.is_empty();
    };
    let Some((first, topic)) = topic.split_first() else {
        return false;
    };
    match token.as_str() {
        ">" => true,
        "*" => tokens_match(filter, topic),
        literal => literal == first && tokens_match(filter, topic),
    }
}

fn check_syntax(text: &str) {
    let is_plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let tokens: Vec<&str> = text.split('.').collect();
    let is_path = text.len() <= TOPIC_BYTES_MAX && is_plain && !tokens.contains(&"");
    let is_topic = is_path && !tokens.contains(&"*") && !tokens.contains(&">");
    let is_filter = is_path && !tokens[..tokens.len() - 1].contains(&">");
    let topic = text.parse::<Topic>();
    let filter = text.parse::<TopicFilter>();
    assert_eq!(
        (topic.is_ok(), filter.is_ok()),
        (is_topic, is_filter),
        "{text:?}"
    );
    if let Ok(topic) = &topic {
        assert_eq!(topic.as_str(), text);
        assert!(topic.tokens().eq(tokens.iter().copied()));
        assert_eq!(TopicFilter::from(topic.clone()).as_str(), text);
    }
    if let Ok(filter) = &filter {
        assert_eq!(filter.as_str(), text);
        assert_eq!(filter.as_topic(), topic.clone().ok());
    }
    topic
        .err()
        .into_iter()
        .for_each(|error| check_place(text, error));
    filter
        .err()
        .into_iter()
        .for_each(|error| check_place(text, error));
}

/// An error points to what is wrong, and to the first of it.
fn check_place(text: &str, error: TopicError) {
    let is_odd = |c: char| c.is_whitespace() || c.is_control();
    let token_at = |at: usize| {
        assert!(at == 0 || text.as_bytes()[at - 1] == b'.', "{text:?} {at}");
        text[at..].split('.').next()
    };
    match error {
        TopicError::Empty => assert_eq!(text, ""),
        TopicError::TooLong { bytes } => assert_eq!(bytes, text.len()),
        TopicError::BlankOrControl { at } => {
            assert!(text[at..].starts_with(is_odd) && !text[..at].contains(is_odd));
        }
        TopicError::EmptyToken { at } => {
            assert_eq!(token_at(at), Some(""));
            assert!(!text[..at].starts_with('.') && !text[..at].contains(".."));
        }
        TopicError::Wildcard { wildcard, at } => {
            assert_eq!(token_at(at), Some(wildcard.to_string().as_str()));
        }
        TopicError::TailNotLast { at } => assert_eq!(token_at(at), Some(">")),
    }
}

/// The broker finds subscriptions without comparing each: those that matching one by one finds.
fn check_broker(topics: &[Topic], filters: &[TopicFilter]) {
    let broker = Broker::new(Limits::default(), 1).expect("the defaults fit together");
    let mut live: Vec<(&str, Subscription)> = Vec::new();
    for (at, filter) in filters.iter().enumerate() {
        let options = SubscribeOptions::new(filter.clone());
        let subscription = if at % 2 == 0 {
            broker.subscribe(options)
        } else {
            broker.subscribe_encoded(options, Form::Full.encoding())
        };
        live.push((
            filter.as_str(),
            subscription.expect("there is room for a few"),
        ));
    }
    let mut expected_in_all = 0;
    // Half of them leave, and then half of those who stayed, and so on.
    loop {
        for topic in topics {
            let message = Message::new(topic.clone(), "m");
            let receipt = broker.publish(message, SystemTime::UNIX_EPOCH);
            let receipt = receipt.expect("it is small");
            let all = live.iter().map(|(filter, _)| filter);
            let expected = all.filter(|filter| matches(filter, topic.as_str())).count();
            assert_eq!(receipt.matched as usize, expected, "{topic} {filters:?}");
            expected_in_all += expected as u64;
        }
        let ledger = broker.snapshot().ledger;
        assert!(
            ledger.balances() && ledger.matched == expected_in_all,
            "{ledger:?}"
        );
        if live.is_empty() {
            break;
        }
        let mut place = 0;
        live.retain(|_| {
            place += 1;
            place % 2 == 0
        });
    }
    assert_eq!(broker.snapshot().subscriptions, 0);
}
