//! What goes wrong as HTTP tells it: the status that stands for the code, and the code, the message and the
//! field at fault in JSON.
//!
//! The statuses are those of `google.rpc.Code`'s own map, but where HTTP has a better one: a payload that
//! is too large is 413, attributes that are (they travel in headers) 431, a request that does not arrive
//! in time 408, and one that is encoded 415.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    broker::PublishError,
    metrics::Metrics,
    service::{CallError, Code, Refusal, StreamEnd},
};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(transparent)]
    Refused(Refusal),
    /// A web page of this origin may not ask.
    #[error(
        "web pages of {origin} may not use this broker: its operator can allow them (--cors-origin)"
    )]
    ForeignOrigin { origin: String },
    #[error(
        "there is nothing here: see POST /v1/topics/TOPIC, GET /v1/events and GET /v1/topics/FILTER/messages"
    )]
    NoRoute,
    #[error("this is not done here by this method")]
    NoMethod,
    #[error(
        "the request's transfer coding is not known here: send the body as it is, or `chunked`"
    )]
    TransferCoding,
}

impl<E: Into<Refusal>> From<E> for HttpError {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

impl HttpError {
    /// Counts the limit that was hit, if one was.
    pub(super) fn count(self, metrics: &Metrics) -> Self {
        if let Self::Refused(refusal) = &self
            && let Some(limit) = refusal.limit()
        {
            metrics.reject(limit);
        }
        self
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => match refusal {
                Refusal::Publish(PublishError::PayloadTooLarge { .. })
                | Refusal::Call(CallError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
                Refusal::Publish(
                    PublishError::TooManyAttributes { .. }
                    | PublishError::AttributesTooLarge { .. },
                ) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Refusal::Call(CallError::TimedOut { .. }) => StatusCode::REQUEST_TIMEOUT,
                Refusal::Call(CallError::Compressed) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                refusal => status_of(refusal.code()),
            },
            Self::ForeignOrigin { .. } => StatusCode::FORBIDDEN,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => name_of(refusal.code()),
            Self::ForeignOrigin { .. } => name_of(Code::PermissionDenied),
            Self::NoRoute => "NOT_FOUND",
            Self::NoMethod | Self::TransferCoding => name_of(Code::Unimplemented),
        }
    }

    /// The parameter or header at fault.
    fn field(&self) -> Option<&'static str> {
        match self {
            Self::Refused(Refusal::Heartbeat { .. }) => Some("heartbeat"),
            Self::Refused(refusal) => refusal.field(),
            Self::ForeignOrigin { .. } => Some("origin"),
            Self::TransferCoding => Some("transfer-encoding"),
            Self::NoRoute | Self::NoMethod => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after(),
            Self::ForeignOrigin { .. } | Self::NoRoute | Self::NoMethod | Self::TransferCoding => {
                None
            }
        }
    }
}

/// What is said in JSON.
#[derive(Serialize)]
struct Body {
    error: Told,
}

/// An error as it is told, at the beginning of a stream or at its end.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
}

impl From<&StreamEnd> for Told {
    fn from(end: &StreamEnd) -> Self {
        Self {
            code: name_of(end.code()),
            message: end.to_string(),
            field: None,
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = self.status();
        let error = Told {
            code: self.code(),
            message: self.to_string(),
            field: self.field(),
        };
        let mut response = super::json_response(&Body { error });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after() {
            // In whole seconds, and not too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // Nobody waits for it, and no status is registered for that.
        Code::Cancelled => StatusCode::from_u16(499).expect("it has three digits"),
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // Of a topic that has ended: it is its state that is in the way.
        Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
    }
}

fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
