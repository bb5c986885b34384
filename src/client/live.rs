//! One life of a subscription: from the request, over one connection, to its end.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::Instant;
use tokio_stream::Stream as _;
use tonic::{Request, Streaming, metadata::MetadataMap};

use super::{
    connection::{Connection, Generation},
    error::{CallError, SubscribeError, TransportError},
    gap::Start,
    silence::Silence,
};
use crate::{
    cursor::Cursor,
    message::{Epoch, Sequence},
    wire::{metadata, pb},
};

/// A connection that lasted this long, or delivered anything, was a success: the next failure waits
/// as the first one does.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// What the broker granted, and where the subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The mailbox's bound in messages; `None` if the broker did not say.
    pub mailbox_capacity: Option<u64>,
    /// The mailbox's bound in bytes; `None` if the broker did not say.
    pub mailbox_bytes: Option<u64>,
    /// Where the topic stood; `None` for a filter with wildcards.
    pub start: Option<Start>,
    /// From where to go on if nothing arrives; `None` if nothing that matches is kept, or if asking for the
    /// same again does it.
    pub cursor: Option<Cursor>,
}

impl Facts {
    fn new(headers: &MetadataMap) -> Self {
        let number = |name| number(headers, name);
        let start = number(metadata::EPOCH).zip(number(metadata::HEAD_SEQUENCE));
        Self {
            mailbox_capacity: number(metadata::MAILBOX_CAPACITY),
            mailbox_bytes: number(metadata::MAILBOX_BYTES),
            start: start.map(|(epoch, head)| Start {
                epoch: Epoch(epoch),
                head: Sequence(head),
            }),
            cursor: headers
                .get(metadata::CURSOR)
                .and_then(|cursor| cursor.to_str().ok()?.parse().ok()),
        }
    }
}

fn number(metadata: &MetadataMap, name: &str) -> Option<u64> {
    metadata.get(name)?.to_str().ok()?.parse().ok()
}

/// One life of a subscription.
pub(super) struct Live {
    responses: Streaming<pb::SubscribeResponse>,
    generation: Generation,
    opened_at: Instant,
    delivered: bool,
    silence: Option<Silence>,
}

/// Why a life ended, and the misses that its trailers told.
pub(super) struct End {
    /// `None` at the end of the topic.
    pub(super) error: Option<SubscribeError>,
    pub(super) missed: u64,
}

impl Live {
    pub(super) async fn open(
        connection: Arc<Connection>,
        request: pb::SubscribeRequest,
        heartbeat_interval: Option<Duration>,
    ) -> Result<(Facts, Self), SubscribeError> {
        let (generation, mut rpc) = connection.pubsub();
        // No deadline travels along: it would end the stream.
        let answer = connection.answer(rpc.subscribe(Request::new(request)));
        let response = match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => return Err(connection.errors().subscribe(status)),
            Err(late) => {
                connection.abandon(generation);
                return Err(late.into());
            }
        };
        let facts = Facts::new(response.metadata());
        let live = Self {
            responses: response.into_inner(),
            generation,
            opened_at: Instant::now(),
            delivered: false,
            silence: heartbeat_interval.map(Silence::new),
        };
        Ok((facts, live))
    }

    /// The next response, or why there is no further one.
    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
    ) -> Poll<Result<pb::SubscribeResponse, End>> {
        let error = match Pin::new(&mut self.responses).poll_next(cx) {
            Poll::Ready(Some(Ok(response))) => {
                self.delivered = true;
                if let Some(silence) = &mut self.silence {
                    silence.heard();
                }
                return Poll::Ready(Ok(response));
            }
            Poll::Ready(Some(Err(status))) => {
                let missed = number(status.metadata(), metadata::MISSED).unwrap_or_default();
                let error = connection.errors().subscription_end(status);
                let error = Some(error);
                return Poll::Ready(Err(End { error, missed }));
            }
            Poll::Ready(None) => return Poll::Ready(Err(self.ended_well())),
            Poll::Pending => match &mut self.silence {
                None => return Poll::Pending,
                Some(silence) => {
                    let silence = ready!(silence.poll_too_long(cx));
                    connection.abandon(self.generation);
                    SubscribeError::Silent { silence }
                }
            },
        };
        let error = Some(error);
        Poll::Ready(Err(End { error, missed: 0 }))
    }

    /// A stream that ends with OK: with its topic, or by something between that knows no better.
    fn ended_well(&mut self) -> End {
        let trailers =
            pin!(self.responses.trailers()).poll(&mut Context::from_waker(Waker::noop()));
        let trailers = match trailers {
            Poll::Ready(Ok(Some(trailers))) => trailers,
            _ => MetadataMap::new(),
        };
        let has_ended = trailers
            .get(metadata::TOPIC_ENDED)
            .is_some_and(|v| v == "true");
        let source = TransportError::ended();
        End {
            error: (!has_ended).then(|| CallError::ConnectionLost { source }.into()),
            missed: number(&trailers, metadata::MISSED).unwrap_or_default(),
        }
    }

    /// Whether it was a success, as these things go.
    pub(super) fn was_steady(&self) -> bool {
        self.delivered || self.opened_at.elapsed() >= STEADY_AFTER
    }
}
