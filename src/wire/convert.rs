//! From what a client sent to what the domain takes, naming the field that is at fault; and from the
//! domain's answers to what a client gets.

use std::{
    fmt::Display,
    str::FromStr,
    time::{Duration, SystemTime},
};

use super::{pb, request::PublishRequestRef};
use crate::{
    broker::{Arrival, OverflowPolicy, Receipt, SubscribeOptions},
    cursor::StartAt,
    message::{AttributeName, Attributes, Key, MessageId, MessageRef, Payload, Tag},
    topic::{Topic, TopicFilter},
};

/// A field of a request that the caller must change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidField {
    /// The field's name in the proto.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidField {
    pub(crate) fn new(field: &'static str, reason: impl Display) -> Self {
        Self {
            field,
            reason: reason.to_string(),
        }
    }
}

fn parse<T: FromStr<Err: Display>>(field: &'static str, text: &str) -> Result<T, InvalidField> {
    text.parse()
        .map_err(|error| InvalidField::new(field, error))
}

/// Proto3 has no absent string: an empty one stands for none.
fn parse_optional<T: FromStr<Err: Display>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, InvalidField> {
    (!text.is_empty()).then(|| parse(field, text)).transpose()
}

/// What a publisher sent, but for the topic: most messages of a publisher go where the one before
/// went, so that is parsed apart.
#[derive(Debug)]
pub(crate) struct Publish<'r> {
    payload: &'r [u8],
    attributes: Attributes,
    tag: Option<Tag>,
    key: Option<Key>,
    id: Option<MessageId>,
    end: bool,
}

impl Publish<'_> {
    /// The message, borrowed.
    pub(crate) fn to_topic<'m>(&'m self, topic: &'m Topic) -> MessageRef<'m> {
        MessageRef {
            topic,
            payload: Payload::Borrowed(self.payload),
            attributes: &self.attributes,
            tag: self.tag.as_ref(),
            key: self.key.as_ref(),
            id: self.id.as_ref(),
            end: self.end,
            stencil: None,
        }
    }
}

impl<'r> TryFrom<PublishRequestRef<'r>> for Publish<'r> {
    type Error = InvalidField;

    fn try_from(request: PublishRequestRef<'r>) -> Result<Self, InvalidField> {
        if !request.text.is_empty() && !request.payload.is_empty() {
            return Err(InvalidField::new("text", "both payload and text are set"));
        }
        let named = request.attributes.into_iter().map(|(name, value)| {
            let name = parse::<AttributeName>("attributes", name)?;
            Ok((name, value.to_owned()))
        });
        Ok(Self {
            attributes: match named.len() {
                0 => Attributes::default(),
                _ => named.collect::<Result<_, InvalidField>>()?,
            },
            tag: parse_optional("tag", request.tag)?,
            key: parse_optional("key", request.key)?,
            id: parse_optional("id", request.id)?,
            end: request.end,
            payload: if request.text.is_empty() {
                request.payload
            } else {
                request.text.as_bytes()
            },
        })
    }
}

/// The topic of a publish request, which is parsed only if it is another than `last`, and kept there.
///
/// # Errors
/// The field at fault.
pub(crate) fn next_topic<'t>(
    topic: &str,
    last: &'t mut Option<Topic>,
) -> Result<&'t Topic, InvalidField> {
    let is_same = |last: &Topic| last.as_str() == topic;
    if !last.as_ref().is_some_and(is_same) {
        *last = Some(parse("topic", topic)?);
    }
    Ok(last.as_ref().expect("it has just been set"))
}

impl From<Receipt> for pb::PublishResponse {
    fn from(receipt: Receipt) -> Self {
        Self {
            id: receipt.id().into_owned(),
            cursor: receipt.cursor().map(|c| c.to_string()).unwrap_or_default(),
            epoch: receipt.epoch.0,
            sequence: receipt.sequence.0,
            matched: receipt.matched,
            delivered: receipt.delivered,
            dropped: receipt.dropped,
            displaced: receipt.displaced,
        }
    }
}

/// A subscribe request: what the domain is asked for, and what concerns the stream alone.
#[derive(Debug)]
pub struct Subscribe {
    /// What the domain is asked for.
    pub options: SubscribeOptions,
    /// After how much silence the stream carries a heartbeat; `None` for never.
    pub heartbeat_interval: Option<Duration>,
    /// Whether payloads that are valid UTF-8 go as text.
    pub text: bool,
}

