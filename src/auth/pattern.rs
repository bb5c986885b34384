//! How topic filters relate: whether one covers another, and whether two have a topic in common.
//!
//! Tokens are compared by kind, never as text put together: what a user is called cannot become a
//! wildcard or a second token. Both relations are exact for topics of any length; where only topics
//! longer than allowed would be in common, the answer is still that there are some, which refuses.

use std::{fmt, str::FromStr};

use super::identity::UserName;
use crate::topic::{Topic, TopicError, TopicFilter};

const USER: &str = "{user}";

/// A topic filter in a rule. The token `{user}` stands for the caller's name.
#[derive(Clone, PartialEq, Eq)]
pub struct RuleFilter(TopicFilter);

/// Why a text is no filter of a rule. The operator must change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFilterError {
    /// Not a topic filter.
    #[error(transparent)]
    Filter(#[from] TopicError),
    /// `{user}` with something beside it.
    #[error("`{token}` has `{{user}}` beside other characters: it must be a token of its own")]
    UserWithinToken {
        /// The token.
        token: String,
    },
    /// A placeholder other than `{user}`.
    #[error("`{token}` is not a placeholder: there is only `{{user}}`")]
    UnknownPlaceholder {
        /// The token.
        token: String,
    },
}

impl FromStr for RuleFilter {
    type Err = RuleFilterError;

    fn from_str(text: &str) -> Result<Self, RuleFilterError> {
        let filter: TopicFilter = text.parse()?;
        for token in filter.tokens().filter(|token| *token != USER) {
            let token_owned = || token.to_owned();
            if token.contains(USER) {
                return Err(RuleFilterError::UserWithinToken {
                    token: token_owned(),
                });
            }
            if token.starts_with('{') && token.ends_with('}') {
                return Err(RuleFilterError::UnknownPlaceholder {
                    token: token_owned(),
                });
            }
        }
        Ok(Self(filter))
    }
}

impl RuleFilter {
    /// The filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// What it allows this user, with the name in its place; `None` if that is nothing, since no topic has the
    /// name as a token.
    #[must_use]
    pub fn allowing(&self, user: &UserName) -> Option<String> {
        let name = user.as_token();
        let token = |token| if token == USER { name } else { Some(token) };
        let tokens: Option<Vec<&str>> = self.0.tokens().map(token).collect();
        tokens.map(|tokens| tokens.join("."))
    }

    /// What it denies this user: what anybody is denied, if no topic has the name as a token.
    #[must_use]
    pub fn denying(&self, user: &UserName) -> String {
        let name = user.as_token().unwrap_or("*");
        let token = |token| if token == USER { name } else { token };
        self.0.tokens().map(token).collect::<Vec<_>>().join(".")
    }

    /// Whether every topic that `asked` matches is one that this allows the user. A name that no topic
    /// has as a token allows nothing.
    pub(super) fn covers(&self, asked: Asked<'_>, user: &UserName) -> bool {
        let name = user.as_token();
        covers(self.tokens(name.map(Token::Literal)), asked.tokens())
    }

    /// Whether there is a topic that `asked` matches and this denies the user. A name that no topic has
    /// as a token is denied what anybody is denied.
    pub(super) fn overlaps(&self, asked: Asked<'_>, user: &UserName) -> bool {
        let name = user.as_token();
        let name = name.map_or(Token::Any, Token::Literal);
        overlaps(self.tokens(Some(name)), asked.tokens())
    }

    /// The tokens with the user's in its place; `None` where nothing can stand.
    fn tokens<'t>(
        &'t self,
        user: Option<Token<'t>>,
    ) -> impl Iterator<Item = Option<Token<'t>>> + use<'t> {
        let token = move |token| match token {
            USER => user,
            token => Some(Token::of(token)),
        };
        self.0.tokens().map(token)
    }
}

