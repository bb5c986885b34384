//! The one map from what can go wrong to what a caller is told, whatever protocol it speaks: a code, the
//! field at fault, the limit that was hit, and when a retry helps. The message is each error's own.

use std::time::Duration;

use super::rate::PublishRateExceeded;
use crate::{
    access::AccessError,
    broker::{EndReason, PublishError, SubscribeError},
    metrics::Limit,
    wire::InvalidField,
};

/// When a caller should come back: about the time of a restart, or of a slow request's arrival.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What everybody is told whom the broker sends away because it stops.
pub(crate) const DRAINING: &str = "the broker is shutting down";

/// What a caller is to do about it: the canonical codes of `google.rpc.Code`, by number and name, as far
/// as the broker answers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Why a request could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("request is not a valid message: {0}")]
    Malformed(#[source] prost::DecodeError),
    #[error("request has {found}: send exactly one message")]
    NotOneMessage { found: &'static str },
    #[error("request of {bytes} bytes exceeds the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("requests in progress {whose} take {max} bytes together, which is the limit")]
    ReceivingTooMuch { whose: &'static str, max: usize },
    #[error("the memory budget of {budget} bytes is used up")]
    MemoryFull { budget: usize },
    #[error("request is not valid base64")]
    NotBase64,
    #[error("request is compressed: the broker takes `identity` only")]
    Compressed,
    #[error("grpc-timeout `{value}` is not valid: use up to 8 digits and one of H, M, S, m, u, n")]
    MalformedTimeout { value: String },
    #[error("the caller's deadline passed before the request had arrived")]
    DeadlineExceeded,
    #[error("request did not arrive within {} s", .after.as_secs_f64())]
    TimedOut { after: Duration },
    #[error("request broke off: {0}")]
    BrokenOff(#[source] axum::Error),
}

/// Anything that a call can be refused for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
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

fn access_code(error: &AccessError) -> Code {
    match error {
        AccessError::Unproven(_) => Code::Unauthenticated,
        AccessError::TooManyGuesses { .. } => Code::ResourceExhausted,
        AccessError::Forbidden { .. } => Code::PermissionDenied,
    }
}

impl CallError {
    pub(crate) fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooLarge { .. } => Some(Limit::RequestBytes),
            Self::ReceivingTooMuch { .. } => Some(Limit::ReceivingBytes),
            Self::MemoryFull { .. } => Some(Limit::Memory),
            Self::TimedOut { .. } => Some(Limit::RequestTimeout),
            Self::Malformed(_)
            | Self::NotBase64
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
    pub(crate) fn limit(&self) -> Option<Limit> {
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
                SubscribeError::TooManyFilters { .. } => Some(Limit::Filters),
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

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Call(error) => match error {
                CallError::Malformed(_)
                | CallError::NotBase64
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
                | SubscribeError::TooManyFilters { .. }
                | SubscribeError::TooManySubscriptions { .. }
                | SubscribeError::MemoryScarce { .. } => Code::ResourceExhausted,
                SubscribeError::GroupWithStart => Code::InvalidArgument,
                SubscribeError::Draining => Code::Unavailable,
            },
            Self::PublishRate(_) | Self::TooManyOnConnection { .. } => Code::ResourceExhausted,
            Self::Access(error) => access_code(error),
        }
    }

    /// The field at fault, if it is one field.
    pub(crate) fn field(&self) -> Option<&'static str> {
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

    /// When a retry helps, if it passes by itself, soon.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Subscribe(SubscribeError::Draining | SubscribeError::MemoryScarce { .. })
            | Self::Call(CallError::ReceivingTooMuch { .. } | CallError::MemoryFull { .. })
            | Self::PublishRate(_) => Some(RETRY_AFTER),
            Self::Access(AccessError::TooManyGuesses { retry_after }) => Some(*retry_after),
            Self::Call(_)
            | Self::Field(_)
            | Self::Heartbeat { .. }
            | Self::Publish(_)
            | Self::Subscribe(_)
            | Self::Access(AccessError::Unproven(_) | AccessError::Forbidden { .. })
            | Self::TooManyOnConnection { .. } => None,
        }
    }
}

/// Why a live stream of messages ends, as its reader is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamEnd {
    #[error("{}", ended_message(*.0))]
    Ended(EndReason),
    #[error(transparent)]
    Revoked(AccessError),
    #[error("the caller's deadline ended the stream")]
    Deadline,
}

fn ended_message(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Overflow => {
            "the mailbox overflowed and its policy is to disconnect: read faster, or ask for \
             another policy or a larger mailbox"
        }
        EndReason::Stalled => {
            "the reader stalled: it took no message for too long while messages waited"
        }
        EndReason::Shed => {
            "the broker ran short of memory and this mailbox was among the largest: read faster, or ask \
             for a smaller one"
        }
        EndReason::Draining => DRAINING,
        EndReason::TopicEnded => "the topic has ended",
        EndReason::Unsubscribed => "the subscription was cancelled",
    }
}

impl StreamEnd {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Ended(EndReason::Overflow | EndReason::Stalled | EndReason::Shed) => {
                Code::ResourceExhausted
            }
            Self::Ended(EndReason::Draining) => Code::Unavailable,
            // No error: the subscriber has got all of it.
            Self::Ended(EndReason::TopicEnded) => Code::Ok,
            Self::Ended(EndReason::Unsubscribed) => Code::Cancelled,
            Self::Revoked(error) => access_code(error),
            Self::Deadline => Code::DeadlineExceeded,
        }
    }

    /// When a retry helps, if it passes by itself, soon.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Ended(EndReason::Draining | EndReason::Shed) => Some(RETRY_AFTER),
            Self::Revoked(AccessError::TooManyGuesses { retry_after }) => Some(*retry_after),
            Self::Ended(
                EndReason::Overflow
                | EndReason::Stalled
                | EndReason::TopicEnded
                | EndReason::Unsubscribed,
            )
            | Self::Revoked(AccessError::Unproven(_) | AccessError::Forbidden { .. })
            | Self::Deadline => None,
        }
    }
}
