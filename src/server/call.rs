//! One call: a request on a stream of its own, and the answer to it.
//!
//! Our own methods are called directly; everything else goes through the router. A panic ends a call
//! and nothing else. A stream may last for days: what was needed to answer is gone by then.
//! Invariant: what a call has taken from its response body and flow control does not let out is one
//! chunk.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame};
use parking_lot::Mutex;

use super::{
    answer::{answer, has_room, refuse_for_memory},
    connection::Context,
    open_stream::{OpenStream, Takes},
    pace::Pace,
};
use crate::{
    grpc::{self, Method},
    http2::{Broken, Inbound, Outbound, Reason, Request},
    metrics::Limit,
    service::{ConnectionShare, Lifeline},
};

/// A call in progress.
pub(super) struct Call {
    stage: Stage,
    open: OpenStream,
}

/// Answering takes much more memory than sending what an answer goes on to say: it ends when that
/// begins.
enum Stage {
    Answering(Pin<Box<dyn Future<Output = Option<Sending>> + Send>>),
    Sending(Box<Sending>),
}

impl Call {
    pub(super) fn new(request: Request, context: &Arc<Context>, share: &ConnectionShare) -> Self {
        let method = Method::of_call(&request.head);
        let is_companion = method.is_none() && grpc::is_grpc(request.head.headers());
        let takes = Takes::of(method.is_some(), is_companion, request.head_bytes);
        let (context, share) = (Arc::clone(context), share.clone());
        let mut open = OpenStream::new(&context, takes);
        let memory = context.pubsub.broker.memory();
        let stage = if has_room(request.head.uri().path(), is_companion, memory) {
            Stage::Answering(Box::pin(begin_answer(request, method, context, share)))
        } else {
            open.is_refused();
            Stage::Answering(Box::pin(refuse(request, context)))
        };
        Self { stage, open }
    }
}

impl Future for Call {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Self { stage, open } = &mut *self;
        // The hook has logged a panic. An answer that has begun cannot be taken back; it is reset.
        catch_unwind(AssertUnwindSafe(|| stage.poll(cx, open))).unwrap_or(Poll::Ready(()))
    }
}

impl Stage {
    fn poll(&mut self, cx: &mut TaskContext<'_>, open: &mut OpenStream) -> Poll<()> {
        match self {
            Self::Answering(answering) => {
                let Some(mut sending) = ready!(answering.as_mut().poll(cx)) else {
                    return Poll::Ready(());
                };
                // Most answers leave at once, and never live on the heap.
                let sent = Pin::new(&mut sending).poll(cx);
                if sent.is_pending() {
                    open.is_answered(sending.lifeline.is_some());
                    *self = Self::Sending(Box::new(sending));
                }
                sent
            }
            Self::Sending(sending) => Pin::new(sending).poll(cx),
        }
    }
}

/// Answers, and sends the head. What is left to send is returned, unless reading had to go on
/// meanwhile.
async fn begin_answer(
    request: Request,
    method: Option<Method>,
    context: Arc<Context>,
    share: ConnectionShare,
) -> Option<Sending> {
    let unread = Unread::default();
    let Request {
        head,
        answer: stream,
        ..
    } = request;
    let request = head.map(|stream| {
        Body::new(Received {
            stream: Some(stream),
            unread: Arc::clone(&unread),
        })
    });
    let is_grpc = grpc::is_grpc(request.headers());
    let answering = AssertUnwindSafe(answer(request, method, &context, &share)).catch_unwind();
    // The hook has logged a panic.
    let answered = answering.await;
    let unread = unread.lock().take();
    if let Some(stream) = unread.as_ref().filter(|_| !is_grpc) {
        // A caller that is in the middle of its request may take an answer for a broken connection.
        drop(tokio::time::timeout(LINGER_TIME, read_on(stream)).await);
    }
    let answer = answered.unwrap_or_else(|_| grpc::internal_error().into());
    // A caller that takes no answers does not keep them for ever.
    let patience = context.config.stall_timeout;
    let mut sending = Sending::begin(stream, answer.response, answer.lifeline, patience)?;
    sending.unread = unread;
    let Some(reading) = answer.reading else {
        sending.hurry = sending.lifeline.is_none().then(|| Hurry {
            context: Arc::clone(&context),
            waiting: None,
        });
        return Some(sending);
    };
    tokio::select! {
        // What has come is read before answers go out: these grow larger and fewer.
        biased;
        () = reading => {
            if tokio::time::timeout(patience, &mut sending).await.is_err() {
                tracing::debug!("the stream ended early: its caller takes no answers");
            }
        }
        () = &mut sending => {}
    }
    None
}

/// Answers a call that finds no room, if its caller takes that at once.
async fn refuse(request: Request, context: Arc<Context>) -> Option<Sending> {
    let Request { head, answer, .. } = request;
    let response = refuse_for_memory(grpc::is_grpc(head.headers()), &context);
    let sending = Sending::begin(answer, response, None, context.config.stall_timeout);
    sending.and_then(FutureExt::now_or_never);
    None
}

/// How much of a request that was refused is still read, and for how long.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_millis(250);

async fn read_on(stream: &Inbound) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(data)) = poll_fn(|cx| stream.poll_data(cx)).await
        && let Some(less) = left.checked_sub(data.len())
    {
        left = less;
    }
}

/// What nobody has read of a request.
type Unread = Arc<Mutex<Option<Inbound>>>;

/// The request's body as the rest of the server knows bodies.
struct Received {
    /// None once it is dropped.
    stream: Option<Inbound>,
    unread: Unread,
}

impl Drop for Received {
    fn drop(&mut self) {
        *self.unread.lock() = self.stream.take().filter(|stream| !stream.is_end_stream());
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(stream) = &self.stream else {
            return Poll::Ready(None);
        };
        stream.poll_data(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(Inbound::is_end_stream)
    }
}

/// An answer on its way. If it is dropped before its end, the peer is told to calm down: that is
/// RESOURCE_EXHAUSTED in gRPC's map of HTTP/2 errors, and stalling is what drops it.
struct Sending {
    stream: Outbound,
    body: Body,
    /// What the body has said and flow control has not let out.
    data: Bytes,
    lifeline: Option<Lifeline>,
    /// Where nobody else watches whether the answer is taken.
    hurry: Option<Hurry>,
    grace: Duration,
    is_whole: bool,
    /// To be let go of with the answer.
    unread: Option<Inbound>,
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
    /// Sends the head; `None` if that was all, or nobody wants it any more.
    fn begin(
        mut stream: Outbound,
        response: Response<Body>,
        lifeline: Option<Lifeline>,
        grace: Duration,
    ) -> Option<Self> {
        let (head, body) = response.into_parts();
        let is_whole = body.is_end_stream();
        match stream.send_head(head.status, &head.headers, is_whole) {
            Ok(()) => (!is_whole).then(|| Self {
                stream,
                body,
                data: Bytes::new(),
                lifeline,
                hurry: None,
                grace,
                is_whole,
                unread: None,
            }),
            Err(broken) => {
                log_early_end(broken);
                None
            }
        }
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

impl Future for Sending {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(lifeline) = &mut this.lifeline {
            lifeline.ask_right(cx);
        }
        let sent = match this.poll_send(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => {
                ready!(this.poll_given_up(cx));
                Err(Broken::Reset(Reason::ENHANCE_YOUR_CALM))
            }
        };
        match sent {
            Ok(()) => this.is_whole = true,
            Err(broken) => log_early_end(broken),
        }
        Poll::Ready(())
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
