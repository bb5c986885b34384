//! A gRPC caller gets a gRPC answer, whatever the rest of the server says in HTTP: an unknown method,
//! a panic, a timeout. And a caller in gRPC-Web gets the same in gRPC-Web.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::IntoResponse,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header::CONTENT_TYPE};

use super::{call::GRPC_STATUS, status::from_http, web::Web};
use crate::broker::Memory;

/// Middleware: turns an HTTP answer to a gRPC request into a status in gRPC's own form, and translates
/// gRPC-Web from and to gRPC.
pub(crate) async fn answer_in_grpc(
    State(memory): State<Arc<Memory>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    if let Some(web) = Web::of(request.headers()) {
        let response = answer_call(web.to_grpc(request), next).await;
        return web.answer(response, &memory);
    }
    if !is_grpc(request.headers()) {
        return next.run(request).await;
    }
    // HTTP/1.1 has no trailers that clients read, and no ping to tell a silent peer from one that left.
    if request.version() < Version::HTTP_2 {
        let path = request.uri().path();
        return refuse_in_grpc(StatusCode::HTTP_VERSION_NOT_SUPPORTED, path);
    }
    answer_call(request, next).await
}

async fn answer_call(request: Request, next: Next) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    if is_grpc(response.headers()) {
        return size_refused(response);
    }
    refuse_in_grpc(response.status(), &path)
}

/// The companions' own refusal of a size is OUT_OF_RANGE: a limit is RESOURCE_EXHAUSTED.
fn size_refused(mut response: Response<Body>) -> Response<Body> {
    if let Some(status) = response.headers_mut().get_mut(GRPC_STATUS)
        && status == "11"
    {
        *status = HeaderValue::from_static("8");
    }
    response
}

/// The gRPC answer that stands for an HTTP one.
pub(super) fn refuse_in_grpc(answer: StatusCode, path: &str) -> Response<Body> {
    from_http(answer, path).into_http()
}

/// The answer to a request that cannot be a gRPC call, by its head alone.
pub(super) fn refuse_head(request: &Request) -> Option<Response<Body>> {
    let speaks_grpc = is_grpc(request.headers());
    let refused = if request.method() != Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else if !speaks_grpc {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    } else {
        return None;
    };
    Some(if speaks_grpc {
        refuse_in_grpc(refused, request.uri().path())
    } else {
        refused.into_response()
    })
}

/// Middleware: passes calls on, and nothing else. tonic's services take any method and content type.
pub(super) async fn pass_calls(request: Request, next: Next) -> Response<Body> {
    match refuse_head(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// `application/grpc`, as such or with a codec or parameters. gRPC-Web is another protocol.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let value = value.as_bytes();
    value
        .get(..GRPC.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
        && matches!(value.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
}

/// `application/grpc-web` or `-text`, likewise.
pub(crate) fn is_grpc_web(headers: &HeaderMap) -> bool {
    Web::of(headers).is_some()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_told_from_what_begins_like_it() {
        let check = |value: &'static str, expected| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(value))];
            assert_eq!(is_grpc(&HeaderMap::from_iter(headers)), expected, "{value}");
        };
        for value in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC; charset=x",
        ] {
            check(value, true);
        }
        for value in [
            "",
            "application/json",
            "application/grpc-web",
            "application/grpc-web-text+proto",
            "application/grpcfoo",
        ] {
            check(value, false);
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
