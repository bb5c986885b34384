//! What `broker top` shows, as lines of text. Names come last in their line, so that no name, however wide,
//! moves a column.
//!
//! What a broker says may be anybody's text. A terminal obeys control characters, and characters that turn
//! the direction of others make one name look like another: both are shown as what they are.

use std::fmt::Write;

use bytesize::ByteSize;
use fanfare::wire::figures::{Stats, Subscriber, SubscriberList, Topic, TopicList};

/// Lines above the topics, and between them and the subscribers.
pub(super) const HEAD_LINES: usize = 11;

/// All that is shown, as of about one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) stats: Stats,
    pub(super) topics: TopicList,
    pub(super) subscribers: SubscriberList,
}

impl Reading {
    /// The screen, with rates since the reading before, if there is one of the same process.
    pub(super) fn screen(&self, url: &str, before: Option<&Self>) -> String {
        let mut screen = self.head(url, before.map(|before| &before.stats));
        let topics = &self.topics;
        let count = shown(topics.topics.len(), topics.found, topics.total);
        let mut line = |text: &str| {
            screen.push_str(text.trim_end());
            screen.push('\n');
        };
        line("");
        line(&format!(
            "{:>9}  {:>11}  {:>12}  {:>8}  TOPIC ({count})",
            "MSG/S", "SUBSCRIBERS", "SEQUENCE", "KEPT"
        ));
        topics.topics.iter().for_each(|row| line(&topic(row)));
        let subscribers = &self.subscribers;
        let count = shown(
            subscribers.subscribers.len(),
            subscribers.found,
            subscribers.total,
        );
        line("");
        line(&format!(
            "{:>17}  {:>10}  {:>12}  {:<11}  {:>6}  {:<15}  FILTERS, GROUP ({count})",
            "WAITING", "MISSED", "DELIVERED", "WHEN FULL", "FOR", "FROM"
        ));
        subscribers
            .subscribers
            .iter()
            .for_each(|row| line(&subscriber(row)));
        screen
    }

    fn head(&self, url: &str, before: Option<&Stats>) -> String {
        let stats = &self.stats;
        let rates = before.and_then(|before| Rates::between(before, stats));
        let per_second = |rate: fn(&Rates) -> f64| match &rates {
            Some(rates) => self::rate(rate(rates)),
            None => "-".to_owned(),
        };
        let volume = |rate: fn(&Rates) -> f64| match &rates {
            Some(rates) => size(rate(rates) as u64),
            None => "-".to_owned(),
        };
        let missed = stats
            .missed_messages
            .iter()
            .filter(|(_, count)| **count > 0);
        let missed: Vec<_> = missed
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let percent =
            100.0 * stats.memory.used_bytes as f64 / stats.memory.budget_bytes.max(1) as f64;
        let resident = stats.process.resident_bytes.map_or("-".to_owned(), size);
        let cpu = match rates.as_ref().and_then(|rates| rates.cpu) {
            Some(cpu) => format!("{:.0} %", 100.0 * cpu),
            None => "-".to_owned(),
        };
        let state = if stats.ready { "" } else { ", stopping" };
        format!(
            "Fanfare {version} at {url}, up {up}{state}\n\n\
             in      {:>9} msg/s  {:>10}/s  {} in all, {} for nobody\n\
             out     {:>9} msg/s  {:>10}/s  {} in all, {} waiting, {} in the fullest mailbox\n\
             missed  {:>9} msg/s  {}\n\
             memory  {} of {} ({percent:.0} %), {resident} resident, processor {cpu}\n\
             {} subscribers in {} groups, {} topics, {} messages kept, {} connections\n",
            per_second(|rates| rates.published),
            volume(|rates| rates.published_bytes),
            stats.published.messages,
            stats.unmatched_messages,
            per_second(|rates| rates.delivered),
            volume(|rates| rates.delivered_bytes),
            stats.delivered.messages,
            stats.waiting.messages,
            stats.waiting.deepest,
            per_second(|rates| rates.missed),
            if missed.is_empty() {
                "none".to_owned()
            } else {
                missed.join(", ")
            },
            size(stats.memory.used_bytes),
            size(stats.memory.budget_bytes),
            stats.subscriptions,
            stats.groups,
            stats.topics,
            stats.history.messages,
            stats.connections,
            version = plain(&stats.version),
            up = time(stats.uptime_s),
        )
    }
}

/// What happened each second between two readings.
struct Rates {
    published: f64,
    published_bytes: f64,
    delivered: f64,
    delivered_bytes: f64,
    missed: f64,
    /// In processors.
    cpu: Option<f64>,
}

impl Rates {
    /// `None` if the broker began anew in between.
    fn between(before: &Stats, now: &Stats) -> Option<Self> {
        let elapsed = now.uptime_s - before.uptime_s;
        let each = |before: u64, now: u64| now.saturating_sub(before) as f64 / elapsed;
        let cpu = before.process.cpu_s.zip(now.process.cpu_s);
        (elapsed > 0.0).then(|| Self {
            published: each(before.published.messages, now.published.messages),
            published_bytes: each(before.published.bytes, now.published.bytes),
            delivered: each(before.delivered.messages, now.delivered.messages),
            delivered_bytes: each(before.delivered.bytes, now.delivered.bytes),
            missed: each(before.missed_total(), now.missed_total()),
            cpu: cpu.map(|(before, now)| (now - before) / elapsed),
        })
    }
}

