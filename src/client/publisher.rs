//! Publishing many messages on one stream: sent one after the other, answered by position.
//!
//! For anyone who publishes more than now and then: a send does not wait for its answer, only for room.
//! The promise: messages arrive in the order in which they were sent, none is sent twice, and each is
//! known to be published, known to be rejected, or named as unanswered when the stream breaks.

use std::{
    future::{Future, poll_fn},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    connection::Connection,
    error::{CallError, PublisherError, SendError, TicketError, TransportError},
    in_flight::{Answered, InFlight, Position, Rejections, TicketReceiver},
    options::{MESSAGE_BYTES_MAX, PublisherOptions},
    publish_stream::PublishStream,
};
use crate::message::Message;

/// Publishes messages in their order on one stream, many at a time.
///
/// Answers are read in the background and counted: [`answered`](Self::answered) tells how far they are,
/// and [`take_rejections`](Self::take_rejections) what the broker did not take. Whoever wants to know of
/// one message alone sends it with a [`Ticket`]. Nobody has to look at answers: a publisher that only
/// sends does not stall.
///
/// When the stream breaks, nothing is sent again, for that could publish a message twice:
/// [`unanswered`](Self::unanswered) names the messages whose fate is not known, and
/// [`Client::publisher`](super::Client::publisher) makes another publisher.
///
/// Dropping a publisher ends its stream after what was sent. Tickets still tell what became of it.
#[derive(Debug)]
pub struct Publisher {
    stream: Arc<PublishStream>,
}

impl Publisher {
    pub(super) async fn open(
        connection: Arc<Connection>,
        options: PublisherOptions,
    ) -> Result<Self, PublisherError> {
        let stream = PublishStream::open(connection, options).await?;
        Ok(Self { stream })
    }

    /// Sends a message, waiting only while too much is in flight. It is published once it is
    /// [`answered`](Self::answered) and not among the [rejections](Self::take_rejections).
    ///
    /// A call that is dropped while it waits has sent nothing.
    ///
    /// # Errors
    /// A message that no broker takes, and a stream that is over. The message was not sent.
    pub async fn send(&mut self, message: Message) -> Result<Position, SendError> {
        self.send_then(message, |in_flight| in_flight.sent()).await
    }

    /// [`send`](Self::send), with a future that tells what became of this message.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_tracked(&mut self, message: Message) -> Result<Ticket, SendError> {
        self.send_then(message, |in_flight| Ticket {
            position: in_flight.sent(),
            answer: in_flight.track(),
        })
        .await
    }

    async fn send_then<T>(
        &mut self,
        message: Message,
        then: fn(&mut InFlight) -> T,
    ) -> Result<T, SendError> {
        let (bytes, max) = (message.size(), MESSAGE_BYTES_MAX);
        let size = u32::try_from(bytes).ok().filter(|_| bytes <= max);
        let size = size.ok_or(SendError::TooLarge { bytes, max })?;
        // Lets the connection have its turn, and other tasks, however much there is room for.
        tokio::task::coop::consume_budget().await;
        poll_fn(|cx| self.stream.poll_send(cx, &message, size, then)).await
    }

    /// Waits until all messages sent so far are answered.
    ///
    /// # Errors
    /// The stream broke before; see [`unanswered`](Self::unanswered).
    pub async fn flush(&mut self) -> Result<Answered, PublisherError> {
        poll_fn(|cx| self.stream.poll_flushed(cx)).await
    }

    /// Ends the stream after what was sent, and waits until all of it is answered. What can be asked of
    /// the publisher can still be asked afterwards.
    ///
    /// # Errors
    /// The stream broke before all was answered; see [`unanswered`](Self::unanswered).
    pub async fn finish(&mut self) -> Result<Answered, PublisherError> {
        self.stream.finish();
        poll_fn(|cx| self.stream.poll_ended(cx)).await
    }

    /// How far the answers are, and what they say in sum.
    #[must_use]
    pub fn answered(&self) -> Answered {
        self.stream.answered()
    }

    /// The messages that were sent and are not answered. Once the stream has broken, it is not known
    /// whether they were published, unless the error [says so](PublisherError::may_be_published).
    #[must_use]
    pub fn unanswered(&self) -> Range<Position> {
        self.stream.unanswered()
    }

    /// The rejections since they were taken last, but for those told by a [`Ticket`].
    pub fn take_rejections(&mut self) -> Rejections {
        self.stream.take_rejections()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stream.finish();
    }
}

/// What becomes of one message: a future, which may outlive the publisher.
///
/// Dropping it is harmless: a rejection is then told by
/// [`take_rejections`](Publisher::take_rejections).
#[derive(Debug)]
#[must_use = "a message without interest in its answer costs less with `send`"]
pub struct Ticket {
    position: Position,
    answer: TicketReceiver,
}

impl Ticket {
    /// The message's place among those that its publisher sent.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }
}

impl Future for Ticket {
    type Output = Result<(), TicketError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        // Without a word: the runtime that read the answers is gone.
        Poll::Ready(answer.unwrap_or_else(|_| {
            let source = TransportError::ended();
            let error = CallError::ConnectionLost { source };
            Err(TicketError::Unanswered(error.into()))
        }))
    }
}
