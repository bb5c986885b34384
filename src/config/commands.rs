//! The command line of the subcommands, which speak to a broker.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use fanfare::client::{ClientOptions, Identity, TlsOptions};
use humantime::Duration;

use super::{args::size, history_args::From};

/// How to reach a broker.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The broker's address
    #[arg(
        long,
        short,
        env = "BROKER_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:1234"
    )]
    pub(crate) server: String,
    /// Authorities that vouch for an https:// broker, in PEM; without it, those that the system trusts
    #[arg(long, env = "BROKER_CLIENT_TLS_CA", value_name = "PATH")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// A certificate to show to a broker that asks, in PEM
    #[arg(
        long,
        env = "BROKER_CLIENT_TLS_CERT",
        value_name = "PATH",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(
        long,
        env = "BROKER_CLIENT_TLS_KEY",
        value_name = "PATH",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// The name in the broker's certificate, if it is not the URL's host
    #[arg(long, env = "BROKER_CLIENT_TLS_SERVER_NAME", value_name = "NAME")]
    pub(crate) tls_server_name: Option<String>,
    /// Says who calls, by the token in this file; or set BROKER_TOKEN to the token itself
    #[arg(long, env = "BROKER_TOKEN_FILE", value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,
}

impl ConnectArgs {
    /// The client's options that these are.
    pub(crate) fn options(&self) -> ClientOptions {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = TlsOptions {
            ca: self.tls_ca.clone(),
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
            server_name: self.tls_server_name.clone(),
        };
        ClientOptions {
            tls: (tls != TlsOptions::default()).then_some(tls),
            ..ClientOptions::default()
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The payload and a line break
    #[default]
    Text,
    /// One JSON object a line, with all that came along
    Json,
    /// The payload, and nothing else
    Raw,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutcomeFormat {
    /// A line for a person, on stderr
    #[default]
    Text,
    /// One JSON object for each message, on stdout
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverflowArg {
    #[default]
    DropNewest,
    DropOldest,
    Disconnect,
}

/// Publishes a message, or one for each line of standard input
///
/// The payload is the argument, a file, or, without either, each line of standard input. What became
/// of the messages goes to stderr, with `--format json` to stdout, a line each.
#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// Where to publish
    pub(crate) topic: String,
    /// The payload
    pub(crate) payload: Option<String>,
    /// Reads the payload from this file
    #[arg(long, short, value_name = "PATH", conflicts_with = "payload")]
    pub(crate) file: Option<PathBuf>,
    /// An attribute that travels along; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) attribute: Vec<String>,
    /// The tag by which subscribers may choose the message
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// The message's key
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// The message's id; without it, the broker chooses one
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// This is the topic's last message, or of several lines the last one is: subscriptions to the topic end
    #[arg(long)]
    pub(crate) end: bool,
    /// How the outcome is shown
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OutcomeFormat,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Prints the messages of a topic or filter as they come
///
/// Payloads go to stdout, everything else to stderr. Reconnects by itself. Exits with 0 after
/// `--count` messages or at the topic's end, with 124 when `--timeout` ran out first, with 130 on Ctrl-C.
#[derive(Debug, Args)]
pub(crate) struct SubArgs {
    /// A topic, or a filter: `*` stands for one token, a final `>` for one or more
    pub(crate) filter: String,
    /// Where to start in what the broker keeps: now, all, last:N, since:TIME (10m, or
    /// 2026-11-20T15:00:00Z), or after the message with this cursor
    #[arg(long, value_name = "START", default_value = "now")]
    pub(crate) from: From,
    /// Exits after this many messages
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Exits with 124 after this time
    #[arg(long, short, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// How messages are printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Shares the work with the other members of this group
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Only messages that carry this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// What happens when this subscriber falls behind
    #[arg(long, value_enum, default_value_t)]
    pub(crate) overflow: OverflowArg,
    /// How many messages may wait at the broker; 0 leaves it to the broker
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) mailbox_capacity: u32,
    /// Asks for a heartbeat after this much silence, to notice a dead connection
    #[arg(long, value_name = "TIME")]
    pub(crate) heartbeat: Option<Duration>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Asks whether a broker is healthy: exits with 0 if it serves, with 1 if not
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Which service to ask for; the broker as a whole, if none is given
    #[arg(default_value = "")]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Shows what a broker does, again and again: rates, losses, memory, topics and subscribers
///
/// Shows the same as the broker's page. Ends on Ctrl-C. Where stdout is no terminal, and with `--once`, it
/// prints one screen without control codes and exits.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Prints one screen, with rates over one interval, and exits
    #[arg(long)]
    pub(crate) once: bool,
    /// How often the screen is refreshed
    #[arg(long, short, value_name = "TIME", default_value = "1s")]
    pub(crate) interval: Duration,
    /// Which topics come first
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sort: TopicSort,
    /// Only topics whose name holds this, and subscribers whose filter, group or address does
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) search: String,
    /// How many topics and subscribers are shown; without it, as many as the terminal has room for, or 20
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::builder::RangedI64ValueParser::<usize>::new().range(0..=1_000))]
    pub(crate) rows: Option<usize>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopicSort {
    /// Those with the most messages a second
    #[default]
    Rate,
    /// By name
    Name,
}

/// Measures a broker: throughput, latency, losses, order, and what it costs the server
///
/// Publishers and subscribers run in this process, each on a connection of its own unless told
/// otherwise, on topics `bench.0` and so on. Publisher number i uses topic i modulo the topics, and so
/// does subscriber i. Without `--rate`, publishers send as fast as they are answered, and wait for
/// subscribers that are a window behind, so that nothing is lost.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How many publishers
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clients())]
    pub(crate) publishers: usize,
    /// How many subscribers
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clients())]
    pub(crate) subscribers: usize,
    /// How many topics
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive())]
    pub(crate) topics: usize,
    /// How many subscriptions share a connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive())]
    pub(crate) subscriptions_per_connection: usize,
    /// The payload's size; 24 bytes at least, which carry time, publisher and position
    #[arg(long, value_name = "SIZE", value_parser = size, default_value_t = ByteSize::b(128))]
    pub(crate) size: ByteSize,
    /// How long to measure, after the warm-up
    #[arg(long, short, value_name = "TIME", default_value = "5s")]
    pub(crate) duration: Duration,
    /// How long to run before measuring
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(crate) warmup: Duration,
    /// Messages a second of all publishers together, sent at even intervals; latency then counts from
    /// the time at which a message was due. Without it, as many as the broker takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: Option<u64>,
    /// How publishers publish
    #[arg(long, value_enum, default_value_t)]
    pub(crate) method: PublishMethod,
    /// How many publish calls of one publisher may be unanswered, with `--method unary`
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive())]
    pub(crate) in_flight: usize,
    /// Where the subscribers start: by way of history, if it is not `now`. On a broker that keeps nothing
    /// yet of these topics
    #[arg(long, value_name = "START", default_value = "now")]
    pub(crate) from: From,
    /// How many messages the subscribers may be behind, each on average, before publishers wait;
    /// not used with `--rate`
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = positive())]
    pub(crate) window: usize,
    /// The broker's process on this machine, to measure its processor time and memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// How the result is shown, on stdout
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: OutcomeFormat,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PublishMethod {
    /// One stream for each publisher
    #[default]
    Stream,
    /// A call for each message
    Unary,
}

/// A count that may be zero, with the same limit as [`positive`].
fn clients() -> clap::builder::RangedI64ValueParser<usize> {
    clap::builder::RangedI64ValueParser::new().range(0..=1_000_000)
}

/// A count of one or more, and not so many that a typing error fills the memory.
fn positive() -> clap::builder::RangedI64ValueParser<usize> {
    clap::builder::RangedI64ValueParser::new().range(1..=1_000_000)
}
