//! Topics and subscriptions one by one, for people who look.
//!
//! Whoever looks delays nobody who publishes or subscribes by more than it takes to copy a table of
//! references: what a row says is read afterwards, under no lock but the row's own. So the rows of one
//! list are of about one moment, and each is exact by itself. A list costs a visit of all that is live, and
//! has at most as many rows as it is asked for.
//!
//! Rates are measured between looks: the broker counts for itself what is needed for its sequences, and
//! nothing more.

use std::{
    cmp::{Ordering, Reverse},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Broker, Filters, Ledger, MailboxSize, OverflowPolicy, subscriber::Subscriber, topics::Surveyed,
};
use crate::{
    message::{Epoch, GroupName, Sequence, Tag},
    topic::Topic,
};

/// Which topics to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicQuery {
    /// Only those whose name holds this; all, if it is empty.
    pub search: String,
    /// Which come first.
    pub order: TopicOrder,
    /// The most rows.
    pub limit: usize,
}

/// Which topics come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicOrder {
    /// Those with the most messages a second.
    #[default]
    Rate,
    /// By name.
    Name,
}

/// Some of the topics that have state.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicList {
    /// How many have state.
    pub total: usize,
    /// How many of them were asked for, in this list or not.
    pub found: usize,
    /// The rows.
    pub topics: Vec<TopicFigures>,
}

/// One topic in figures.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicFigures {
    /// Its name.
    pub topic: Topic,
    /// Its present life.
    pub epoch: Epoch,
    /// Its newest sequence, which is how many messages it had in this life.
    pub head: Sequence,
    /// Messages a second, between the last two looks that were a while apart.
    pub per_second: f64,
    /// How many of its messages are kept for replay.
    pub kept: usize,
    /// How many subscriptions match it, through wildcards, too.
    pub subscriptions: usize,
}

/// Which subscriptions to list. Those with the most waiting messages come first, then those that missed
/// most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionQuery {
    /// Only those of whom a filter, the group or the peer holds this; all, if it is empty.
    pub search: String,
    /// The most rows.
    pub limit: usize,
}

/// Some of the live subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionList {
    /// How many are live.
    pub total: usize,
    /// How many of them were asked for, in this list or not.
    pub found: usize,
    /// The rows.
    pub subscriptions: Vec<SubscriptionFigures>,
}

/// One subscription in figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFigures {
    /// Tells it from others; rises with each.
    pub id: u64,
    /// Which topics.
    pub filters: Filters,
    /// With whom it shares the work.
    pub group: Option<GroupName>,
    /// Only messages that carry one of these; empty means all.
    pub tags: Box<[Tag]>,
    /// What its full mailbox does.
    pub overflow: OverflowPolicy,
    /// Its mailbox's bounds.
    pub mailbox: MailboxSize,
    /// Its account; `buffered` is its backlog.
    pub ledger: Ledger,
    /// Bytes in its mailbox and in its reader's hand.
    pub held_bytes: usize,
    /// Who reads it, and since when.
    pub arrival: Arrival,
}

/// Who subscribed, as far as the one knows who passes the wish on. The broker shows it and does nothing
/// else with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Where it came from.
    pub peer: Option<Arc<str>>,
    /// When.
    pub at: Option<SystemTime>,
}

impl Broker {
    /// Lists topics. `now` is the time since some fixed moment, for the rates.
    #[must_use]
    pub fn topics(&self, query: &TopicQuery, now: Duration) -> TopicList {
        let shared = &*self.shared;
        let mut total = 0;
        let mut rows = Vec::new();
        shared.topics.survey(now, |surveyed| {
            total += 1;
            if surveyed.topic.as_str().contains(&query.search) {
                rows.push(surveyed);
            }
        });
        let found = rows.len();
        let by_name = |a: &Surveyed, b: &Surveyed| a.topic.cmp(&b.topic);
        keep_first(&mut rows, query.limit, |a, b| match query.order {
            TopicOrder::Rate => {
                let by_rate = b.per_second.total_cmp(&a.per_second);
                by_rate.then_with(|| by_name(a, b))
            }
            TopicOrder::Name => by_name(a, b),
        });
        // Taken for each row anew: somebody who wants to subscribe waits for one of them at most.
        let subscriptions = |topic: &Topic| shared.registry.read().matching(topic);
        let topics = rows.into_iter().map(|row| TopicFigures {
            subscriptions: subscriptions(&row.topic),
            per_second: row.per_second,
            epoch: row.epoch,
            head: row.head,
            kept: row.kept,
            topic: row.topic,
        });
        TopicList {
            total,
            found,
            topics: topics.collect(),
        }
    }

    /// Lists subscriptions, with all that was published before the call in their accounts.
    #[must_use]
    pub fn subscriptions(&self, query: &SubscriptionQuery) -> SubscriptionList {
        let (mut rows, lanes): (Vec<_>, Vec<_>) = {
            let registry = self.shared.registry.read();
            let subscribers = registry.subscribers().cloned().collect();
            (subscribers, registry.lanes().cloned().collect())
        };
        // Once for all members: to hand over what was published meanwhile to each of them, for each of
        // them, could keep publishers waiting for long.
        lanes.iter().for_each(|lane| lane.flush());
        let total = rows.len();
        rows.retain(|subscriber| subscriber.is_about(&query.search));
        let found = rows.len();
        let mut rows: Vec<_> = rows
            .into_iter()
            .map(|subscriber| (Backlog::of(&subscriber.mailbox.ledger()), subscriber))
            .collect();
        keep_first(&mut rows, query.limit, |(a, of_a), (b, of_b)| {
            b.cmp(a).then(of_a.id.cmp(&of_b.id))
        });
        let rows = rows.into_iter().map(|(_, subscriber)| subscriber);
        let mut subscriptions: Vec<_> = rows.map(|row| SubscriptionFigures::of(&row)).collect();
        subscriptions.sort_by_key(|row| (Reverse(Backlog::of(&row.ledger)), row.id));
        SubscriptionList {
            total,
            found,
            subscriptions,
        }
    }
}

/// How far behind a subscription is: messages that wait, then messages that it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Backlog(u64, u64);

impl Backlog {
    fn of(ledger: &Ledger) -> Self {
        Self(ledger.buffered, ledger.missed_total())
    }
}

impl SubscriptionFigures {
    fn of(subscriber: &Subscriber) -> Self {
        let (ledger, held_bytes) = subscriber.mailbox.account();
        Self {
            id: subscriber.id,
            filters: subscriber.filters.clone(),
            group: subscriber.group_name().cloned(),
            tags: subscriber.tags.clone(),
            overflow: subscriber.mailbox.policy(),
            mailbox: subscriber.mailbox.size(),
            ledger,
            held_bytes,
            arrival: subscriber.arrival.clone(),
        }
    }
}

impl Subscriber {
    fn is_about(&self, search: &str) -> bool {
        let group = self.group_name().map(GroupName::as_str);
        let others = [group, self.arrival.peer.as_deref()];
        let filters = self.filters.as_slice().iter().map(|filter| filter.as_str());
        let mut texts = filters.chain(others.into_iter().flatten());
        texts.any(|text| text.contains(search))
    }
}

/// Keeps so many rows of those that come first, in order.
fn keep_first<T>(rows: &mut Vec<T>, limit: usize, order: impl Fn(&T, &T) -> Ordering) {
    if limit < rows.len() {
        rows.select_nth_unstable_by(limit, &order);
        rows.truncate(limit);
    }
    rows.sort_unstable_by(order);
}
