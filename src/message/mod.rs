//! What travels: a [`Message`] as a publisher hands it in, and a [`Delivery`] as subscribers get it,
//! with its place in the topic.
//!
//! The names in a message are parsed at the edge and valid by type from there on. How much a message
//! may carry is not decided here but by the broker's limits.

mod name;

use std::{borrow::Cow, cell::OnceCell, ops::Deref, sync::OnceLock, time::SystemTime};

use bytes::Bytes;

pub use self::name::*;
use crate::{
    cursor::{Cursor, Position},
    topic::Topic,
};

/// What the broker counts for keeping any message, on top of what the message carries: about the
/// size of a [`Delivery`] and its allocation.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// The string map that travels with a message, in the order in which it was given. Names are unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Box<[(AttributeName, Box<str>)]>);

impl Attributes {
    /// How many attributes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all names and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.iter().map(|(n, v)| n.len() + v.len()).sum()
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }
}

impl FromIterator<(AttributeName, String)> for Attributes {
    /// The last value of a name wins, as in a protobuf map.
    fn from_iter<I: IntoIterator<Item = (AttributeName, String)>>(pairs: I) -> Self {
        let map: std::collections::BTreeMap<_, _> = pairs.into_iter().collect();
        Self(map.into_iter().map(|(n, v)| (n, v.into())).collect())
    }
}

/// A message as a publisher hands it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it is published.
    pub topic: Topic,
    /// Opaque bytes, shared by all who hold the message.
    pub payload: Bytes,
    /// The string map that travels along.
    pub attributes: Attributes,
    /// By what subscribers may choose it.
    pub tag: Option<Tag>,
    /// For the application.
    pub key: Option<Key>,
    /// The publisher's id for it; without one, the broker derives one from epoch and sequence.
    pub id: Option<MessageId>,
    /// Whether it is its topic's last message: subscriptions to just this topic end after it.
    pub end: bool,
}

impl Message {
    /// A message with a topic and a payload, and nothing else.
    #[must_use]
    pub fn new(topic: Topic, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            attributes: Attributes::default(),
            tag: None,
            key: None,
            id: None,
            end: false,
        }
    }

    /// What the message counts for in a mailbox, in bytes: all that it carries, and
    /// [`MESSAGE_OVERHEAD_BYTES`].
    #[must_use]
    pub fn size(&self) -> usize {
        self.as_message_ref().size()
    }

    pub(crate) fn as_message_ref(&self) -> MessageRef<'_> {
        MessageRef {
            topic: &self.topic,
            payload: Payload::Shared(&self.payload),
            attributes: &self.attributes,
            tag: self.tag.as_ref(),
            key: self.key.as_ref(),
            id: self.id.as_ref(),
            end: self.end,
            stencil: None,
        }
    }
}

/// A [`Message`] whose parts belong to someone else: what is published without being owned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageRef<'m> {
    pub(crate) topic: &'m Topic,
    pub(crate) payload: Payload<'m>,
    pub(crate) attributes: &'m Attributes,
    pub(crate) tag: Option<&'m Tag>,
    pub(crate) key: Option<&'m Key>,
    pub(crate) id: Option<&'m MessageId>,
    pub(crate) end: bool,
    /// Shared by messages that are published together: they have topic, epoch and time in common.
    pub(crate) stencil: Option<&'m Stencil>,
}

/// What an adapter wrote of one message and can copy for those after it.
#[derive(Debug, Default)]
pub(crate) struct Stencil(OnceCell<(usize, Vec<u8>)>);

impl Stencil {
    /// What the first caller's `write` returned. `None` if it was for something else.
    pub(crate) fn written_with(
        &self,
        what: usize,
        write: impl FnOnce() -> Vec<u8>,
    ) -> Option<&[u8]> {
        let (written, bytes) = self.0.get_or_init(|| (what, write()));
        (*written == what).then_some(bytes)
    }
}

/// A payload, and what it takes to own it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'m> {
    /// Owned by sharing it.
    Shared(&'m Bytes),
    /// Owned by copying it.
    Borrowed(&'m [u8]),
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Borrowed(bytes) => bytes,
        }
    }
}

impl<'m> MessageRef<'m> {
    /// A message with a topic and a payload, and nothing else; `none` is said of its attributes.
    pub(crate) fn plain(topic: &'m Topic, payload: &'m [u8], none: &'m Attributes) -> Self {
        Self {
            topic,
            payload: Payload::Borrowed(payload),
            attributes: none,
            tag: None,
            key: None,
            id: None,
            end: false,
            stencil: None,
        }
    }

    /// See [`Message::size`].
    pub(crate) fn size(&self) -> usize {
        let text = |length: Option<usize>| length.unwrap_or_default();
        MESSAGE_OVERHEAD_BYTES
            + self.topic.as_str().len()
            + self.payload.len()
            + self.attributes.bytes()
            + text(self.tag.map(|tag| tag.as_str().len()))
            + text(self.key.map(|key| key.as_str().len()))
            + text(self.id.map(|id| id.as_str().len()))
    }

    fn to_message(self) -> Message {
        Message {
            topic: self.topic.clone(),
            payload: match self.payload {
                Payload::Shared(bytes) => bytes.clone(),
                Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            },
            attributes: self.attributes.clone(),
            tag: self.tag.cloned(),
            key: self.key.cloned(),
            id: self.id.cloned(),
            end: self.end,
        }
    }
}

