//! The result of a benchmark: a table as other brokers' benchmarks print one, or JSON.

use std::{
    fmt::{self, Display},
    io::{self, Write},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde_json::json;

use super::tally::{Counts, Rates};
use crate::config::OutcomeFormat;

/// As many publishers or subscribers have a line of their own in the table.
const CLIENTS_LISTED_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) elapsed: Duration,
    pub(super) payload_bytes: usize,
    /// Messages a second that were to be published, where the rate is fixed.
    pub(super) wanted_per_s: Option<u64>,
    /// By publisher, and by subscriber.
    pub(super) published: Counts,
    pub(super) delivered: Counts,
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

const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

impl Report {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64()
    }

    fn megabytes_per_second(&self, count: u64) -> f64 {
        self.per_second(count) * self.payload_bytes as f64 / 1e6
    }

    /// `None` where nothing was delivered.
    fn latency_us(&self) -> Option<[(&'static str, u64); 5]> {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        let latency = QUANTILES.map(|(name, quantile)| (name, at(quantile)));
        (!self.latency.is_empty()).then_some(latency)
    }

    fn cpu_us_per_delivery(&self) -> Option<f64> {
        let cpu = self.server_cpu?;
        let delivered = self.delivered.total();
        (delivered > 0).then(|| cpu.as_secs_f64() * 1e6 / delivered as f64)
    }
}

pub(super) fn print(report: &Report, format: OutcomeFormat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        OutcomeFormat::Json => writeln!(out, "{}", as_json(report)),
        OutcomeFormat::Text => write!(out, "{report}"),
    }
}

fn as_json(report: &Report) -> serde_json::Value {
    let latency = report.latency_us().map(|latency| {
        let latency = latency.map(|(name, us)| (name.to_owned(), us.into()));
        serde_json::Map::from_iter(latency)
    });
    let rates = |counts: &Counts| {
        let rates = counts.rates(report.elapsed)?;
        Some(json!({
            "min": rates.min,
            "mean": rates.mean,
            "max": rates.max,
            "stddev": rates.stddev,
        }))
    };
    let (published, delivered) = (report.published.total(), report.delivered.total());
    json!({
        "elapsed_s": report.elapsed.as_secs_f64(),
        "payload_bytes": report.payload_bytes,
        "wanted_per_s": report.wanted_per_s,
        "published": published,
        "published_per_s": report.per_second(published),
        "published_mb_per_s": report.megabytes_per_second(published),
        "published_per_s_and_publisher": rates(&report.published),
        "delivered": delivered,
        "delivered_per_s": report.per_second(delivered),
        "delivered_mb_per_s": report.megabytes_per_second(delivered),
        "delivered_per_s_and_subscriber": rates(&report.delivered),
        "lost": report.lost,
        "missed_told": report.missed_told,
        "order_breaks": report.order_breaks,
        "latency_us": latency,
        "server_cpu_s": report.server_cpu.map(|cpu| cpu.as_secs_f64()),
        "server_cpu_us_per_delivery": report.cpu_us_per_delivery(),
        "server_idle_bytes_per_subscriber": report.idle_bytes_per_subscriber,
    })
}

