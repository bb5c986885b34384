//! A subscription as a response body, in the form that its protocol wants.
//!
//! The stream takes what waits in the mailbox in one go and passes it on as few large chunks. A loss
//! is told before the messages that still wait, and the end of the subscription last. A stream is live
//! once it is made. Dropping it, for whatever reason, unsubscribes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use super::{
    PubSub,
    chunks::Chunks,
    lifeline::Lifeline,
    refusal::{Refusal, StreamEnd},
    revocation::Revocation,
    share::{ConnectionShare, Slot},
    trace,
};
use crate::{
    access::{AccessError, Permit},
    broker::{BatchLimit, Encoding, Memory, SubscribeOptions, Subscription},
    cursor::{Cursor, Gap},
    message::Delivery,
    wire::metadata,
};

/// What is taken at once, and what may wait for a stalled reader outside its mailbox.
const BATCH: BatchLimit = BatchLimit {
    messages: 256,
    bytes: 64 * 1024,
};

/// How a protocol writes what a subscriber is told. Each thing told is complete in itself.
pub(crate) trait Format: Send + Unpin + 'static {
    /// The same for messages that many share.
    fn encoding(&self) -> &'static Encoding;

    /// Appends a message, and that so many were missed before it, if any were. A large payload may be
    /// returned instead, to follow right after.
    fn put_delivery(&self, out: &mut BytesMut, delivery: &Delivery, missed: u64) -> Option<Bytes>;

    /// Appends that so many were missed before these frames; what is returned follows right after.
    fn put_missed_before(&self, out: &mut BytesMut, missed: u64, frames: Bytes) -> Bytes {
        self.put_missed(out, missed);
        frames
    }

    /// Appends a notice of loss that goes on its own.
    fn put_missed(&self, out: &mut BytesMut, missed: u64);

    /// Appends what was asked for and is no longer kept, and from where to go on if nothing follows.
    fn put_gap(&self, out: &mut BytesMut, gap: Gap, place: Option<Cursor>);

    fn put_heartbeat(&self, out: &mut BytesMut);

    /// Appends last words, or returns the trailers that say the same.
    fn put_end(&self, out: &mut BytesMut, end: &StreamEnd, missed: u64) -> Option<HeaderMap>;
}

/// What a subscriber asks for.
pub(crate) struct StreamRequest {
    /// The span that the caller is in.
    pub(crate) parent: trace::Parent,
    /// What to ask the caller's rights of, if rights are asked for.
    pub(crate) permit: Option<Permit>,
    pub(crate) options: SubscribeOptions,
    /// After how much silence the caller wants a heartbeat.
    pub(crate) heartbeat_interval: Option<Duration>,
    /// The same if it does not say.
    pub(crate) heartbeat_interval_default: Option<Duration>,
    /// When the caller stops waiting.
    pub(crate) deadline: Option<Instant>,
}

/// The response body of a subscription.
pub(crate) struct LiveStream<F> {
    /// `None` once the end is told.
    subscription: Option<Subscription>,
    memory: Arc<Memory>,
    format: F,
    heartbeat: Option<Heartbeat>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Encoded and not yet passed on: what was taken last.
    chunks: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// Why the caller has lost its right, once it has.
    revoked: Option<Arc<OnceLock<AccessError>>>,
    _slot: Slot,
}

impl<F: Format> LiveStream<F> {
    /// Subscribes. Who drives the stream lets go of it when its lifeline says so.
    ///
    /// # Errors
    /// The caller may not have what it asks for, or a limit leaves no room.
    pub(crate) fn open(
        service: &PubSub,
        share: &ConnectionShare,
        mut request: StreamRequest,
        format: F,
    ) -> Result<(Self, Option<Lifeline>), Refusal> {
        let filters = request.options.filters.clone();
        let parent = std::mem::take(&mut request.parent);
        let subscribe = || Self::subscribe(service, share, request, format);
        trace::subscribe(&parent, &filters, subscribe)
    }

