//! The rules against an oracle that knows nothing of how they are evaluated.

#[cfg(feature = "jwt")]
mod jwt;

use proptest::{collection::vec, prelude::*};

use super::{
    Policy,
    oracle::{FILTER_TOKENS, LETTERS, TOKENS_MAX, USERS, Written, identity},
};
use crate::topic::{Topic, TopicFilter};

/// How many cases the comparison is held over.
const CASES: u32 = 10_000;

/// A filter as text; of a rule, it may name the user.
fn filter(of_rule: bool) -> impl Strategy<Value = String> {
    let letters = if of_rule {
        &FILTER_TOKENS[..]
    } else {
        &FILTER_TOKENS[..3]
    };
    let tokens = vec(prop::sample::select(letters), 1..TOKENS_MAX);
    (tokens, any::<bool>()).prop_map(|(mut tokens, has_tail)| {
        if has_tail {
            tokens.pop();
            tokens.push(">");
        }
        tokens.join(".")
    })
}

fn written() -> impl Strategy<Value = Written> {
    let filters = |max: usize| {
        let some = move || vec(filter(true), 0..=max);
        (some(), some(), some()).prop_map(|(a, b, c)| [a, b, c])
    };
    (filters(2), filters(1)).prop_map(|(allow, deny)| Written { allow, deny })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn publishing_is_decided_as_by_trying(
        written in written(),
        user in prop::sample::select(&USERS[..]),
        tokens in vec(prop::sample::select(&LETTERS[..]), 1..=TOKENS_MAX),
    ) {
        let topic: Topic = tokens.join(".").parse().unwrap();
        written.check_publish(user, &topic);
    }

    #[test]
    fn subscribing_is_decided_as_by_trying_every_topic(
        written in written(),
        user in prop::sample::select(&USERS[..]),
        asked in filter(false),
    ) {
        let asked: TopicFilter = asked.parse().unwrap();
        written.check_subscribe(user, &asked);
    }
}

#[test]
fn a_stranger_may_do_nothing_and_a_role_of_the_credentials_counts() {
    let text = r#"
        [roles.reader]
        subscribe.allow = ["news.>"]
        rights = ["metrics"]
    "#;
    let policy = Policy::parse(text, &|_| unreachable!("no files are named")).unwrap();
    let filter: TopicFilter = "news.*".parse().unwrap();
    let mut caller = identity("stranger");
    assert!(!policy.rules().may_subscribe(&caller, &filter).is_allowed());
    assert!(!policy.rules().has(&caller, super::Right::Metrics));
    caller.roles.push("reader".parse().unwrap());
    assert!(policy.rules().may_subscribe(&caller, &filter).is_allowed());
    assert!(policy.rules().has(&caller, super::Right::Metrics));
    assert!(!policy.rules().has(&caller, super::Right::Reflection));
}
