//! Answers in the account of memory, from when they are made until their last part is sent.
//!
//! A peer chooses how many answers it asks for and when it takes them, so that what nobody takes must have a
//! bound. What a subscription is sent is counted where it is made, and does not come by here.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};

use crate::{
    broker::{Held, Memory},
    http::Shared,
};

/// So few bytes are in the account of their stream.
const UNWEIGHED_BYTES_MAX: u64 = 256;

/// The account has no room for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoRoom;

/// Counts what the response has to say.
///
/// # Errors
/// What it has made already finds no room.
pub(super) fn weigh(
    response: Response<Body>,
    memory: &Arc<Memory>,
) -> Result<Response<Body>, NoRoom> {
    let bytes = response.body().size_hint().exact();
    let is_small = bytes.is_some_and(|bytes| bytes <= UNWEIGHED_BYTES_MAX);
    if is_small || response.extensions().get::<Shared>().is_some() {
        return Ok(response);
    }
    let held = memory.hold(bytes.unwrap_or_default() as usize);
    if memory.would_pass(0) {
        return Err(NoRoom);
    }
    Ok(response.map(|body| {
        Body::new(Weighed {
            body,
            memory: Arc::clone(memory),
            left: bytes.unwrap_or_default() as usize,
            held,
        })
    }))
}

struct Weighed {
    body: Body,
    memory: Arc<Memory>,
    /// What was made at once and not yet handed out.
    left: usize,
    held: Held,
}

impl http_body::Body for Weighed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let weighed = |data| {
            let data = self.memory.count(data);
            self.left = self.left.saturating_sub(data.len());
            let left = self.left;
            self.held.set(left);
            data
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(weighed))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_counts_until_its_last_part_is_gone() {
        let memory = Arc::new(Memory::new(10_000));
        let response = Response::new(Body::from(vec![0; 9_000]));
        let mut response = weigh(response, &memory).unwrap();
        assert_eq!(memory.used(), 9_000);
        assert_eq!(response.body().size_hint().exact(), Some(9_000));
        let another = Response::new(Body::from(vec![0; 9_000]));
        assert!(weigh(another, &memory).is_err());
        let data = response.body_mut().frame().await.unwrap().unwrap();
        drop(response);
        assert_eq!(memory.used(), 9_000);
        drop(data);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn what_is_made_piece_by_piece_counts_piece_by_piece() {
        let memory = Arc::new(Memory::new(10_000));
        let pieces = [vec![0; 1_000], vec![0; 2_000]].map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(tokio_stream::iter(pieces));
        let mut response = weigh(Response::new(body), &memory).unwrap();
        for bytes in [1_000, 2_000] {
            let _piece = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(memory.used(), bytes);
        }
        assert_eq!(memory.used(), 0);
    }
}
