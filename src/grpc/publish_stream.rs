//! `PublishStream`: messages in, answers by position out, each at its own pace.
//!
//! One future reads and publishes; it never waits for the caller to take answers, since a pause in
//! reading can stall the whole connection. The response body passes on what has gathered meanwhile: a
//! position, sums, and the rejections, whose number is bounded.
//! Invariants: each message received completely is answered once, in order; memory is one message that
//! is arriving, what [`Answers`] hold, and the rejections of one read: 16 KiB hold 3,276 messages at
//! most.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::SystemTime,
};

use axum::{body::Body, extract::Request};
use bytes::{Buf, Bytes, BytesMut};
use http::{Response, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{
    call::{CONTENT_TYPE_GRPC, ok_trailers},
    deadline::Deadline,
    publish_answers::{AnswerStream, Answers},
    status::StreamEnd,
};
use crate::{
    access::{AccessError, Leash, Permit},
    broker::{Receipt, Run},
    message::{Attributes, MessageRef},
    service::{CallError, ConnectionShare, PubSub, Received, Refusal, trace},
    topic::Topic,
    wire::{
        Publish,
        frame::PREFIX_BYTES,
        next_topic,
        pb::{PublishStreamResponse, Rejection},
        request::{plain_payload, with_publish_request},
    },
};

/// Messages and deliveries that cost one unit of a task's budget, of which tokio gives 128 for a turn:
/// a turn is some 30,000 deliveries, or a few milliseconds.
const WORK_UNIT: u64 = 256;

/// What is read in one go, in bytes: what it rejects waits for the caller without a bound on its number.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The response, and the future that reads the request for it.
pub(super) fn publish_stream<'s>(
    service: &'s PubSub,
    share: &ConnectionShare,
    request: Request,
) -> Result<(Response<Body>, impl Future<Output = ()> + Send + use<'s>), Refusal> {
    let deadline = Deadline::of(request.headers())?;
    let permit = service.permit(request.headers(), share)?;
    let answers = Arc::new(Answers::new(service));
    let mut response = Response::new(Body::new(AnswerStream(Arc::clone(&answers))));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    let arriving = Received::new(&service.receiving, share);
    let share = share.clone();
    // Its head goes now: a stream lasts.
    let body = request.into_body();
    let reading = async move {
        let publisher = Publisher {
            service,
            share: &share,
            answers: &answers,
            arriving,
            skipping: 0,
            position: 0,
            last_topic: None,
            run: service.broker.run(),
            permit,
        };
        let end = read(publisher, body, deadline).await;
        answers.finish(match end {
            Ok(()) => ok_trailers(),
            Err(end) => {
                if let Some(limit) = end.limit() {
                    service.metrics.reject(limit);
                }
                end.trailers()
            }
        });
    };
    Ok((response, reading))
}

/// Publishes what comes until the caller ends the stream, breaks it off, or must not go on.
async fn read(
    mut publisher: Publisher<'_>,
    body: Body,
    deadline: Deadline,
) -> Result<(), StreamEnd> {
    let (service, answers) = (publisher.service, publisher.answers);
    let mut leash = publisher.permit.as_ref().map(Permit::leash);
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            biased;
            // Also while there is always more to read.
            changed = change(&mut leash), if leash.is_some() => {
                changed.and_then(|()| publisher.ask_again())?;
                continue;
            }
            frame = body.frame() => frame,
            () = until(deadline.at()) => return Err(CallError::DeadlineExceeded.into()),
            () = service.drain.cancelled() => return Err(StreamEnd::Draining),
            () = publisher.arriving.overdue() => {
                let after = service.receiving.patience;
                return Err(CallError::TimedOut { after }.into());
            }
        };
        match frame {
            Some(Ok(frame)) => {
                let mut data = frame.into_data().unwrap_or_default();
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
                    publisher.arriving.wait_for_room(piece.len()).await;
                    let work = publisher.take(piece)?;
                    // Neighbours on this thread get their turn by what was done, not by what was read.
                    for _ in 0..=work / WORK_UNIT {
                        tokio::task::coop::consume_budget().await;
                    }
                    if answers.has_rejections() {
                        // A caller that does read them gets the chance to.
                        tokio::task::yield_now().await;
                    }
                }
            }
            Some(Err(error)) => return Err(CallError::BrokenOff(error).into()),
            None if publisher.is_between_messages() => return Ok(()),
            None => return Err(StreamEnd::PartOfMessage),
        }
    }
}

