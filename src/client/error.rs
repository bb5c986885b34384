//! What can go wrong with a call, per operation; [`CallError`] is what can befall any of them.
//!
//! Each error says whose fault it is, and whether a retry helps. Where the broker answered, the
//! variant keeps its `status` with all details; where the connection failed, the innermost cause is
//! the error's source.

use std::time::Duration;

use tonic::{Code, Status};

pub use super::status::TransportError;
use super::{convert::Malformed, in_flight::Rejection, status::said};

/// What can befall any call, whatever it asks for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection, so that the broker has not seen the call. A retry helps once it is
    /// back.
    #[error("no broker answers at {url}")]
    Unreachable {
        /// The address tried.
        url: String,
        /// What the operating system says.
        source: TransportError,
    },
    /// The connection broke under the call; the broker may have carried it out. A retry helps.
    #[error("the connection to the broker was lost")]
    ConnectionLost {
        /// How it broke.
        source: TransportError,
    },
    /// There was no answer in time; the broker may have carried out the call. A retry helps.
    #[error("the broker did not answer within {timeout:?}")]
    DeadlineExceeded {
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The broker is shutting down, or a proxy cannot reach it. A retry helps.
    #[error("the broker is unavailable: {}", said(.status))]
    Unavailable {
        /// After how long the broker wants to be asked again.
        retry_after: Option<Duration>,
        /// The answer.
        status: Status,
    },
    /// The caller did not say who it is, or not so that the broker believes it.
    #[error("the broker wants to know who calls: {}", said(.status))]
    Unauthenticated {
        /// The answer.
        status: Status,
    },
    /// The caller may not do this.
    #[error("the broker does not allow this: {}", said(.status))]
    PermissionDenied {
        /// The answer.
        status: Status,
    },
    /// What answers is no broker, or one too old for this.
    #[error("the broker cannot do this: {}", said(.status))]
    Unimplemented {
        /// The answer.
        status: Status,
    },
    /// An answer that the contract does not foresee: a defect of the broker, or of something between.
    #[error("the broker failed: {} ({:?})", said(.status), .status.code())]
    Unexpected {
        /// The answer.
        status: Status,
    },
}

impl CallError {
    /// Whether the same call can succeed later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::ConnectionLost { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Unavailable { .. } => true,
            Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::Unimplemented { .. }
            | Self::Unexpected { .. } => false,
        }
    }

    /// After how long the broker wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether what the call was to publish may have been published nevertheless.
    fn may_be_published(&self) -> bool {
        matches!(
            self,
            Self::ConnectionLost { .. } | Self::DeadlineExceeded { .. } | Self::Unexpected { .. }
        )
    }
}

/// Why the broker's figures are not known.
#[derive(Debug, thiserror::Error)]
pub enum FiguresError {
    /// What can befall any call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What answers is no broker, or one whose figures are not ours; a retry does not help.
    #[error("the broker's figures cannot be read")]
    Malformed(#[from] serde_json::Error),
}

/// Why a message was not published, or is not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The message is malformed; the caller must change it.
    #[error("the broker does not take the message: {}", said(.status))]
    Invalid {
        /// The field at fault, by its name in the proto.
        field: Option<String>,
        /// The answer.
        status: Status,
    },
    /// The topic has ended: its last message has been published. A retry does not help.
    #[error("the topic takes no more: {}", said(.status))]
    TopicEnded {
        /// The answer.
        status: Status,
    },
    /// The message passes a limit, such as the payload's. A retry helps only if `retry_after` is set.
    #[error("the message passes a limit of the broker: {}", said(.status))]
    LimitExceeded {
        /// After how long the broker wants to be asked again; `None` if the caller must change the
        /// message.
        retry_after: Option<Duration>,
        /// The answer, with limit and value.
        status: Status,
    },
    /// What can befall any call.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl PublishError {
    /// Whether the same message can be published later. See also
    /// [`may_be_published`](Self::may_be_published).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid { .. } | Self::TopicEnded { .. } => false,
            Self::LimitExceeded { retry_after, .. } => retry_after.is_some(),
            Self::Call(error) => error.is_retryable(),
        }
    }

    /// Whether the message may have been published nevertheless, so that a retry risks a duplicate.
    #[must_use]
    pub fn may_be_published(&self) -> bool {
        matches!(self, Self::Call(error) if error.may_be_published())
    }
}

