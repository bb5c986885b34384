//! Ends streams that would never end by themselves (Health/Watch, reflection) when the broker drains.
//!
//! What the stream still has to say goes first, such as NOT_SERVING to those who watch health.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
};
use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::status::drained_trailers;

/// Middleware: puts each response body under the drain's command.
pub(super) async fn end_on_drain(
    State(drain): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response<Body> {
    next.run(request).await.map(|body| {
        Body::new(DrainBody {
            body,
            drain: Box::pin(drain.cancelled_owned()),
            done: false,
        })
    })
}

struct DrainBody {
    body: Body,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    done: bool,
}

impl http_body::Body for DrainBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        std::task::ready!(self.drain.as_mut().poll(cx));
        self.done = true;
        Poll::Ready(Some(Ok(Frame::trailers(drained_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.body.is_end_stream()
    }
}
