//! Logs: structured, on stderr, without payloads, and coloured only for a person. With the feature `otlp`,
//! spans for a collector as well.

#[cfg(feature = "otlp")]
mod otlp;

use std::{
    io::{self, IsTerminal},
    panic,
};

use anyhow::anyhow;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::{LogArgs, LogFormat, TraceArgs};

/// What is to be done once nothing more is logged.
#[derive(Debug)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otlp")]
    exporter: Option<otlp::Exporter>,
}

impl Telemetry {
    /// Passes on what has not left yet, for a bounded time.
    pub(crate) fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.finish();
        }
    }
}

/// Whether [`init`] would take these.
#[cfg_attr(
    not(feature = "otlp"),
    expect(unused_variables, reason = "nobody asks for traces then")
)]
pub(crate) fn check(log: &LogArgs, trace: &TraceArgs) -> anyhow::Result<()> {
    #[cfg(feature = "otlp")]
    trace.otlp_endpoint.as_deref().map_or(Ok(()), otlp::check)?;
    filter(log).map(drop)
}

fn filter(log: &LogArgs) -> anyhow::Result<EnvFilter> {
    // What the error says, its cause says again.
    EnvFilter::try_new(&log.log_level)
        .map_err(|error| anyhow!("--log-level `{}` is not valid: {error}", log.log_level))
}

/// Starts logging and tracing, and makes panics part of the log.
#[cfg_attr(
    not(feature = "otlp"),
    expect(unused_variables, reason = "nobody asks for traces then")
)]
pub(crate) fn init(log: &LogArgs, trace: &TraceArgs) -> anyhow::Result<Telemetry> {
    let filter = filter(log)?;
    // NO_COLOR is honoured by its convention: set and not empty.
    let colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(colour);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.log_format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines);
    #[cfg(feature = "otlp")]
    let (subscriber, telemetry) = {
        let exporter = trace.otlp_endpoint.as_deref().map(otlp::Exporter::new);
        let exporter = exporter.transpose()?;
        let spans = exporter.as_ref().map(otlp::Exporter::layer);
        (subscriber.with(spans), Telemetry { exporter })
    };
    #[cfg(not(feature = "otlp"))]
    let telemetry = Telemetry {};
    subscriber.init();
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        tracing::error!(message, location, "panic: this is a defect in the broker");
    }));
    Ok(telemetry)
}
