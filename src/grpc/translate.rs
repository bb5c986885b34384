//! A gRPC caller gets a gRPC answer, whatever the rest of the server says in HTTP: an unknown method,
//! a panic, a timeout.

use axum::{body::Body, extract::Request, middleware::Next};
use http::{HeaderMap, Response, header::CONTENT_TYPE};

use super::status::from_http;

/// Middleware: turns an HTTP answer to a gRPC request into a status in gRPC's own form.
pub(crate) async fn answer_in_grpc(request: Request, next: Next) -> Response<Body> {
    if !is_grpc(request.headers()) {
        return next.run(request).await;
    }
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    if is_grpc(response.headers()) {
        return response;
    }
    from_http(response.status(), &path).into_http()
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
