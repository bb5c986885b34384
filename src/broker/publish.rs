//! Publishing: from a message to its place in its topic, to every mailbox it is for, and to what the
//! publisher is told.

use std::{borrow::Cow, sync::Arc, sync::atomic::Ordering, task::Waker, time::SystemTime};

use super::{
    Limits, Shared,
    parting::Parting,
    registry::{Route, Tally},
    sync::MutexGuard,
    topics::{LiveTopic, TopicHint, TopicState},
};
use crate::{
    cursor::{Cursor, Position},
    message::{Epoch, MessageId, MessageRef, Sequence, message_id},
    topic::Topic,
};

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
    /// The topic has ended: its last message has been published.
    #[error("the topic has ended: its last message has been published")]
    TopicEnded,
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
    /// The message's place among all that is kept; `None` if its topic has no history.
    pub position: Option<Position>,
}

impl Receipt {
    /// From where a subscriber that got this message can go on; `None` if its topic has no history.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.position.map(|position| Cursor {
            epoch: self.epoch,
            position,
            sequence: self.sequence,
        })
    }

    /// The message's id: the publisher's, or one made of epoch and sequence.
    #[must_use]
    pub fn id(&self) -> Cow<'_, str> {
        message_id(self.chosen_id.as_ref(), self.epoch, self.sequence)
    }
}

/// What a message was given, and what became of it.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
    pub(super) position: Option<Position>,
    pub(super) tally: Tally,
}

impl Placed {
    /// What the publisher is told, and those who are to be woken.
    pub(super) fn receipt(self, message: &MessageRef<'_>) -> (Receipt, Vec<Waker>) {
        let tally = self.tally;
        let receipt = Receipt {
            chosen_id: message.id.cloned(),
            epoch: self.epoch,
            sequence: self.sequence,
            matched: tally.matched,
            delivered: tally.delivered,
            dropped: tally.matched - tally.delivered,
            displaced: tally.displaced,
            position: self.position,
        };
        (receipt, tally.wakers)
    }
}

impl Shared {
    pub(super) fn fan_out(
        &self,
        message: &MessageRef<'_>,
        published_at: SystemTime,
        hint: &mut TopicHint,
    ) -> Result<Placed, PublishError> {
        let topic = message.topic;
        if let Some(state) = self.topics.recall(hint, topic)
            && let Some(live) = state.lock()
            && let Some(placed) = self.place(state, live, message, published_at)?
        {
            return Ok(placed);
        }
        loop {
            let found = match self.topics.find_by(hint, topic) {
                Some(found) => found,
                // An end is remembered for those who come late.
                None if message.end || self.is_wanted(topic) => self.topics.find_or_create(topic),
                // Nobody reads it and nothing is kept: this message is a life of its own.
                None => {
                    return Ok(Placed {
                        epoch: self.topics.mint_epoch(),
                        sequence: Sequence(1),
                        position: None,
                        tally: Tally::default(),
                    });
                }
            };
            let Some(live) = found.state.lock() else {
                continue;
            };
            let Some(placed) = self.place(&found.state, live, message, published_at)? else {
                self.seat_log(topic);
                continue;
            };
            if found.aging && (placed.tally.matched > 0 || message.end) {
                self.topics.touch(topic);
            }
            return Ok(placed);
        }
    }

    fn is_wanted(&self, topic: &Topic) -> bool {
        self.history.keeps(topic) || self.registry.read().matches(topic)
    }

    /// Gives the message its place and pushes it to every matching mailbox, under the topic's lock:
    /// two publishers to one topic must reach every mailbox in the same order. `None` if it is to be kept
    /// and its topic's log has no seat yet.
    fn place(
        &self,
        state: &TopicState,
        mut live: MutexGuard<'_, LiveTopic>,
        message: &MessageRef<'_>,
        published_at: SystemTime,
    ) -> Result<Option<Placed>, PublishError> {
        if live.ended {
            return Err(PublishError::TopicEnded);
        }
        if live.log.is_some() {
            return Ok(self.keep(state, live, message, published_at));
        }
        self.refresh_route(message.topic, &mut live);
        let sequence = live.next_sequence();
        let mut tally = Tally::default();
        if !live.route.is_empty() {
            let memory = self.budget.memory();
            let mut parting = Parting::new(memory, *message, state.epoch, sequence, published_at);
            live.route.deliver(&mut parting, &mut tally);
        }
        if message.end {
            live.end(message.topic, &mut tally);
        }
        Ok(Some(Placed {
            epoch: state.epoch,
            sequence,
            position: None,
            tally,
        }))
    }

    pub(super) fn refresh_route(&self, topic: &Topic, live: &mut LiveTopic) {
        if !self.is_current(&live.route) {
            live.route = Arc::new(self.registry.read().route(topic));
        }
    }

    /// Whether the registry still says what it said when the route was made.
    pub(super) fn is_current(&self, route: &Route) -> bool {
        route.version == self.version.load(Ordering::Acquire)
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
