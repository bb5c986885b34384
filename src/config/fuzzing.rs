//! What fuzzers call with a command line. `fuzz/` includes this configuration; the tests here replay the
//! corpus.

#![allow(dead_code, reason = "only the tests and the fuzz target call it")]

use std::time::Duration;

use bytesize::ByteSize;
use clap::Parser;

use super::{Cli, Config, args::size};

/// Far more than any command line of a broker has.
const ARGS_MAX: usize = 24;
/// What the options are bound to, whichever is asked for.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const BYTES_MAX: usize = 1 << 40;
const COUNT_MAX: usize = 100_000_000;

/// Each line is an argument.
pub(crate) fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let args: Vec<&str> = text.lines().take(ARGS_MAX).collect();
    args.iter().for_each(|arg| check_units(arg));
    let Ok(cli) = Cli::try_parse_from(std::iter::once("broker").chain(args)) else {
        return;
    };
    if let Ok(config) = Config::try_from(cli.serve) {
        check(&config);
    }
}

/// What is printed of a size or time is one, and the same or nearly.
fn check_units(text: &str) {
    let number = text.split_once('=').map_or(text, |(_, value)| value);
    if let Ok(size) = size(number) {
        let again: ByteSize = format!("{}B", size.as_u64()).parse().expect("it is a size");
        // A size may come by way of a fraction.
        let difference = again.as_u64().abs_diff(size.as_u64());
        assert!(
            difference <= size.as_u64() >> 50,
            "{number}: {size:?} {again:?}"
        );
    }
    if let Ok(time) = number.parse::<humantime::Duration>() {
        let again: humantime::Duration = time.to_string().parse().expect("it is a time");
        assert_eq!(*time, *again, "{number}");
    }
}

/// Nothing that is taken would overflow, or refuse everything.
fn check(config: &Config) {
    let server = &config.server;
    for time in [
        server.first_bytes_timeout,
        server.keepalive_interval,
        server.keepalive_timeout,
        server.idle_timeout,
        server.request_timeout,
        server.stall_timeout,
        server.topic_idle_timeout,
        server.guess_interval,
    ] {
        assert!(time > Duration::ZERO && time <= TIME_MAX, "{config:?}");
    }
    for time in [server.drain_timeout, server.drain_delay] {
        assert!(time <= TIME_MAX, "{config:?}");
    }
    assert!(!server.heartbeat_interval.is_empty() && *server.heartbeat_interval.end() <= TIME_MAX);
    for count in [
        server.connections_max,
        server.connections_per_address_max,
        server.handshakes_max,
        server.subscriptions_per_connection_max,
    ] {
        assert!((1..=COUNT_MAX).contains(&count), "{config:?}");
    }
    let limits = &config.limits;
    limits.check().expect("they were checked");
    for bytes in [
        limits.payload_bytes_max,
        limits.mailbox_bytes,
        limits.memory_budget,
        limits.buffered_bytes_max,
        server.receiving_bytes_max,
    ] {
        assert!(bytes <= BYTES_MAX, "{config:?}");
    }
    assert!(server.receiving_bytes_max >= limits.message_bytes_max());
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn what_fuzzers_have_found_stays_mended() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/settings");
        let mut count = 0;
        for file in fs::read_dir(Path::new(corpus)).unwrap() {
            let path = file.unwrap().path();
            let data = fs::read(&path).unwrap();
            let replayed = std::panic::catch_unwind(|| settings(&data));
            assert!(replayed.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count > 0, "there is no corpus");
    }
}
