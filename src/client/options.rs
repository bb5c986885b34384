//! What an application may choose about its client, each with the default and the reason for it.

use std::time::Duration;

use super::{tls::TlsOptions, token::BearerToken};

/// A broker that takes longer to accept a connection is down, or behind a firewall.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The broker answers at once; what remains is a reconnect, [`CONNECT_TIMEOUT`] long, and a margin.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the 30 seconds and more after which routers forget an idle connection.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Rides out a few lost packets.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// About what a broker needs to restart.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest that an application is away after its broker is back.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest wait that a broker may ask for, so that a wrong answer does not park an application.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The largest message that the client takes: the broker's ceiling for a payload, 16 MiB, and 64 KiB
/// for all else that a message carries.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024 + 64 * 1024;
/// How many messages a publisher may have sent and not been answered: a million a second over a round
/// trip of 1 ms. Fewer than the 1,024 rejections that a broker keeps for a caller, so that not even a
/// burst of nothing but bad messages ends the publisher.
pub const MESSAGES_IN_FLIGHT_MAX: usize = 1_000;
/// The same in bytes, which the client's memory holds: 1 Gbit/s over a round trip of 30 ms.
pub const BYTES_IN_FLIGHT_MAX: usize = 4 * 1024 * 1024;
/// Rejections that a publisher keeps until they are taken. Whoever takes them after each flush, and
/// flushes after so many messages at most, misses none.
pub const REJECTIONS_KEPT_MAX: usize = 10_000;

/// The bounds of a client's waits, and what it does when its connection breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long a connection may take to come about, with its TLS handshake. [`CONNECT_TIMEOUT`] by default.
    pub connect_timeout: Duration,
    /// How long a call may take, a reconnect included; the broker is told. For a subscription, how
    /// long it may take to go live. [`REQUEST_TIMEOUT`] by default.
    pub request_timeout: Duration,
    /// After how much silence the connection is tested, also while nothing is asked of it.
    /// [`KEEPALIVE_INTERVAL`] by default.
    pub keepalive_interval: Duration,
    /// How long the answer to such a test may take before the connection counts as broken.
    /// [`KEEPALIVE_TIMEOUT`] by default.
    pub keepalive_timeout: Duration,
    /// Whether subscriptions come back when their connection breaks. True by default; if false, they
    /// end with the error instead.
    pub reconnect: bool,
    /// How long subscriptions wait before each attempt to come back.
    pub backoff: Backoff,
    /// Says who the client is, with each call. None by default.
    pub bearer_token: Option<BearerToken>,
    /// What is special about the TLS of an `https://` URL; the system's trust decides otherwise. None by
    /// default.
    pub tls: Option<TlsOptions>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            reconnect: true,
            backoff: Backoff::default(),
            bearer_token: None,
            tls: None,
        }
    }
}

/// What a publisher may have sent and not been answered. Past either bound, a send waits; but one message
/// may always go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherOptions {
    /// In messages. [`MESSAGES_IN_FLIGHT_MAX`] by default; more helps where a round trip takes long, but
    /// a broker may then end the publisher if it rejects more than 1,024 messages in a row.
    pub messages_in_flight_max: usize,
    /// In bytes, each message counted by its [`size`](crate::message::Message::size).
    /// [`BYTES_IN_FLIGHT_MAX`] by default.
    pub bytes_in_flight_max: usize,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            messages_in_flight_max: MESSAGES_IN_FLIGHT_MAX,
            bytes_in_flight_max: BYTES_IN_FLIGHT_MAX,
        }
    }
}

/// Exponential backoff with full jitter: each wait is drawn evenly from `min` up to a ceiling, which
/// begins at twice `min` and doubles with every failure in a row until it is `max`.
///
/// If the broker asks for a wait of its own, up to [`RETRY_AFTER_MAX`], the draw comes on top of it.
///
/// The draw spreads out the many clients that lose one broker at the same moment; the floor keeps
/// each of them from hammering it. See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest wait. [`BACKOFF_MIN`] by default.
    pub min: Duration,
    /// The longest wait, if it is not below `min`. [`BACKOFF_MAX`] by default.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            min: BACKOFF_MIN,
            max: BACKOFF_MAX,
        }
    }
}

impl Backoff {
    /// The wait before the next attempt, after so many failures in a row, if the broker `asked` for
    /// this much.
    pub(super) fn delay(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let span = self.ceiling(failures) - self.min;
        let drawn = self.min + span.mul_f64(fastrand::f64());
        asked.unwrap_or_default().min(RETRY_AFTER_MAX) + drawn
    }

    fn ceiling(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.max(1));
        self.min.saturating_mul(factor).min(self.max).max(self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[track_caller]
    fn check(min: u64, max: u64, failures: u32, ceiling: u64) {
        let backoff = Backoff {
            min: ms(min),
            max: ms(max),
        };
        assert_eq!(backoff.ceiling(failures), ms(ceiling));
        for _ in 0..1_000 {
            let delay = backoff.delay(failures, None);
            assert!((ms(min)..=ms(ceiling)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn a_delay_lies_between_the_minimum_and_a_doubling_ceiling() {
        check(100, 5_000, 0, 200);
        check(100, 5_000, 1, 200);
        check(100, 5_000, 2, 400);
        check(100, 5_000, 5, 3_200);
        check(100, 5_000, 6, 5_000);
        check(100, 5_000, u32::MAX, 5_000);
    }

    #[test]
    fn odd_bounds_do_no_harm() {
        check(0, 0, 3, 0);
        check(0, 5_000, 3, 0);
        check(300, 100, 3, 300);
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let delays: Vec<_> = (0..1_000)
            .map(|_| Backoff::default().delay(1, None))
            .collect();
        assert!(delays.iter().any(|delay| *delay < ms(120)));
        assert!(delays.iter().any(|delay| *delay > ms(180)));
    }

    #[test]
    fn what_the_broker_asks_for_comes_first_within_reason() {
        let backoff = Backoff {
            min: ms(100),
            max: ms(100),
        };
        assert_eq!(backoff.delay(1, Some(ms(1_000))), ms(1_100));
        let forever = Some(Duration::MAX);
        assert_eq!(backoff.delay(1, forever), RETRY_AFTER_MAX + ms(100));
    }
}
