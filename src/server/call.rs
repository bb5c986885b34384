//! One call: a request on a stream of its own, and the answer to it.
//!
//! Our own methods are called directly; everything else goes through the router. A panic ends a call
//! and nothing else. A stream may last for days: what was needed to answer is gone by then.
//! Invariant: what a call has taken from its response body and flow control does not let out is one
//! chunk.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Frame;
use parking_lot::Mutex;

use super::{
    answer::{answer, has_room, refuse_for_memory},
    connection::Context,
    open_stream::{OpenStream, Takes},
    sending::Sending,
};
use crate::{
    grpc::{self, Method},
    http2::{Broken, Inbound, Request},
    service::ConnectionShare,
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
    /// Begins a call, unless its caller has taken it back in the same breath; or refuses it at once if there is no room:
    /// what is to be refused must not wait for its turn, with all that it has said.
    pub(super) fn begin(
        request: Request,
        context: &Arc<Context>,
        share: &ConnectionShare,
    ) -> Option<Self> {
        if request.answer.is_broken() {
            return None;
        }
        let method = Method::of_call(&request.head);
        let is_companion = method.is_none() && grpc::is_grpc(request.head.headers());
        let takes = Takes::of(method.is_some(), is_companion, request.head_bytes);
        let open = OpenStream::new(context, takes);
        let memory = context.pubsub.broker.memory();
        if !has_room(request.head.uri().path(), is_companion, memory) {
            refuse(request, context);
            return None;
        }
        let answering = begin_answer(request, method, Arc::clone(context), share.clone());
        let stage = Stage::Answering(Box::pin(answering));
        Some(Self { stage, open })
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
                    open.is_answered(sending.is_live());
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
    let answer = answered.unwrap_or_else(|_| grpc::internal_error().into());
    // A caller that takes no answers does not keep them for ever.
    let patience = context.config.stall_timeout;
    let mut sending = Sending::begin(stream, answer.response, answer.lifeline, patience)?;
    sending.leave_unread(unread, !is_grpc);
    let Some(reading) = answer.reading else {
        sending.hurry(&context);
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
fn refuse(request: Request, context: &Context) {
    let Request { head, answer, .. } = request;
    let response = refuse_for_memory(grpc::is_grpc(head.headers()), context);
    let sending = Sending::begin(answer, response, None, context.config.stall_timeout);
    sending.and_then(FutureExt::now_or_never);
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
