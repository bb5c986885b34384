//! What an operator wants to know, of the requests that this API has accepted.

use std::time::Duration;

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) queued: Gauge,
    pub(crate) tokens: Counter,
    pub(crate) failed: Counter,
    generation: Histogram,
    first_token: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 50 ms to 205 s: above the model's time for an answer.
        let seconds = || Histogram::new(exponential_buckets(0.05, 2.0, 13));
        let mut metrics = Self {
            registry: Registry::with_prefix("chat"),
            queued: Gauge::default(),
            tokens: Counter::default(),
            failed: Counter::default(),
            generation: seconds(),
            first_token: seconds(),
        };
        let registry = &mut metrics.registry;
        let help = "Requests that were accepted and that no dispatcher has claimed yet";
        registry.register("queue_length", help, metrics.queued.clone());
        let help = "Tokens of all responses";
        registry.register("tokens", help, metrics.tokens.clone());
        let help = "Responses that ended with an error";
        registry.register("failed_responses", help, metrics.failed.clone());
        let help = "From the claim of a request to the end of its response";
        registry.register("generation_seconds", help, metrics.generation.clone());
        let help = "From the acceptance of a request to the first token of its response";
        registry.register("first_token_seconds", help, metrics.first_token.clone());
        metrics
    }
}

impl Metrics {
    pub(crate) fn generation(&self, took: Duration) {
        self.generation.observe(took.as_secs_f64());
    }

    pub(crate) fn first_token(&self, took: Duration) {
        self.first_token.observe(took.as_secs_f64());
    }

    /// In the Prometheus text format.
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
