//! What an application asks for when it subscribes.

use std::time::Duration;

use crate::{
    cursor::{Cursor, StartAt},
    message::{GroupName, Tag},
    topic::{Topic, TopicFilter},
    wire::pb,
};

/// What the broker does when this subscriber's mailbox is full. It never makes a publisher wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OverflowPolicy {
    /// The new message is dropped.
    #[default]
    DropNewest,
    /// The oldest messages are dropped until the new one fits.
    DropOldest,
    /// The subscription ends with
    /// [`SubscribeError::FellBehind`](super::SubscribeError::FellBehind), and what its mailbox held
    /// is lost.
    Disconnect,
}

/// What to subscribe to, and how.
///
/// ```
/// use fanfare::client::{OverflowPolicy, Subscribe};
/// use fanfare::topic::TopicFilter;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let filter: TopicFilter = "orders.*".parse()?;
/// let subscribe = Subscribe::new(filter)
///     .group("billing".parse()?)
///     .tags(["paid".parse()?, "refunded".parse()?])
///     .overflow_policy(OverflowPolicy::DropOldest);
/// # let _: Subscribe = subscribe;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Subscribe {
    filter: TopicFilter,
    group: Option<GroupName>,
    tags: Vec<Tag>,
    overflow_policy: OverflowPolicy,
    mailbox_capacity: u32,
    heartbeat_interval: Option<Duration>,
    start: StartAt,
}

impl Subscribe {
    /// All messages of a filter or topic, with the broker's defaults.
    #[must_use]
    pub fn new(filter: impl Into<TopicFilter>) -> Self {
        Self {
            filter: filter.into(),
            group: None,
            tags: Vec::new(),
            overflow_policy: OverflowPolicy::default(),
            mailbox_capacity: 0,
            heartbeat_interval: None,
            start: StartAt::Now,
        }
    }

    /// Shares the work with the other members of a group: each message goes to one of them.
    #[must_use]
    pub fn group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// Only messages that carry one of these tags, 64 at most by default. None, which is the default,
    /// means all messages, tagged or not.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags = tags.into_iter().collect();
        self
    }

    /// What happens when the mailbox is full. [`OverflowPolicy::DropNewest`] by default.
    #[must_use]
    pub fn overflow_policy(mut self, policy: OverflowPolicy) -> Self {
        self.overflow_policy = policy;
        self
    }

    /// The mailbox's bound in messages. 0, which is the default, means the broker's default; more than
    /// the broker's maximum is granted as that maximum. [`Facts`](super::Facts) tell what was granted.
    #[must_use]
    pub fn mailbox_capacity(mut self, messages: u32) -> Self {
        self.mailbox_capacity = messages;
        self
    }

    /// Asks for a heartbeat whenever the subscription has been silent for this long, 5 to 60 seconds;
    /// none by default. The application does not see heartbeats: if nothing is heard for two
    /// intervals and 5 seconds, the subscription takes its connection for dead and makes a new one.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = Some(interval);
        self
    }

    /// Where the subscription starts in what the broker keeps; [`StartAt::Now`] by default. A group can
    /// only start now. When the subscription comes back after its connection broke, it goes on after the last
    /// message that it was handed, as far as the broker keeps what followed.
    #[must_use]
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    pub(super) fn starts_now(&self) -> bool {
        self.start.is_now()
    }

    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat_interval
    }

    /// Whether every message of a matching topic is for this subscription.
    pub(super) fn takes_all(&self) -> bool {
        self.group.is_none() && self.tags.is_empty()
    }

    pub(super) fn request(&self) -> pb::SubscribeRequest {
        pb::SubscribeRequest {
            topic: self.filter.to_string(),
            group: self
                .group
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            tags: self.tags.iter().map(ToString::to_string).collect(),
            overflow_policy: pb::OverflowPolicy::from(self.overflow_policy).into(),
            mailbox_capacity: self.mailbox_capacity,
            heartbeat_interval: self.heartbeat_interval.map(wire_duration),
            text: false,
            start_at: self.start.into(),
        }
    }

    /// The request of a subscription that was live before, and goes on from there if it can.
    pub(super) fn request_again(&self, go_on: GoOn) -> pb::SubscribeRequest {
        let start = match go_on {
            GoOn::After(cursor) => StartAt::After(cursor),
            GoOn::Again => self.start,
            GoOn::Anew => StartAt::Now,
        };
        pb::SubscribeRequest {
            start_at: start.into(),
            ..self.request()
        }
    }

    /// How to go on, if this is the newest cursor that came, and whether any message or gap did.
    pub(super) fn go_on(&self, newest: Option<Cursor>, is_answered: bool) -> GoOn {
        match newest {
            Some(cursor) if self.group.is_none() => GoOn::After(cursor),
            None if !is_answered && !self.start.is_now() => GoOn::Again,
            _ => GoOn::Anew,
        }
    }

    /// Whether it is to one topic.
    pub(super) fn is_to_one_topic(&self) -> bool {
        self.filter.as_topic().is_some()
    }
}

/// Where a subscription starts that was live before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoOn {
    /// After what it was handed.
    After(Cursor),
    /// Where it started, since nothing came of that.
    Again,
    /// Now.
    Anew,
}

/// What the wire cannot hold is far past what the broker grants: it refuses either.
fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

impl From<TopicFilter> for Subscribe {
    fn from(filter: TopicFilter) -> Self {
        Self::new(filter)
    }
}

impl From<Topic> for Subscribe {
    fn from(topic: Topic) -> Self {
        Self::new(topic)
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

    #[test]
    fn what_is_asked_for_is_what_goes_out() {
        let request = Subscribe::new("a.>".parse::<TopicFilter>().unwrap())
            .group("g".parse().unwrap())
            .tags(["x".parse().unwrap(), "y".parse().unwrap()])
            .overflow_policy(OverflowPolicy::Disconnect)
            .mailbox_capacity(7)
            .heartbeat_interval(Duration::from_millis(5_500))
            .start_at(StartAt::Last(9))
            .request();
        let expected = pb::SubscribeRequest {
            topic: "a.>".into(),
            group: "g".into(),
            tags: vec!["x".into(), "y".into()],
            overflow_policy: 3,
            mailbox_capacity: 7,
            heartbeat_interval: Some(prost_types::Duration {
                seconds: 5,
                nanos: 500_000_000,
            }),
            text: false,
            start_at: Some(pb::subscribe_request::StartAt::StartLast(9)),
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn an_interval_beyond_the_wire_does_not_panic() {
        let subscribe = Subscribe::new("t".parse::<Topic>().unwrap());
        let request = subscribe.heartbeat_interval(Duration::MAX).request();
        assert_eq!(request.heartbeat_interval.unwrap().seconds, i64::MAX);
    }
}
