//! What operators see: counters, gauges and one histogram in the Prometheus (OpenMetrics) text format.
//!
//! The broker's own figures are read at each scrape and kept nowhere else, so that they agree with
//! its accounts. Every label has a fixed set of values: none names a client or a topic.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

use crate::broker::{Broker, EvictReason, MissReason, Snapshot};

/// The media type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// 1 us to about 0.26 s in powers of four: a publish takes microseconds, and milliseconds are news.
const PUBLISH_SECONDS_FIRST_BUCKET: f64 = 1e-6;
const PUBLISH_SECONDS_BUCKETS: u16 = 10;

/// A limit that refused something, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Limit {
    Connections,
    ConnectionsPerAddress,
    Handshakes,
    ControlFrames,
    Memory,
    Shed,
    PublishRate,
    AnswerUntaken,
    FirstBytes,
    SubscriptionsPerConnection,
    Subscriptions,
    Tags,
    Filters,
    RequestBytes,
    ReceivingBytes,
    PayloadBytes,
    Attributes,
    AttributesBytes,
    RequestTimeout,
    Rejections,
    Stalled,
    Keepalive,
    Idle,
    Drain,
    Unauthenticated,
    PermissionDenied,
    Guesses,
}

impl Limit {
    const ALL: [Self; 27] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Handshakes,
        Self::ControlFrames,
        Self::Memory,
        Self::Shed,
        Self::PublishRate,
        Self::AnswerUntaken,
        Self::FirstBytes,
        Self::SubscriptionsPerConnection,
        Self::Subscriptions,
        Self::Tags,
        Self::Filters,
        Self::RequestBytes,
        Self::ReceivingBytes,
        Self::PayloadBytes,
        Self::Attributes,
        Self::AttributesBytes,
        Self::RequestTimeout,
        Self::Rejections,
        Self::Stalled,
        Self::Keepalive,
        Self::Idle,
        Self::Drain,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::Guesses,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Handshakes => "handshakes",
            Self::ControlFrames => "control_frames",
            Self::Memory => "memory",
            Self::Shed => "shed",
            Self::PublishRate => "publish_rate",
            Self::AnswerUntaken => "answer_untaken",
            Self::FirstBytes => "first_bytes",
            Self::SubscriptionsPerConnection => "subscriptions_per_connection",
            Self::Subscriptions => "subscriptions",
            Self::Tags => "tags",
            Self::Filters => "filters",
            Self::RequestBytes => "request_bytes",
            Self::ReceivingBytes => "receiving_bytes",
            Self::PayloadBytes => "payload_bytes",
            Self::Attributes => "attributes",
            Self::AttributesBytes => "attributes_bytes",
            Self::RequestTimeout => "request_timeout",
            Self::Rejections => "rejections",
            Self::Stalled => "stalled",
            Self::Keepalive => "keepalive",
            Self::Idle => "idle",
            Self::Drain => "drain",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::Guesses => "guesses",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The process's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    rejected: Family<LimitLabel, Counter>,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// Connections accepted since the start.
    pub(crate) connections_accepted: Counter,
    /// Requests and streams in progress over HTTP/2.
    pub(crate) streams: Gauge,
    /// From a decoded request to the broker's answer.
    pub(crate) publish_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new(broker: Broker) -> Self {
        let buckets =
            exponential_buckets(PUBLISH_SECONDS_FIRST_BUCKET, 4.0, PUBLISH_SECONDS_BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("fanfare"),
            rejected: Family::default(),
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            streams: Gauge::default(),
            publish_seconds: Histogram::new(buckets),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "rejected",
            "Requests, connections and streams that a limit refused or ended",
            metrics.rejected.clone(),
        );
        registry.register(
            "connections",
            "Open connections",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_accepted",
            "Connections accepted since the start",
            metrics.connections_accepted.clone(),
        );
        registry.register(
            "streams",
            "HTTP/2 requests and streams in progress",
            metrics.streams.clone(),
        );
        registry.register(
            "publish_duration_seconds",
            "Time from a decoded publish request to the broker's answer",
            metrics.publish_seconds.clone(),
        );
        registry.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(BrokerFigures(broker)));
        // There from the start, so that a rate sees the first refusal.
        for limit in Limit::ALL {
            metrics.reject_many(limit, 0);
        }
        metrics
    }

    /// Adds what one part of the program counts for itself.
    pub(crate) fn register(&mut self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry);
    }

    pub(crate) fn reject(&self, limit: Limit) {
        self.reject_many(limit, 1);
    }

    pub(crate) fn reject_many(&self, limit: Limit, count: u64) {
        let label = LimitLabel {
            limit: limit.as_str(),
        };
        self.rejected.get_or_create(&label).inc_by(count);
    }

    /// What was refused or ended, by limit.
    pub(crate) fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = Limit::ALL.into_iter().map(Limit::as_str);
        names.map(|limit| {
            let count = self.rejected.get_or_create(&LimitLabel { limit }).get();
            (limit, count)
        })
    }

    /// All metrics as text of [`CONTENT_TYPE`].
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string does not fail");
        // It may wait for its reader, and has grown in steps.
        out.shrink_to_fit();
        out
    }
}

