//! Spans on their way to an OpenTelemetry collector.
//!
//! They leave in batches, on threads of their own: a collector that is slow or away costs spans, which it is
//! told in the log, and never delays a call. What waits is bounded by the exporter.

use std::time::Duration;

use anyhow::{Context, ensure};
use fanfare::server::SPANS;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracerProvider, Tracer},
};
use tokio::runtime::Runtime;
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// How long a broker that ends waits for its last spans to leave.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);

/// What exports spans, until it is told to finish.
#[derive(Debug)]
pub(crate) struct Exporter {
    provider: SdkTracerProvider,
    /// Drives the connection to the collector.
    runtime: Runtime,
}

/// Whether it may be a collector's address.
pub(super) fn check(endpoint: &str) -> anyhow::Result<()> {
    ensure!(
        endpoint.starts_with("http://"),
        "--otlp-endpoint `{endpoint}` is not http://HOST:PORT: send spans to a collector nearby, in \
         plaintext, and let it pass them on"
    );
    Ok(())
}

impl Exporter {
    pub(super) fn new(endpoint: &str) -> anyhow::Result<Self> {
        check(endpoint)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .context("cannot start a thread for traces")?;
        let entered = runtime.enter();
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("cannot export spans to {endpoint}"))?;
        drop(entered);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider, runtime })
    }

    /// Hands spans of the broker's calls to the exporter, and nothing else.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
    {
        let tracer: Tracer = self.provider.tracer("fanfare");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            // Where in our sources a span begins is of no use to who reads traces.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_level(false)
            .with_filter(Targets::new().with_target(SPANS, tracing::Level::DEBUG))
    }

    pub(super) fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FINISH_TIMEOUT) {
            tracing::warn!(%error, "the last spans may not have left");
        }
        self.runtime.shutdown_background();
    }
}

/// Who the spans are of: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say it, or else we do.
fn resource() -> Resource {
    let says_itself = std::env::var_os("OTEL_SERVICE_NAME").is_some()
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let resource = Resource::builder().with_attribute(opentelemetry::KeyValue::new(
        "service.version",
        env!("CARGO_PKG_VERSION"),
    ));
    if says_itself {
        resource.build()
    } else {
        resource.with_service_name("fanfare").build()
    }
}
