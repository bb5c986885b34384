//! Where messages go and what subscribers ask for: [`Topic`] and [`TopicFilter`].
//!
//! Both are parsed once, at the edge; past it they are valid by type. A topic is a path of tokens
//! split by `.`. A filter may use `*` for exactly one token and a final `>` for one token or more. A
//! prefix is not a wildcard: the filter `a` matches the topic `a` and nothing else.

use std::{fmt, str::FromStr, sync::Arc};

/// The longest topic or filter, in bytes of UTF-8.
pub const TOPIC_BYTES_MAX: usize = 255;

/// A concrete topic: 1 to [`TOPIC_BYTES_MAX`] bytes of UTF-8 without blanks or control characters,
/// in tokens split by `.`, none of them empty, `*` or `>`.
///
/// Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// What a subscriber asks for: a topic, or one in which `*` stands for exactly one token, or a final
/// `>` for one token or more.
///
/// Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

/// Why a text is not a topic or a filter. The caller must change it; a retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing was given.
    #[error("topic is empty")]
    Empty,
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("topic of {bytes} bytes exceeds the limit of {TOPIC_BYTES_MAX}")]
    TooLong {
        /// The length given, in bytes.
        bytes: usize,
    },
    /// A blank or control character, at this byte.
    #[error("topic has a blank or control character at byte {at}")]
    BlankOrControl {
        /// The offset of the character, in bytes.
        at: usize,
    },
    /// Two dots in a row, or one at the start or end.
    #[error("topic has an empty token at byte {at}")]
    EmptyToken {
        /// The offset at which a token should start, in bytes.
        at: usize,
    },
    /// `*` or `>` where a concrete topic is needed.
    #[error("topic has the wildcard `{wildcard}` at byte {at}: publish to a concrete topic")]
    Wildcard {
        /// The wildcard token.
        wildcard: char,
        /// The offset of the token, in bytes.
        at: usize,
    },
    /// `>` before the last token of a filter.
    #[error("topic filter has `>` at byte {at}: it may only be the last token")]
    TailNotLast {
        /// The offset of the token, in bytes.
        at: usize,
    },
}

/// The rules that topics and filters share. Yields each token with its offset.
fn tokens_checked(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: text.len() });
    }
    if let Some((at, _)) = text
        .char_indices()
        .find(|(_, c)| c.is_whitespace() || c.is_control())
    {
        return Err(TopicError::BlankOrControl { at });
    }
    let tokens = || {
        let mut at = 0;
        text.split('.').map(move |token| {
            let start = at;
            at += token.len() + 1;
            (start, token)
        })
    };
    match tokens().find(|(_, token)| token.is_empty()) {
        Some((at, _)) => Err(TopicError::EmptyToken { at }),
        None => Ok(tokens()),
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let wildcard = tokens_checked(text)?.find_map(|(at, token)| match token {
            "*" => Some(TopicError::Wildcard { wildcard: '*', at }),
            ">" => Some(TopicError::Wildcard { wildcard: '>', at }),
            _ => None,
        });
        match wildcard {
            Some(error) => Err(error),
            None => Ok(Self(text.into())),
        }
    }
}

impl FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let end = text.len();
        match tokens_checked(text)?.find(|(at, token)| *token == ">" && at + 1 != end) {
            Some((at, _)) => Err(TopicError::TailNotLast { at }),
            None => Ok(Self(text.into())),
        }
    }
}

impl Topic {
    /// Whether the two are clones of each other, which is told without comparing the text.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The topic as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tokens between the dots; at least one, none empty.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl TopicFilter {
    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tokens between the dots; at least one, none empty.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The one topic that this filter matches, if it has no wildcard.
    #[must_use]
    pub fn as_topic(&self) -> Option<Topic> {
        let wild = self.tokens().any(|token| matches!(token, "*" | ">"));
        (!wild).then(|| Topic(Arc::clone(&self.0)))
    }

    /// Whether a message published to `topic` is for this filter. The definition that the broker's
    /// trie is tested against; one filter against one topic, in the length of both.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        let mut topic = topic.tokens();
        for token in self.tokens() {
            match (token, topic.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(actual)) if literal == actual => {}
                _ => return false,
            }
        }
        topic.next().is_none()
    }
}