/// Why there is no publisher, or no longer.
///
/// What the broker has not answered may need to be published anew, by another publisher:
/// [`Publisher::unanswered`](super::Publisher::unanswered) says which messages these are, and
/// [`may_be_published`](Self::may_be_published) whether that risks duplicates.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublisherError {
    /// The broker has no room for a publisher, or for what this one leaves untaken. A retry helps.
    #[error("the publisher passes a limit of the broker: {}", said(.status))]
    LimitExceeded {
        /// After how long the broker wants to be asked again.
        retry_after: Option<Duration>,
        /// The answer, with limit and value.
        status: Status,
    },
    /// The broker answered what the contract does not allow; the defect is the broker's.
    #[error("the broker sent a malformed answer")]
    Malformed(#[from] Malformed),
    /// What can befall any call.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl PublisherError {
    /// Whether another publisher can come about later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::LimitExceeded { .. } => true,
            Self::Malformed(_) => false,
            Self::Call(error) => error.is_retryable(),
        }
    }

    /// After how long the broker wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LimitExceeded { retry_after, .. } => *retry_after,
            Self::Malformed(_) => None,
            Self::Call(error) => error.retry_after(),
        }
    }

    /// Whether messages that were not answered may have been published nevertheless. A broker that shuts
    /// down answers what it has published first.
    #[must_use]
    pub fn may_be_published(&self) -> bool {
        match self {
            Self::LimitExceeded { .. } | Self::Malformed(_) => true,
            Self::Call(error) => error.may_be_published(),
        }
    }
}

/// Why a publisher did not send a message. It has no position, and was not published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// No broker takes so much; the caller must change the message. The publisher goes on.
    #[error("message of {bytes} bytes exceeds the limit of {max}")]
    TooLarge {
        /// The message's size, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The publisher was finished before; the caller needs another one.
    #[error("the publisher is finished")]
    Finished,
    /// The publisher's stream is over; another one may be had.
    #[error(transparent)]
    Ended(#[from] PublisherError),
}

impl SendError {
    /// Whether the same message can be sent by another publisher.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooLarge { .. } => false,
            Self::Finished => true,
            Self::Ended(error) => error.is_retryable(),
        }
    }
}

/// Why a message was not published, or is not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TicketError {
    /// The broker did not publish it; the publisher goes on.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The publisher's stream ended before an answer came:
    /// [`may_be_published`](PublisherError::may_be_published) tells whether the message may have been
    /// published.
    #[error("the message was not answered")]
    Unanswered(#[source] PublisherError),
}

/// Why there is no subscription, or no longer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The request is malformed; the caller must change it.
    #[error("the broker does not take the subscription: {}", said(.status))]
    Invalid {
        /// The field at fault, by its name in the proto.
        field: Option<String>,
        /// The answer.
        status: Status,
    },
    /// There are too many subscriptions, on this connection or in all, or too many tags. Except for
    /// tags, a retry helps once others have left.
    #[error("the subscription passes a limit of the broker: {}", said(.status))]
    LimitExceeded {
        /// After how long the broker wants to be asked again.
        retry_after: Option<Duration>,
        /// The answer, with limit and value.
        status: Status,
    },
    /// The broker ended the subscription because the application read too slowly: it stalled, or
    /// overflowed under [`OverflowPolicy::Disconnect`](super::OverflowPolicy::Disconnect). What was
    /// lost was told before, as [`Event::Missed`](super::Event::Missed). The application may
    /// subscribe again.
    #[error("the broker ended the subscription, which was read too slowly: {}", said(.status))]
    FellBehind {
        /// The answer.
        status: Status,
    },
    /// Neither a message nor a heartbeat came for so long that the connection counts as dead.
    #[error("nothing was heard from the broker for {silence:?}")]
    Silent {
        /// For how long.
        silence: Duration,
    },
    /// The broker sent what the contract does not allow; the defect is the broker's.
    #[error("the broker sent a malformed response")]
    Malformed(#[from] Malformed),
    /// What can befall any call.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl SubscribeError {
    /// Whether the same subscription can be granted later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::LimitExceeded { .. } | Self::FellBehind { .. } | Self::Silent { .. } => true,
            Self::Invalid { .. } | Self::Malformed(_) => false,
            Self::Call(error) => error.is_retryable(),
        }
    }

    /// After how long the broker wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LimitExceeded { retry_after, .. } => *retry_after,
            Self::Call(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Whether a live subscription comes back from this by itself. Beyond what is retryable, it comes
    /// back from what a broker or a proxy fails with in passing; but a reader that fell behind is
    /// told, for it would fall behind again.
    pub(super) fn is_survivable(&self) -> bool {
        match self {
            Self::FellBehind { .. } => false,
            Self::Call(CallError::Unexpected { status }) => matches!(
                status.code(),
                Code::Internal | Code::Unknown | Code::Cancelled | Code::Aborted
            ),
            _ => self.is_retryable(),
        }
    }
}

/// Why a broker's health is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HealthError {
    /// The broker has no service of this name; the caller must change it.
    #[error("the broker has no service `{service}`")]
    UnknownService {
        /// The name asked for.
        service: String,
    },
    /// What can befall any call.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl HealthError {
    /// Whether the same question can be answered later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::UnknownService { .. } => false,
            Self::Call(error) => error.is_retryable(),
        }
    }
}
