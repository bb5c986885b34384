//! What the operator types about what is kept, and what a subscriber types about where to start.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, bail, ensure};
use bytesize::ByteSize;
use clap::Args;
use fanfare::{
    broker::{self as limits, Bounds, HistoryLimits, Retention},
    cursor::StartAt,
};

use super::{
    args::size,
    bounds::{COUNT_MAX, SIZE_MAX, TIME_MAX},
};

#[derive(Debug, Args)]
#[command(next_help_heading = "History")]
pub(crate) struct HistoryArgs {
    /// What is kept for replay: FILTER=off, or FILTER=messages:N,bytes:SIZE,age:TIME, of which what is left
    /// out is 1000, 1MiB and 10m. May be repeated, or separated by `;`; the first rule whose filter matches a
    /// topic decides, and a topic that none matches keeps nothing
    #[arg(
        long,
        env = "BROKER_HISTORY",
        value_name = "RULE",
        value_delimiter = ';',
        value_parser = retention
    )]
    pub(crate) history: Vec<Retention>,
    /// The bound on what all topics keep together; half of the memory budget at most
    #[arg(long, env = "BROKER_HISTORY_BYTES", value_name = "SIZE", value_parser = size, default_value_t = ByteSize::b(limits::HISTORY_BYTES_MAX as u64))]
    pub(crate) history_bytes: ByteSize,
}

impl HistoryArgs {
    pub(super) fn limits(&self) -> HistoryLimits {
        HistoryLimits {
            rules: self.history.clone(),
            bytes_max: self.history_bytes.as_u64() as usize,
        }
    }
}

/// `FILTER=off` or `FILTER=messages:N,bytes:SIZE,age:TIME`. A filter may have a `=` in it, bounds may not.
fn retention(rule: &str) -> anyhow::Result<Retention> {
    let (filter, bounds) = rule.rsplit_once('=').with_context(|| {
        format!("`{rule}` has no `=`: write FILTER=off or FILTER=messages:1000")
    })?;
    Ok(Retention {
        filter: filter.parse()?,
        bounds: match bounds {
            "off" => None,
            bounds => Some(parse_bounds(bounds)?),
        },
    })
}

fn parse_bounds(text: &str) -> anyhow::Result<Bounds> {
    let mut bounds = Bounds::default();
    let mut named = Vec::new();
    for bound in text.split(',') {
        let (name, value) = bound.split_once(':').ok_or_else(|| {
            anyhow!("`{bound}` is no bound: write messages:N, bytes:SIZE or age:TIME")
        })?;
        ensure!(!named.contains(&name), "`{name}` is given twice");
        named.push(name);
        match name {
            "messages" => {
                let messages: usize = value
                    .parse()
                    .map_err(|_| anyhow!("`{value}` is not a number of messages"))?;
                ensure!(
                    messages <= COUNT_MAX,
                    "{messages} messages exceed {COUNT_MAX}"
                );
                bounds.messages = messages;
            }
            "bytes" => {
                let bytes = size(value).map_err(|error| anyhow!(error))?;
                ensure!(bytes <= SIZE_MAX, "{bytes} exceed {SIZE_MAX}");
                bounds.bytes = bytes.as_u64() as usize;
            }
            "age" => {
                let age = humantime::parse_duration(value)
                    .map_err(|_| anyhow!("`{value}` is not a time: write 90s, 10m or 1h"))?;
                let max = humantime::format_duration(TIME_MAX);
                ensure!(age <= TIME_MAX, "an age of {value} exceeds {max}");
                bounds.age = age;
            }
            _ => bail!("`{name}` is no bound: write messages, bytes or age"),
        }
    }
    Ok(bounds)
}

/// Where `broker sub` starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct From(pub(crate) StartAt);

impl FromStr for From {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(Self(match text.split_once(':') {
            None if text == "now" => StartAt::Now,
            None if text == "all" => StartAt::All,
            Some(("last", count)) => StartAt::Last(
                count
                    .parse()
                    .map_err(|_| anyhow!("`{count}` is not a number of messages"))?,
            ),
            Some(("since", time)) => StartAt::Since(since(time)?),
            _ => StartAt::After(text.parse().map_err(|_| {
                anyhow!("`{text}` is no start: write now, all, last:N, since:TIME or a cursor")
            })?),
        }))
    }
}

/// A time of day, or how long ago.
fn since(text: &str) -> anyhow::Result<SystemTime> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago: Duration = ago;
        return SystemTime::now()
            .checked_sub(ago)
            .ok_or_else(|| anyhow!("`{text}` ago is before all times"));
    }
    humantime::parse_rfc3339_weak(text)
        .map_err(|_| anyhow!("`{text}` is no time: write 10m, or 2026-11-20T15:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &str, filter: &str, expected: Option<Bounds>) {
        let retention = retention(rule).unwrap();
        assert_eq!(retention.filter.as_str(), filter);
        assert_eq!(retention.bounds, expected);
    }

    #[track_caller]
    fn check_refused(rule: &str, expected: &str) {
        assert_eq!(retention(rule).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_rule_is_a_filter_and_what_it_keeps() {
        let bounds = Bounds::default();
        check("inference-requests=off", "inference-requests", None);
        check(
            "*=messages:10000,bytes:4MiB,age:10m",
            "*",
            Some(Bounds {
                messages: 10_000,
                bytes: 4 * 1024 * 1024,
                age: Duration::from_secs(600),
            }),
        );
        let age = Duration::from_secs(90);
        check("a=b.>=age:90s", "a=b.>", Some(Bounds { age, ..bounds }));
        let messages = 7;
        check("t=messages:7", "t", Some(Bounds { messages, ..bounds }));
    }

    #[test]
    fn a_rule_that_is_none_is_refused_with_what_to_write() {
        check_refused(
            "t",
            "`t` has no `=`: write FILTER=off or FILTER=messages:1000",
        );
        check_refused(
            "t=10",
            "`10` is no bound: write messages:N, bytes:SIZE or age:TIME",
        );
        check_refused(
            "t=size:10",
            "`size` is no bound: write messages, bytes or age",
        );
        check_refused(
            "t=messages:5,age:1s,messages:6",
            "`messages` is given twice",
        );
        check_refused("t=messages:-1", "`-1` is not a number of messages");
        check_refused("t=age:soon", "`soon` is not a time: write 90s, 10m or 1h");
        check_refused("t=age:1000d", "an age of 1000d exceeds 30days");
        check_refused(".=off", "topic has an empty token at byte 0");
    }

    #[test]
    fn a_start_is_typed_in_one_of_five_ways() {
        #[track_caller]
        fn check(text: &str, expected: StartAt) {
            assert_eq!(text.parse::<From>().unwrap().0, expected);
        }
        check("now", StartAt::Now);
        check("all", StartAt::All);
        check("last:10", StartAt::Last(10));
        check("a-b-c", StartAt::After("a-b-c".parse().unwrap()));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        check("since:2001-09-09T01:46:40Z", StartAt::Since(at));
        let hour = Duration::from_secs(3_600);
        let StartAt::Since(at) = "since:1h".parse::<From>().unwrap().0 else {
            panic!("a time is a time");
        };
        let ago = SystemTime::now().duration_since(at).unwrap();
        assert!(ago >= hour && ago < 2 * hour);
        for text in ["", "then", "last:", "last:x", "since:", "since:soon", "1-2"] {
            assert!(text.parse::<From>().is_err(), "{text}");
        }
    }
}