impl From<Topic> for TopicFilter {
    fn from(topic: Topic) -> Self {
        Self(topic.0)
    }
}

macro_rules! text_traits {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl TryFrom<&str> for $type {
            type Error = TopicError;

            fn try_from(text: &str) -> Result<Self, TopicError> {
                text.parse()
            }
        }
    };
}
text_traits!(Topic);
text_traits!(TopicFilter);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_topic(text: &str, expected: Result<(), TopicError>) {
        assert_eq!(text.parse::<Topic>().map(|_| ()), expected, "{text:?}");
    }

    #[track_caller]
    fn check_match(filter: &str, topic: &str, expected: bool) {
        let filter: TopicFilter = filter.parse().unwrap();
        assert_eq!(
            filter.matches(&topic.parse().unwrap()),
            expected,
            "{filter} against {topic}"
        );
    }

    #[test]
    fn a_topic_is_tokens_split_by_dots() {
        for text in [
            "gocn",
            "response:42",
            "TG001-chat-service-events",
            "a.b.c",
            "räume.küche",
            "a*b.c>",
            "a:// ".trim(),
        ] {
            check_topic(text, Ok(()));
        }
        check_topic(&"x".repeat(255), Ok(()));
    }

    #[test]
    fn a_malformed_topic_says_what_and_where() {
        check_topic("", Err(TopicError::Empty));
        check_topic(&"x".repeat(256), Err(TopicError::TooLong { bytes: 256 }));
        check_topic(&"é".repeat(128), Err(TopicError::TooLong { bytes: 256 }));
        check_topic("a b", Err(TopicError::BlankOrControl { at: 1 }));
        check_topic("a\u{a0}b", Err(TopicError::BlankOrControl { at: 1 }));
        check_topic("ab\n", Err(TopicError::BlankOrControl { at: 2 }));
        check_topic("a\u{7f}", Err(TopicError::BlankOrControl { at: 1 }));
        check_topic(".a", Err(TopicError::EmptyToken { at: 0 }));
        check_topic("a..b", Err(TopicError::EmptyToken { at: 2 }));
        check_topic("a.", Err(TopicError::EmptyToken { at: 2 }));
        check_topic(
            "a.*",
            Err(TopicError::Wildcard {
                wildcard: '*',
                at: 2,
            }),
        );
        check_topic(
            ">",
            Err(TopicError::Wildcard {
                wildcard: '>',
                at: 0,
            }),
        );
    }

    #[test]
    fn a_tail_wildcard_may_only_end_a_filter() {
        assert_eq!(
            "a.>.b".parse::<TopicFilter>(),
            Err(TopicError::TailNotLast { at: 2 })
        );
        assert!("a.*.b.>".parse::<TopicFilter>().is_ok());
        assert!(">".parse::<TopicFilter>().is_ok());
    }

    #[test]
    fn a_star_is_one_token_and_a_tail_is_one_or_more() {
        check_match("a.*", "a.b", true);
        check_match("a.*", "a", false);
        check_match("a.*", "a.b.c", false);
        check_match("*.b", "a.b", true);
        check_match("a.>", "a.b", true);
        check_match("a.>", "a.b.c.d", true);
        check_match("a.>", "a", false);
        check_match(">", "a", true);
        check_match("*", "a", true);
        check_match("a", "a", true);
    }

    #[test]
    fn a_prefix_is_not_a_wildcard() {
        check_match("a", "ab", false);
        check_match("a", "a.b", false);
        check_match("a.b", "a", false);
    }

    #[test]
    fn clones_are_the_same_and_others_are_not_however_equal() {
        let topic: Topic = "a.b".parse().unwrap();
        let other: Topic = "a.b".parse().unwrap();
        assert!(topic.is_same(&topic.clone()));
        assert!(!topic.is_same(&other));
        assert_eq!(topic, other);
    }

    #[test]
    fn a_filter_without_wildcards_is_a_topic() {
        let filter: TopicFilter = "a.b".parse().unwrap();
        assert_eq!(filter.as_str(), "a.b");
        assert_eq!(filter.as_topic(), Some("a.b".parse().unwrap()));
        assert_eq!("a.*".parse::<TopicFilter>().unwrap().as_topic(), None);
        assert_eq!("a.>".parse::<TopicFilter>().unwrap().as_topic(), None);
    }
}
