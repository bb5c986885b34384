//! From what the operator typed to what the program needs.
//!
//! A flag wins over its environment variable, that over the default; all are in `--help`.

mod access_args;
mod args;
mod bounds;
mod commands;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod history_args;

use std::{num::NonZeroU32, ops::RangeInclusive, path::PathBuf};

use anyhow::ensure;
use fanfare::{broker::Limits, server::ServerConfig};

pub(crate) use self::{
    access_args::{CheckArgs, TokenArgs},
    args::{Cli, Command, LogArgs, LogFormat, ServeArgs, TraceArgs},
    commands::{
        BenchArgs, ConnectArgs, Format, HealthArgs, OutcomeFormat, OverflowArg, PubArgs,
        PublishMethod, SubArgs, TopArgs, TopicSort,
    },
};

/// What serving needs.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) limits: Limits,
    pub(crate) server: ServerConfig,
    pub(crate) auth_file: Option<PathBuf>,
}

impl TryFrom<ServeArgs> for Config {
    type Error = anyhow::Error;

    fn try_from(args: ServeArgs) -> anyhow::Result<Self> {
        let heartbeat_interval: RangeInclusive<_> =
            *args.heartbeat_interval_min..=*args.heartbeat_interval_max;
        ensure!(
            !heartbeat_interval.is_empty(),
            "heartbeat_interval_min of {} exceeds heartbeat_interval_max of {}",
            args.heartbeat_interval_min,
            args.heartbeat_interval_max,
        );
        args.check_ceilings()?;
        args.check_floors()?;
        let limits = Limits {
            payload_bytes_max: args.payload_bytes_max.as_u64() as usize,
            attributes_max: args.attributes_max,
            attributes_bytes_max: args.attributes_bytes_max.as_u64() as usize,
            mailbox_capacity: args.mailbox_capacity,
            mailbox_capacity_max: args.mailbox_capacity_max,
            mailbox_bytes: args.mailbox_bytes.as_u64() as usize,
            memory_budget: args.memory_budget.as_u64() as usize,
            buffered_bytes_max: args.buffered_bytes_max.as_u64() as usize,
            subscriptions_max: args.subscriptions_max,
            idle_topics_max: args.idle_topics_max,
            tags_max: args.tags_max,
            filters_max: args.filters_max,
            history: args.history.limits(),
        };
        limits.check()?;
        let request_bytes = limits.message_bytes_max() as u64;
        ensure!(
            args.receiving_bytes_max.as_u64() >= request_bytes,
            "receiving_bytes_max of {} is below {request_bytes}, the size of the largest message \
             allowed",
            args.receiving_bytes_max.as_u64(),
        );
        let tls = args.tls();
        Ok(Self {
            limits,
            server: ServerConfig {
                listen: args.listen,
                tls,
                insecure_plaintext: args.insecure_plaintext,
                connections_max: args.connections_max,
                connections_per_address_max: args.connections_per_address_max,
                handshakes_max: args.handshakes_max,
                publish_rate_max: NonZeroU32::new(args.publish_rate_max),
                subscriptions_per_connection_max: args.subscriptions_per_connection_max,
                first_bytes_timeout: *args.first_bytes_timeout,
                keepalive_interval: *args.keepalive_interval,
                keepalive_timeout: *args.keepalive_timeout,
                idle_timeout: *args.idle_timeout,
                request_timeout: *args.request_timeout,
                receiving_bytes_max: args.receiving_bytes_max.as_u64() as usize,
                stall_timeout: *args.stall_timeout,
                drain_timeout: *args.drain_timeout,
                drain_delay: *args.drain_delay,
                heartbeat_interval,
                sse_heartbeat_interval: *args.sse_heartbeat_interval,
                cors_origins: args.cors_origin,
                topic_idle_timeout: *args.topic_idle_timeout,
                guesses_max: args.access.guesses_max,
                guess_interval: *args.access.guess_interval,
            },
            auth_file: args.access.auth_file,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn config(args: &[&str]) -> anyhow::Result<Config> {
        let cli = Cli::parse_from([&["broker"], args].concat());
        Config::try_from(cli.serve)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_the_defaults_of_the_library_hold() {
        let config = config(&[]).unwrap();
        assert_eq!(config.limits, Limits::default());
        let (ours, theirs) = (config.server, ServerConfig::default());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }

    #[test]
    fn every_limit_has_a_flag_and_an_environment_variable() {
        let command = Cli::command();
        for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
            let Some(flag) = arg.get_long().filter(|flag| *flag != "version") else {
                continue;
            };
            let variable = format!("BROKER_{}", flag.to_uppercase().replace('-', "_"));
            let env = arg.get_env().and_then(|env| env.to_str());
            assert_eq!(env, Some(variable.as_str()), "--{flag}");
        }
    }

    #[test]
    fn limits_that_do_not_fit_together_are_refused() {
        let refusal = |args: &[&str]| config(args).unwrap_err().to_string();
        assert_eq!(
            refusal(&["--payload-bytes-max", "17MiB"]),
            "payload_bytes_max of 17825792 exceeds the ceiling of 16777216"
        );
        assert_eq!(
            refusal(&["--stall-timeout", "0s"]),
            "stall_timeout is 0: it must be more"
        );
        assert_eq!(
            refusal(&["--heartbeat-interval-min", "2m"]),
            "heartbeat_interval_min of 2m exceeds heartbeat_interval_max of 1m"
        );
    }
}
