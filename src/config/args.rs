//! The command line, as the operator types it who serves.

use std::{net::SocketAddr, path::PathBuf};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use fanfare::{
    broker as limits,
    server::{self as front_door, TlsConfig},
};
use humantime::Duration;

use super::{
    access_args::{AccessArgs, CheckArgs, TokenArgs},
    commands::{BenchArgs, HealthArgs, PubArgs, SubArgs, TopArgs},
    history_args::HistoryArgs,
};

/// A standalone, topic-based gRPC publish/subscribe broker.
///
/// Without a command, serves. Sizes take units (512KiB, 8MiB), and so do times (500ms, 10s, 5m).
#[derive(Debug, Parser)]
#[command(
    name = "broker",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Each option can be set by its environment variable instead; the option wins.\n\
        SIGINT or SIGTERM stops the broker in order, a second one at once. On SIGHUP it looks at its TLS \
        files and its auth file at once."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Pub(PubArgs),
    Sub(SubArgs),
    Health(HealthArgs),
    Top(TopArgs),
    Bench(BenchArgs),
    Token(TokenArgs),
    Check(Box<CheckArgs>),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs")]
pub(crate) struct LogArgs {
    /// How log lines look on stderr
    #[arg(long, env = "BROKER_LOG_FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, also by module (`info,hyper=debug`)
    #[arg(
        long,
        env = "BROKER_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub(crate) log_level: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TraceArgs {
    /// Exports spans to the OpenTelemetry collector at this address, over gRPC in plaintext. OpenTelemetry's own
    /// variables say the rest, such as OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER
    #[cfg(feature = "otlp")]
    #[arg(long, env = "BROKER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A size as a person types it.
pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    let parsed = text.parse();
    parsed.map_err(|_| format!("`{text}` is not a size: write 65536, 64KiB or 1MiB"))
}

