//! All that is served on the one port, and the layers around it.

use std::{
    any::Any,
    sync::{Arc, atomic::AtomicUsize},
};

use axum::{Router, body::Body, extract::Request, middleware};
use http::{Response, StatusCode};
use tokio::{sync::Semaphore, time::Instant};
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
    grpc::{self, Readiness},
    http::{self as plain_http, Api, Host, Origins, refuse_foreign_calls},
    metrics::Metrics,
    service::{PubSub, Receiving},
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

/// All but our own methods in gRPC over HTTP/2: gRPC-Web, health, reflection, plain HTTP and what an embedding program adds.
/// From the outside in: a span for the request, what browsers are told of other origins, gRPC-Web of origins
/// that are not allowed refused, gRPC answers to gRPC callers, panics answered and logged.
pub(super) fn router(
    config: &ServerConfig,
    readiness: Readiness,
    pubsub: &Arc<PubSub>,
    extra: Router,
) -> Router {
    let (metrics, access) = (Arc::clone(&pubsub.metrics), pubsub.access.clone());
    // A stream lasts as long as it likes once it has begun, and what publishes and subscribes keeps its own
    // time.
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, config.request_timeout);
    let companions = grpc::companion_routes(&readiness, pubsub.drain.clone(), access.clone());
    let probes = plain_http::probe_routes(readiness.clone(), metrics, access);
    let origins = Arc::new(Origins::new(&config.cors_origins));
    let cors = tower::util::option_layer(origins.layer());
    let guard = middleware::from_fn_with_state(Arc::clone(&origins), refuse_foreign_calls);
    let api = plain_http::routes(Api {
        service: Arc::clone(pubsub),
        heartbeat_interval: config.sse_heartbeat_interval,
        origins,
        host: Host {
            readiness,
            connections_max: config.connections_max,
            started: Instant::now(),
        },
        looking: Arc::new(Semaphore::new(1)),
    });
    let trace = TraceLayer::new_for_grpc()
        .make_span_with(request_span)
        .on_request(DefaultOnRequest::new().level(Level::TRACE))
        .on_response(DefaultOnResponse::new().level(Level::DEBUG))
        .on_failure(DefaultOnFailure::new().level(Level::DEBUG));
    let memory = Arc::clone(pubsub.broker.memory());
    Router::new()
        .merge(probes.layer(timeout))
        .merge(companions.layer(timeout))
        .merge(grpc::method_routes(Arc::clone(pubsub)))
        .merge(api)
        .merge(extra)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn_with_state(memory, grpc::answer_in_grpc))
        .layer(guard)
        .layer(cors)
        .layer(trace)
}

/// Names the path alone: a query may hold a token.
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
    internal_error()
}

/// What the caller is told of a defect, which the log tells in full.
pub(super) fn internal_error() -> Response<Body> {
    let mut response = Response::new(Body::from("internal error\n"));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
