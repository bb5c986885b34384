//! What the publishers and subscribers of a run share: who has what, what went wrong, and when to stop.
//!
//! All runs on one thread, so that the counts need no lock.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{sync::Notify, time::Instant};

use crate::{interrupt, load::Shape};

/// How long the last messages may take to arrive once nothing more is published.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
const SETTLE_STEP: Duration = Duration::from_millis(2);
/// How often a failure is looked for.
pub(crate) const STEP: Duration = Duration::from_millis(20);
/// Latencies are kept from 1 us to a minute, to three digits.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What a topic's publisher and subscribers share.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) published: Cell<u64>,
    /// The newest position that each subscriber has.
    pub(crate) positions: Vec<Cell<u64>>,
    /// The subscriber that the publisher waits for.
    pub(crate) awaited: Cell<Option<usize>>,
    pub(crate) progress: Notify,
}

impl Topic {
    pub(crate) fn slowest(&self) -> (usize, u64) {
        let positions = self.positions.iter().map(Cell::get).enumerate();
        positions
            .min_by_key(|(_, position)| *position)
            .unwrap_or((0, self.published.get()))
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) topics: Vec<Topic>,
    pub(crate) window: u64,
    pub(crate) delivered: Cell<u64>,
    pub(crate) lost: Cell<u64>,
    pub(crate) order_breaks: Cell<u64>,
    pub(crate) stopping: Cell<bool>,
    failed: RefCell<Option<anyhow::Error>>,
    pub(crate) epoch: Instant,
    /// Messages that were due before are not recorded.
    pub(crate) record_from_ns: Cell<u64>,
    pub(crate) latency: RefCell<Histogram<u64>>,
}

impl Shared {
    pub(crate) fn new(shape: Shape, window: u64) -> anyhow::Result<Self> {
        let topic = |_| Topic {
            published: Cell::new(0),
            positions: vec![Cell::new(0); shape.subscribers_per_topic],
            awaited: Cell::new(None),
            progress: Notify::new(),
        };
        Ok(Self {
            topics: (0..shape.topics).map(topic).collect(),
            window,
            delivered: Cell::new(0),
            lost: Cell::new(0),
            order_breaks: Cell::new(0),
            stopping: Cell::new(false),
            failed: RefCell::new(None),
            epoch: Instant::now(),
            record_from_ns: Cell::new(u64::MAX),
            latency: RefCell::new(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?),
        })
    }

    pub(crate) fn fail_on<T>(&self, result: anyhow::Result<T>) {
        if let Err(error) = result {
            self.failed.borrow_mut().get_or_insert(error);
        }
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        interrupt::check()?;
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Waits while watching for failures.
    pub(crate) async fn wait(&self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::sleep(STEP.min(until - Instant::now())).await;
            self.check()?;
        }
        Ok(())
    }

    /// Waits until every subscriber has every message; returns how many are missing at the end of what
    /// each has.
    pub(crate) async fn settle(&self) -> anyhow::Result<u64> {
        let until = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let missing = self.topics.iter().map(|topic| {
                let published = topic.published.get();
                let behind = |position: &Cell<u64>| published.saturating_sub(position.get());
                topic.positions.iter().map(behind).sum::<u64>()
            });
            let missing = missing.sum();
            // What was skipped may come late.
            let is_settled = missing == 0 && self.lost.get() == 0;
            if is_settled || Instant::now() > until {
                return Ok(missing);
            }
            self.wait(SETTLE_STEP).await?;
        }
    }
}