/// The table.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.published.total() + self.delivered.total();
        writeln!(f, "Pub/Sub stats: {}", self.throughput(all))?;
        if let Some(wanted) = self.wanted_per_s {
            let (wanted, reached) = (grouped(wanted as f64), self.published.total());
            let reached = grouped(self.per_second(reached));
            writeln!(f, " Rate: {wanted} msgs/sec wanted, {reached} reached")?;
        }
        self.clients(f, "Pub", &self.published)?;
        self.clients(f, "Sub", &self.delivered)?;
        if let Some(latency) = self.latency_us() {
            let cells = latency.map(|(name, us)| format!("{name} {} us", grouped(us as f64)));
            writeln!(f, "Latency: {}", cells.join(" | "))?;
        }
        let (lost, told) = (grouped(self.lost as f64), grouped(self.missed_told as f64));
        let order_breaks = grouped(self.order_breaks as f64);
        writeln!(
            f,
            "Lost: {lost} msgs, told {told} | order breaks {order_breaks}"
        )?;
        if let Some(cpu) = self.server_cpu {
            let share = cpu.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0;
            write!(f, "Server CPU: {share:.0} % of a core")?;
            if let Some(us) = self.cpu_us_per_delivery() {
                write!(f, " | {us:.3} us per delivery")?;
            }
            writeln!(f)?;
        }
        if let Some(bytes) = self.idle_bytes_per_subscriber {
            let kb = bytes as f64 / 1e3;
            writeln!(
                f,
                "Server memory: {kb:.1} kB more for each subscriber that came"
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn throughput(&self, count: u64) -> String {
        let (rate, megabytes) = (self.per_second(count), self.megabytes_per_second(count));
        format!("{} msgs/sec ~ {megabytes:.2} MB/sec", grouped(rate))
    }

    fn clients(&self, f: &mut fmt::Formatter<'_>, name: &str, counts: &Counts) -> fmt::Result {
        writeln!(f, " {name} stats: {}", self.throughput(counts.total()))?;
        let clients = counts.0.len();
        if clients < 2 {
            return Ok(());
        }
        let listed = (1..)
            .zip(&counts.0)
            .filter(|_| clients <= CLIENTS_LISTED_MAX);
        for (number, count) in listed {
            let (throughput, count) = (self.throughput(*count), grouped(*count as f64));
            writeln!(f, "  [{number}] {throughput} ({count} msgs)")?;
        }
        match counts.rates(self.elapsed) {
            Some(rates) => writeln!(f, "  {rates} msgs/sec, {clients} clients"),
            None => Ok(()),
        }
    }
}

impl Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, mean, max, stddev] = [self.min, self.mean, self.max, self.stddev].map(grouped);
        write!(f, "min {min} | avg {mean} | max {max} | stddev {stddev}")
    }
}

/// A whole number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(published: &[u64], delivered: &[u64]) -> Report {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        latency.record(1_500).unwrap();
        Report {
            elapsed: Duration::from_secs(2),
            payload_bytes: 500,
            wanted_per_s: None,
            published: Counts(published.to_vec()),
            delivered: Counts(delivered.to_vec()),
            lost: 3,
            missed_told: 2,
            order_breaks: 1,
            server_cpu: Some(Duration::from_secs(1)),
            idle_bytes_per_subscriber: Some(21_400),
            latency,
        }
    }

    #[test]
    fn the_table_tells_all_and_each() {
        let table = report(&[4_000_000], &[3_000_000, 1_000_000]).to_string();
        let expected = "\
Pub/Sub stats: 4,000,000 msgs/sec ~ 2000.00 MB/sec
 Pub stats: 2,000,000 msgs/sec ~ 1000.00 MB/sec
 Sub stats: 2,000,000 msgs/sec ~ 1000.00 MB/sec
  [1] 1,500,000 msgs/sec ~ 750.00 MB/sec (3,000,000 msgs)
  [2] 500,000 msgs/sec ~ 250.00 MB/sec (1,000,000 msgs)
  min 500,000 | avg 1,000,000 | max 1,500,000 | stddev 500,000 msgs/sec, 2 clients
Latency: p50 1,500 us | p90 1,500 us | p99 1,500 us | p99.9 1,500 us | max 1,500 us
Lost: 3 msgs, told 2 | order breaks 1
Server CPU: 50 % of a core | 0.250 us per delivery
Server memory: 21.4 kB more for each subscriber that came
";
        assert_eq!(table, expected);
    }

    #[test]
    fn many_clients_are_summed_up() {
        let table = report(&[1], &[2; CLIENTS_LISTED_MAX + 1]).to_string();
        assert!(!table.contains("[1]"), "{table}");
        assert!(table.contains("stddev 0 msgs/sec, 11 clients"), "{table}");
    }

    #[test]
    fn no_latency_is_told_of_nothing() {
        let mut report = report(&[100], &[]);
        report.latency.reset();
        report.wanted_per_s = Some(1_000);
        assert!(as_json(&report)["latency_us"].is_null());
        let table = report.to_string();
        assert!(!table.contains("Latency"), "{table}");
        assert!(
            table.contains(" Rate: 1,000 msgs/sec wanted, 50 reached\n"),
            "{table}"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        let shown = [0.0, 999.4, 1_000.0, 123_456.0, 1_234_567.0].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }
}
