//! The publishers and subscribers of a benchmark.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use fanfare::wire::pb::{
    SubscribeRequest, SubscribeResponse, pub_sub_service_client::PubSubServiceClient,
};
use fanfare::{client::Authorized, cursor::StartAt};
use hdrhistogram::Histogram;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{
    pacer::Pacer,
    payload::Stamp,
    sender::Sender,
    tally::{Counts, Tally},
};
use crate::config::{BenchArgs, PublishMethod};

/// What a subscriber asks for: more than its share of any window, so that a lossless run is one.
const MAILBOX_CAPACITY: u32 = 65_536;
/// Latencies are kept from 1 us to a minute, to three digits.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The state that all publishers and subscribers share.
#[derive(Debug)]
pub(super) struct Load {
    started: Instant,
    topics: usize,
    subscribers: usize,
    method: PublishMethod,
    in_flight: usize,
    window: usize,
    start: StartAt,
    /// By publisher.
    published: Tally,
    /// Deliveries that the messages published so far should lead to.
    expected: AtomicU64,
    /// By subscriber.
    received: Tally,
    progress: Notify,
    recording: AtomicBool,
    failed: AtomicBool,
    stop_publishing: CancellationToken,
    stop_receiving: CancellationToken,
}

/// What one subscriber, or all together, received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) messages: u64,
    /// Losses that the broker told.
    pub(super) missed: u64,
    /// Messages that came after a later one of the same publisher.
    pub(super) order_breaks: u64,
    /// In microseconds.
    pub(super) latency: Histogram<u64>,
}

impl Default for Received {
    fn default() -> Self {
        Self {
            messages: 0,
            missed: 0,
            order_breaks: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("the bounds are constant and valid"),
        }
    }
}

impl Received {
    pub(super) fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        self.missed += other.missed;
        self.order_breaks += other.order_breaks;
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
    }
}

impl Load {
    pub(super) fn new(args: &BenchArgs) -> Self {
        Self {
            started: Instant::now(),
            topics: args.topics,
            subscribers: args.subscribers,
            method: args.method,
            in_flight: args.in_flight,
            window: args.window,
            start: args.from.0,
            published: Tally::new(args.publishers),
            expected: AtomicU64::new(0),
            received: Tally::new(args.subscribers),
            progress: Notify::new(),
            recording: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            stop_publishing: CancellationToken::new(),
            stop_receiving: CancellationToken::new(),
        }
    }

    /// What each publisher has sent, and each subscriber received.
    pub(super) fn counts(&self) -> (Counts, Counts) {
        (self.published.counts(), self.received.counts())
    }

    /// What all subscribers have received.
    pub(super) fn received(&self) -> u64 {
        self.received.total()
    }

    /// From now on, latencies count.
    pub(super) fn start_recording(&self) {
        self.recording.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The clock of `rate` messages a second, which ends when publishing does.
    pub(super) fn pacer(&self, rate: u64) -> Arc<Pacer> {
        let publishers = self.published.clients();
        Pacer::start(rate, publishers, self.stop_publishing.clone())
    }

    pub(super) fn stop_publishing(&self) {
        self.stop_publishing.cancel();
    }

    pub(super) fn stop_receiving(&self) {
        self.stop_receiving.cancel();
    }

    /// Waits until all that is expected has arrived, or the patience is over.
    pub(super) async fn settle(&self, expected: u64, patience: Duration) {
        let settled = async {
            loop {
                let progress = self.progress.notified();
                if self.received() >= expected {
                    return;
                }
                progress.await;
            }
        };
        // What has not arrived by then counts as lost.
        drop(tokio::time::timeout(patience, settled).await);
    }

    fn topic(&self, index: usize) -> usize {
        index % self.topics
    }

    pub(super) async fn subscribe(
        &self,
        channel: Authorized,
        index: usize,
    ) -> anyhow::Result<Streaming<SubscribeResponse>> {
        let request = SubscribeRequest {
            topic: format!("bench.{}", self.topic(index)),
            mailbox_capacity: MAILBOX_CAPACITY,
            start_at: self.start.into(),
            ..Default::default()
        };
        let mut client = PubSubServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let response = client.subscribe(request).await;
        Ok(response.context("cannot subscribe")?.into_inner())
    }

    pub(super) async fn receive(
        self: Arc<Self>,
        mut stream: Streaming<SubscribeResponse>,
        index: usize,
    ) -> anyhow::Result<Received> {
        let mut received = Received::default();
        let mut positions = HashMap::new();
        loop {
            let response = tokio::select! {
                biased;
                response = stream.message() => response,
                () = self.stop_receiving.cancelled() => return Ok(received),
            };
            let response = self.noting(response.context("a subscription ended"))?;
            let response = self.noting(response.context("a subscription ended early"))?;
            received.missed += response.missed;
            let Some(stamp) = Stamp::read(&response.payload) else {
                continue;
            };
            received.messages += 1;
            let last = positions.insert(stamp.publisher, stamp.position);
            if last.is_some_and(|last| last > stamp.position) {
                received.order_breaks += 1;
            }
            if self.recording.load(Ordering::Relaxed) {
                let us = self.now_ns().saturating_sub(stamp.due_ns) / 1_000;
                received.latency.saturating_record(us);
            }
            self.received.add(index);
            self.progress.notify_waiters();
        }
    }

    /// Publishes until told to stop; returns how many deliveries that should lead to.
    pub(super) async fn publish(
        self: Arc<Self>,
        channel: Authorized,
        index: usize,
        size: usize,
        pacer: Option<Arc<Pacer>>,
    ) -> anyhow::Result<u64> {
        let client = PubSubServiceClient::new(channel);
        let mut sender = match self.method {
            PublishMethod::Unary => Sender::Unary {
                client,
                calls: JoinSet::new(),
                in_flight: self.in_flight,
            },
            PublishMethod::Stream => Sender::open_stream(client),
        };
        let topic = self.topic(index);
        let readers = (topic..self.subscribers).step_by(self.topics).count() as u64;
        let mut position = 0;
        while let Some(due_ns) = self.until_due(pacer.as_deref(), index, position).await {
            position += 1;
            let stamp = Stamp {
                due_ns,
                publisher: index as u64,
                position,
            };
            self.published.add(index);
            self.expected.fetch_add(readers, Ordering::Relaxed);
            let topic = format!("bench.{topic}");
            self.noting(sender.send(topic, stamp.payload(size)).await)?;
        }
        self.noting(sender.finish().await)?;
        Ok(position * readers)
    }

    /// Waits until the publisher's next message, after as many, may be sent; returns when it was due, or
    /// `None` once no more is to be.
    async fn until_due(&self, pacer: Option<&Pacer>, publisher: usize, sent: u64) -> Option<u64> {
        if self.stop_publishing.is_cancelled() {
            return None;
        }
        if let Some(pacer) = pacer {
            return tokio::select! {
                due = pacer.turn(publisher, sent) => Some((due - self.started).as_nanos() as u64),
                () = self.stop_publishing.cancelled() => None,
            };
        }
        let behind_max = (self.window * self.subscribers.max(1)) as u64;
        loop {
            let progress = self.progress.notified();
            let received = self.received();
            let expected = self.expected.load(Ordering::Relaxed);
            if expected.saturating_sub(received) < behind_max {
                return Some(self.now_ns());
            }
            tokio::select! {
                () = progress => {}
                () = self.stop_publishing.cancelled() => return None,
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Lets the benchmark end early when something has failed.
    fn noting<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
            self.stop_publishing.cancel();
        }
        result
    }
}
