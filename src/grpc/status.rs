//! The one map from what can go wrong to what a caller is told: an exact gRPC status, a message that
//! says limit and value, and `google.rpc` details where they help.

use std::time::Duration;

use axum::{body::Body, response::IntoResponse};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    call::{CallError, ok_trailers},
    rate::PublishRateExceeded,
};
use crate::{
    access::AccessError,
    broker::{EndReason, Ended, PublishError, SubscribeError},
    metrics::Limit,
    wire::{InvalidField, metadata},
};

/// When a caller should come back: about the time of a restart, or of a slow request's arrival.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much of a request's path an answer repeats.
const PATH_CHARS_SHOWN_MAX: usize = 128;

/// Anything that a call can be refused for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    PublishRate(#[from] PublishRateExceeded),
    #[error("{max} subscriptions are live on this connection, which is the limit")]
    TooManyOnConnection { max: usize },
    #[error(
        "heartbeat interval of {} s is outside {} to {} s",
        .interval.as_secs_f64(), .min.as_secs_f64(), .max.as_secs_f64()
    )]
    Heartbeat {
        interval: Duration,
        min: Duration,
        max: Duration,
    },
}

impl CallError {
    fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooLarge { .. } => Some(Limit::RequestBytes),
            Self::ReceivingTooMuch { .. } => Some(Limit::ReceivingBytes),
            Self::MemoryFull { .. } => Some(Limit::Memory),
            Self::TimedOut { .. } => Some(Limit::RequestTimeout),
            Self::Malformed(_)
            | Self::NotOneMessage { .. }
            | Self::Compressed
            | Self::MalformedTimeout { .. }
            | Self::DeadlineExceeded
            | Self::BrokenOff(_) => None,
        }
    }
}

impl Refusal {
    /// The limit that was hit, if one was.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            Self::Call(error) => error.limit(),
            Self::Publish(error) => Some(match error {
                PublishError::PayloadTooLarge { .. } => Limit::PayloadBytes,
                PublishError::TooManyAttributes { .. } => Limit::Attributes,
                PublishError::AttributesTooLarge { .. } => Limit::AttributesBytes,
                PublishError::TopicEnded => return None,
            }),
            Self::Subscribe(error) => match error {
                SubscribeError::TooManyTags { .. } => Some(Limit::Tags),
                SubscribeError::TooManySubscriptions { .. } => Some(Limit::Subscriptions),
                SubscribeError::MemoryScarce { .. } => Some(Limit::Memory),
                SubscribeError::GroupWithStart | SubscribeError::Draining => None,
            },
            Self::PublishRate(_) => Some(Limit::PublishRate),
            Self::TooManyOnConnection { .. } => Some(Limit::SubscriptionsPerConnection),
            Self::Access(error) => Some(error.limit()),
            Self::Field(_) | Self::Heartbeat { .. } => None,
        }
    }

    pub(super) fn code(&self) -> Code {
        match self {
            Self::Call(error) => match error {
                CallError::Malformed(_)
                | CallError::NotOneMessage { .. }
                | CallError::MalformedTimeout { .. } => Code::InvalidArgument,
                CallError::TooLarge { .. }
                | CallError::ReceivingTooMuch { .. }
                | CallError::MemoryFull { .. } => Code::ResourceExhausted,
                CallError::Compressed => Code::Unimplemented,
                CallError::DeadlineExceeded | CallError::TimedOut { .. } => Code::DeadlineExceeded,
                CallError::BrokenOff(_) => Code::Cancelled,
            },
            Self::Field(_) | Self::Heartbeat { .. } => Code::InvalidArgument,
            Self::Publish(error) => match error {
                PublishError::PayloadTooLarge { .. }
                | PublishError::TooManyAttributes { .. }
                | PublishError::AttributesTooLarge { .. } => Code::ResourceExhausted,
                PublishError::TopicEnded => Code::FailedPrecondition,
            },
            Self::Subscribe(error) => match error {
                SubscribeError::TooManyTags { .. }
                | SubscribeError::TooManySubscriptions { .. }
                | SubscribeError::MemoryScarce { .. } => Code::ResourceExhausted,
                SubscribeError::GroupWithStart => Code::InvalidArgument,
                SubscribeError::Draining => Code::Unavailable,
            },
            Self::PublishRate(_) | Self::TooManyOnConnection { .. } => Code::ResourceExhausted,
            Self::Access(error) => match error {
                AccessError::Unproven(_) => Code::Unauthenticated,
                AccessError::TooManyGuesses { .. } => Code::ResourceExhausted,
                AccessError::Forbidden { .. } => Code::PermissionDenied,
            },
        }
    }

    /// The field at fault, if it is one field.
    pub(super) fn field(&self) -> Option<&'static str> {
        match self {
            Self::Field(invalid) => Some(invalid.field),
            Self::Heartbeat { .. } => Some("heartbeat_interval"),
            Self::Subscribe(SubscribeError::GroupWithStart) => Some("group"),
            Self::Call(_)
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Access(_)
            | Self::PublishRate(_)
            | Self::TooManyOnConnection { .. } => None,
        }
    }

    fn details(&self) -> Option<ErrorDetails> {
        match self {
            Self::Field(invalid) => Some(ErrorDetails::with_bad_request_violation(
                invalid.field,
                &invalid.reason,
            )),
            Self::Heartbeat { .. } => Some(ErrorDetails::with_bad_request_violation(
                "heartbeat_interval",
                self.to_string(),
            )),
            Self::Subscribe(SubscribeError::GroupWithStart) => Some(
                ErrorDetails::with_bad_request_violation("group", self.to_string()),
            ),
            // What passes by itself, soon.
            Self::Subscribe(SubscribeError::Draining | SubscribeError::MemoryScarce { .. })
            | Self::Call(CallError::ReceivingTooMuch { .. } | CallError::MemoryFull { .. })
            | Self::PublishRate(_) => Some(ErrorDetails::with_retry_info(Some(RETRY_AFTER))),
            Self::Access(AccessError::TooManyGuesses { retry_after }) => {
                Some(ErrorDetails::with_retry_info(Some(*retry_after)))
            }
            Self::Call(_)
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Access(AccessError::Unproven(_) | AccessError::Forbidden { .. })
            | Self::TooManyOnConnection { .. } => None,
        }
    }
}

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
    #[error("the broker is shutting down")]
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
        match refusal.details() {
            Some(details) => Self::with_error_details(refusal.code(), message, details),
            None => Self::new(refusal.code(), message),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        Status::from(self).into_http()
    }
}

