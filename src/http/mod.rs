//! Plain HTTP on the same port: for browsers, for curl, and for whatever has no gRPC.
//!
//! The need: a program without a gRPC client can publish, and a browser can read, with nothing but what
//! HTTP and EventSource bring along. The promise: it is the same broker. A stream is a subscription with a
//! mailbox, a stall clock and an overflow policy like any other; requests are bounded, counted, permitted
//! and refused as those in gRPC are, and an error says the same in JSON.
//!
//! | route | |
//! |---|---|
//! | `POST /v1/topics/{topic}` | publishes the body ([`publish`]) |
//! | `GET /v1/events?topic=..` | server-sent events ([`events`]) |
//! | `GET /v1/topics/{filter}/messages` | a line of JSON for each message ([`messages`]) |
//! | `GET /v1/stats`, `/v1/topics`, `/v1/subscribers` | the broker in figures ([`figures`]) |
//! | `GET /` | a page that shows them ([`page`]) |
//! | `GET /health`, `/ready`, `/metrics` | ([`probes`]) |
//!
//! Invariants: what is published is the body, byte for byte, and nothing in a payload can be taken for
//! something else by whoever reads; a web page of an origin that is not allowed neither publishes nor reads;
//! a parameter that is not known is refused, since it would change nothing where it was meant to.

mod error;
mod events;
mod figures;
mod message_json;
mod messages;
mod origin;
mod page;
mod probes;
mod publish;
mod query;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{Path, rejection::PathRejection},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Version, header};
use serde::Serialize;
use tokio::sync::Semaphore;

pub use self::origin::{Origin, OriginError};
use self::{error::HttpError, message_json::put_json, origin::refuse_foreign_origins};
pub(crate) use self::{
    figures::Host,
    origin::{Origins, refuse_foreign_calls},
};
use crate::{
    access::Access,
    grpc::Readiness,
    metrics::Metrics,
    service::{ConnectionShare, PubSub, Refusal},
    wire::InvalidField,
};

/// What the routes need to know.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) service: Arc<PubSub>,
    /// After how much silence a stream of events carries a comment.
    pub(crate) heartbeat_interval: Duration,
    /// Whose web pages may use the routes.
    pub(crate) origins: Arc<Origins>,
    pub(crate) host: Host,
    /// One list is made at a time.
    pub(crate) looking: Arc<Semaphore>,
}

/// The connection that a request came on.
type Share = Extension<ConnectionShare>;

/// The topic or filter that a path names.
fn path_topic(path: Result<Path<String>, PathRejection>) -> Result<String, InvalidField> {
    let Path(topic) = path.map_err(|error| InvalidField::new("topic", error.body_text()))?;
    Ok(topic)
}

/// The answer to a request of HTTP/1.1 that is not to be served as it is: one that does not say once whom it is for
/// (RFC 9112, section 3.2), and one whose body comes in a coding beside chunks (section 6.1), since what was
/// published would not be what was sent.
pub(crate) fn refuse_ambiguous(version: Version, headers: &HeaderMap) -> Option<Response> {
    let hosts = headers.get_all(header::HOST).iter().count();
    let is_addressed = hosts == 1 || (hosts == 0 && version < Version::HTTP_11);
    if !is_addressed {
        let reason = format!("the request has {hosts} `host` headers and needs one");
        return Some(HttpError::from(InvalidField::new("host", reason)).into_response());
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = codings.next()?;
    let is_plain = first.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    (!is_plain).then(|| HttpError::TransferCoding.into_response())
}

/// Says of a response, among its extensions, that all who ask share its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared;

/// The answer to a request that is refused before its route is known.
pub(crate) fn refuse(refusal: Refusal) -> Response {
    HttpError::from(refusal).into_response()
}

/// An answer in JSON. It is of this moment, and ends with its line, for whoever reads it in a terminal.
fn json_response(value: &impl Serialize) -> Response {
    let mut json = BytesMut::new();
    put_json(&mut json, value);
    json.put_slice(b"\n");
    // It may wait for its reader, and has grown in steps.
    let json = Bytes::from(Vec::from(json).into_boxed_slice());
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, json).into_response()
}

/// `GET /health`, `/ready` and `/metrics`.
pub(crate) fn probe_routes(
    readiness: Readiness,
    metrics: Arc<Metrics>,
    access: Option<Arc<Access>>,
) -> Router {
    probes::routes(readiness, metrics, access)
}

/// The page, its figures, and what publishes and subscribes, which keeps its own time.
pub(crate) fn routes(api: Api) -> Router {
    let guard = middleware::from_fn_with_state(Arc::clone(&api.origins), refuse_foreign_origins);
    let v1 = Router::new()
        .route("/events", get(events::events))
        .route("/topics/{topic}", post(publish::publish))
        .route("/stats", get(figures::stats))
        .route("/topics", get(figures::topics))
        .route("/subscribers", get(figures::subscribers))
        .route("/topics/{topic}/messages", get(messages::messages))
        .fallback(async || HttpError::NoRoute)
        .method_not_allowed_fallback(async || HttpError::NoMethod)
        .layer(guard)
        .with_state(api);
    Router::new().route("/", get(page::page)).nest("/v1", v1)
}