async fn change(leash: &mut Option<Leash>) -> Result<(), AccessError> {
    match leash {
        Some(leash) => poll_fn(|cx| leash.poll_change(cx)).await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Cuts what arrives into messages and publishes them.
struct Publisher<'s> {
    service: &'s PubSub,
    share: &'s ConnectionShare,
    answers: &'s Answers,
    arriving: Received<'s>,
    /// What is still to come of a message that was rejected by its prefix.
    skipping: usize,
    /// Of the message answered last.
    position: u64,
    last_topic: Option<Topic>,
    run: Run<'s>,
    /// What the caller may do, if anybody asks.
    permit: Option<Permit>,
}

impl Publisher<'_> {
    /// Publishes what is complete; returns how much work that was, in messages and deliveries.
    fn take(&mut self, data: Bytes) -> Result<u64, StreamEnd> {
        let now = SystemTime::now();
        let started = Instant::now();
        let mut published = PublishStreamResponse::default();
        let taken = if self.arriving.is_empty() {
            // The usual case: what comes whole is published from where it is.
            let mut rest = data;
            let taken = self.take_messages(&mut rest, now, &mut published);
            taken.and_then(|()| Ok(self.arriving.extend(&rest)?))
        } else {
            self.take_more(&data, now, &mut published)
        };
        self.run.count();
        let messages = published.position;
        let work = messages + published.matched;
        published.position = self.position;
        if messages > 0 {
            // One figure for a read, as an average: a clock for each message would cost as much.
            let elapsed = started.elapsed().as_secs_f64() / messages as f64;
            self.service.metrics.publish_seconds.observe(elapsed);
            self.answers.add(published)?;
        }
        taken.map(|()| work)
    }

    fn take_more(
        &mut self,
        data: &[u8],
        now: SystemTime,
        published: &mut PublishStreamResponse,
    ) -> Result<(), StreamEnd> {
        self.arriving.extend(data)?;
        let mut buffer = self.arriving.take();
        let taken = self.take_messages(&mut buffer, now, published);
        self.arriving.put_back(buffer);
        taken
    }

    /// Publishes the whole messages at the front.
    fn take_messages(
        &mut self,
        buffer: &mut impl Chunk,
        now: SystemTime,
        published: &mut PublishStreamResponse,
    ) -> Result<(), StreamEnd> {
        loop {
            self.publish_alike(buffer, now, published);
            let skipped = self.skipping.min(buffer.as_ref().len());
            buffer.advance(skipped);
            self.skipping -= skipped;
            let Some((prefix, rest)) = buffer.as_ref().split_at_checked(PREFIX_BYTES) else {
                return Ok(());
            };
            let bytes = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let max = self.service.receiving.request_bytes_max;
            let outcome = if prefix[0] != 0 || bytes > max {
                self.skipping = bytes;
                buffer.advance(PREFIX_BYTES);
                Err(Refusal::from(if bytes > max {
                    CallError::TooLarge { bytes, max }
                } else {
                    CallError::Compressed
                }))
            } else {
                let Some(message) = rest.get(..bytes) else {
                    return Ok(());
                };
                let outcome = self.publish(message, now);
                buffer.advance(PREFIX_BYTES + bytes);
                outcome
            };
            self.position += 1;
            published.position += 1;
            match outcome {
                Ok(receipt) => add(published, &receipt),
                Err(refusal) => reject(published, self.service, self.position, &refusal),
            }
        }
    }

    /// Publishes the whole messages at the front that are like the one before.
    fn publish_alike(
        &mut self,
        buffer: &mut impl Chunk,
        now: SystemTime,
        published: &mut PublishStreamResponse,
    ) {
        let Self {
            service,
            share,
            position,
            last_topic: Some(topic),
            run,
            permit,
            skipping: 0,
            ..
        } = self
        else {
            return;
        };
        let mut alike = Alike {
            bytes: buffer.as_ref(),
            topic,
            none: &Attributes::default(),
            share,
            message_bytes_max: service.receiving.request_bytes_max,
        };
        // Who may not publish is told so for each message.
        let may_publish = |permit: &mut Permit| permit.publish(topic).is_ok();
        if alike.peek().is_none() || !permit.as_mut().is_none_or(may_publish) {
            return;
        }
        run.publish_all(&mut alike, now, |outcome| {
            *position += 1;
            published.position += 1;
            match outcome {
                Ok(receipt) => add(published, &receipt),
                Err(error) => reject(published, service, *position, &error.into()),
            }
        });
        let taken = buffer.as_ref().len() - alike.bytes.len();
        buffer.advance(taken);
    }

    fn publish(&mut self, message: &[u8], now: SystemTime) -> Result<Receipt, Refusal> {
        self.share.admit_publish()?;
        let Self {
            last_topic,
            run,
            permit,
            ..
        } = self;
        let published = with_publish_request(message, |request| {
            let topic = next_topic(request.topic, last_topic)?;
            if let Some(permit) = permit {
                permit.publish(topic)?;
            }
            let publish = Publish::try_from(request)?;
            let message = publish.to_topic(topic);
            let publish = || run.publish(&message, now);
            Ok::<_, Refusal>(trace::publish(None, &message, publish)?)
        });
        published.map_err(CallError::Malformed)?
    }

    /// Asks whether what was allowed still is, once there is another policy.
    fn ask_again(&mut self) -> Result<(), AccessError> {
        self.permit.as_mut().map_or(Ok(()), Permit::publish_again)
    }

    fn is_between_messages(&self) -> bool {
        self.arriving.is_empty() && self.skipping == 0
    }
}

