//! The rules against an oracle that knows nothing of how they are evaluated: it tries every topic of a
//! small world. Three letters, one of which no rule and no request names, stand for all tokens.

#[cfg(feature = "jwt")]
mod jwt;

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*};

use super::{Identity, Policy, Rules, UserName};
use crate::topic::{Topic, TopicFilter};

/// How many cases the comparison is held over.
const CASES: u32 = 10_000;
/// One token more than any filter here has.
const TOKENS_MAX: usize = 4;
/// What topics are made of. Only `z` stands in no filter.
const LETTERS: [&str; 3] = ["a", "al", "z"];
/// Names that are tokens, and names that try to be more.
const USERS: [&str; 7] = ["al", "a", "*", ">", "a.al", "a.>", "al.*"];

static WORLD: LazyLock<Vec<Topic>> = LazyLock::new(world);

fn world() -> Vec<Topic> {
    let mut all: Vec<String> = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..TOKENS_MAX {
        last = last
            .iter()
            .flat_map(|start| LETTERS.map(|letter| format!("{start}.{letter}")))
            .collect();
        all.extend(last.clone());
    }
    let topics = all.iter().filter(|text| !text.is_empty());
    topics.map(|text| text[1..].parse().unwrap()).collect()
}

/// A filter as text; of a rule, it may name the user.
fn filter(of_rule: bool) -> impl Strategy<Value = String> {
    let letters = if of_rule {
        vec!["a", "al", "*", "{user}"]
    } else {
        vec!["a", "al", "*"]
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

/// Allowing and denying filters of everyone, of a role and of the user.
#[derive(Clone, Debug)]
struct Written {
    allow: [Vec<String>; 3],
    deny: [Vec<String>; 3],
}

fn written() -> impl Strategy<Value = Written> {
    let filters = |max: usize| {
        let some = move || vec(filter(true), 0..=max);
        (some(), some(), some()).prop_map(|(a, b, c)| [a, b, c])
    };
    (filters(2), filters(1)).prop_map(|(allow, deny)| Written { allow, deny })
}

impl Written {
    fn rules(&self, user: &str, action: &str) -> Rules {
        let table = |at: usize| {
            let (allow, deny) = (&self.allow[at], &self.deny[at]);
            format!("{action} = {{ allow = {allow:?}, deny = {deny:?} }}\n")
        };
        let text = format!(
            "[everyone]\n{}[roles.r]\n{}[users.{user:?}]\nroles = [\"r\"]\n{}",
            table(0),
            table(1),
            table(2)
        );
        let policy = Policy::parse(&text, &|_| unreachable!("no files are named")).unwrap();
        policy.rules().clone()
    }

    /// Every denying filter, as it is for this user: what names a user that no topic can is denied to
    /// whoever is named there.
    fn denied(&self, user: &str) -> Vec<TopicFilter> {
        let name = if is_token(user) { user } else { "*" };
        let all = self.deny.iter().flatten();
        all.map(|text| text.replace("{user}", name).parse().unwrap())
            .collect()
    }

    /// Every allowing filter that can be one for this user.
    fn allowed(&self, user: &str) -> Vec<TopicFilter> {
        let all = self.allow.iter().flatten();
        all.filter(|text| is_token(user) || !text.contains("{user}"))
            .map(|text| text.replace("{user}", user).parse().unwrap())
            .collect()
    }
}

fn is_token(user: &str) -> bool {
    user.chars().all(char::is_alphanumeric)
}

fn identity(user: &str) -> Identity {
    Identity::of(user.parse::<UserName>().unwrap())
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
        let rules = written.rules(user, "publish");
        let denied = written.denied(user).iter().any(|filter| filter.matches(&topic));
        let allowed = written.allowed(user).iter().any(|filter| filter.matches(&topic));
        let decision = rules.may_publish(&identity(user), &topic);
        prop_assert_eq!(decision.is_allowed(), allowed && !denied, "{:?}", decision);
        // What holds for publishing says nothing about subscribing.
        let other = rules.may_subscribe(&identity(user), &topic.into());
        prop_assert!(!other.is_allowed());
    }

    #[test]
    fn subscribing_is_decided_as_by_trying_every_topic(
        written in written(),
        user in prop::sample::select(&USERS[..]),
        asked in filter(false),
    ) {
        let asked: TopicFilter = asked.parse().unwrap();
        let rules = written.rules(user, "subscribe");
        let matched: Vec<Topic> = WORLD.iter().filter(|t| asked.matches(t)).cloned().collect();
        let denied = written.denied(user);
        let reaches_denied = matched.iter().any(|t| denied.iter().any(|d| d.matches(t)));
        let allowed = written.allowed(user);
        let is_covered = allowed.iter().any(|a| matched.iter().all(|t| a.matches(t)));
        let decision = rules.may_subscribe(&identity(user), &asked);
        prop_assert_eq!(decision.is_allowed(), is_covered && !reaches_denied, "{:?}", decision);
        // Whoever may subscribe is sent nothing that it could not ask for by name.
        if decision.is_allowed() {
            for topic in matched {
                let alone = rules.may_subscribe(&identity(user), &topic.clone().into());
                prop_assert!(alone.is_allowed(), "{}", topic);
            }
        }
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