/// This life of a topic's state. Unique within a broker, and across its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A message's place within a topic and epoch: the first is 1, and there are no gaps at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// A message with its place in its topic, shared by all subscribers it is for.
#[derive(Debug)]
pub struct Delivery {
    /// What was published.
    pub message: Message,
    /// The life of the topic that `sequence` belongs to.
    pub epoch: Epoch,
    /// The message's place in the topic.
    pub sequence: Sequence,
    /// When the broker accepted it.
    pub published_at: SystemTime,
    /// Its place among all that is kept; `None` if its topic has no history.
    pub position: Option<Position>,
    size: usize,
    encoded: OnceLock<Bytes>,
}

impl Delivery {
    /// Places a message in its topic.
    #[must_use]
    pub fn new(
        message: Message,
        epoch: Epoch,
        sequence: Sequence,
        published_at: SystemTime,
    ) -> Self {
        Self {
            size: message.size(),
            message,
            epoch,
            sequence,
            published_at,
            position: None,
            encoded: OnceLock::new(),
        }
    }

    /// From where a subscriber that got this message can go on; `None` if its topic has no history.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.as_delivery_ref().cursor()
    }

    /// The message's id: the publisher's, or `epoch-sequence` in hexadecimal.
    #[must_use]
    pub fn id(&self) -> Cow<'_, str> {
        message_id(self.message.id.as_ref(), self.epoch, self.sequence)
    }

    pub(crate) fn as_delivery_ref(&self) -> DeliveryRef<'_> {
        DeliveryRef {
            message: self.message.as_message_ref(),
            epoch: self.epoch,
            sequence: self.sequence,
            published_at: self.published_at,
            position: self.position,
        }
    }

    /// What the message counts for in a mailbox, in bytes; see [`Message::size`].
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// What the first caller's `encode` returned: an adapter encodes a message once, and all its
    /// subscribers share the bytes.
    pub fn encoded_with(&self, encode: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.encoded.get_or_init(|| encode(self))
    }
}

/// A [`Delivery`] whose message belongs to someone else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveryRef<'m> {
    pub(crate) message: MessageRef<'m>,
    pub(crate) epoch: Epoch,
    pub(crate) sequence: Sequence,
    pub(crate) published_at: SystemTime,
    pub(crate) position: Option<Position>,
}

impl DeliveryRef<'_> {
    /// See [`Delivery::cursor`].
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.position.map(|position| Cursor {
            epoch: self.epoch,
            position,
            sequence: self.sequence,
        })
    }

    pub(crate) fn to_delivery(self) -> Delivery {
        let message = self.message.to_message();
        Delivery {
            position: self.position,
            ..Delivery::new(message, self.epoch, self.sequence, self.published_at)
        }
    }
}

/// The id that a message goes by: the publisher's, or one made of its place, which is unique.
pub(crate) fn message_id(
    chosen: Option<&MessageId>,
    epoch: Epoch,
    sequence: Sequence,
) -> Cow<'_, str> {
    match chosen {
        Some(id) => Cow::Borrowed(id.as_str()),
        None => Cow::Owned(format!("{:x}-{:x}", epoch.0, sequence.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_an_attribute_wins() {
        let name = |text: &str| text.parse::<AttributeName>().unwrap();
        let attributes: Attributes = [
            (name("b"), "1".to_owned()),
            (name("a"), "2".to_owned()),
            (name("b"), "3".to_owned()),
        ]
        .into_iter()
        .collect();
        assert_eq!(
            attributes.iter().collect::<Vec<_>>(),
            [("a", "2"), ("b", "3")]
        );
        assert_eq!((attributes.len(), attributes.bytes()), (2, 4));
        assert!(!attributes.is_empty());
        assert!(Attributes::default().is_empty());
    }

    #[test]
    fn a_message_without_an_id_goes_by_its_place() {
        let place = |id: Option<&MessageId>| message_id(id, Epoch(0x1f), Sequence(10)).into_owned();
        assert_eq!(place(None), "1f-a");
        assert_eq!(place(Some(&"mine".parse().unwrap())), "mine");
    }

    #[test]
    fn a_message_counts_all_that_it_carries() {
        let mut message = Message::new("abc".parse().unwrap(), "12345");
        assert_eq!(message.size(), MESSAGE_OVERHEAD_BYTES + 8);
        message.tag = Some("t".parse().unwrap());
        message.key = Some("kk".parse().unwrap());
        message.id = Some("iii".parse().unwrap());
        assert_eq!(message.size(), MESSAGE_OVERHEAD_BYTES + 14);
        let attribute = ("name".parse().unwrap(), "value".to_owned());
        message.attributes = [attribute].into_iter().collect();
        assert_eq!(message.size(), MESSAGE_OVERHEAD_BYTES + 23);
    }

    #[test]
    fn what_the_first_one_has_encoded_is_there_for_all() {
        let message = Message::new("t".parse().unwrap(), "x");
        let delivery = Delivery::new(message, Epoch(1), Sequence(1), SystemTime::UNIX_EPOCH);
        let first = delivery.encoded_with(|delivery| delivery.message.payload.clone());
        assert_eq!(first, "x");
        let second = delivery.encoded_with(|_| unreachable!("encoded twice"));
        assert_eq!(second, "x");
    }
}
