//! The gRPC side of the broker: one file per method, what they share, and the services beside them.
//!
//! Convert, call, convert: a request becomes the domain's types, the domain answers, the answer goes
//! out. Statuses are built in [`status`] alone. The same methods are served under two names: our own,
//! and the one that the reference's clients were compiled with.

mod call;
mod deadline;
mod drain_body;
mod health;
pub(crate) mod lifeline;
mod publish;
mod slots;
mod status;
mod subscribe;
mod translate;

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use axum::{Router, middleware, routing::post};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::drain_body::end_on_drain;
pub(crate) use self::{
    call::Receiving, health::Readiness, slots::SubscriptionSlots, translate::answer_in_grpc,
};
use crate::{
    broker::{Broker, Limits},
    metrics::Metrics,
    wire,
    wire::frame::Form,
};

/// What the methods need to know; shared by all calls.
#[derive(Debug)]
pub(crate) struct PubSub {
    pub(crate) broker: Broker,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) receiving: Receiving,
    /// The heartbeat intervals that a subscriber may ask for.
    pub(crate) heartbeat_interval: RangeInclusive<Duration>,
}

impl PubSub {
    /// The largest request: the largest message, its fields' keys and lengths, and fields unknown
    /// to this version.
    pub(crate) fn request_bytes_max(limits: &Limits) -> usize {
        const FIELDS_BYTES: usize = 64 * 1024;
        limits.payload_bytes_max + limits.attributes_bytes_max.max(FIELDS_BYTES)
    }
}

/// The routes of `PubSubService` under both its names.
pub(crate) fn pubsub_routes(service: Arc<PubSub>) -> Router {
    let path = |service: &str, method: &str| format!("/{service}/{method}");
    Router::new()
        .route(&path(wire::SERVICE, "Publish"), post(publish::publish))
        .route(
            &path(wire::SERVICE, "Subscribe"),
            post(|state, slots, request| subscribe::subscribe(state, slots, request, Form::Full)),
        )
        .route(
            &path(wire::REFERENCE_SERVICE, "Publish"),
            post(publish::publish),
        )
        .route(
            &path(wire::REFERENCE_SERVICE, "Subscribe"),
            post(|state, slots, request| {
                subscribe::subscribe(state, slots, request, Form::PayloadOnly)
            }),
        )
        .with_state(service)
}

/// Health and reflection. Their streams, which would never end by themselves, end on drain.
pub(crate) fn companion_routes(readiness: &Readiness, drain: CancellationToken) -> Router {
    /// Names of services and symbols are short.
    const REQUEST_BYTES_MAX: usize = 64 * 1024;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = reflection()
        .build_v1()
        .expect("the descriptors were compiled by build.rs")
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let v1alpha = reflection()
        .build_v1alpha()
        .expect("the descriptors were compiled by build.rs")
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let health = readiness
        .service()
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    Routes::new(health)
        .add_service(v1)
        .add_service(v1alpha)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(drain, end_on_drain))
}
