//! An answer on its way, until its peer has it or is not waited for any longer.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body as _;

use super::{connection::Context, pace::Pace};
use crate::{
    http2::{Broken, Inbound, Outbound, Reason},
    metrics::Limit,
    service::Lifeline,
};

/// How much of a request that was refused is still read, and for how long.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_millis(250);

async fn linger(stream: Inbound) {
    let reading = async {
        let mut left = LINGER_BYTES;
        while let Some(Ok(data)) = poll_fn(|cx| stream.poll_data(cx)).await
            && let Some(less) = left.checked_sub(data.len())
        {
            left = less;
        }
    };
    drop(tokio::time::timeout(LINGER_TIME, reading).await);
}

/// An answer on its way. If it is dropped before its end, the peer is told to calm down: that is
/// RESOURCE_EXHAUSTED in gRPC's map of HTTP/2 errors, and stalling is what drops it.
pub(super) struct Sending {
    stream: Outbound,
    body: Body,
    /// What the body has said and flow control has not let out.
    data: Bytes,
    lifeline: Option<Lifeline>,
    /// Where nobody else watches whether the answer is taken.
    hurry: Option<Hurry>,
    grace: Duration,
    is_whole: bool,
    /// What is left of the request: to be let go of with the answer, or some time after it.
    unread: Option<Inbound>,
    lingers: bool,
    lingering: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Gives an answer up that its caller does not take, or not in time, or that is in the way.
struct Hurry {
    context: Arc<Context>,
    /// While flow control holds some of it back; with the bytes that were let out since.
    waiting: Option<(Pace, u64)>,
}

impl Hurry {
    fn poll_over(&mut self, cx: &mut TaskContext<'_>, patience: Duration) -> Poll<()> {
        let metrics = &self.context.metrics;
        if self.context.pubsub.broker.memory().would_pass(0) {
            metrics.reject(Limit::Memory);
            return Poll::Ready(());
        }
        let waiting = self.waiting.get_or_insert_with(|| (Pace::new(patience), 0));
        let (pace, taken_bytes) = waiting;
        ready!(pace.poll_over(cx, *taken_bytes));
        metrics.reject(Limit::AnswerUntaken);
        Poll::Ready(())
    }

    fn sent(&mut self, bytes: usize, is_all: bool) {
        if is_all {
            self.waiting = None;
        } else if let Some((_, taken_bytes)) = &mut self.waiting {
            *taken_bytes += bytes as u64;
        }
    }
}

impl Sending {
    /// Sends the head; `None` if nobody wants it any more.
    pub(super) fn begin(
        mut stream: Outbound,
        response: Response<Body>,
        lifeline: Option<Lifeline>,
        grace: Duration,
    ) -> Option<Self> {
        let (head, body) = response.into_parts();
        let is_whole = body.is_end_stream();
        match stream.send_head(head.status, &head.headers, is_whole) {
            Ok(()) => Some(Self {
                stream,
                body,
                data: Bytes::new(),
                lifeline,
                hurry: None,
                grace,
                is_whole,
                unread: None,
                lingers: false,
                lingering: None,
            }),
            Err(broken) => {
                log_early_end(broken);
                None
            }
        }
    }

    /// What is left of the request, and whether some of it is still read once it is answered: a caller that is in
    /// the middle of it may take the end of its stream for a broken connection.
    pub(super) fn leave_unread(&mut self, unread: Option<Inbound>, lingers: bool) {
        self.unread = unread;
        self.lingers = lingers;
    }

    /// Gives the answer up if its caller does not take it, unless it is a subscription's, which has a clock of its own.
    pub(super) fn hurry(&mut self, context: &Arc<Context>) {
        self.hurry = self.lifeline.is_none().then(|| Hurry {
            context: Arc::clone(context),
            waiting: None,
        });
    }

    /// Whether it is a subscription's.
    pub(super) fn is_live(&self) -> bool {
        self.lifeline.is_some()
    }

    fn poll_send(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_send_data(cx))?;
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // Nothing is to be sent: whether anybody wants it is the question.
                return self.stream.poll_broken(cx).map(Err);
            };
            let Some(frame) = frame else {
                return Poll::Ready(self.stream.end());
            };
            match frame.expect("our bodies do not fail").into_data() {
                Ok(data) => self.data = data,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                    return Poll::Ready(self.stream.send_trailers(&trailers));
                }
            }
        }
    }

    /// Sends as flow control lets it out.
    fn poll_send_data(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Broken>> {
        if self.data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let before = self.data.len();
        let sent = self.stream.poll_send(cx, &mut self.data);
        if let Some(hurry) = &mut self.hurry {
            hurry.sent(before - self.data.len(), self.data.is_empty());
        }
        if self.data.is_empty() {
            // What is empty may still keep its memory.
            self.data = Bytes::new();
        }
        sent
    }
}

impl Sending {
    /// Ready once the answer is not waited for any longer.
    fn poll_given_up(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        match (&mut self.lifeline, &mut self.hurry) {
            (Some(lifeline), _) => lifeline.poll_over(cx, self.grace),
            (None, Some(hurry)) if !self.data.is_empty() => hurry.poll_over(cx, self.grace),
            _ => Poll::Pending,
        }
    }
}

impl Sending {
    fn poll_answer(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        if let Some(lifeline) = &mut self.lifeline {
            lifeline.ask_right(cx);
        }
        let sent = match self.poll_send(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => {
                ready!(self.poll_given_up(cx));
                Err(Broken::Reset(Reason::ENHANCE_YOUR_CALM))
            }
        };
        match sent {
            Ok(()) => self.is_whole = true,
            Err(broken) => {
                self.lingers = false;
                log_early_end(broken);
            }
        }
        Poll::Ready(())
    }
}

impl Future for Sending {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(lingering) = &mut this.lingering {
            return lingering.as_mut().poll(cx);
        }
        if !this.is_whole {
            ready!(this.poll_answer(cx));
        }
        let Some(unread) = this.unread.take().filter(|_| this.lingers) else {
            return Poll::Ready(());
        };
        let lingering = this.lingering.insert(Box::pin(linger(unread)));
        lingering.as_mut().poll(cx)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.is_whole {
            self.stream.reset(Reason::ENHANCE_YOUR_CALM);
        }
    }
}

fn log_early_end(broken: Broken) {
    tracing::debug!(%broken, "the stream ended early");
}
