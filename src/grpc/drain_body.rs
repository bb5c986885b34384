//! Ends streams that would never end by themselves (Health/Watch, reflection) when the broker drains,
//! or when their caller's deadline has passed.
//!
//! What the stream still has to say goes first, such as NOT_SERVING to those who watch health.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::IntoResponse,
};
use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    deadline::Deadline,
    status::{Refusal, deadline_trailers, drained_trailers},
};

/// Middleware: puts each response body under the drain's command.
pub(super) async fn end_on_drain(
    State(drain): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let deadline = match Deadline::of(request.headers()) {
        Ok(deadline) => deadline.at(),
        Err(error) => return Refusal::from(error).into_response(),
    };
    next.run(request).await.map(|body| {
        Body::new(DrainBody {
            body,
            drain: Box::pin(drain.cancelled_owned()),
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            done: false,
        })
    })
}

struct DrainBody {
    body: Body,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
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
        let deadline = self.deadline.as_mut();
        let trailers = if deadline.is_some_and(|at| at.as_mut().poll(cx).is_ready()) {
            deadline_trailers()
        } else {
            std::task::ready!(self.drain.as_mut().poll(cx));
            drained_trailers()
        };
        self.done = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.body.is_end_stream()
    }
}
