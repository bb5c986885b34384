//! From gRPC statuses to typed errors: the one map.
//!
//! A status that came over the wire has no source; tonic sets one where it made the status up from a
//! failure on this side. Its code is then a guess, and only the source counts.

use std::{error::Error, fmt, time::Duration};

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use super::{
    error::{CallError, HealthError, PublishError, PublisherError, SubscribeError},
    tls::HandshakeError,
};

/// What broke a connection: the innermost cause, such as `Connection refused`.
#[derive(Clone, Debug)]
pub struct TransportError(Option<Status>);

impl TransportError {
    /// A stream that ended without a word.
    pub(super) const fn ended() -> Self {
        Self(None)
    }

    /// Whether it is TLS that did not come about.
    pub(super) fn is_handshake(&self) -> bool {
        let mut causes = self.0.iter().flat_map(causes);
        causes.any(|cause| cause.is::<HandshakeError>())
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("the broker ended the stream without a status"),
            Some(status) => match causes(status).last() {
                Some(cause) => fmt::Display::fmt(cause, f),
                None => f.write_str(said(status)),
            },
        }
    }
}

impl Error for TransportError {}

/// What the broker said, or what its code means if it said nothing.
pub(super) fn said(status: &Status) -> &str {
    match status.message() {
        "" => status.code().description(),
        message => message,
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

fn invalid_field(status: &Status) -> Option<String> {
    let violations = status.get_details_bad_request()?.field_violations;
    violations.into_iter().next().map(|first| first.field)
}

fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// The map, with what errors say about the call beyond its status.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorMap<'a> {
    pub(super) url: &'a str,
    /// How long the call was given.
    pub(super) timeout: Duration,
}

impl ErrorMap<'_> {
    pub(super) fn publish(self, status: Status) -> PublishError {
        match answer_code(&status) {
            Some(Code::InvalidArgument) => PublishError::Invalid {
                field: invalid_field(&status),
                status,
            },
            Some(Code::FailedPrecondition) => PublishError::TopicEnded { status },
            Some(Code::ResourceExhausted) => PublishError::LimitExceeded {
                retry_after: retry_after(&status),
                status,
            },
            _ => PublishError::Call(self.call(status)),
        }
    }

    /// Why there is no publisher, or no longer.
    pub(super) fn publisher(self, status: Status) -> PublisherError {
        match answer_code(&status) {
            Some(Code::ResourceExhausted) => PublisherError::LimitExceeded {
                retry_after: retry_after(&status),
                status,
            },
            _ => PublisherError::Call(self.call(status)),
        }
    }

    /// Why a subscription was not granted.
    pub(super) fn subscribe(self, status: Status) -> SubscribeError {
        match answer_code(&status) {
            Some(Code::InvalidArgument) => SubscribeError::Invalid {
                field: invalid_field(&status),
                status,
            },
            Some(Code::ResourceExhausted) => SubscribeError::LimitExceeded {
                retry_after: retry_after(&status),
                status,
            },
            _ => SubscribeError::Call(self.call(status)),
        }
    }

    /// Why a subscription ended that was live.
    pub(super) fn subscription_end(self, status: Status) -> SubscribeError {
        match answer_code(&status) {
            Some(Code::ResourceExhausted) => SubscribeError::FellBehind { status },
            _ => self.subscribe(status),
        }
    }

    pub(super) fn health(self, service: &str, status: Status) -> HealthError {
        match answer_code(&status) {
            Some(Code::NotFound) => HealthError::UnknownService {
                service: service.to_owned(),
            },
            _ => HealthError::Call(self.call(status)),
        }
    }

    pub(super) fn call(self, status: Status) -> CallError {
        let timeout = self.timeout;
        match answer_code(&status) {
            None => self.transport(status),
            Some(Code::DeadlineExceeded) => CallError::DeadlineExceeded { timeout },
            Some(Code::Unavailable) => CallError::Unavailable {
                retry_after: retry_after(&status),
                status,
            },
            Some(Code::Unauthenticated) => CallError::Unauthenticated { status },
            Some(Code::PermissionDenied) => CallError::PermissionDenied { status },
            Some(Code::Unimplemented) => CallError::Unimplemented { status },
            Some(_) => CallError::Unexpected { status },
        }
    }

    fn transport(self, status: Status) -> CallError {
        let timeout = self.timeout;
        if causes(&status).any(|cause| cause.is::<TimeoutExpired>()) {
            return CallError::DeadlineExceeded { timeout };
        }
        let unreachable = causes(&status).any(|cause| cause.is::<ConnectError>());
        let source = TransportError(Some(status));
        if unreachable {
            let url = self.url.to_owned();
            CallError::Unreachable { url, source }
        } else {
            CallError::ConnectionLost { source }
        }
    }
}

