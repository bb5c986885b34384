//! `Subscribe`: a mailbox becomes a stream.
//!
//! The stream takes what waits in the mailbox in one go and passes it on as few large chunks. A loss
//! is told before the messages that still wait, and the end of the subscription in the trailers.
//! When the response's headers are out, the subscription is live. Dropping the stream, for whatever
//! reason, unsubscribes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::IntoResponse};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use super::{
    PubSub,
    call::{CONTENT_TYPE_GRPC, read_request},
    deadline::Deadline,
    lifeline::Lifeline,
    revocation::Revocation,
    share::{ConnectionShare, Slot},
    status::{Refusal, deadline_trailers, ended_trailers, revoked_trailers},
};
use crate::{
    access::AccessError,
    broker::{BatchLimit, Memory, SubscribeOptions, Subscription, Taken},
    wire::{
        Subscribe,
        frame::{Form, put_delivery, put_heartbeat, put_missed, put_missed_before},
        metadata,
        pb::SubscribeRequest,
    },
};

/// What is taken at once, and what may wait for a stalled reader outside its mailbox.
const BATCH: BatchLimit = BatchLimit {
    messages: 256,
    bytes: 64 * 1024,
};

/// Frames of fewer bytes than this are copied together with their neighbours: sending each on its own
/// would cost more.
const FRAMES_BYTES_COPIED_MAX: usize = 2 * 1024;

/// What a chunk takes beside its bytes, with an entry of HTTP/2's table of frames; as measured, rounded up.
const CHUNK_OVERHEAD_BYTES: usize = 512;

pub(super) async fn subscribe(
    service: &PubSub,
    share: &ConnectionShare,
    request: Request,
    form: Form,
) -> Result<(Response<Body>, Option<Lifeline>), Refusal> {
    let (stream, lifeline) = open_stream(service, share, request, form).await?;
    Ok((stream.into_response(), lifeline))
}

async fn open_stream(
    service: &PubSub,
    share: &ConnectionShare,
    request: Request,
    form: Form,
) -> Result<(DeliveryStream, Option<Lifeline>), Refusal> {
    let deadline = Deadline::of(request.headers())?;
    let mut permit = service.permit(request.headers(), share)?;
    let request: SubscribeRequest =
        read_request(request.into_body(), deadline, &service.receiving, share).await?;
    let request = Subscribe::try_from(request)?;
    let filter = &request.options.filter;
    if let Some(permit) = &mut permit {
        permit.subscribe(filter)?;
    }
    let revocable = permit.map(|permit| (permit, filter.clone()));
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
    let form = match form {
        Form::Full if request.text => Form::Text,
        form => form,
    };
    let options = SubscribeOptions {
        origin: share.origin(),
        ..request.options
    };
    let mut subscription = service.broker.subscribe_encoded(options, form.encoding())?;
    let revocation = revocable.map(|(permit, filter)| {
        let revocation = Revocation::new(permit, filter, subscription.ender());
        (revocation.reason(), revocation)
    });
    let (revoked, revocation) = revocation.unzip();
    let end = subscription.watch_end();
    let lifeline = end.map(|end| Lifeline::new(end, deadline.at(), revocation));
    let stream = DeliveryStream {
        // The reference's clients know no heartbeat.
        heartbeat: (form != Form::PayloadOnly)
            .then_some(request.heartbeat_interval)
            .flatten()
            .map(Heartbeat::new),
        deadline: deadline
            .at()
            .map(|at| Box::pin(tokio::time::sleep_until(at))),
        memory: Arc::clone(subscription.memory()),
        subscription: Some(subscription),
        form,
        chunks: VecDeque::new(),
        revoked,
        _slot: slot,
    };
    Ok((stream, lifeline))
}

/// The response body of a subscription.
struct DeliveryStream {
    /// `None` once the trailers are out.
    subscription: Option<Subscription>,
    memory: Arc<Memory>,
    form: Form,
    heartbeat: Option<Heartbeat>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Encoded and not yet passed on: what was taken last.
    chunks: VecDeque<Bytes>,
    /// Why the caller has lost its right, once it has.
    revoked: Option<Arc<OnceLock<AccessError>>>,
    _slot: Slot,
}

