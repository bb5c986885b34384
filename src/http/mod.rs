//! Plain HTTP beside gRPC, on the same port: liveness, readiness and metrics.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};

use crate::{
    grpc::Readiness,
    metrics::{self, Metrics},
};

/// `GET /health`, `/ready` and `/metrics`.
pub(crate) fn routes(readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", get(render).with_state(metrics))
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, &'static str) {
    if readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    }
}

async fn render(State(metrics): State<Arc<Metrics>>) -> Response {
    let headers = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (headers, metrics.render()).into_response()
}