/// The code of a status that came over the wire.
fn answer_code(status: &Status) -> Option<Code> {
    status.source().is_none().then(|| status.code())
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use tonic_types::ErrorDetails;

    use super::*;

    const MAP: ErrorMap<'_> = ErrorMap {
        url: "http://h:1",
        timeout: Duration::from_secs(10),
    };

    fn local(code: Code, source: impl Error + Send + Sync + 'static) -> Status {
        let mut status = Status::new(code, "tonic's guess");
        status.set_source(Arc::new(source));
        status
    }

    #[track_caller]
    fn check_publish(status: Status, expected: &str, retryable: bool, may_be_published: bool) {
        let error = MAP.publish(status);
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_retryable(), retryable, "{expected}: retryable");
        let may = error.may_be_published();
        assert_eq!(may, may_be_published, "{expected}: may be published");
    }

    #[track_caller]
    fn check_end(status: Status, expected: &str, survivable: bool) {
        let error = MAP.subscription_end(status);
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_survivable(), survivable, "{expected}");
    }

    #[test]
    fn a_publisher_learns_whether_to_retry() {
        let no = |code| Status::new(code, "no");
        let cases = [
            (
                Code::InvalidArgument,
                "the broker does not take the message: no",
                false,
                false,
            ),
            (
                Code::FailedPrecondition,
                "the topic takes no more: no",
                false,
                false,
            ),
            (
                Code::ResourceExhausted,
                "the message passes a limit of the broker: no",
                false,
                false,
            ),
            (
                Code::Unavailable,
                "the broker is unavailable: no",
                true,
                false,
            ),
            (
                Code::DeadlineExceeded,
                "the broker did not answer within 10s",
                true,
                true,
            ),
            (
                Code::Unauthenticated,
                "the broker wants to know who calls: no",
                false,
                false,
            ),
            (
                Code::PermissionDenied,
                "the broker does not allow this: no",
                false,
                false,
            ),
            (
                Code::Unimplemented,
                "the broker cannot do this: no",
                false,
                false,
            ),
            (
                Code::Internal,
                "the broker failed: no (Internal)",
                false,
                true,
            ),
            (
                Code::NotFound,
                "the broker failed: no (NotFound)",
                false,
                true,
            ),
        ];
        for (code, expected, retryable, may_be_published) in cases {
            check_publish(no(code), expected, retryable, may_be_published);
        }
    }

    #[track_caller]
    fn check_publisher(status: Status, expected: &str, retryable: bool, may_be_published: bool) {
        let error = MAP.publisher(status);
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_retryable(), retryable, "{expected}: retryable");
        let may = error.may_be_published();
        assert_eq!(may, may_be_published, "{expected}: may be published");
    }

    #[test]
    fn a_publisher_that_ended_learns_what_to_do_with_the_rest() {
        let no = |code| Status::new(code, "no");
        let reset = local(Code::Unknown, io::Error::from(io::ErrorKind::BrokenPipe));
        let lost = "the connection to the broker was lost";
        check_publisher(reset, lost, true, true);
        let gone = "the broker is unavailable: no";
        check_publisher(no(Code::Unavailable), gone, true, false);
        let limit = "the publisher passes a limit of the broker: no";
        check_publisher(no(Code::ResourceExhausted), limit, true, true);
        let old = "the broker cannot do this: no";
        check_publisher(no(Code::Unimplemented), old, false, false);
        let odd = "the broker failed: no (InvalidArgument)";
        check_publisher(no(Code::InvalidArgument), odd, false, true);
    }

    #[test]
    fn a_failure_on_this_side_is_not_taken_for_an_answer() {
        for code in [Code::Unknown, Code::Internal, Code::ResourceExhausted] {
            let reset = local(code, io::Error::from(io::ErrorKind::ConnectionReset));
            check_publish(
                reset.clone(),
                "the connection to the broker was lost",
                true,
                true,
            );
            check_end(reset.clone(), "the connection to the broker was lost", true);
            let source = MAP.publish(reset).source().map(ToString::to_string);
            assert_eq!(source.as_deref(), Some("connection reset"));
        }
    }

    #[test]
    fn a_live_subscription_survives_what_passes() {
        let no = |code| Status::new(code, "no");
        let slow = "the broker ended the subscription, which was read too slowly: no";
        check_end(no(Code::ResourceExhausted), slow, false);
        check_end(no(Code::Unavailable), "the broker is unavailable: no", true);
        check_end(no(Code::Internal), "the broker failed: no (Internal)", true);
        check_end(no(Code::Unknown), "the broker failed: no (Unknown)", true);
        check_end(
            no(Code::NotFound),
            "the broker failed: no (NotFound)",
            false,
        );
        check_end(
            no(Code::PermissionDenied),
            "the broker does not allow this: no",
            false,
        );
        assert!(MAP.subscribe(no(Code::ResourceExhausted)).is_survivable());
    }

    #[test]
    fn details_of_an_answer_are_kept() {
        let details = ErrorDetails::with_bad_request_violation("topic", "is empty");
        let status = Status::with_error_details(Code::InvalidArgument, "topic is empty", details);
        let PublishError::Invalid { field, .. } = MAP.publish(status) else {
            unreachable!("not Invalid")
        };
        assert_eq!(field.as_deref(), Some("topic"));

        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        let status = Status::with_error_details(Code::Unavailable, "draining", details);
        let error = MAP.subscription_end(status);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_broker_that_says_nothing_is_quoted_by_its_code() {
        check_end(
            Status::new(Code::Unavailable, ""),
            "the broker is unavailable: The service is currently unavailable",
            true,
        );
    }
}
