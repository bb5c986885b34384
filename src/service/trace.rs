//! Spans: a message's way through the broker, for those who follow it through several programs.
//!
//! A publisher that is traced says so in W3C's `traceparent`, as an attribute of its message or in the headers
//! of its call. The attributes travel to subscribers as they came, whether or not anybody looks at them here;
//! with the feature `otlp`, the broker's own span becomes a child of the publisher's. On a stream, only the
//! messages of traced publishers have spans of their own. Where nobody listens to spans, they cost a load.
//!
//! Names of spans are few, as backends want them; topics, of which there are many, are attributes.

use std::fmt::Display;

use http::HeaderMap;
use tracing::{Level, Span, field::Empty};

use crate::{
    broker::{Filters, Receipt},
    message::{Attributes, MessageRef},
    topic::TopicFilter,
};

/// What the spans say they come from, by which listeners choose them.
pub const SPANS: &str = "fanfare::spans";

/// Whether anybody listens.
fn is_on() -> bool {
    tracing::span_enabled!(target: SPANS, Level::DEBUG)
}

/// Publishes, in a span if anybody listens. `call` is the parent of a call that is for this message alone;
/// what the message says of itself is nearer to it.
pub(crate) fn publish<E: Display>(
    call: Option<Parent>,
    message: &MessageRef<'_>,
    publish: impl FnOnce() -> Result<Receipt, E>,
) -> Result<Receipt, E> {
    if !is_on() {
        return publish();
    }
    let is_on_stream = call.is_none();
    let parent = Parent::of_message(message.attributes).or(call);
    if is_on_stream && !parent.is_sampled() {
        return publish();
    }
    let span = tracing::debug_span!(
        target: SPANS,
        "publish",
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        messaging.system = "fanfare",
        messaging.operation.name = "publish",
        messaging.operation.type = "send",
        messaging.destination.name = %message.topic,
        messaging.message.body.size = message.payload.len() as i64,
        messaging.message.id = Empty,
        fanfare.matched = Empty,
        fanfare.delivered = Empty,
        fanfare.dropped = Empty,
    );
    parent.adopt(&span);
    let published = span.in_scope(publish);
    match &published {
        Ok(receipt) => {
            span.record("messaging.message.id", &*receipt.id());
            // OpenTelemetry's numbers are signed; others would become text.
            span.record("fanfare.matched", i64::from(receipt.matched));
            span.record("fanfare.delivered", i64::from(receipt.delivered));
            span.record("fanfare.dropped", i64::from(receipt.dropped));
        }
        Err(error) => fail(&span, error),
    }
    published
}

/// Subscribes, in a span if anybody listens: it ends when the subscription is live.
pub(crate) fn subscribe<T, E: Display>(
    call: &Parent,
    filters: &Filters,
    subscribe: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if !is_on() {
        return subscribe();
    }
    let span = tracing::debug_span!(
        target: SPANS,
        "subscribe",
        otel.kind = "server",
        otel.status_code = Empty,
        otel.status_description = Empty,
        messaging.system = "fanfare",
        messaging.operation.name = "subscribe",
        messaging.destination.template = %list(filters),
    );
    call.adopt(&span);
    let subscribed = span.in_scope(subscribe);
    if let Err(error) = &subscribed {
        fail(&span, error);
    }
    subscribed
}

fn list(filters: &Filters) -> String {
    let filters: Vec<_> = filters.as_slice().iter().map(TopicFilter::as_str).collect();
    filters.join(",")
}

fn fail(span: &Span, error: &impl Display) {
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", tracing::field::display(error));
}

#[cfg(feature = "otlp")]
pub(crate) use self::otlp::Parent;
#[cfg(not(feature = "otlp"))]
pub(crate) use self::plain::Parent;

/// Without an exporter, nobody's child.
#[cfg(not(feature = "otlp"))]
mod plain {
    use super::{Attributes, HeaderMap, Span};

    /// The span that a caller was in.
    #[derive(Debug, Default)]
    pub(crate) struct Parent;

    impl Parent {
        pub(crate) fn of_call(_: &HeaderMap) -> Self {
            Self
        }

        pub(super) fn of_message(_: &Attributes) -> Self {
            Self
        }

        pub(super) fn or(self, _: Option<Self>) -> Self {
            self
        }

        pub(super) fn is_sampled(&self) -> bool {
            false
        }

        pub(super) fn adopt(&self, _: &Span) {}
    }
}

#[cfg(feature = "otlp")]
mod otlp {
    use opentelemetry::{
        Context,
        propagation::{Extractor, TextMapPropagator},
        trace::TraceContextExt,
    };
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    use super::{Attributes, HeaderMap, Span, is_on};

    /// The span that a caller was in, if it said so.
    #[derive(Debug, Default)]
    pub(crate) struct Parent(Option<Context>);

    impl Parent {
        /// Looks for it only if anybody listens.
        pub(crate) fn of_call(headers: &HeaderMap) -> Self {
            if is_on() {
                Self::of(&InHeaders(headers))
            } else {
                Self(None)
            }
        }

        pub(super) fn of_message(attributes: &Attributes) -> Self {
            Self::of(&InAttributes(attributes))
        }

        fn of(carrier: &dyn Extractor) -> Self {
            let context =
                TraceContextPropagator::new().extract_with_context(&Context::new(), carrier);
            let is_valid = context.span().span_context().is_valid();
            Self(is_valid.then_some(context))
        }

        pub(super) fn or(self, other: Option<Self>) -> Self {
            Self(self.0.or_else(|| other?.0))
        }

        pub(super) fn is_sampled(&self) -> bool {
            let context = self.0.as_ref();
            context.is_some_and(|context| context.span().span_context().is_sampled())
        }

        pub(super) fn adopt(&self, span: &Span) {
            if let Some(context) = &self.0 {
                // It fails where no layer exports spans: then there is nothing to do.
                drop(span.set_parent(context.clone()));
            }
        }
    }

    struct InAttributes<'a>(&'a Attributes);

    impl Extractor for InAttributes<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            let mut attributes = self.0.iter();
            attributes.find_map(|(name, value)| (name == key).then_some(value))
        }

        fn keys(&self) -> Vec<&str> {
            self.0.iter().map(|(name, _)| name).collect()
        }
    }

    struct InHeaders<'h>(&'h HeaderMap);

    impl Extractor for InHeaders<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
}
