//! The result of a benchmark, for a person or as JSON.

use std::{
    io::{self, Write},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde_json::json;

use crate::config::OutcomeFormat;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) elapsed: Duration,
    pub(super) published: u64,
    pub(super) delivered: u64,
    /// Messages that never arrived, over the whole run.
    pub(super) lost: u64,
    /// Those of them that the broker told.
    pub(super) missed_told: u64,
    pub(super) order_breaks: u64,
    pub(super) server_cpu: Option<Duration>,
    /// What the server's memory grew by when the subscribers came, for each of them.
    pub(super) idle_bytes_per_subscriber: Option<u64>,
    /// In microseconds.
    pub(super) latency: Histogram<u64>,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Report {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64()
    }

    fn cpu_us_per_delivery(&self) -> Option<f64> {
        let cpu = self.server_cpu?;
        (self.delivered > 0).then(|| cpu.as_secs_f64() * 1e6 / self.delivered as f64)
    }
}

pub(super) fn print(report: &Report, format: OutcomeFormat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        OutcomeFormat::Json => writeln!(out, "{}", as_json(report)),
        OutcomeFormat::Text => {
            for (name, value) in rows(report) {
                writeln!(out, "{name:<28} {value:>16}")?;
            }
            Ok(())
        }
    }
}

fn as_json(report: &Report) -> serde_json::Value {
    let latency = QUANTILES.map(|(name, quantile)| {
        let us = report.latency.value_at_quantile(quantile);
        (name.to_owned(), us.into())
    });
    json!({
        "elapsed_s": report.elapsed.as_secs_f64(),
        "published": report.published,
        "published_per_s": report.per_second(report.published),
        "delivered": report.delivered,
        "delivered_per_s": report.per_second(report.delivered),
        "lost": report.lost,
        "missed_told": report.missed_told,
        "order_breaks": report.order_breaks,
        "latency_us": serde_json::Map::from_iter(latency),
        "latency_us_max": report.latency.max(),
        "server_cpu_s": report.server_cpu.map(|cpu| cpu.as_secs_f64()),
        "server_cpu_us_per_delivery": report.cpu_us_per_delivery(),
        "server_idle_bytes_per_subscriber": report.idle_bytes_per_subscriber,
    })
}

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        (
            "published/s",
            format!("{:.0}", report.per_second(report.published)),
        ),
        (
            "delivered/s",
            format!("{:.0}", report.per_second(report.delivered)),
        ),
        ("lost", report.lost.to_string()),
        ("lost and told", report.missed_told.to_string()),
        ("order breaks", report.order_breaks.to_string()),
    ];
    for (name, quantile) in QUANTILES {
        let us = report.latency.value_at_quantile(quantile);
        rows.push((name, format!("{us} us")));
    }
    rows.push(("max", format!("{} us", report.latency.max())));
    if let Some(us) = report.cpu_us_per_delivery() {
        rows.push(("server CPU per delivery", format!("{us:.3} us")));
    }
    if let Some(bytes) = report.idle_bytes_per_subscriber {
        let kb = bytes as f64 / 1e3;
        rows.push(("memory per idle subscriber", format!("{kb:.1} kB")));
    }
    rows
}
