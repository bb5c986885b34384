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
    service::{CallError, ConnectionShare, PubSub, Received, Refusal, trace},
    topic::Topic,
    wire::{
        Publish,
        frame::PREFIX_BYTES,
        next_topic,
        pb::{PublishStreamResponse, Rejection},
        request::with_publish_request,
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
        let end = read(publisher, request.into_body(), deadline).await;
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

    /// Publishes the whole messages at the front. Counts them in `published.position`.
    fn take_messages(
        &mut self,
        buffer: &mut impl Chunk,
        now: SystemTime,
        published: &mut PublishStreamResponse,
    ) -> Result<(), StreamEnd> {
        loop {
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
            self.count(outcome, published);
        }
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

    fn count(&self, outcome: Result<Receipt, Refusal>, published: &mut PublishStreamResponse) {
        match outcome {
            Ok(receipt) => {
                published.matched += u64::from(receipt.matched);
                published.delivered += u64::from(receipt.delivered);
                published.dropped += u64::from(receipt.dropped);
                published.displaced += receipt.displaced;
            }
            Err(refusal) => {
                if let Some(limit) = refusal.limit() {
                    self.service.metrics.reject(limit);
                }
                published.rejections.push(Rejection {
                    position: self.position,
                    code: refusal.code() as i32,
                    message: refusal.to_string(),
                    field: refusal.field().unwrap_or_default().to_owned(),
                });
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.arriving.is_empty() && self.skipping == 0
    }
}

/// What messages can be cut from.
trait Chunk: AsRef<[u8]> + Buf {}
impl Chunk for Bytes {}
impl Chunk for BytesMut {}
