//! What is seen of the broker as time goes by, and whether it is as it should be.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{Seen, broker::Broker};

/// What memory may still grow by after the first third of the time.
const GROWTH_MAX_KIB_PER_HOUR: f64 = 1_024.0;
/// Memory is judged from a run of this length on: a shorter one has not filled its tables yet.
const JUDGED_FROM: Duration = Duration::from_secs(20 * 60);
/// How often a line is printed, in looks.
const LINE_EVERY: usize = 12;

/// What was seen, and whether it is as it should be.
type Check = (String, bool);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    rss_kib: u64,
}

#[derive(Debug)]
pub(crate) struct Watch {
    started: Instant,
    baseline_descriptors: usize,
    baseline_tasks: u64,
    samples: Vec<Sample>,
    looks: usize,
    /// Looks at which the accounts did not balance.
    unbalanced: usize,
    end: HashMap<String, u64>,
    end_descriptors: usize,
}

fn figure(metrics: &HashMap<String, u64>, name: &str) -> u64 {
    let name = format!("fanfare_{name}");
    metrics.get(&name).copied().unwrap_or_default()
}

/// What the accounts are off by: matched = delivered + missed + buffered, at every moment.
fn difference(metrics: &HashMap<String, u64>) -> i128 {
    let sum = |name| i128::from(figure(metrics, name));
    sum("matched_messages_total")
        - sum("delivered_messages_total")
        - sum("missed_messages_total")
        - sum("buffered_messages")
}

impl Watch {
    pub(crate) async fn new(broker: &Broker) -> anyhow::Result<Self> {
        // The first answer may have made what stays.
        broker.metrics().await?;
        let baseline_tasks = figure(&broker.metrics().await?, "tasks");
        Ok(Self {
            started: Instant::now(),
            baseline_descriptors: broker.resources()?.0,
            baseline_tasks,
            samples: Vec::new(),
            looks: 0,
            unbalanced: 0,
            end: HashMap::new(),
            end_descriptors: 0,
        })
    }

    pub(crate) async fn look(&mut self, broker: &Broker, seen: &Seen) -> anyhow::Result<()> {
        let metrics = broker.metrics().await?;
        let (descriptors, rss_kib) = broker.resources()?;
        let at = self.started.elapsed();
        self.samples.push(Sample { at, rss_kib });
        self.unbalanced += usize::from(difference(&metrics) != 0);
        if self.looks.is_multiple_of(LINE_EVERY) {
            eprintln!(
                "{:>6} s  {rss_kib:>7} KiB  {descriptors:>5} descriptors  {:>4} subscriptions  \
                 {:>9} published  {:>10} delivered  {:>10} missed  off by {}  {} guests",
                at.as_secs(),
                figure(&metrics, "subscriptions"),
                figure(&metrics, "published_messages_total"),
                figure(&metrics, "delivered_messages_total"),
                figure(&metrics, "missed_messages_total"),
                difference(&metrics),
                seen.guests.load(Ordering::Relaxed),
            );
        }
        self.looks += 1;
        Ok(())
    }

    /// Waits until nothing is left of the guests.
    pub(crate) async fn settle(
        &mut self,
        broker: &Broker,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        loop {
            self.end = broker.metrics().await?;
            self.end_descriptors = broker.resources()?.0;
            let rest = figure(&self.end, "subscriptions") + figure(&self.end, "streams");
            let is_settled = rest == 0
                && self.end_descriptors <= self.baseline_descriptors
                && figure(&self.end, "tasks") <= self.baseline_tasks;
            if is_settled || Instant::now() > until {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Prints what was seen; whether all is as it should be.
    pub(crate) fn report(&self, seen: &Seen) -> bool {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let end = |name| figure(&self.end, name);
        println!(
            "published {}, delivered {}, missed {}; guests received {} and were told of {}",
            end("published_messages_total"),
            end("delivered_messages_total"),
            end("missed_messages_total"),
            load(&seen.received),
            load(&seen.missed),
        );
        let checks = self.accounts(seen).into_iter().chain(self.leftovers());
        let checks: Vec<Check> = checks.chain([self.memory()]).collect();
        for (what, holds) in &checks {
            println!("{}  {what}", if *holds { "ok    " } else { "FAILED" });
        }
        if self.started.elapsed() < JUDGED_FROM {
            println!("        (memory is judged in a run of 20 minutes or more)");
        }
        checks.iter().all(|(_, holds)| *holds)
    }

    fn accounts(&self, seen: &Seen) -> [Check; 5] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let off_by = difference(&self.end);
        let none = |what: &str, counter| {
            let count = load(counter);
            (format!("{what}: {count}"), count == 0)
        };
        let refused = (
            format!(
                "guests refused: {} of {}",
                load(&seen.refused),
                load(&seen.guests)
            ),
            load(&seen.refused) == 0,
        );
        [
            (
                format!(
                    "accounts out of balance at {} of {} looks",
                    self.unbalanced, self.looks
                ),
                self.unbalanced == 0 && self.looks > 0,
            ),
            (format!("accounts at the end: off by {off_by}"), off_by == 0),
            none("messages out of order", &seen.out_of_order),
            none("publishers that failed", &seen.publishers_failed),
            refused,
        ]
    }

    fn leftovers(&self) -> [Check; 3] {
        let end = |name| figure(&self.end, name);
        let [subscriptions, streams, messages, bytes] = [
            "subscriptions",
            "streams",
            "buffered_messages",
            "buffered_bytes",
        ]
        .map(end);
        [
            (
                format!(
                    "left at the end: {subscriptions} subscriptions, {streams} streams, {messages} messages, \
                     {bytes} bytes in mailboxes"
                ),
                subscriptions + streams + bytes == 0,
            ),
            (
                format!(
                    "descriptors: {} at the end, {} at the start",
                    self.end_descriptors, self.baseline_descriptors
                ),
                self.end_descriptors <= self.baseline_descriptors,
            ),
            (
                format!(
                    "tasks: {} at the end, {} at the start",
                    end("tasks"),
                    self.baseline_tasks
                ),
                (1..=self.baseline_tasks).contains(&end("tasks")),
            ),
        ]
    }

    fn memory(&self) -> Check {
        let is_judged = self.started.elapsed() >= JUDGED_FROM;
        let (growth, error) = self.growth_kib_per_hour();
        (
            format!(
                "memory after the first third: {growth:+.0} KiB an hour, give or take {error:.0}"
            ),
            !is_judged || growth < GROWTH_MAX_KIB_PER_HOUR,
        )
    }

    /// The slope of a line through the samples after the first third, by least squares, and its standard error.
    /// That takes the samples for independent of each other, which they are not quite.
    fn growth_kib_per_hour(&self) -> (f64, f64) {
        let from = self
            .samples
            .last()
            .map_or(Duration::ZERO, |last| last.at / 3);
        let late: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter(|sample| sample.at >= from)
            .map(|sample| (sample.at.as_secs_f64() / 3_600.0, sample.rss_kib as f64))
            .collect();
        let count = late.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| late.iter().map(of).sum::<f64>() / count;
        let (mean_at, mean_rss) = (mean(|(at, _)| *at), mean(|(_, rss)| *rss));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            late.iter()
                .map(|(at, rss)| of(at - mean_at, rss - mean_rss))
                .sum()
        };
        let spread = sum(&|at, _| at * at);
        if spread == 0.0 || count < 3.0 {
            return (0.0, 0.0);
        }
        let slope = sum(&|at, rss| at * rss) / spread;
        let rest = sum(&|at, rss| (rss - slope * at).powi(2));
        (slope, (rest / (count - 2.0) / spread).sqrt())
    }
}