impl TryFrom<pb::SubscribeRequest> for Subscribe {
    type Error = InvalidField;

    fn try_from(request: pb::SubscribeRequest) -> Result<Self, InvalidField> {
        let tags = request.tags.iter().map(|tag| parse("tags", tag));
        let heartbeat = request.heartbeat_interval.map(|interval| {
            Duration::try_from(interval)
                .map_err(|error| InvalidField::new("heartbeat_interval", error))
        });
        let capacity = request.mailbox_capacity as usize;
        Ok(Self {
            options: SubscribeOptions {
                filters: parse::<TopicFilter>("topic", &request.topic)?.into(),
                group: parse_optional("group", &request.group)?,
                tags: tags.collect::<Result<_, _>>()?,
                overflow: overflow_policy(request.overflow_policy)?,
                mailbox_capacity: (capacity > 0).then_some(capacity),
                arrival: Arrival::default(),
                start: start_at(request.start_at)?,
            },
            heartbeat_interval: heartbeat.transpose()?,
            text: request.text,
        })
    }
}

impl From<StartAt> for Option<pb::subscribe_request::StartAt> {
    fn from(start: StartAt) -> Self {
        use pb::subscribe_request::StartAt as Wire;
        Some(match start {
            StartAt::Now => return None,
            StartAt::All => Wire::StartAll(true),
            StartAt::Last(count) => Wire::StartLast(count),
            StartAt::After(cursor) => Wire::StartAfter(cursor.to_string()),
            StartAt::Since(time) => Wire::StartSince(time.into()),
        })
    }
}

fn start_at(start: Option<pb::subscribe_request::StartAt>) -> Result<StartAt, InvalidField> {
    use pb::subscribe_request::StartAt as Wire;
    Ok(match start {
        None | Some(Wire::StartAll(false)) => StartAt::Now,
        Some(Wire::StartAll(true)) => StartAt::All,
        Some(Wire::StartLast(count)) => StartAt::Last(count),
        Some(Wire::StartAfter(cursor)) => StartAt::After(parse("start_after", &cursor)?),
        Some(Wire::StartSince(time)) => StartAt::Since(
            SystemTime::try_from(time).map_err(|error| InvalidField::new("start_since", error))?,
        ),
    })
}

fn overflow_policy(value: i32) -> Result<OverflowPolicy, InvalidField> {
    match pb::OverflowPolicy::try_from(value) {
        Ok(pb::OverflowPolicy::Unspecified) => Ok(OverflowPolicy::default()),
        Ok(pb::OverflowPolicy::DropNewest) => Ok(OverflowPolicy::DropNewest),
        Ok(pb::OverflowPolicy::DropOldest) => Ok(OverflowPolicy::DropOldest),
        Ok(pb::OverflowPolicy::Disconnect) => Ok(OverflowPolicy::Disconnect),
        Err(_) => Err(InvalidField::new(
            "overflow_policy",
            format_args!("overflow policy {value} is not known: use 1, 2 or 3"),
        )),
    }
}

impl From<OverflowPolicy> for pb::OverflowPolicy {
    fn from(policy: OverflowPolicy) -> Self {
        match policy {
            OverflowPolicy::DropNewest => Self::DropNewest,
            OverflowPolicy::DropOldest => Self::DropOldest,
            OverflowPolicy::Disconnect => Self::Disconnect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cursor::Cursor, wire::pb::subscribe_request::StartAt as WireStart};

    #[track_caller]
    fn check_publish(request: PublishRequestRef<'_>, field: &str, reason: &str) {
        let topic = request.topic;
        let error = Publish::try_from(request).map(|_| next_topic(topic, &mut None).unwrap_err());
        let error = error.unwrap_or_else(|error| error);
        assert_eq!((error.field, error.reason.as_str()), (field, reason));
    }

    #[track_caller]
    fn check_subscribe(request: pb::SubscribeRequest, field: &str, reason: &str) {
        let error = Subscribe::try_from(request).unwrap_err();
        assert_eq!((error.field, error.reason.as_str()), (field, reason));
    }

    fn publish() -> PublishRequestRef<'static> {
        PublishRequestRef {
            topic: "t",
            ..Default::default()
        }
    }