impl IntoResponse for DeliveryStream {
    fn into_response(self) -> Response<Body> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
        if let Some(subscription) = &self.subscription {
            let size = subscription.mailbox_size();
            headers.insert(metadata::MAILBOX_CAPACITY, HeaderValue::from(size.messages));
            headers.insert(metadata::MAILBOX_BYTES, HeaderValue::from(size.bytes));
            if let Some(start) = subscription.start() {
                headers.insert(metadata::EPOCH, HeaderValue::from(start.epoch.0));
                headers.insert(metadata::HEAD_SEQUENCE, HeaderValue::from(start.head.0));
            }
        }
        // Said once in a stream's life. Indexed, it would stay in the tables of both ends for as long
        // as the connection lives.
        let values = headers.values_mut();
        values.for_each(|value| value.set_sensitive(true));
        let mut response = Response::new(Body::new(self));
        *response.headers_mut() = headers;
        response
    }
}

impl DeliveryStream {
    fn end(&mut self, trailers: HeaderMap) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.subscription = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// Makes chunks of what is taken from a mailbox.
struct Chunks<'c> {
    memory: &'c Arc<Memory>,
    form: Form,
    whole: &'c mut VecDeque<Bytes>,
    /// Few bytes that go as they are, if they stay alone.
    alone: Bytes,
    /// What is copied together until something follows that is not.
    gathered: BytesMut,
    /// To be told with the next message.
    missed: u64,
}

impl Chunks<'_> {
    fn put(&mut self, taken: Taken) {
        match taken {
            Taken::Missed(missed) => self.missed = missed,
            Taken::Frames(frames) => self.put_frames(frames),
            Taken::Delivery(delivery) => {
                self.gather_alone();
                let missed = std::mem::take(&mut self.missed);
                let large = put_delivery(&mut self.gathered, &delivery, missed, self.form);
                if let Some(payload) = large {
                    self.put_whole(payload);
                }
            }
        }
    }

    fn put_frames(&mut self, mut frames: Bytes) {
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 && self.form != Form::PayloadOnly {
            self.gather_alone();
            frames = put_missed_before(&mut self.gathered, missed, frames);
        }
        if frames.len() >= FRAMES_BYTES_COPIED_MAX {
            self.put_whole(frames);
        } else if self.alone.is_empty() && self.gathered.is_empty() {
            self.alone = frames;
        } else {
            self.gather_alone();
            self.gathered.extend_from_slice(&frames);
        }
    }

    fn put_whole(&mut self, chunk: Bytes) {
        self.pass_on();
        self.whole.push_back(chunk);
    }

    fn finish(mut self) {
        if self.missed > 0 && self.form != Form::PayloadOnly {
            self.gather_alone();
            put_missed(&mut self.gathered, self.missed);
        }
        self.pass_on();
    }

    fn gather_alone(&mut self) {
        self.gathered
            .extend_from_slice(&std::mem::take(&mut self.alone));
    }

    fn pass_on(&mut self) {
        if !self.alone.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.alone));
        }
        if !self.gathered.is_empty() {
            let gathered = self.gathered.split().freeze();
            let held = self.memory.hold(gathered.len() + CHUNK_OVERHEAD_BYTES);
            self.whole.push_back(held.count(gathered));
        }
    }
}

impl http_body::Body for DeliveryStream {
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
            let Some(subscription) = &mut this.subscription else {
                return Poll::Ready(None);
            };
            if let Some(deadline) = &mut this.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                return this.end(deadline_trailers());
            }
            let mut chunks = Chunks {
                memory: &this.memory,
                form: this.form,
                whole: &mut this.chunks,
                alone: Bytes::new(),
                gathered: BytesMut::new(),
                missed: 0,
            };
            match subscription.poll_take_encoded(cx, BATCH, |taken| chunks.put(taken)) {
                Poll::Ready(Ok(())) => chunks.finish(),
                Poll::Ready(Err(ended)) => {
                    let revoked = this.revoked.as_ref().and_then(|revoked| revoked.get());
                    let trailers = match revoked {
                        Some(reason) => revoked_trailers(reason.clone(), ended.missed),
                        None => ended_trailers(ended),
                    };
                    return this.end(trailers);
                }
                Poll::Pending => {
                    let Some(heartbeat) = &mut this.heartbeat else {
                        return Poll::Pending;
                    };
                    std::task::ready!(heartbeat.sleep.as_mut().poll(cx));
                    let mut chunk = BytesMut::new();
                    put_heartbeat(&mut chunk);
                    this.chunks.push_back(chunk.freeze());
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.subscription.is_none() && self.chunks.is_empty()
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