/// Adds what became of a message.
fn add(published: &mut PublishStreamResponse, receipt: &Receipt) {
    published.matched += u64::from(receipt.matched);
    published.delivered += u64::from(receipt.delivered);
    published.dropped += u64::from(receipt.dropped);
    published.displaced += receipt.displaced;
}

/// Adds that the message at this position was not published.
fn reject(
    published: &mut PublishStreamResponse,
    service: &PubSub,
    position: u64,
    refusal: &Refusal,
) {
    if let Some(limit) = refusal.limit() {
        service.metrics.reject(limit);
    }
    published.rejections.push(Rejection {
        position,
        code: refusal.code() as i32,
        message: refusal.to_string(),
        field: refusal.field().unwrap_or_default().to_owned(),
    });
}

/// The messages at the front that have the topic of the one before, a payload, and nothing else, as most
/// have. They need no check but the limits'; and as they have no attributes, nobody traces them.
struct Alike<'a> {
    bytes: &'a [u8],
    topic: &'a Topic,
    none: &'a Attributes,
    share: &'a ConnectionShare,
    message_bytes_max: usize,
}

impl<'a> Alike<'a> {
    /// The next one's payload, and what comes after it.
    fn peek(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (prefix, rest) = self.bytes.split_first_chunk::<PREFIX_BYTES>()?;
        let [0, length @ ..] = *prefix else {
            return None;
        };
        let bytes = u32::from_be_bytes(length) as usize;
        let (message, rest) = rest.split_at_checked(bytes)?;
        let payload = plain_payload(message, self.topic.as_str())?;
        (bytes <= self.message_bytes_max).then_some((payload, rest))
    }
}

impl<'a> Iterator for Alike<'a> {
    type Item = MessageRef<'a>;

    fn next(&mut self) -> Option<MessageRef<'a>> {
        let (payload, rest) = self.peek()?;
        // One that comes too soon is refused where it is published on its own.
        self.share.admit_publish().ok()?;
        self.bytes = rest;
        Some(MessageRef::plain(self.topic, payload, self.none))
    }
}

/// What messages can be cut from.
trait Chunk: AsRef<[u8]> + Buf {}
impl Chunk for Bytes {}
impl Chunk for BytesMut {}