    #[test]
    fn a_bad_publish_request_names_its_field() {
        check_publish(PublishRequestRef::default(), "topic", "topic is empty");
        check_publish(
            PublishRequestRef {
                tag: "a b",
                ..publish()
            },
            "tag",
            "tag has a forbidden character at byte 1",
        );
        check_publish(
            PublishRequestRef {
                attributes: vec![("", "x")],
                ..publish()
            },
            "attributes",
            "attribute name is empty",
        );
        check_publish(
            PublishRequestRef {
                payload: b"a",
                text: "b",
                ..publish()
            },
            "text",
            "both payload and text are set",
        );
    }

    #[test]
    fn a_topic_is_parsed_when_it_changes() {
        let mut last = None;
        let first = next_topic("a", &mut last).unwrap().clone();
        assert!(next_topic("a", &mut last).unwrap().is_same(&first));
        assert_eq!(next_topic("b", &mut last).unwrap().as_str(), "b");
        assert!(next_topic("b.", &mut last).is_err());
        assert_eq!(next_topic("b", &mut last).unwrap().as_str(), "b");
    }

    #[test]
    fn text_is_a_payload() {
        let request = PublishRequestRef {
            text: "héllo",
            ..publish()
        };
        assert_eq!(
            Publish::try_from(request).unwrap().payload,
            "héllo".as_bytes()
        );
    }

    #[test]
    fn a_bad_subscribe_request_names_its_field() {
        check_subscribe(pb::SubscribeRequest::default(), "topic", "topic is empty");
        check_subscribe(
            pb::SubscribeRequest {
                topic: "t".into(),
                overflow_policy: 9,
                ..Default::default()
            },
            "overflow_policy",
            "overflow policy 9 is not known: use 1, 2 or 3",
        );
        check_subscribe(
            pb::SubscribeRequest {
                topic: "t".into(),
                tags: vec!["ok".into(), String::new()],
                ..Default::default()
            },
            "tags",
            "tag is empty",
        );
        let starting = |start| pb::SubscribeRequest {
            topic: "t".into(),
            start_at: Some(start),
            ..Default::default()
        };
        check_subscribe(
            starting(WireStart::StartAfter("here".into())),
            "start_after",
            "cursor is malformed: it is to be given back as it came",
        );
        check_subscribe(
            starting(WireStart::StartAfter(String::new())),
            "start_after",
            "cursor is malformed: it is to be given back as it came",
        );
        let time = prost_types::Timestamp {
            seconds: i64::MIN,
            nanos: 0,
        };
        let error = Subscribe::try_from(starting(WireStart::StartSince(time))).unwrap_err();
        assert_eq!(error.field, "start_since");
    }

    #[test]
    fn a_start_is_what_it_says() {
        #[track_caller]
        fn check(start: Option<WireStart>, expected: StartAt) {
            let request = pb::SubscribeRequest {
                topic: "t".into(),
                start_at: start,
                ..Default::default()
            };
            let options = Subscribe::try_from(request).unwrap().options;
            assert_eq!(options.start, expected);
            let there_and_back = start_at(Option::from(expected)).unwrap();
            assert_eq!(there_and_back, expected);
        }
        let cursor: Cursor = "a-b-c".parse().unwrap();
        let time = prost_types::Timestamp {
            seconds: 7,
            nanos: 5,
        };
        let at = SystemTime::UNIX_EPOCH + Duration::new(7, 5);
        check(None, StartAt::Now);
        check(Some(WireStart::StartAll(false)), StartAt::Now);
        check(Some(WireStart::StartAll(true)), StartAt::All);
        check(Some(WireStart::StartLast(3)), StartAt::Last(3));
        check(
            Some(WireStart::StartAfter("a-b-c".into())),
            StartAt::After(cursor),
        );
        check(Some(WireStart::StartSince(time)), StartAt::Since(at));
    }

    #[test]
    fn an_unset_capacity_is_none() {
        let request = pb::SubscribeRequest {
            topic: "a.>".into(),
            ..Default::default()
        };
        let subscribe = Subscribe::try_from(request).unwrap();
        assert_eq!(subscribe.options.mailbox_capacity, None);
        assert_eq!(subscribe.options.overflow, OverflowPolicy::DropNewest);
    }
}
