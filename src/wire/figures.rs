//! The broker in figures, as JSON: what `GET /v1/stats`, `/v1/topics` and `/v1/subscribers` answer, and what
//! the client reads.
//!
//! Counters rise from the start of the broker and are plain numbers; whoever wants a rate asks twice and
//! divides by the difference of `uptime_s`. Epochs and sequences are strings, since they may pass what a
//! JSON number holds everywhere. New fields may come; a reader ignores what it does not know.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::broker::{
    self, Limits, MissReason, OverflowPolicy, Snapshot, SubscriptionFigures, TopicFigures,
};

/// The process and the broker as a whole: `GET /v1/stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The broker's version.
    pub version: String,
    /// Seconds since it started to serve.
    pub uptime_s: f64,
    /// Whether it takes work, and is not about to stop.
    pub ready: bool,
    /// What was accepted from publishers.
    pub published: Volume,
    /// Messages accepted that matched no subscription.
    pub unmatched_messages: u64,
    /// Messages times the subscriptions they matched.
    pub matched_messages: u64,
    /// What was handed to subscribers' connections.
    pub delivered: Volume,
    /// Messages lost to subscriptions, by reason.
    pub missed_messages: BTreeMap<String, u64>,
    /// What waits in mailboxes now.
    pub waiting: Waiting,
    /// What is kept for replay now.
    pub history: History,
    /// Live subscriptions.
    pub subscriptions: u64,
    /// Live groups.
    pub groups: u64,
    /// Topics with state.
    pub topics: u64,
    /// Open connections.
    pub connections: u64,
    /// HTTP/2 requests and streams in progress.
    pub streams: u64,
    /// What limits have refused or ended, by limit; those that were never hit are left out.
    pub rejected: BTreeMap<String, u64>,
    /// The account of memory.
    pub memory: Memory,
    /// What the operating system says of the process, where it says anything.
    pub process: Process,
    /// The limits in force.
    pub limits: LimitFigures,
}

/// Messages and their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// How many messages.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
}

/// What waits in mailboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Messages, counted in each mailbox that they wait in.
    pub messages: u64,
    /// Their bytes, as the limits count them.
    pub bytes: u64,
    /// Messages in the fullest mailbox.
    pub deepest: u64,
}

/// What is kept for replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Messages.
    pub messages: u64,
    /// Their bytes, as the limits count them.
    pub bytes: u64,
    /// Topics that keep something.
    pub topics: u64,
}

/// The account of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In use by all that grows with the load.
    pub used_bytes: u64,
    /// What may be.
    pub budget_bytes: u64,
}

/// What the operating system says of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Processor time since the start, user and system, in seconds.
    pub cpu_s: Option<f64>,
}

/// The limits that what is shown is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitFigures {
    /// The largest payload, in bytes.
    pub payload_bytes_max: u64,
    /// A mailbox's bound in messages, where the subscriber asks for none.
    pub mailbox_capacity: u64,
    /// A mailbox's bound in bytes.
    pub mailbox_bytes: u64,
    /// The bound on all mailboxes together, in bytes.
    pub buffered_bytes_max: u64,
    /// The most live subscriptions.
    pub subscriptions_max: u64,
    /// The most topics remembered that have no subscriber of their own.
    pub idle_topics_max: u64,
    /// The most open connections.
    pub connections_max: u64,
}

/// Some of the topics: `GET /v1/topics`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopicList {
    /// How many have state.
    pub total: u64,
    /// How many of them were asked for, in this list or not.
    pub found: u64,
    /// The rows, as many as were asked for at most.
    pub topics: Vec<Topic>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub topic: String,
    /// Its present life.
    pub epoch: String,
    /// Its newest sequence, which is how many messages it had in this life.
    pub sequence: String,
    /// Messages a second, between the last two looks that were a second or more apart.
    pub per_second: f64,
    /// Messages of it that are kept for replay.
    pub kept: u64,
    /// Subscriptions that match it, through wildcards, too.
    pub subscribers: u64,
}

/// Some of the live subscriptions, those with the most waiting messages first: `GET /v1/subscribers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubscriberList {
    /// How many are live.
    pub total: u64,
    /// How many of them were asked for, in this list or not.
    pub found: u64,
    /// The rows, as many as were asked for at most.
    pub subscribers: Vec<Subscriber>,
}