#[derive(Debug)]
struct BrokerFigures(Broker);

/// A metric's name, its help and its value.
type Figure = (&'static str, &'static str, u64);

fn counters(snapshot: &Snapshot) -> [Figure; 8] {
    [
        (
            "published_messages",
            "Messages accepted from publishers",
            snapshot.published,
        ),
        (
            "published_bytes",
            "Payload bytes accepted from publishers",
            snapshot.published_bytes,
        ),
        (
            "unmatched_messages",
            "Messages accepted that matched no subscription",
            snapshot.unmatched,
        ),
        (
            "matched_messages",
            "Messages times the subscriptions they matched",
            snapshot.ledger.matched,
        ),
        (
            "delivered_messages",
            "Messages handed to a subscriber's connection",
            snapshot.ledger.delivered,
        ),
        (
            "delivered_bytes",
            "Payload bytes handed to subscribers' connections",
            snapshot.ledger.delivered_bytes,
        ),
        (
            "buffered_bytes_refusals",
            "Times that the bound on all mailboxes together left no room for a message",
            snapshot.buffered_bytes_refusals,
        ),
        (
            "replayed_messages",
            "Messages delivered from what topics keep; among the delivered ones, too",
            snapshot.replayed,
        ),
    ]
}

fn gauges(snapshot: &Snapshot) -> [Figure; 10] {
    [
        (
            "buffered_messages",
            "Messages waiting in mailboxes",
            snapshot.ledger.buffered,
        ),
        (
            "buffered_bytes",
            "Bytes waiting in mailboxes, as the limits count them",
            snapshot.buffered_bytes as u64,
        ),
        (
            "memory_bytes",
            "Memory in use by what grows with the load, against the memory budget",
            snapshot.memory_bytes as u64,
        ),
        (
            "mailbox_depth_max",
            "Messages waiting in the fullest mailbox",
            snapshot.mailbox_depth_max,
        ),
        (
            "subscriptions",
            "Live subscriptions",
            snapshot.subscriptions as u64,
        ),
        ("groups", "Live groups", snapshot.groups as u64),
        ("topics", "Topics with state", snapshot.topics as u64),
        (
            "history_messages",
            "Messages kept for replay",
            snapshot.history_messages as u64,
        ),
        (
            "history_bytes",
            "Bytes kept for replay, against the bound on all topics together",
            snapshot.history_bytes as u64,
        ),
        (
            "history_topics",
            "Topics that keep something for replay",
            snapshot.history_topics as u64,
        ),
    ]
}

impl Collector for BrokerFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.0.snapshot();
        for (name, help, value) in counters(&snapshot) {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        for (name, help, value) in gauges(&snapshot) {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let missed = MissReason::ALL.into_iter().zip(snapshot.ledger.missed);
        encode_reasons(
            &mut encoder,
            "missed_messages",
            "Messages that matched a subscription and were lost to it",
            missed.map(|(reason, count)| (reason.as_str(), count)),
        )?;
        let evicted = EvictReason::ALL.into_iter().zip(snapshot.evicted);
        encode_reasons(
            &mut encoder,
            "history_evicted_messages",
            "Messages that were kept for replay and no longer are",
            evicted.map(|(reason, count)| (reason.as_str(), count)),
        )
    }
}

/// A counter for each reason.
fn encode_reasons(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> Result<(), fmt::Error> {
    let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in counts {
        let label = ReasonLabel { reason };
        let metric = counter.encode_family(&label)?;
        ConstCounter::new(count).encode(metric)?;
    }
    Ok(())
}