fn topic(row: &Topic) -> String {
    format!(
        "{:>9}  {:>11}  {:>12}  {:>8}  {}",
        rate(row.per_second),
        row.subscribers,
        plain(&row.sequence),
        row.kept,
        plain(&row.topic)
    )
}

fn subscriber(row: &Subscriber) -> String {
    let mut line = format!(
        "{:>8} of {:>5}  {:>10}  {:>12}  {:<11}  {:>6}  {:<15}  {}",
        row.waiting,
        row.mailbox_capacity,
        row.missed,
        row.delivered,
        plain(&row.overflow),
        row.age_s.map_or(String::new(), time),
        plain(row.peer.as_deref().unwrap_or_default()),
        plain(&row.filters.join(", "))
    );
    if !row.tags.is_empty() {
        write!(line, " [{}]", plain(&row.tags.join(", "))).expect("a string takes all");
    }
    if let Some(group) = &row.group {
        write!(line, ", {}", plain(group)).expect("a string takes all");
    }
    line
}

fn shown(rows: usize, found: u64, total: u64) -> String {
    let mut text = if rows as u64 == found {
        found.to_string()
    } else {
        format!("{rows} of {found}")
    };
    if found < total {
        write!(text, " found among {total}").expect("a string takes all");
    }
    text
}

/// Messages a second; from ten thousand on in thousands, and so on.
fn rate(per_second: f64) -> String {
    match per_second {
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n if n >= 100.0 || n.fract() == 0.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// In the largest unit that makes it one or more.
fn time(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= *unit);
    let (unit, name) = unit.unwrap_or((1.0, "s"));
    format!("{:.0} {name}", (seconds / unit).floor())
}

/// The text with everything escaped that a terminal would obey, or that would turn what stands beside it.
fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) {
            plain.extend(c.escape_unicode());
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use fanfare::wire::figures::{Process, Volume};

    use super::*;

    fn reading(uptime_s: f64, messages: u64) -> Reading {
        let volume = Volume {
            messages,
            bytes: messages * 1_024,
        };
        Reading {
            stats: Stats {
                version: "1.2.3".to_owned(),
                uptime_s,
                ready: true,
                published: volume,
                delivered: volume,
                missed_messages: [
                    ("drop_newest".to_owned(), messages / 2),
                    ("shed".to_owned(), 0),
                ]
                .into(),
                process: Process {
                    resident_bytes: Some(1 << 20),
                    cpu_s: Some(uptime_s / 2.0),
                },
                ..Stats::default()
            },
            topics: TopicList {
                total: 2_000,
                found: 1_000,
                topics: vec![Topic {
                    topic: "evil\u{1b}[2J\u{9b}\u{202e}.日本".to_owned(),
                    sequence: "7".to_owned(),
                    per_second: 12_345.6,
                    ..Topic::default()
                }],
            },
            subscribers: SubscriberList {
                total: 1,
                found: 1,
                subscribers: vec![Subscriber {
                    filters: vec!["a.>".to_owned(), "b".to_owned()],
                    group: Some("g".to_owned()),
                    tags: vec!["red".to_owned()],
                    overflow: "drop_newest".to_owned(),
                    mailbox_capacity: 1_024,
                    waiting: 5,
                    missed: 9,
                    age_s: Some(90.0),
                    ..Subscriber::default()
                }],
            },
        }
    }

    #[test]
    fn a_screen_shows_rates_between_two_readings_of_the_same_process() {
        let screen = reading(20.0, 5_000).screen("http://b:1", Some(&reading(10.0, 1_000)));
        let expected = "\
Fanfare 1.2.3 at http://b:1, up 20 s

in            400 msg/s   400.0 KiB/s  5000 in all, 0 for nobody
out           400 msg/s   400.0 KiB/s  5000 in all, 0 waiting, 0 in the fullest mailbox
missed        200 msg/s  drop_newest 2500
memory  0 B of 0 B (0 %), 1.0 MiB resident, processor 50 %
0 subscribers in 0 groups, 0 topics, 0 messages kept, 0 connections

    MSG/S  SUBSCRIBERS      SEQUENCE      KEPT  TOPIC (1 of 1000 found among 2000)
    12.3k            0             7         0  evil\\u{1b}[2J\\u{9b}\\u{202e}.日本

          WAITING      MISSED     DELIVERED  WHEN FULL       FOR  FROM             FILTERS, GROUP (1)
       5 of  1024           9             0  drop_newest   1 min                   a.>, b [red], g
";
        assert_eq!(screen, expected);
        assert_eq!(HEAD_LINES, screen.lines().count() - 2, "what is not a row");
        let anew = reading(1.0, 10).screen("http://b:1", Some(&reading(10.0, 1_000)));
        assert!(
            anew.contains("in              - msg/s           -/s  10 in all"),
            "{anew}"
        );
    }

    #[test]
    fn a_screen_holds_nothing_that_a_terminal_obeys() {
        let screen = reading(20.0, 5_000).screen("http://b:1", None);
        let obeyed = |c: char| c != '\n' && c.is_control();
        assert!(!screen.contains(obeyed), "{screen:?}");
    }
}
