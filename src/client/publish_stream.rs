//! One `PublishStream` call: what the publisher, the request's body and the reader of answers share.
//!
//! The publisher encodes into the buffer, the body hands the connection what is there, and a task of its
//! own reads answers, whatever the application does: a broker that cannot get rid of its answers would
//! end the stream. Nothing here waits while the lock is held.
//! Invariants: memory is what is in flight, and that is bounded; a stream on which nothing is answered
//! for a request's timeout ends, so that no wait is for ever; once there is an end, nobody waits.

use std::{
    convert::Infallible,
    fmt,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tonic::{Streaming, body::Body};
use tower::ServiceExt as _;

use super::{
    connection::{Connection, Generation},
    convert::Malformed,
    error::{CallError, PublisherError, SendError, TransportError},
    in_flight::{Answered, InFlight, Position, Rejections},
    options::PublisherOptions,
    publish_frame::Outgoing,
};
use crate::{
    message::Message,
    wire::pb::{PublishStreamResponse, pub_sub_service_client::PubSubServiceClient},
};

/// A timer that is seen this much too late tells that the process was busy or asleep. Answers may still
/// wait in the socket, so the broker gets another [`MARGIN`].
const LATE: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_secs(5);

pub(super) struct PublishStream(Mutex<State>);

struct State {
    in_flight: InFlight,
    outgoing: Outgoing,
    /// Nothing more will be put into `outgoing`.
    is_finished: bool,
    end: Option<Result<(), PublisherError>>,
    /// Since when something is owed that has not come: an answer, or the end.
    waiting_since: Option<Instant>,
    body: Option<Waker>,
    publisher: Option<Waker>,
}

impl PublishStream {
    /// Begins the call; there is a broker at its other end when this returns.
    pub(super) async fn open(
        connection: Arc<Connection>,
        options: PublisherOptions,
    ) -> Result<Arc<Self>, PublisherError> {
        let stream = Arc::new(Self(Mutex::new(State {
            in_flight: InFlight::new(options),
            outgoing: Outgoing::default(),
            is_finished: false,
            end: None,
            waiting_since: None,
            body: None,
            publisher: None,
        })));
        let (generation, channel) = connection.channel();
        // The generated client makes the call, and the body is ours: it encodes without a detour.
        let body = Arc::clone(&stream);
        let channel = channel.map_request(move |request: http::Request<Body>| {
            request.map(|_| Body::new(Requests(Arc::clone(&body))))
        });
        let mut rpc = PubSubServiceClient::new(channel);
        // No deadline travels along: it would end the stream.
        let answer = connection.answer(rpc.publish_stream(tokio_stream::empty()));
        let answers = match answer.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(connection.errors().publisher(status)),
            Err(late) => {
                connection.abandon(generation);
                return Err(late.into());
            }
        };
        let reader = Reader {
            stream: Arc::clone(&stream),
            connection,
            generation,
        };
        tokio::spawn(reader.run(answers));
        Ok(stream)
    }

    /// Sends a message once there is room for it, and does `then` before it can be answered.
    pub(super) fn poll_send<T>(
        &self,
        cx: &Context<'_>,
        message: &Message,
        bytes: u32,
        then: fn(&mut InFlight) -> T,
    ) -> Poll<Result<T, SendError>> {
        let mut state = self.0.lock();
        if let Some(Err(error)) = &state.end {
            return Poll::Ready(Err(SendError::Ended(error.clone())));
        }
        if state.is_finished {
            return Poll::Ready(Err(SendError::Finished));
        }
        if !state.in_flight.has_room(bytes) {
            wait(&mut state.publisher, cx);
            return Poll::Pending;
        }
        state.outgoing.put(message);
        state.in_flight.push(bytes);
        state.waiting_since.get_or_insert_with(Instant::now);
        let sent = then(&mut state.in_flight);
        let body = state.body.take();
        drop(state);
        wake(body);
        Poll::Ready(Ok(sent))
    }

    /// Waits until all that was sent is answered.
    pub(super) fn poll_flushed(&self, cx: &Context<'_>) -> Poll<Result<Answered, PublisherError>> {
        let mut state = self.0.lock();
        if state.in_flight.is_empty() {
            return Poll::Ready(Ok(state.in_flight.answered()));
        }
        if let Some(Err(error)) = &state.end {
            return Poll::Ready(Err(error.clone()));
        }
        wait(&mut state.publisher, cx);
        Poll::Pending
    }

    /// Waits until the broker has ended the stream, too.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> Poll<Result<Answered, PublisherError>> {
        let mut state = self.0.lock();
        if state.end.is_none() {
            wait(&mut state.publisher, cx);
            return Poll::Pending;
        }
        drop(state);
        self.poll_flushed(cx)
    }

    /// Ends the requests with what was sent until now.
    pub(super) fn finish(&self) {
        let mut state = self.0.lock();
        state.is_finished = true;
        if state.end.is_none() {
            state.waiting_since.get_or_insert_with(Instant::now);
        }
        let body = state.body.take();
        drop(state);
        wake(body);
    }

    pub(super) fn answered(&self) -> Answered {
        self.0.lock().in_flight.answered()
    }

    pub(super) fn unanswered(&self) -> Range<Position> {
        self.0.lock().in_flight.unanswered()
    }

    pub(super) fn take_rejections(&self) -> Rejections {
        self.0.lock().in_flight.take_rejections()
    }

    fn answer(&self, response: PublishStreamResponse) -> Result<(), Malformed> {
        let mut state = self.0.lock();
        state.in_flight.answer(response)?;
        let is_owed = state.is_finished || !state.in_flight.is_empty();
        state.waiting_since = is_owed.then(Instant::now);
        let publisher = state.publisher.take();
        drop(state);
        wake(publisher);
        Ok(())
    }

    /// The broker has ended the stream with OK, as it may after the last answer.
    fn completed(&self) -> Result<(), PublisherError> {
        let state = self.0.lock();
        if state.is_finished && state.in_flight.is_empty() {
            return Ok(());
        }
        let answered = state.in_flight.answered().position;
        let reason = format_args!("the stream ended at {answered}, before the publisher did");
        Err(Malformed::new("position", reason).into())
    }

    /// The first end counts.
    fn end(&self, end: Result<(), PublisherError>) {
        let mut state = self.0.lock();
        if state.end.is_some() {
            return;
        }
        if let Err(error) = &end {
            state.in_flight.end(error);
        }
        state.end = Some(end);
        state.outgoing = Outgoing::default();
        let wakers = (state.publisher.take(), state.body.take());
        drop(state);
        wake(wakers.0);
        wake(wakers.1);
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.0.lock().waiting_since
    }
}

fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    waker.into_iter().for_each(Waker::wake);
}

impl fmt::Debug for PublishStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("PublishStream")
            .field("answered", &state.in_flight.answered())
            .field("unanswered", &state.in_flight.unanswered())
            .field("end", &state.end)
            .finish_non_exhaustive()
    }
}

/// The request's body.
struct Requests(Arc<PublishStream>);

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = self.0.0.lock();
        if let Some(chunk) = state.outgoing.take() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if state.is_finished || state.end.is_some() {
            return Poll::Ready(None);
        }
        wait(&mut state.body, cx);
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.0.lock();
        state.outgoing.is_empty() && (state.is_finished || state.end.is_some())
    }
}

/// Reads the answers, until the stream's end.
struct Reader {
    stream: Arc<PublishStream>,
    connection: Arc<Connection>,
    generation: Generation,
}

impl Reader {
    async fn run(self, answers: Streaming<PublishStreamResponse>) {
        let end = self.read(answers).await;
        self.stream.end(end);
    }

    async fn read(
        &self,
        mut answers: Streaming<PublishStreamResponse>,
    ) -> Result<(), PublisherError> {
        let timeout = self.connection.options().request_timeout;
        let mut check_at = Instant::now().checked_add(timeout);
        loop {
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.stream.answer(answer)?,
                    Ok(None) => return self.stream.completed(),
                    Err(status) => return Err(self.connection.errors().publisher(status)),
                },
                due = until(check_at) => check_at = self.check(due)?,
            }
        }
    }

    /// When to check next; an error if what is owed has not come in time.
    fn check(&self, due: Instant) -> Result<Option<Instant>, CallError> {
        let timeout = self.connection.options().request_timeout;
        let now = Instant::now();
        let Some(since) = self.stream.waiting_since() else {
            return Ok(now.checked_add(timeout));
        };
        let Some(owed_at) = since.checked_add(timeout) else {
            return Ok(None);
        };
        if now < owed_at {
            Ok(Some(owed_at))
        } else if now > due + LATE {
            Ok(Some(now + MARGIN))
        } else {
            self.connection.abandon(self.generation);
            Err(CallError::DeadlineExceeded { timeout })
        }
    }
}

/// A task that is gone, because its runtime is, reads no end.
impl Drop for Reader {
    fn drop(&mut self) {
        let source = TransportError::ended();
        self.stream
            .end(Err(CallError::ConnectionLost { source }.into()));
    }
}

/// A time past what the clock can tell does not come.
async fn until(at: Option<Instant>) -> Instant {
    match at {
        Some(at) => {
            sleep_until(at).await;
            at
        }
        None => std::future::pending().await,
    }
}