/// Shortens the declaration of one limit of the domain.
fn bytes(bytes: usize) -> ByteSize {
    ByteSize::b(bytes as u64)
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, env = "BROKER_LISTEN", value_name = "ADDRESS", default_value_t = front_door::LISTEN)]
    pub(crate) listen: SocketAddr,

    /// How many threads serve connections; 0 takes one for each processor
    #[arg(long, env = "BROKER_THREADS", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1_024))]
    pub(crate) threads: u16,

    /// The broker's certificate, followed by those of intermediate authorities, in PEM: serves over TLS.
    /// The TLS files may be replaced at any time; new connections get the new ones within 5 seconds, or
    /// at once on SIGHUP
    #[arg(
        long,
        env = "BROKER_TLS_CERT",
        value_name = "PATH",
        help_heading = "Security",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(
        long,
        env = "BROKER_TLS_KEY",
        value_name = "PATH",
        help_heading = "Security",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authorities that vouch for clients, in PEM: every client needs a certificate of theirs
    #[arg(
        long,
        env = "BROKER_TLS_CLIENT_CA",
        value_name = "PATH",
        help_heading = "Security",
        requires = "tls_cert"
    )]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Allows plaintext on an address that is not loopback: whoever is on the way can read and change
    /// all that is sent
    #[arg(long, env = "BROKER_INSECURE_PLAINTEXT", help_heading = "Security", value_parser = BoolishValueParser::new())]
    pub(crate) insecure_plaintext: bool,

    /// The largest payload; 16MiB at most
    #[arg(long, env = "BROKER_PAYLOAD_BYTES_MAX", value_name = "SIZE", value_parser = size, help_heading = "Messages", default_value_t = bytes(limits::PAYLOAD_BYTES_MAX))]
    pub(crate) payload_bytes_max: ByteSize,
    /// The most attributes of a message
    #[arg(long, env = "BROKER_ATTRIBUTES_MAX", value_name = "N", help_heading = "Messages", default_value_t = limits::ATTRIBUTES_MAX)]
    pub(crate) attributes_max: usize,
    /// The most bytes of a message's attributes together
    #[arg(long, env = "BROKER_ATTRIBUTES_BYTES_MAX", value_name = "SIZE", value_parser = size, help_heading = "Messages", default_value_t = bytes(limits::ATTRIBUTES_BYTES_MAX))]
    pub(crate) attributes_bytes_max: ByteSize,

    /// A mailbox's bound in messages, where the subscriber asks for none
    #[arg(long, env = "BROKER_MAILBOX_CAPACITY", value_name = "N", help_heading = "Subscriptions", default_value_t = limits::MAILBOX_CAPACITY)]
    pub(crate) mailbox_capacity: usize,
    /// The largest bound in messages that a subscriber is granted
    #[arg(long, env = "BROKER_MAILBOX_CAPACITY_MAX", value_name = "N", help_heading = "Subscriptions", default_value_t = limits::MAILBOX_CAPACITY_MAX)]
    pub(crate) mailbox_capacity_max: usize,
    /// A mailbox's bound in bytes
    #[arg(long, env = "BROKER_MAILBOX_BYTES", value_name = "SIZE", value_parser = size, help_heading = "Subscriptions", default_value_t = bytes(limits::MAILBOX_BYTES))]
    pub(crate) mailbox_bytes: ByteSize,
    /// The most memory for all that grows with the load, in the whole process. Above 80 % of it new
    /// subscriptions are refused, from 95 % on the largest mailboxes are ended
    #[arg(long, env = "BROKER_MEMORY_BUDGET", value_name = "SIZE", value_parser = size, default_value_t = bytes(limits::MEMORY_BUDGET))]
    pub(crate) memory_budget: ByteSize,
    /// The bound in bytes on all mailboxes together, a message counted in each that it waits in
    #[arg(long, env = "BROKER_BUFFERED_BYTES_MAX", value_name = "SIZE", value_parser = size, help_heading = "Subscriptions", default_value_t = bytes(limits::BUFFERED_BYTES_MAX))]
    pub(crate) buffered_bytes_max: ByteSize,
    #[command(flatten)]
    pub(crate) history: HistoryArgs,
    /// The most live subscriptions
    #[arg(long, env = "BROKER_SUBSCRIPTIONS_MAX", value_name = "N", help_heading = "Subscriptions", default_value_t = limits::SUBSCRIPTIONS_MAX)]
    pub(crate) subscriptions_max: usize,
    /// The most live subscriptions on one connection
    #[arg(long, env = "BROKER_SUBSCRIPTIONS_PER_CONNECTION_MAX", value_name = "N", help_heading = "Subscriptions", default_value_t = front_door::SUBSCRIPTIONS_PER_CONNECTION_MAX)]
    pub(crate) subscriptions_per_connection_max: usize,
    /// The most tags that one subscriber may ask for
    #[arg(long, env = "BROKER_TAGS_MAX", value_name = "N", help_heading = "Subscriptions", default_value_t = limits::TAGS_MAX)]
    pub(crate) tags_max: usize,
    /// The most filters that one subscriber may ask for
    #[arg(long, env = "BROKER_FILTERS_MAX", value_name = "N", help_heading = "Subscriptions", default_value_t = limits::FILTERS_MAX)]
    pub(crate) filters_max: usize,
    /// The shortest heartbeat interval that a subscriber may ask for
    #[arg(long, env = "BROKER_HEARTBEAT_INTERVAL_MIN", value_name = "TIME", help_heading = "Subscriptions", default_value_t = Duration::from(*front_door::HEARTBEAT_INTERVAL.start()))]
    pub(crate) heartbeat_interval_min: Duration,
    /// The longest heartbeat interval that a subscriber may ask for
    #[arg(long, env = "BROKER_HEARTBEAT_INTERVAL_MAX", value_name = "TIME", help_heading = "Subscriptions", default_value_t = Duration::from(*front_door::HEARTBEAT_INTERVAL.end()))]
    pub(crate) heartbeat_interval_max: Duration,
    /// After how much silence a stream of server-sent events carries a comment
    #[arg(long, env = "BROKER_SSE_HEARTBEAT_INTERVAL", value_name = "TIME", help_heading = "Subscriptions", default_value_t = Duration::from(front_door::SSE_HEARTBEAT_INTERVAL))]
    pub(crate) sse_heartbeat_interval: Duration,
    /// How long a reader may take nothing while messages wait, before it is ended
    #[arg(long, env = "BROKER_STALL_TIMEOUT", value_name = "TIME", help_heading = "Subscriptions", default_value_t = Duration::from(front_door::STALL_TIMEOUT))]
    pub(crate) stall_timeout: Duration,

    /// The most topics remembered that have no subscriber of their own
    #[arg(long, env = "BROKER_IDLE_TOPICS_MAX", value_name = "N", help_heading = "Topics", default_value_t = limits::IDLE_TOPICS_MAX)]
    pub(crate) idle_topics_max: usize,
    /// How long an unused topic is remembered at least; twice this at most
    #[arg(long, env = "BROKER_TOPIC_IDLE_TIMEOUT", value_name = "TIME", help_heading = "Topics", default_value_t = Duration::from(front_door::TOPIC_IDLE_TIMEOUT))]
    pub(crate) topic_idle_timeout: Duration,

    /// The most open connections
    #[arg(long, env = "BROKER_CONNECTIONS_MAX", value_name = "N", help_heading = "Connections", default_value_t = front_door::CONNECTIONS_MAX)]
    pub(crate) connections_max: usize,
    /// The most open connections from one address; of IPv6, from one network of 64 bits
    #[arg(long, env = "BROKER_CONNECTIONS_PER_ADDRESS_MAX", value_name = "N", help_heading = "Connections", default_value_t = front_door::CONNECTIONS_PER_ADDRESS_MAX)]
    pub(crate) connections_per_address_max: usize,
    /// The most connections that have not said yet which protocol they speak; from one address half of them
    #[arg(long, env = "BROKER_HANDSHAKES_MAX", value_name = "N", help_heading = "Connections", default_value_t = front_door::HANDSHAKES_MAX)]
    pub(crate) handshakes_max: usize,
    /// How many messages a second one connection may publish; 0 does not bound it
    #[arg(
        long,
        env = "BROKER_PUBLISH_RATE_MAX",
        value_name = "N",
        help_heading = "Connections",
        default_value_t = 0
    )]
    pub(crate) publish_rate_max: u32,
    /// How long a new connection may take to say which protocol it speaks, a TLS handshake included
    #[arg(long, env = "BROKER_FIRST_BYTES_TIMEOUT", value_name = "TIME", help_heading = "Connections", default_value_t = Duration::from(front_door::FIRST_BYTES_TIMEOUT))]
    pub(crate) first_bytes_timeout: Duration,
    /// How long a request may take to arrive
    #[arg(long, env = "BROKER_REQUEST_TIMEOUT", value_name = "TIME", help_heading = "Connections", default_value_t = Duration::from(front_door::REQUEST_TIMEOUT))]
    pub(crate) request_timeout: Duration,
    /// The most bytes of requests that have not arrived completely, of all connections together
    #[arg(long, env = "BROKER_RECEIVING_BYTES_MAX", value_name = "SIZE", value_parser = size, help_heading = "Connections", default_value_t = bytes(front_door::RECEIVING_BYTES_MAX))]
    pub(crate) receiving_bytes_max: ByteSize,
    /// How often a silent connection is pinged
    #[arg(long, env = "BROKER_KEEPALIVE_INTERVAL", value_name = "TIME", help_heading = "Connections", default_value_t = Duration::from(front_door::KEEPALIVE_INTERVAL))]
    pub(crate) keepalive_interval: Duration,
    /// How long a ping may go unanswered before the connection is closed
    #[arg(long, env = "BROKER_KEEPALIVE_TIMEOUT", value_name = "TIME", help_heading = "Connections", default_value_t = Duration::from(front_door::KEEPALIVE_TIMEOUT))]
    pub(crate) keepalive_timeout: Duration,
    /// How long a connection may be without a stream; closed within twice this
    #[arg(long, env = "BROKER_IDLE_TIMEOUT", value_name = "TIME", help_heading = "Connections", default_value_t = Duration::from(front_door::IDLE_TIMEOUT))]
    pub(crate) idle_timeout: Duration,

    /// An origin whose web pages may use the broker (`https://example.com`), or `*` for any; may be repeated.
    /// Its own pages always may. In the variable, separated by commas
    #[arg(
        long,
        env = "BROKER_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "Security"
    )]
    pub(crate) cors_origin: Vec<front_door::Origin>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    /// How long to serve on as "not ready" before the drain, for load balancers to notice
    #[arg(long, env = "BROKER_DRAIN_DELAY", value_name = "TIME", help_heading = "Shutdown", default_value_t = Duration::from(front_door::DRAIN_DELAY))]
    pub(crate) drain_delay: Duration,
    /// How long streams and calls have to end before they are dropped
    #[arg(long, env = "BROKER_DRAIN_TIMEOUT", value_name = "TIME", help_heading = "Shutdown", default_value_t = Duration::from(front_door::DRAIN_TIMEOUT))]
    pub(crate) drain_timeout: Duration,
}

impl ServeArgs {
    pub(crate) fn tls(&self) -> Option<TlsConfig> {
        let (cert, key) = self.tls_cert.as_ref().zip(self.tls_key.as_ref())?;
        Some(TlsConfig {
            client_ca: self.tls_client_ca.clone(),
            ..TlsConfig::new(cert, key)
        })
    }
}
