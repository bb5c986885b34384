//! Plain HTTP beside gRPC, on the same port: liveness, readiness, metrics, and the page with the figures that
//! it shows.
//!
//! Liveness and readiness are open to anybody, and so is the page, which holds nothing by itself; metrics
//! and figures need a right, where rights are asked for.

mod figures;
mod page;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use http::{StatusCode, header};

use crate::{
    access::{Access, AccessError, Peer},
    auth::Right,
    grpc::Readiness,
    metrics::{self, Metrics},
};

pub(crate) use self::figures::Figures;

/// `GET /`, `/health`, `/ready`, `/metrics` and the figures.
pub(crate) fn routes(figures: Arc<Figures>, access: Option<Arc<Access>>) -> Router {
    let guarded = |route: MethodRouter| match &access {
        Some(access) => {
            let guard = middleware::from_fn_with_state((Arc::clone(access), Right::Metrics), guard);
            route.layer(guard)
        }
        None => route,
    };
    let metrics = get(render).with_state(Arc::clone(&figures.metrics));
    Router::new()
        .route("/", get(page::page))
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready).with_state(figures.readiness.clone()))
        .route("/metrics", guarded(metrics))
        .merge(figures::routes(figures, guarded))
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
