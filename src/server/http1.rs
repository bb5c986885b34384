//! One HTTP/1.1 connection: one request after the other, each with what it is answered.
//!
//! A response that lasts is a stream with a lifeline, like one of HTTP/2; when it is to be let go of, so is
//! the connection, which serves nothing else meanwhile.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{answer::answer, config, connection::Context, routes};
use crate::service::{ConnectionShare, Lifeline};

/// The lifeline of the response that is being sent, if it has one.
type Sending = Arc<Mutex<Option<Lifeline>>>;

/// Serves the connection to its end.
pub(super) async fn serve<S>(stream: S, context: Arc<Context>, share: ConnectionShare)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sending = Sending::default();
    let requests = service_fn(|request| {
        let (context, share, sending) = (Arc::clone(&context), share.clone(), sending.clone());
        respond(request, context, share, sending)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.config.first_bytes_timeout)
        .max_buf_size(config::HEADER_LIST_BYTES_MAX as usize)
        .serve_connection(TokioIo::new(stream), requests);
    let mut connection = std::pin::pin!(connection);
    let grace = context.config.stall_timeout;
    let given_up = || std::future::poll_fn(|cx| poll_given_up(&sending, cx, grace));
    let ended = tokio::select! {
        // The connection comes first: it may begin a response whose lifeline is to be looked at.
        biased;
        ended = connection.as_mut() => ended,
        () = given_up() => return,
        () = context.drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection => ended,
                () = given_up() => return,
                () = context.close.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the connection ended with an error");
    }
}

fn poll_given_up(
    sending: &Sending,
    cx: &mut TaskContext<'_>,
    grace: std::time::Duration,
) -> Poll<()> {
    let mut sending = sending.lock();
    match &mut *sending {
        Some(lifeline) => {
            ready!(lifeline.poll_over(cx, grace));
            tracing::debug!("closed the connection of a stream that its reader does not take");
            Poll::Ready(())
        }
        None => Poll::Pending,
    }
}

async fn respond(
    request: Request<Incoming>,
    context: Arc<Context>,
    share: ConnectionShare,
    sending: Sending,
) -> Result<Response<Body>, Infallible> {
    let request = request.map(Body::new);
    let answering = AssertUnwindSafe(answer(request, &context, &share)).catch_unwind();
    let Ok(answer) = answering.await else {
        // The hook has logged the panic.
        return Ok(routes::internal_error());
    };
    if answer.lifeline.is_none() {
        return Ok(answer.response);
    }
    *sending.lock() = answer.lifeline;
    let tethered = |body| Body::new(Tethered { body, sending });
    Ok(answer.response.map(tethered))
}

/// A body whose lifeline ends with it.
struct Tethered {
    body: Body,
    sending: Sending,
}

impl Drop for Tethered {
    fn drop(&mut self) {
        *self.sending.lock() = None;
    }
}

impl http_body::Body for Tethered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
