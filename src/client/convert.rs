//! Between the wire and what applications handle. What a broker sends is checked like any input.

use std::{fmt::Display, str::FromStr, time::SystemTime};

use bytes::Bytes;

use crate::{
    cursor::Cursor,
    message::{AttributeName, Attributes, Epoch, Key, Message, Sequence, Tag},
    topic::Topic,
    wire::pb,
};

/// What became of a published message: `matched = delivered + dropped`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id: the publisher's, or the one that the broker chose.
    pub id: String,
    /// The life of the topic that `sequence` belongs to.
    pub epoch: Epoch,
    /// The message's place in the topic.
    pub sequence: Sequence,
    /// How many subscriptions it matched; a group counts once.
    pub matched: u32,
    /// How many mailboxes took it.
    pub delivered: u32,
    /// How many subscriptions lost it, because their mailbox had no room.
    pub dropped: u32,
    /// How many older messages were lost to make room for it.
    pub displaced: u64,
    /// From where a subscriber that got it can go on; `None` if its topic has no history.
    pub cursor: Option<Cursor>,
}

/// A message as a subscription delivers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Where it was published.
    pub topic: Topic,
    /// Opaque bytes. They share the buffer in which they arrived: copy them to keep them for long.
    pub payload: Bytes,
    /// The string map that travelled along.
    pub attributes: Attributes,
    /// The tag, if it has one.
    pub tag: Option<Tag>,
    /// The key, if it has one.
    pub key: Option<Key>,
    /// The id: the publisher's, or the one that the broker chose.
    pub id: String,
    /// The life of the topic that `sequence` belongs to.
    pub epoch: Epoch,
    /// The message's place in the topic; at least 1.
    pub sequence: Sequence,
    /// When the broker accepted it, by the broker's clock.
    pub published_at: SystemTime,
    /// From where to go on after it; `None` if its topic has no history.
    pub cursor: Option<Cursor>,
    /// Whether it is its topic's last message.
    pub end: bool,
}

/// A part of a response that the contract does not allow. The defect is the broker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Malformed {
    /// The field's name in the proto.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Malformed {
    pub(super) fn new(field: &'static str, reason: impl Display) -> Self {
        let reason = reason.to_string();
        Self { field, reason }
    }
}

impl From<Message> for pb::PublishRequest {
    fn from(message: Message) -> Self {
        let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let attributes = message.attributes.iter();
        Self {
            topic: message.topic.to_string(),
            attributes: attributes
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            tag: text(message.tag.as_ref().map(Tag::as_str)),
            key: text(message.key.as_ref().map(Key::as_str)),
            id: text(message.id.as_ref().map(|id| id.as_str())),
            payload: message.payload,
            text: String::new(),
            end: message.end,
        }
    }
}

impl From<pb::PublishResponse> for Receipt {
    fn from(response: pb::PublishResponse) -> Self {
        Self {
            id: response.id,
            epoch: Epoch(response.epoch),
            sequence: Sequence(response.sequence),
            matched: response.matched,
            delivered: response.delivered,
            dropped: response.dropped,
            displaced: response.displaced,
            // A receipt is worth more than a cursor that no broker may send.
            cursor: response.cursor.parse().ok(),
        }
    }
}

fn parse<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<T, Malformed> {
    text.parse().map_err(|error| Malformed::new(field, error))
}

/// Proto3 has no absent string: an empty one stands for none.
fn parse_optional<T: FromStr<Err: Display>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, Malformed> {
    (!text.is_empty()).then(|| parse(field, text)).transpose()
}

impl TryFrom<pb::SubscribeResponse> for Received {
    type Error = Malformed;

    fn try_from(response: pb::SubscribeResponse) -> Result<Self, Malformed> {
        let attributes = response.attributes.into_iter().map(|(name, value)| {
            let name = parse::<AttributeName>("attributes", &name)?;
            Ok((name, value))
        });
        let published_at = response
            .publish_time
            .ok_or_else(|| Malformed::new("publish_time", "publish time is missing"))?;
        Ok(Self {
            topic: parse("topic", &response.topic)?,
            attributes: attributes.collect::<Result<_, Malformed>>()?,
            tag: parse_optional("tag", &response.tag)?,
            key: parse_optional("key", &response.key)?,
            published_at: SystemTime::try_from(published_at)
                .map_err(|error| Malformed::new("publish_time", error))?,
            payload: response.payload,
            id: response.id,
            epoch: Epoch(response.epoch),
            sequence: Sequence(response.sequence),
            cursor: parse_optional("cursor", &response.cursor)?,
            end: response.end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(response: pb::SubscribeResponse, field: &str, reason: &str) {
        let error = Received::try_from(response).unwrap_err();
        assert_eq!((error.field, error.reason.as_str()), (field, reason));
    }

    fn response() -> pb::SubscribeResponse {
        pb::SubscribeResponse {
            topic: "t".into(),
            sequence: 1,
            publish_time: Some(prost_types::Timestamp::default()),
            ..Default::default()
        }
    }

    #[test]
    fn what_a_broker_may_not_send_is_named() {
        check(
            pb::SubscribeResponse {
                topic: "a.*".into(),
                ..response()
            },
            "topic",
            "topic has the wildcard `*` at byte 2: publish to a concrete topic",
        );
        check(
            pb::SubscribeResponse {
                tag: "a|b".into(),
                ..response()
            },
            "tag",
            "tag has a forbidden character at byte 1",
        );
        check(
            pb::SubscribeResponse {
                attributes: [(String::new(), String::new())].into(),
                ..response()
            },
            "attributes",
            "attribute name is empty",
        );
        check(
            pb::SubscribeResponse {
                cursor: "x".into(),
                ..response()
            },
            "cursor",
            "cursor is malformed: it is to be given back as it came",
        );
        check(
            pb::SubscribeResponse {
                publish_time: None,
                ..response()
            },
            "publish_time",
            "publish time is missing",
        );
    }

    #[test]
    fn times_out_of_range_do_not_panic() {
        for seconds in [i64::MIN, i64::MAX] {
            let publish_time = prost_types::Timestamp { seconds, nanos: -1 };
            let extreme = pb::SubscribeResponse {
                publish_time: Some(publish_time),
                ..response()
            };
            drop(Received::try_from(extreme));
        }
    }

    #[test]
    fn an_empty_tag_is_none() {
        let received = Received::try_from(response()).unwrap();
        assert_eq!((received.tag, received.key), (None, None));
        assert_eq!(received.published_at, SystemTime::UNIX_EPOCH);
    }
}