impl fmt::Display for RuleFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RuleFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    Topic(&'a Topic),
    Filter(&'a TopicFilter),
}

impl<'a> Asked<'a> {
    fn tokens(self) -> impl Iterator<Item = Token<'a>> {
        let (text, is_topic) = match self {
            Self::Topic(topic) => (topic.as_str(), true),
            Self::Filter(filter) => (filter.as_str(), false),
        };
        let token = move |token| {
            if is_topic {
                Token::Literal(token)
            } else {
                Token::of(token)
            }
        };
        text.split('.').map(token)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    Literal(&'t str),
    /// Any one token.
    Any,
    /// Any tokens, at least one; the last of its filter.
    Tail,
}

impl<'t> Token<'t> {
    fn of(text: &'t str) -> Self {
        match text {
            "*" => Self::Any,
            ">" => Self::Tail,
            text => Self::Literal(text),
        }
    }
}

fn covers<'t>(
    rule: impl IntoIterator<Item = Option<Token<'t>>>,
    asked: impl IntoIterator<Item = Token<'t>>,
) -> bool {
    let (mut rule, mut asked) = (rule.into_iter(), asked.into_iter());
    loop {
        match (rule.next(), asked.next()) {
            (None, None) | (Some(Some(Token::Tail)), Some(_)) => return true,
            (Some(Some(Token::Any)), Some(Token::Literal(_) | Token::Any)) => {}
            (Some(Some(Token::Literal(ours))), Some(Token::Literal(theirs))) if ours == theirs => {}
            _ => return false,
        }
    }
}

fn overlaps<'t>(
    rule: impl IntoIterator<Item = Option<Token<'t>>>,
    asked: impl IntoIterator<Item = Token<'t>>,
) -> bool {
    let (mut rule, mut asked) = (rule.into_iter(), asked.into_iter());
    loop {
        match (rule.next(), asked.next()) {
            (None, None)
            | (Some(Some(Token::Tail)), Some(_))
            | (Some(Some(_)), Some(Token::Tail)) => return true,
            (Some(Some(Token::Any)), Some(Token::Literal(_) | Token::Any))
            | (Some(Some(Token::Literal(_))), Some(Token::Any)) => {}
            (Some(Some(Token::Literal(ours))), Some(Token::Literal(theirs))) if ours == theirs => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> TopicFilter {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(rule: &str, user: &str, filter: &str, covers: bool, overlaps: bool) {
        let rule: RuleFilter = rule.parse().unwrap();
        let user: UserName = user.parse().unwrap();
        let filter = asked(filter);
        let asked = Asked::Filter(&filter);
        assert_eq!(rule.covers(asked, &user), covers, "{rule} covers {filter}");
        assert_eq!(
            rule.overlaps(asked, &user),
            overlaps,
            "{rule} overlaps {filter}"
        );
    }

    #[test]
    fn a_filter_covers_what_it_matches_in_full_and_overlaps_what_it_matches_in_part() {
        for (rule, filter, covers, overlaps) in [
            ("a", "a", true, true),
            ("a", "b", false, false),
            ("a", "*", false, true),
            ("*", "a", true, true),
            ("*", "*", true, true),
            ("*", ">", false, true),
            (">", "*", true, true),
            (">", ">", true, true),
            ("a.>", "a", false, false),
            ("a.>", "a.b.c", true, true),
            ("a.>", "*.b", false, true),
            ("a.>", ">", false, true),
            ("a.*", "a.>", false, true),
            ("*.b", "a.*", false, true),
            ("*.b", "*.c", false, false),
            ("a.*.c", "a.>", false, true),
            ("a.*.c", "*.b.*", false, true),
            ("a.*.c", "a.b", false, false),
        ] {
            check(rule, "u", filter, covers, overlaps);
        }
    }

    #[test]
    fn a_users_name_is_one_token_and_never_a_wildcard() {
        check("u.{user}", "alice", "u.alice", true, true);
        check("u.{user}", "alice", "u.bob", false, false);
        check("u.{user}", "alice", "u.*", false, true);
        // Allowed nothing, and denied as much as anybody.
        for name in ["*", ">", "a.b", "a.>", "."] {
            for filter in ["u.a", "u.*", "u.a.b", "u.>"] {
                let overlaps = filter != "u.a.b";
                check("u.{user}", name, filter, false, overlaps);
            }
        }
    }

    #[test]
    fn what_looks_like_a_placeholder_is_one() {
        let error = |text: &str| text.parse::<RuleFilter>().unwrap_err().to_string();
        assert_eq!(
            error("inbox-{user}.>"),
            "`inbox-{user}` has `{user}` beside other characters: it must be a token of its own"
        );
        assert_eq!(
            error("a.{users}"),
            "`{users}` is not a placeholder: there is only `{user}`"
        );
        assert_eq!(
            error("a.>.b"),
            "topic filter has `>` at byte 2: it may only be the last token"
        );
    }
}
