//! All that is served on the one port, and the layers around it.

use std::{
    any::Any,
    sync::{Arc, atomic::AtomicUsize},
};

use axum::{Router, body::Body, extract::Request, middleware};
use http::{Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tower_http::{
    catch_panic::CatchPanicLayer,
    timeout::TimeoutLayer,
    trace::{DefaultOnFailure, DefaultOnRequest, DefaultOnResponse, TraceLayer},
};
use tracing::{Level, Span};

use super::config::ServerConfig;
use crate::{
    access::Access,
    broker::Broker,
    grpc::{self, PubSub, Receiving},
    http::{self as plain_http, Figures},
    metrics::Metrics,
};

/// What our own methods need to know.
pub(super) fn pubsub(
    broker: Broker,
    config: &ServerConfig,
    metrics: &Arc<Metrics>,
    drain: CancellationToken,
    access: Option<Arc<Access>>,
) -> PubSub {
    PubSub {
        receiving: Receiving {
            request_bytes_max: PubSub::request_bytes_max(broker.limits()),
            patience: config.request_timeout,
            bytes_max: config.receiving_bytes_max,
            bytes: AtomicUsize::new(0),
            memory: Arc::clone(broker.memory()),
        },
        rejections: Arc::default(),
        drain,
        broker,
        metrics: Arc::clone(metrics),
        heartbeat_interval: config.heartbeat_interval.clone(),
        access,
    }
}

/// All but our own methods: health, reflection, plain HTTP and what an embedding program adds. From the outside in: a span for the request,
/// gRPC answers to gRPC callers, panics answered and logged.
pub(super) fn router(
    config: &ServerConfig,
    figures: Figures,
    drain: CancellationToken,
    access: Option<Arc<Access>>,
    extra: Router,
) -> Router {
    // A stream lasts as long as it likes once it has begun, and our own methods keep their own time.
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, config.request_timeout);
    let companions = grpc::companion_routes(&figures.readiness, drain, access.clone());
    let http = plain_http::routes(Arc::new(figures), access);
    let trace = TraceLayer::new_for_grpc()
        .make_span_with(request_span)
        .on_request(DefaultOnRequest::new().level(Level::TRACE))
        .on_response(DefaultOnResponse::new().level(Level::DEBUG))
        .on_failure(DefaultOnFailure::new().level(Level::DEBUG));
    Router::new()
        .merge(http.layer(timeout))
        .merge(companions.layer(timeout))
        .merge(extra)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn(grpc::answer_in_grpc))
        .layer(trace)
}

fn request_span(request: &Request) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    tracing::debug_span!("request", %method, path)
}

fn answer_panic(panic: Box<dyn Any + Send>) -> Response<Body> {
    let panic = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    tracing::error!(panic, "a handler panicked: this is a defect in the broker");
    let mut response = Response::new(Body::from("internal error\n"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