    fn subscribe(
        service: &PubSub,
        share: &ConnectionShare,
        request: StreamRequest,
        format: F,
    ) -> Result<(Self, Option<Lifeline>), Refusal> {
        let StreamRequest {
            mut permit,
            options,
            ..
        } = request;
        if let Some(permit) = &mut permit {
            for filter in options.filters.as_slice() {
                permit.subscribe(filter)?;
            }
        }
        let options = SubscribeOptions {
            arrival: share.arrival(),
            ..options
        };
        let revocable = permit.map(|permit| (permit, options.filters.clone()));
        if let Some(interval) = request.heartbeat_interval
            && !service.heartbeat_interval.contains(&interval)
        {
            return Err(Refusal::Heartbeat {
                interval,
                min: *service.heartbeat_interval.start(),
                max: *service.heartbeat_interval.end(),
            });
        }
        let slot = share
            .acquire()
            .ok_or_else(|| Refusal::TooManyOnConnection {
                max: share.subscriptions_max(),
            })?;
        let mut subscription = service
            .broker
            .subscribe_encoded(options, format.encoding())?;
        let revocation = revocable.map(|(permit, filters)| {
            let revocation = Revocation::new(permit, filters, subscription.ender());
            (revocation.reason(), revocation)
        });
        let (revoked, revocation) = revocation.unzip();
        let end = subscription.watch_end();
        let lifeline = end.map(|end| Lifeline::new(end, request.deadline, revocation));
        let heartbeat_interval = request
            .heartbeat_interval
            .or(request.heartbeat_interval_default);
        let stream = Self {
            heartbeat: heartbeat_interval.map(Heartbeat::new),
            deadline: request
                .deadline
                .map(|at| Box::pin(tokio::time::sleep_until(at))),
            memory: Arc::clone(subscription.memory()),
            subscription: Some(subscription),
            format,
            chunks: VecDeque::new(),
            trailers: None,
            revoked,
            _slot: slot,
        };
        Ok((stream, lifeline))
    }

    /// What the response's headers tell of the subscription.
    pub(crate) fn facts(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(subscription) = &self.subscription {
            let size = subscription.mailbox_size();
            headers.insert(metadata::MAILBOX_CAPACITY, HeaderValue::from(size.messages));
            headers.insert(metadata::MAILBOX_BYTES, HeaderValue::from(size.bytes));
            if let Some(start) = subscription.start() {
                headers.insert(metadata::EPOCH, HeaderValue::from(start.epoch.0));
                headers.insert(metadata::HEAD_SEQUENCE, HeaderValue::from(start.head.0));
            }
            if let Some(cursor) = subscription.cursor() {
                let value = HeaderValue::try_from(cursor.to_string());
                headers.insert(metadata::CURSOR, value.expect("a cursor is printable"));
            }
        }
        headers
    }

    /// From where to go on if the stream breaks before it has said anything.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.subscription.as_ref()?.cursor()
    }

    /// Says something before everything else.
    pub(crate) fn begin_with(&mut self, words: Bytes) {
        self.chunks.push_front(words);
    }

    /// Takes what waits, to be passed on. Ready with the end, and what was missed before it, once there is
    /// nothing more.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<(StreamEnd, u64)>> {
        let Some(subscription) = &mut self.subscription else {
            return Poll::Ready(None);
        };
        let mut chunks = Chunks::new(&self.memory, &self.format, &mut self.chunks);
        let taken = subscription.poll_take_encoded(cx, BATCH, |taken| chunks.put(taken));
        Poll::Ready(match std::task::ready!(taken) {
            Ok(()) => {
                chunks.finish();
                None
            }
            Err(ended) => {
                let revoked = self.revoked.as_ref().and_then(|revoked| revoked.get());
                let end = match revoked {
                    Some(reason) => StreamEnd::Revoked(reason.clone()),
                    None => StreamEnd::Ended(ended.reason),
                };
                Some((end, ended.missed))
            }
        })
    }

    /// Tells the end; the subscription is over.
    fn end(&mut self, end: &StreamEnd, missed: u64) {
        self.subscription = None;
        let mut last_words = BytesMut::new();
        self.trailers = self.format.put_end(&mut last_words, end, missed);
        if !last_words.is_empty() {
            self.chunks.push_back(last_words.freeze());
        }
    }
}

impl<F: Format> http_body::Body for LiveStream<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        loop {
            if let Some(chunk) = this.chunks.pop_front() {
                if let Some(heartbeat) = &mut this.heartbeat {
                    heartbeat.restart();
                }
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if this.subscription.is_none() {
                let trailers = this.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if let Some(deadline) = &mut this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                this.end(&StreamEnd::Deadline, 0);
                continue;
            }
            match this.poll_take(cx) {
                Poll::Ready(None) => {}
                Poll::Ready(Some((end, missed))) => this.end(&end, missed),
                Poll::Pending => {
                    let Some(heartbeat) = &mut this.heartbeat else {
                        return Poll::Pending;
                    };
                    std::task::ready!(heartbeat.sleep.as_mut().poll(cx));
                    let mut chunk = BytesMut::new();
                    this.format.put_heartbeat(&mut chunk);
                    heartbeat.restart();
                    if !chunk.is_empty() {
                        this.chunks.push_back(chunk.freeze());
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.subscription.is_none() && self.chunks.is_empty() && self.trailers.is_none()
    }
}

/// Runs out after a time of silence.
struct Heartbeat {
    interval: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Heartbeat {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            sleep: Box::pin(tokio::time::sleep(interval)),
        }
    }

    fn restart(&mut self) {
        self.sleep.as_mut().reset(Instant::now() + self.interval);
    }
}
