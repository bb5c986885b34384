//! What can go wrong as gRPC tells it: an exact status, a message that says limit and value, and
//! `google.rpc` details where they help.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::call::ok_trailers;
use crate::{
    access::AccessError,
    metrics::Limit,
    service::{self, CallError, DRAINING, RETRY_AFTER, Refusal},
    wire::metadata,
};

/// How much of a request's path an answer repeats.
const PATH_CHARS_SHOWN_MAX: usize = 128;

/// Why the broker ends a stream of messages to publish.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the stream ends in the middle of a message")]
    PartOfMessage,
    #[error("more than {max} rejections wait to be taken: read the responses")]
    RejectionsUntaken { max: usize },
    #[error(
        "{max} rejections wait to be taken on all streams, which is the limit: read the responses"
    )]
    RejectionsOfAll { max: usize },
    #[error("{DRAINING}")]
    Draining,
}

impl StreamEnd {
    /// The limit that was hit, if one was.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            Self::Call(error) => error.limit(),
            Self::Access(error) => Some(error.limit()),
            Self::RejectionsUntaken { .. } | Self::RejectionsOfAll { .. } => {
                Some(Limit::Rejections)
            }
            Self::PartOfMessage | Self::Draining => None,
        }
    }

    pub(super) fn trailers(self) -> HeaderMap {
        let message = self.to_string();
        trailers(&match self {
            Self::Call(error) => Refusal::from(error).into(),
            Self::Access(error) => Refusal::from(error).into(),
            Self::PartOfMessage => Status::invalid_argument(message),
            Self::RejectionsUntaken { .. } | Self::RejectionsOfAll { .. } => {
                Status::resource_exhausted(message)
            }
            Self::Draining => draining(),
        })
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let details = match (refusal.field(), refusal.retry_after()) {
            (Some(field), _) => Some(ErrorDetails::with_bad_request_violation(field, &message)),
            (None, Some(after)) => Some(ErrorDetails::with_retry_info(Some(after))),
            (None, None) => None,
        };
        status(refusal.code(), message, details)
    }
}

fn status(code: service::Code, message: String, details: Option<ErrorDetails>) -> Status {
    // The numbers are gRPC's.
    let code = Code::from_i32(code as i32);
    match details {
        Some(details) => Status::with_error_details(code, message, details),
        None => Status::new(code, message),
    }
}

/// The answer to a call that is refused.
pub(crate) fn refuse(refusal: Refusal) -> Response<Body> {
    Status::from(refusal).into_http()
}

/// The answer to a call in gRPC-Web that cannot be one.
pub(super) fn refuse_client_stream() -> Response<Body> {
    let message = "gRPC-Web has no client streams: call Publish, or use gRPC";
    Status::unimplemented(message).into_http()
}

/// What the trailers say at the end of a subscription, with what it has lost untold.
pub(super) fn end_trailers(end: &service::StreamEnd, missed: u64) -> HeaderMap {
    let details = end
        .retry_after()
        .map(|after| ErrorDetails::with_retry_info(Some(after)));
    let mut trailers = match end.code() {
        service::Code::Ok => topic_ended_trailers(),
        code => trailers(&status(code, end.to_string(), details)),
    };
    if missed > 0 {
        trailers.insert(metadata::MISSED, HeaderValue::from(missed));
    }
    trailers
}

fn topic_ended_trailers() -> HeaderMap {
    let mut trailers = ok_trailers();
    trailers.insert(metadata::TOPIC_ENDED, HeaderValue::from_static("true"));
    trailers
}

fn draining() -> Status {
    Status::with_error_details(
        Code::Unavailable,
        DRAINING,
        ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
    )
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status
        .add_header(&mut trailers)
        .expect("our messages are valid header values");
    trailers
}

/// What a plain HTTP answer means to a gRPC caller.
pub(super) fn from_http(answer: StatusCode, path: &str) -> Status {
    // A path can be as long as all headers together, and grows when it is escaped.
    let path: String = path.chars().take(PATH_CHARS_SHOWN_MAX).collect();
    match answer {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Status::unimplemented(format!("the broker has no method {path}"))
        }
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
            Status::unimplemented(format!("{path} needs HTTP/2"))
        }
        StatusCode::REQUEST_TIMEOUT => {
            Status::deadline_exceeded("the request took longer than the broker allows")
        }
        StatusCode::SERVICE_UNAVAILABLE => draining(),
        StatusCode::UNAUTHORIZED => Status::unauthenticated(format!("{path} asks who calls")),
        StatusCode::FORBIDDEN => {
            Status::permission_denied(format!("the caller may not use {path}"))
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Status::resource_exhausted(format!("{path} was asked for too often"))
        }
        // What is there, but no method.
        answer if answer.is_success() => {
            Status::unimplemented(format!("the broker has no method {path}"))
        }
        _ => Status::internal(format!("the broker failed with HTTP status {answer}")),
    }
}

/// What the caller is told of a defect, which the log tells in full.
pub(crate) fn internal_error() -> Response<Body> {
    Status::internal("the broker failed; the defect is logged").into_http()
}
