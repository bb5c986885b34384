//! What an operator watches about TLS. It is there only where TLS is: an expiry of nothing would be an
//! alarm.

use std::time::SystemTime;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl ResultLabel {
    fn of(is_taken: bool) -> Self {
        let result = if is_taken { "taken" } else { "refused" };
        Self { result }
    }
}

#[derive(Debug, Default)]
pub(super) struct TlsMetrics {
    /// Connections that ended before they were secure, but for those that took too long.
    pub(super) handshake_failures: Counter,
    reloads: Family<ResultLabel, Counter>,
    expiry: Gauge,
}

impl TlsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshake_failures",
            "Connections that did not come to terms on TLS",
            self.handshake_failures.clone(),
        );
        registry.register(
            "tls_reloads",
            "Changes of the TLS files, taken into force or refused",
            self.reloads.clone(),
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in force expires, in seconds since 1970",
            self.expiry.clone(),
        );
        // There from the start, so that a rate sees the first one.
        for is_taken in [true, false] {
            drop(self.reloads.get_or_create(&ResultLabel::of(is_taken)));
        }
    }

    pub(super) fn count_reload(&self, is_taken: bool) {
        self.reloads.get_or_create(&ResultLabel::of(is_taken)).inc();
    }

    pub(super) fn set_expiry(&self, expiry: SystemTime) {
        let since_1970 = expiry.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_1970.map_or(0, |time| time.as_secs());
        self.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