/// What the trailers say when the broker has ended a subscription.
pub(super) fn ended_trailers(ended: Ended) -> HeaderMap {
    let status = match ended.reason {
        EndReason::Overflow => Status::resource_exhausted(
            "the mailbox overflowed and its policy is to disconnect: read faster, or ask for \
             another policy or a larger mailbox",
        ),
        EndReason::Stalled => Status::resource_exhausted(
            "the reader stalled: it took no message for too long while messages waited",
        ),
        EndReason::Shed => Status::with_error_details(
            Code::ResourceExhausted,
            "the broker ran short of memory and this mailbox was among the largest: read faster, or ask \
             for a smaller one",
            ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
        ),
        EndReason::Draining => draining(),
        EndReason::TopicEnded => return topic_ended_trailers(ended.missed),
        EndReason::Unsubscribed => Status::cancelled("the subscription was cancelled"),
    };
    with_missed(trailers(&status), ended.missed)
}

/// A topic's end is no error: its subscribers have got all of it.
fn topic_ended_trailers(missed: u64) -> HeaderMap {
    let mut trailers = ok_trailers();
    trailers.insert(metadata::TOPIC_ENDED, HeaderValue::from_static("true"));
    with_missed(trailers, missed)
}

/// What the trailers say when a subscriber has lost its right.
pub(super) fn revoked_trailers(reason: AccessError, missed: u64) -> HeaderMap {
    with_missed(trailers(&Refusal::from(reason).into()), missed)
}

fn with_missed(mut trailers: HeaderMap, missed: u64) -> HeaderMap {
    if missed > 0 {
        trailers.insert(metadata::MISSED, HeaderValue::from(missed));
    }
    trailers
}

/// What the trailers say when the caller's own deadline ends a stream.
pub(super) fn deadline_trailers() -> HeaderMap {
    trailers(&Status::deadline_exceeded(
        "the caller's deadline ended the stream",
    ))
}

/// What the trailers of a stream without an end of its own say on drain.
pub(super) fn drained_trailers() -> HeaderMap {
    trailers(&draining())
}

fn draining() -> Status {
    Status::with_error_details(
        Code::Unavailable,
        "the broker is shutting down",
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
