//! What a publisher is told: its message's fate, or why it was not admitted.

use std::borrow::Cow;

use super::Limits;
use crate::message::{Epoch, MessageId, MessageRef, Sequence, message_id};

/// Why a message was not published. The caller must change it; a retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The payload is too large.
    #[error("payload of {bytes} bytes exceeds the limit of {max}")]
    PayloadTooLarge {
        /// Its size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// There are too many attributes.
    #[error("{count} attributes exceed the limit of {max}")]
    TooManyAttributes {
        /// Their number.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The attributes are too large together.
    #[error("attributes of {bytes} bytes exceed the limit of {max}")]
    AttributesTooLarge {
        /// The bytes of all names and values.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
}

/// What became of a published message. `matched = delivered + dropped`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The id that the publisher chose, if it did.
    pub chosen_id: Option<MessageId>,
    /// The life of the topic that `sequence` belongs to.
    pub epoch: Epoch,
    /// The message's place in the topic.
    pub sequence: Sequence,
    /// How many subscriptions the message matched; a group counts once.
    pub matched: u32,
    /// How many mailboxes took it.
    pub delivered: u32,
    /// How many subscriptions lost it.
    pub dropped: u32,
    /// How many older messages were lost to make room for it.
    pub displaced: u64,
}

impl Receipt {
    /// The message's id: the publisher's, or one made of epoch and sequence.
    #[must_use]
    pub fn id(&self) -> Cow<'_, str> {
        message_id(self.chosen_id.as_ref(), self.epoch, self.sequence)
    }
}

impl Limits {
    /// Whether a message keeps within the limits.
    pub(super) fn admit(&self, message: &MessageRef<'_>) -> Result<(), PublishError> {
        let payload = message.payload.len();
        if payload > self.payload_bytes_max {
            return Err(PublishError::PayloadTooLarge {
                bytes: payload,
                max: self.payload_bytes_max,
            });
        }
        if message.attributes.len() > self.attributes_max {
            return Err(PublishError::TooManyAttributes {
                count: message.attributes.len(),
                max: self.attributes_max,
            });
        }
        let attributes = message.attributes.bytes();
        if attributes > self.attributes_bytes_max {
            return Err(PublishError::AttributesTooLarge {
                bytes: attributes,
                max: self.attributes_bytes_max,
            });
        }
        Ok(())
    }
}
