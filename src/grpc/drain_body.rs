//! Ends streams that would never end by themselves (Health/Watch, reflection) when the broker drains,
//! when their caller's deadline has passed, or when it has lost its right.
//!
//! What the stream still has to say goes first, such as NOT_SERVING to those who watch health.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
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
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    deadline::Deadline,
    status::{end_trailers, refuse},
};
use crate::{
    access::{Access, AccessError, Leash, Peer},
    auth::Right,
    broker::EndReason,
    service::StreamEnd,
};

/// What ends a stream beside its caller's deadline.
#[derive(Clone, Debug)]
pub(super) struct EndsOn {
    pub(super) drain: CancellationToken,
    /// Who asks for the right to reflection, if anybody does.
    pub(super) access: Option<Arc<Access>>,
}

/// Middleware: lets those in who have the right, and puts each response body under the command of what
/// ends it.
pub(super) async fn end_in_time(
    State(EndsOn { drain, access }): State<EndsOn>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let leash = access.map(|access| {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.cloned().unwrap_or_default();
        let caller = access.check(Right::Reflection, request.headers(), &peer)?;
        Ok::<_, AccessError>(Leash::new(&access, caller))
    });
    let leash = match leash.transpose() {
        Ok(leash) => leash,
        Err(error) => return refuse(error.into()),
    };
    let deadline = match Deadline::of(request.headers()) {
        Ok(deadline) => deadline.at(),
        Err(error) => return refuse(error.into()),
    };
    next.run(request).await.map(|body| {
        Body::new(DrainBody {
            body,
            drain: Box::pin(drain.cancelled_owned()),
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            leash,
            done: false,
        })
    })
}

struct DrainBody {
    body: Body,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
    leash: Option<Leash>,
    done: bool,
}

impl DrainBody {
    fn end(&mut self, end: &StreamEnd) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.done = true;
        Poll::Ready(Some(Ok(Frame::trailers(end_trailers(end, 0)))))
    }
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
        if let Some(leash) = &mut self.leash
            && let Poll::Ready(error) = leash.poll_lost(cx, Right::Reflection)
        {
            return self.end(&StreamEnd::Revoked(error));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let deadline = self.deadline.as_mut();
        if deadline.is_some_and(|at| at.as_mut().poll(cx).is_ready()) {
            return self.end(&StreamEnd::Deadline);
        }
        std::task::ready!(self.drain.as_mut().poll(cx));
        self.end(&StreamEnd::Ended(EndReason::Draining))
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.body.is_end_stream()
    }
}
