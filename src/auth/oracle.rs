//! Rules decided by one who knows nothing of how they are evaluated: it tries every topic of a small
//! world. Three letters, one of which no rule and no request names, stand for all tokens.

use std::sync::LazyLock;

use super::{Decision, Identity, Policy, Rules, UserName};
use crate::topic::{Topic, TopicFilter};

/// One token more than any filter here has.
pub(crate) const TOKENS_MAX: usize = 4;
/// What topics are made of. Only `z` stands in no filter.
pub(crate) const LETTERS: [&str; 3] = ["a", "al", "z"];
/// What filters are made of; those of rules may also name the user.
pub(crate) const FILTER_TOKENS: [&str; 4] = ["a", "al", "*", "{user}"];
/// Names that are tokens, and names that try to be more.
pub(crate) const USERS: [&str; 7] = ["al", "a", "*", ">", "a.al", "a.>", "al.*"];

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
    topics.map(|text| topic(&text[1..])).collect()
}

fn topic(text: &str) -> Topic {
    text.parse().expect("letters make topics")
}

fn filter(text: &str) -> TopicFilter {
    text.parse().expect("letters and wildcards make filters")
}

/// Allowing and denying filters of everyone, of a role and of the user.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) allow: [Vec<String>; 3],
    pub(crate) deny: [Vec<String>; 3],
}

impl Written {
    pub(crate) fn rules(&self, user: &str, action: &str) -> Rules {
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
        let policy = Policy::parse(&text, &|_| unreachable!("no files are named"));
        policy.expect("the rules are well-formed").rules().clone()
    }

    /// Every denying filter, as it is for this user: what names a user that no topic can is denied to
    /// whoever is named there.
    fn denied(&self, user: &str) -> Vec<TopicFilter> {
        let name = if is_token(user) { user } else { "*" };
        let all = self.deny.iter().flatten();
        all.map(|text| filter(&text.replace("{user}", name)))
            .collect()
    }

    /// Every allowing filter that can be one for this user.
    fn allowed(&self, user: &str) -> Vec<TopicFilter> {
        let all = self.allow.iter().flatten();
        all.filter(|text| is_token(user) || !text.contains("{user}"))
            .map(|text| filter(&text.replace("{user}", user)))
            .collect()
    }

    /// Compares what the rules say about publishing with what trying says.
    ///
    /// # Panics
    /// They differ.
    pub(crate) fn check_publish(&self, user: &str, topic: &Topic) {
        let rules = self.rules(user, "publish");
        let is_denied = self.denied(user).iter().any(|f| f.matches(topic));
        let is_allowed = self.allowed(user).iter().any(|f| f.matches(topic));
        let decision = rules.may_publish(&identity(user), topic);
        assert_decided(&decision, is_allowed && !is_denied);
        // What holds for publishing says nothing about subscribing.
        let other = rules.may_subscribe(&identity(user), &topic.clone().into());
        assert_decided(&other, false);
    }

    /// Compares what the rules say about subscribing with what trying every topic says.
    ///
    /// # Panics
    /// They differ.
    pub(crate) fn check_subscribe(&self, user: &str, asked: &TopicFilter) {
        let rules = self.rules(user, "subscribe");
        let matched: Vec<&Topic> = WORLD.iter().filter(|t| asked.matches(t)).collect();
        let denied = self.denied(user);
        let reaches_denied = matched.iter().any(|t| denied.iter().any(|d| d.matches(t)));
        let allowed = self.allowed(user);
        let is_covered = allowed.iter().any(|a| matched.iter().all(|t| a.matches(t)));
        let decision = rules.may_subscribe(&identity(user), asked);
        assert_decided(&decision, is_covered && !reaches_denied);
        // Whoever may subscribe is sent nothing that it could not ask for by name.
        if decision.is_allowed() {
            for topic in matched {
                let alone = rules.may_subscribe(&identity(user), &topic.clone().into());
                assert!(alone.is_allowed(), "{topic}");
            }
        }
    }
}

#[track_caller]
fn assert_decided(decision: &Decision, expected: bool) {
    assert_eq!(decision.is_allowed(), expected, "{decision:?}");
}

fn is_token(user: &str) -> bool {
    user.chars().all(char::is_alphanumeric)
}

/// Whoever has this name, and nothing else.
pub(crate) fn identity(user: &str) -> Identity {
    Identity::of(user.parse::<UserName>().expect("it has no blanks"))
}
