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
use fanfare::client::Authorized;
use fanfare::wire::pb::{
    SubscribeRequest, SubscribeResponse, pub_sub_service_client::PubSubServiceClient,
};
use hdrhistogram::Histogram;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{payload::Stamp, sender::Sender};
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
    publishers: usize,
    rate: Option<u64>,
    method: PublishMethod,
    in_flight: usize,
    window: usize,
    published: AtomicU64,
    /// Deliveries that the messages published so far should lead to.
    expected: AtomicU64,
    received: AtomicU64,
    progress: Notify,
    recording: AtomicBool,
    failed: AtomicBool,
    stop_publishing: CancellationToken,
    stop_receiving: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) published: u64,
    pub(super) received: u64,
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
            publishers: args.publishers,
            rate: args.rate,
            method: args.method,
            in_flight: args.in_flight,
            window: args.window,
            published: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            received: AtomicU64::new(0),
            progress: Notify::new(),
            recording: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            stop_publishing: CancellationToken::new(),
            stop_receiving: CancellationToken::new(),
        }
    }

    pub(super) fn count(&self) -> Count {
        Count {
            published: self.published.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }

    /// From now on, latencies count.
    pub(super) fn start_recording(&self) {
        self.recording.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
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
                if self.received.load(Ordering::Relaxed) >= expected {
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
            ..Default::default()
        };
        let mut client = PubSubServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let response = client.subscribe(request).await;
        Ok(response.context("cannot subscribe")?.into_inner())
    }

    pub(super) async fn receive(
        self: Arc<Self>,
        mut stream: Streaming<SubscribeResponse>,
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
            self.received.fetch_add(1, Ordering::Relaxed);
            self.progress.notify_waiters();
        }
    }

    /// Publishes until told to stop; returns how many deliveries that should lead to.
    pub(super) async fn publish(
        self: Arc<Self>,
        channel: Authorized,
        index: usize,
        size: usize,
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
        let mut pace = self.pace(index);
        let mut position = 0;
        while !self.stop_publishing.is_cancelled() {
            let due_ns = self.until_due(&mut pace).await;
            position += 1;
            let stamp = Stamp {
                due_ns,
                publisher: index as u64,
                position,
            };
            self.published.fetch_add(1, Ordering::Relaxed);
            self.expected.fetch_add(readers, Ordering::Relaxed);
            let topic = format!("bench.{topic}");
            self.noting(sender.send(topic, stamp.payload(size)).await)?;
        }
        self.noting(sender.finish().await)?;
        Ok(position * readers)
    }

    /// Waits until the next message may be sent; returns when it was due.
    async fn until_due(&self, pace: &mut Option<Pace>) -> u64 {
        if let Some(pace) = pace {
            let due = pace.next();
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.stop_publishing.cancelled() => {}
            }
            return (due - self.started).as_nanos() as u64;
        }
        let behind_max = (self.window * self.subscribers.max(1)) as u64;
        loop {
            let progress = self.progress.notified();
            let received = self.received.load(Ordering::Relaxed);
            let expected = self.expected.load(Ordering::Relaxed);
            if expected.saturating_sub(received) < behind_max {
                return self.now_ns();
            }
            tokio::select! {
                () = progress => {}
                () = self.stop_publishing.cancelled() => return self.now_ns(),
            }
        }
    }

    /// Publishers take turns, so that messages of all together leave at even intervals.
    fn pace(&self, index: usize) -> Option<Pace> {
        let every = Duration::from_secs(1).div_f64(self.rate? as f64);
        Some(Pace {
            next: Instant::now() + every * index as u32,
            interval: every * self.publishers as u32,
        })
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

#[derive(Debug)]
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    fn next(&mut self) -> Instant {
        let due = self.next;
        self.next += self.interval;
        due
    }
}
