//! `Publish`: one message in, its fate out.

use std::time::SystemTime;

use axum::{body::Body, extract::Request};
use http::Response;
use tokio::time::Instant;

use super::{
    call::{answer, read_request_bytes},
    deadline::Deadline,
};
use crate::{
    service::{CallError, ConnectionShare, PubSub, Refusal, trace},
    wire::{Publish, next_topic, pb::PublishResponse, request::with_publish_request},
};

pub(super) async fn publish(
    service: &PubSub,
    share: &ConnectionShare,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let deadline = Deadline::of(request.headers())?;
    let mut permit = service.permit(request.headers(), share)?;
    let parent = trace::Parent::of_call(request.headers());
    let request =
        read_request_bytes(request.into_body(), deadline, &service.receiving, share).await?;
    share.admit_publish()?;
    let started = Instant::now();
    let published = with_publish_request(&request, |request| {
        let mut topic = None;
        let topic = next_topic(request.topic, &mut topic)?;
        if let Some(permit) = &mut permit {
            permit.publish(topic)?;
        }
        let publish = Publish::try_from(request)?;
        let (message, now) = (publish.to_topic(topic), SystemTime::now());
        let publish = || service.broker.run().publish(&message, now);
        Ok::<_, Refusal>(trace::publish(Some(parent), &message, publish)?)
    });
    let receipt = published.map_err(CallError::Malformed)??;
    let elapsed = started.elapsed().as_secs_f64();
    service.metrics.publish_seconds.observe(elapsed);
    Ok(answer(&PublishResponse::from(receipt)))
}
