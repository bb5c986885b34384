//! Liveness, readiness and metrics.
//!
//! Liveness and readiness are open to anybody; metrics need a right, where rights are asked for.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};

use crate::{
    access::{Access, AccessError, Peer},
    auth::Right,
    grpc::Readiness,
    metrics::{self, Metrics},
};

/// `GET /health`, `/ready` and `/metrics`.
pub(super) fn routes(
    readiness: Readiness,
    metrics: Arc<Metrics>,
    access: Option<Arc<Access>>,
) -> Router {
    let mut metrics = get(render).with_state(metrics);
    if let Some(access) = access {
        let guard = middleware::from_fn_with_state((access, Right::Metrics), guard);
        metrics = metrics.layer(guard);
    }
    Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", metrics)
}

/// Middleware: lets those in who have the right.
async fn guard(
    State((access, right)): State<(Arc<Access>, Right)>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    match access.check(right, request.headers(), &peer.unwrap_or_default()) {
        Ok(_) => next.run(request).await,
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &AccessError) -> Response {
    let text = format!("{error}\n");
    match error {
        AccessError::Unproven(_) => {
            let headers = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, headers, text).into_response()
        }
        AccessError::TooManyGuesses { retry_after } => {
            let seconds = retry_after.as_secs() + 1;
            let headers = [(header::RETRY_AFTER, seconds.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, headers, text).into_response()
        }
        AccessError::Forbidden { .. } => (StatusCode::FORBIDDEN, text).into_response(),
    }
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