/// One subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscriber {
    /// Tells it from others; rises with each.
    pub id: u64,
    /// Which topics: those that any of these matches.
    pub filters: Vec<String>,
    /// With whom it shares the work.
    pub group: Option<String>,
    /// Only messages that carry one of these; empty means all.
    pub tags: Vec<String>,
    /// What its full mailbox does: `drop_newest`, `drop_oldest` or `disconnect`.
    pub overflow: String,
    /// Its mailbox's bound in messages.
    pub mailbox_capacity: u64,
    /// Messages that wait in its mailbox.
    pub waiting: u64,
    /// Bytes in its mailbox and on their way to it.
    pub waiting_bytes: u64,
    /// Messages handed to its connection.
    pub delivered: u64,
    /// Messages that it lost.
    pub missed: u64,
    /// The address that it came from, if it came from one.
    pub peer: Option<String>,
    /// Seconds for which it has lived.
    pub age_s: Option<f64>,
}

impl Stats {
    /// What the broker itself knows; the rest is as by default.
    pub(crate) fn of(snapshot: &Snapshot, limits: &Limits) -> Self {
        let ledger = &snapshot.ledger;
        let missed = MissReason::ALL.into_iter().zip(ledger.missed);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            published: Volume {
                messages: snapshot.published,
                bytes: snapshot.published_bytes,
            },
            unmatched_messages: snapshot.unmatched,
            matched_messages: ledger.matched,
            delivered: Volume {
                messages: ledger.delivered,
                bytes: ledger.delivered_bytes,
            },
            missed_messages: missed
                .map(|(reason, count)| (reason.as_str().to_owned(), count))
                .collect(),
            waiting: Waiting {
                messages: ledger.buffered,
                bytes: snapshot.buffered_bytes as u64,
                deepest: snapshot.mailbox_depth_max,
            },
            history: History {
                messages: snapshot.history_messages as u64,
                bytes: snapshot.history_bytes as u64,
                topics: snapshot.history_topics as u64,
            },
            subscriptions: snapshot.subscriptions as u64,
            groups: snapshot.groups as u64,
            topics: snapshot.topics as u64,
            memory: Memory {
                used_bytes: snapshot.memory_bytes as u64,
                budget_bytes: limits.memory_budget as u64,
            },
            limits: LimitFigures {
                payload_bytes_max: limits.payload_bytes_max as u64,
                mailbox_capacity: limits.mailbox_capacity as u64,
                mailbox_bytes: limits.mailbox_bytes as u64,
                buffered_bytes_max: limits.buffered_bytes_max as u64,
                subscriptions_max: limits.subscriptions_max as u64,
                idle_topics_max: limits.idle_topics_max as u64,
                connections_max: 0,
            },
            ..Self::default()
        }
    }

    /// All messages lost to subscriptions, for whatever reason.
    #[must_use]
    pub fn missed_total(&self) -> u64 {
        self.missed_messages.values().sum()
    }
}

impl From<broker::TopicList> for TopicList {
    fn from(list: broker::TopicList) -> Self {
        Self {
            total: list.total as u64,
            found: list.found as u64,
            topics: list.topics.into_iter().map(Topic::from).collect(),
        }
    }
}

impl From<TopicFigures> for Topic {
    fn from(row: TopicFigures) -> Self {
        Self {
            topic: row.topic.to_string(),
            epoch: row.epoch.0.to_string(),
            sequence: row.head.0.to_string(),
            per_second: row.per_second,
            kept: row.kept as u64,
            subscribers: row.subscriptions as u64,
        }
    }
}

impl SubscriberList {
    /// As of `now`.
    pub(crate) fn of(list: broker::SubscriptionList, now: SystemTime) -> Self {
        let rows = list.subscriptions.into_iter();
        Self {
            total: list.total as u64,
            found: list.found as u64,
            subscribers: rows.map(|row| Subscriber::of(&row, now)).collect(),
        }
    }
}

impl Subscriber {
    fn of(row: &SubscriptionFigures, now: SystemTime) -> Self {
        let age = row.arrival.at.and_then(|at| now.duration_since(at).ok());
        Self {
            id: row.id,
            filters: row
                .filters
                .as_slice()
                .iter()
                .map(ToString::to_string)
                .collect(),
            group: row.group.as_ref().map(ToString::to_string),
            tags: row.tags.iter().map(ToString::to_string).collect(),
            overflow: overflow(row.overflow).to_owned(),
            mailbox_capacity: row.mailbox.messages as u64,
            waiting: row.ledger.buffered,
            waiting_bytes: row.held_bytes as u64,
            delivered: row.ledger.delivered,
            missed: row.ledger.missed_total(),
            peer: row.arrival.peer.as_deref().map(str::to_owned),
            age_s: age.map(|age| age.as_secs_f64()),
        }
    }
}

fn overflow(policy: OverflowPolicy) -> &'static str {
    match policy {
        OverflowPolicy::DropNewest => "drop_newest",
        OverflowPolicy::DropOldest => "drop_oldest",
        OverflowPolicy::Disconnect => "disconnect",
    }
}
