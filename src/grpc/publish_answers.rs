//! What a publish stream has to answer, gathered until the caller takes it: a position, sums, and the
//! rejections.
//!
//! Invariant: rejections that wait are bounded, for each stream by [`REJECTIONS_MAX`] and those of one
//! read, and for all streams together; all else is sums.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use parking_lot::Mutex;

use super::{call::frame, status::StreamEnd};
use crate::{broker::Memory, service::PubSub, wire::pb::PublishStreamResponse};

/// Rejections that wait for the caller to take them. A caller that sends bad messages for ever and
/// reads no answer is told so by the end of its stream.
pub(super) const REJECTIONS_MAX: usize = 1_024;

/// The same of all streams together: some 16 MiB.
pub(super) const REJECTIONS_OF_ALL_MAX: usize = 65_536;

/// The answers that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Answers {
    gathered: Mutex<Gathered>,
    /// Rejections of all streams that wait.
    of_all: Arc<AtomicUsize>,
    memory: Arc<Memory>,
}

#[derive(Debug, Default)]
struct Gathered {
    answer: PublishStreamResponse,
    /// The stream's end, once it is known.
    trailers: Option<HeaderMap>,
    is_over: bool,
    reader: Option<Waker>,
}

impl Answers {
    pub(super) fn new(service: &PubSub) -> Self {
        Self {
            gathered: Mutex::default(),
            of_all: Arc::clone(&service.rejections),
            memory: Arc::clone(service.broker.memory()),
        }
    }

    pub(super) fn add(&self, more: PublishStreamResponse) -> Result<(), StreamEnd> {
        let mut gathered = self.gathered.lock();
        let answer = &mut gathered.answer;
        let untaken = answer.rejections.len();
        let of_all = self
            .of_all
            .fetch_add(more.rejections.len(), Ordering::Relaxed);
        // Whoever has none waiting is not at fault.
        let is_one_of_many = untaken > 0 && of_all > REJECTIONS_OF_ALL_MAX;
        answer.position = more.position;
        answer.matched += more.matched;
        answer.delivered += more.delivered;
        answer.dropped += more.dropped;
        answer.displaced += more.displaced;
        answer.rejections.extend(more.rejections);
        let reader = gathered.reader.take();
        drop(gathered);
        reader.into_iter().for_each(Waker::wake);
        if untaken > REJECTIONS_MAX {
            return Err(StreamEnd::RejectionsUntaken {
                max: REJECTIONS_MAX,
            });
        }
        if is_one_of_many {
            return Err(StreamEnd::RejectionsOfAll {
                max: REJECTIONS_OF_ALL_MAX,
            });
        }
        Ok(())
    }

    /// Whether rejections wait to be taken.
    pub(super) fn has_rejections(&self) -> bool {
        !self.gathered.lock().answer.rejections.is_empty()
    }

    pub(super) fn finish(&self, trailers: HeaderMap) {
        let mut gathered = self.gathered.lock();
        gathered.trailers = Some(trailers);
        let reader = gathered.reader.take();
        drop(gathered);
        reader.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let untaken = self.gathered.get_mut().answer.rejections.len();
        self.of_all.fetch_sub(untaken, Ordering::Relaxed);
    }
}

/// The response body.
pub(super) struct AnswerStream(pub(super) Arc<Answers>);

impl http_body::Body for AnswerStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut gathered = self.0.gathered.lock();
        if gathered.answer.position > 0 {
            let answer = std::mem::take(&mut gathered.answer);
            let rejections = answer.rejections.len();
            let mut data = frame(&answer);
            if rejections > 0 {
                self.0.of_all.fetch_sub(rejections, Ordering::Relaxed);
                data = self.0.memory.count(data);
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = gathered.trailers.take() {
            gathered.is_over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if gathered.is_over {
            return Poll::Ready(None);
        }
        gathered.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}
