//! What can be meant: values beyond it are typing errors, and would overflow what is computed with them, or
//! refuse everything.

use bytesize::ByteSize;
use humantime::Duration;

use super::ServeArgs;

/// Far above any use, and far below where arithmetic with them could overflow.
pub(super) const SIZE_MAX: ByteSize = ByteSize::tib(1);
pub(super) const COUNT_MAX: usize = 100_000_000;
pub(super) const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 60 * 60);

impl ServeArgs {
    /// Whether every value is one that can be meant.
    pub(crate) fn check_ceilings(&self) -> anyhow::Result<()> {
        let sizes = [
            ("mailbox_bytes", self.mailbox_bytes),
            ("memory_budget", self.memory_budget),
            ("buffered_bytes_max", self.buffered_bytes_max),
            ("receiving_bytes_max", self.receiving_bytes_max),
            ("history_bytes", self.history.history_bytes),
        ];
        for (name, size) in sizes {
            anyhow::ensure!(size <= SIZE_MAX, "{name} of {size} exceeds {SIZE_MAX}");
        }
        let counts = [
            ("mailbox_capacity_max", self.mailbox_capacity_max),
            ("subscriptions_max", self.subscriptions_max),
            (
                "subscriptions_per_connection_max",
                self.subscriptions_per_connection_max,
            ),
            ("tags_max", self.tags_max),
            ("filters_max", self.filters_max),
            ("idle_topics_max", self.idle_topics_max),
            ("connections_max", self.connections_max),
            ("guesses_max", self.access.guesses_max as usize),
            (
                "connections_per_address_max",
                self.connections_per_address_max,
            ),
            ("handshakes_max", self.handshakes_max),
        ];
        for (name, count) in counts {
            anyhow::ensure!(count <= COUNT_MAX, "{name} of {count} exceeds {COUNT_MAX}");
        }
        let times = [
            ("heartbeat_interval_max", self.heartbeat_interval_max),
            ("sse_heartbeat_interval", self.sse_heartbeat_interval),
            ("stall_timeout", self.stall_timeout),
            ("topic_idle_timeout", self.topic_idle_timeout),
            ("first_bytes_timeout", self.first_bytes_timeout),
            ("request_timeout", self.request_timeout),
            ("keepalive_interval", self.keepalive_interval),
            ("keepalive_timeout", self.keepalive_timeout),
            ("idle_timeout", self.idle_timeout),
            ("drain_delay", self.drain_delay),
            ("drain_timeout", self.drain_timeout),
            ("guess_interval", self.access.guess_interval),
        ];
        for (name, time) in times {
            let max = Duration::from(TIME_MAX);
            anyhow::ensure!(*time <= TIME_MAX, "{name} of {time} exceeds {max}");
        }
        Ok(())
    }

    /// Whether nothing is zero that would refuse everything, or run out at once.
    pub(crate) fn check_floors(&self) -> anyhow::Result<()> {
        let positive = [
            ("connections_max", self.connections_max > 0),
            (
                "connections_per_address_max",
                self.connections_per_address_max > 0,
            ),
            ("handshakes_max", self.handshakes_max > 0),
            ("filters_max", self.filters_max > 0),
            (
                "subscriptions_per_connection_max",
                self.subscriptions_per_connection_max > 0,
            ),
            ("first_bytes_timeout", !self.first_bytes_timeout.is_zero()),
            ("keepalive_interval", !self.keepalive_interval.is_zero()),
            ("keepalive_timeout", !self.keepalive_timeout.is_zero()),
            ("idle_timeout", !self.idle_timeout.is_zero()),
            ("request_timeout", !self.request_timeout.is_zero()),
            (
                "sse_heartbeat_interval",
                !self.sse_heartbeat_interval.is_zero(),
            ),
            ("stall_timeout", !self.stall_timeout.is_zero()),
            ("topic_idle_timeout", !self.topic_idle_timeout.is_zero()),
            ("guesses_max", self.access.guesses_max > 0),
            ("guess_interval", !self.access.guess_interval.is_zero()),
        ];
        for (name, is_positive) in positive {
            anyhow::ensure!(is_positive, "{name} is 0: it must be more");
        }
        Ok(())
    }
}
