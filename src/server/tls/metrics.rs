//! What an operator watches about TLS. It is there only where TLS is: an expiry of nothing would be an
//! alarm.

use std::time::SystemTime;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::reloads::Reloads;

#[derive(Debug, Default)]
pub(super) struct TlsMetrics {
    /// Connections that ended before they were secure, but for those that took too long.
    pub(super) handshake_failures: Counter,
    pub(super) reloads: Reloads,
    expiry: Gauge,
}

impl TlsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshake_failures",
            "Connections that did not come to terms on TLS",
            self.handshake_failures.clone(),
        );
        self.reloads.register(
            registry,
            "tls_reloads",
            "Changes of the TLS files, taken into force or refused",
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the first certificate of the chain in force expires, in seconds since 1970",
            self.expiry.clone(),
        );
    }

    pub(super) fn set_expiry(&self, expiry: SystemTime) {
        let since_1970 = expiry.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_1970.map_or(0, |time| time.as_secs());
        self.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
