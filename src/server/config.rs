//! What the front door needs to know, each limit with its default and the reason for it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    time::Duration,
};

use super::tls::TlsConfig;
use crate::http::Origin;

/// The reference's address: its clients, compiled years ago, find the broker where they expect it.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1234);
/// What one process serves comfortably, and within the usual limit on file descriptors once raised.
pub const CONNECTIONS_MAX: usize = 10_000;
/// A quarter of all: one address cannot shut out the others, and many clients behind one gateway fit.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 2_500;
/// Connections that have not said yet what they want: a restart's storm of clients passes in
/// milliseconds, so that so many at a time mean silent ones.
pub const HANDSHAKES_MAX: usize = 512;
/// Many subscriptions share a connection cheaply; more than this want a second one.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 256;
/// Room for other calls beside as many subscriptions as a connection may hold, so that the limit on
/// subscriptions is answered with a status and not with silence.
pub const OTHER_STREAMS_PER_CONNECTION: usize = 64;
/// A client that has connected has something to say; a round trip around the world takes 0.3 s.
pub const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);
/// Together with the timeout, a peer that is gone is noticed within 30 s, and middleboxes that forget
/// silent connections after a minute are kept awake.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long a ping may go unanswered.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a stream costs memory for nothing; clients reconnect by themselves.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// A 1 MiB payload at 35 kB/s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// 256 MiB: as many of the largest requests by default, each arriving slowly.
pub const RECEIVING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longer than a garbage collection, shorter than an operator's patience.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the 30 s that Kubernetes gives between SIGTERM and SIGKILL.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// No wait between "not ready" and the drain: there is a load balancer only where one is set up.
pub const DRAIN_DELAY: Duration = Duration::ZERO;
/// The shortest heartbeat: below it, heartbeats are traffic. The longest: above it, middleboxes have
/// forgotten the connection.
pub const HEARTBEAT_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(60);
/// Half of the minute after which middleboxes forget a silent connection, and once more for those that lose
/// packets; the HTML standard's own advice.
pub const SSE_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// A subscriber that comes back within this can tell from epoch and sequence what it missed.
pub const TOPIC_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How often one more is taken from then on.
pub use crate::auth::GUESS_INTERVAL;
/// How many wrong credentials in a row are taken from one address.
pub use crate::auth::GUESSES_MAX;

/// Request headers together; gRPC metadata is commonly held to 8 KiB.
pub(super) const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// What a connection takes without a stream: as measured, rounded up.
pub(super) const CONNECTION_BYTES: usize = 6 * 1024;
/// How often the broker looks whether memory runs short: what comes in meanwhile at a gigabyte a second is
/// what lies between the marks of the default budget.
pub(super) const RELIEF_INTERVAL: Duration = Duration::from_millis(100);
/// The same once it does.
pub(super) const RELIEF_INTERVAL_SHORT: Duration = Duration::from_millis(5);
/// What a peer may send on one stream before it is read: HTTP/2's own default.
pub(super) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
// A peer keeps to the default until it has seen the settings that say otherwise.
const _: () = assert!(STREAM_WINDOW_BYTES >= 65_535);
/// What a peer may send on all streams of a connection before it is read.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// The stall clock's steps: a stalled reader is ended within its timeout and one step.
pub(super) const STALL_TICKS: u32 = 10;
/// How exact the age of what is kept for replay is.
pub(super) const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the front door needs to know.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Serves over TLS. Plaintext otherwise, as by default.
    pub tls: Option<TlsConfig>,
    /// Allows plaintext on an address that is not loopback, where others can read and change all that is
    /// sent. False by default.
    pub insecure_plaintext: bool,
    /// The most open connections; further ones are closed at once.
    pub connections_max: usize,
    /// The most open connections from one address; of IPv6, from one network of 64 bits.
    pub connections_per_address_max: usize,
    /// The most connections that have not said yet what they want; further ones are closed at once. From
    /// one address half of them.
    pub handshakes_max: usize,
    /// How many messages a second one connection may publish, if that is bounded.
    pub publish_rate_max: Option<NonZeroU32>,
    /// The most subscriptions on one connection.
    pub subscriptions_per_connection_max: usize,
    /// How long a new connection may take to say which protocol it speaks, a TLS handshake included, and
    /// HTTP/1.1 to send its headers.
    pub first_bytes_timeout: Duration,
    /// How often a silent connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a ping may go unanswered before the connection is closed.
    pub keepalive_timeout: Duration,
    /// How long a connection may be without a stream; it is closed within twice this.
    pub idle_timeout: Duration,
    /// How long a request may take to arrive.
    pub request_timeout: Duration,
    /// The most bytes of requests that have not arrived completely, of all connections together.
    pub receiving_bytes_max: usize,
    /// How long a reader may take nothing while messages wait.
    pub stall_timeout: Duration,
    /// How long streams and calls have to end on shutdown.
    pub drain_timeout: Duration,
    /// How long the broker is not ready, but serves, before it drains: for load balancers to notice.
    pub drain_delay: Duration,
    /// The heartbeat intervals that a subscriber may ask for.
    pub heartbeat_interval: RangeInclusive<Duration>,
    /// After how much silence a stream of server-sent events carries a comment.
    pub sse_heartbeat_interval: Duration,
    /// Whose web pages may use the broker beside those that come from its own address. None by default.
    pub cors_origins: Vec<Origin>,
    /// How long an unused topic is remembered at least; it is forgotten within twice this.
    pub topic_idle_timeout: Duration,
    /// How many wrong credentials in a row are taken from one address.
    pub guesses_max: u32,
    /// How often one more is taken from then on.
    pub guess_interval: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: LISTEN,
            tls: None,
            insecure_plaintext: false,
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            handshakes_max: HANDSHAKES_MAX,
            publish_rate_max: None,
            subscriptions_per_connection_max: SUBSCRIPTIONS_PER_CONNECTION_MAX,
            first_bytes_timeout: FIRST_BYTES_TIMEOUT,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            receiving_bytes_max: RECEIVING_BYTES_MAX,
            stall_timeout: STALL_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            drain_delay: DRAIN_DELAY,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            sse_heartbeat_interval: SSE_HEARTBEAT_INTERVAL,
            cors_origins: Vec::new(),
            topic_idle_timeout: TOPIC_IDLE_TIMEOUT,
            guesses_max: GUESSES_MAX,
            guess_interval: GUESS_INTERVAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stalls_or_is_gone_leaves_within_the_time_promised() {
        let stalled = STALL_TIMEOUT + STALL_TIMEOUT / STALL_TICKS;
        assert!(stalled <= Duration::from_secs(11));
        let half_open = KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT;
        assert!(half_open <= Duration::from_secs(35));
    }
}
