//! `Publish`: one message in, its fate out.

use std::time::SystemTime;

use axum::{body::Body, extract::Request};
use http::Response;
use tokio::time::Instant;

use super::{
    PubSub,
    call::{answer, read_request},
    deadline::Deadline,
    share::ConnectionShare,
    status::Refusal,
};
use crate::{
    message::Message,
    wire::pb::{PublishRequest, PublishResponse},
};

pub(super) async fn publish(
    service: &PubSub,
    share: &ConnectionShare,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let deadline = Deadline::of(request.headers())?;
    let request: PublishRequest =
        read_request(request.into_body(), deadline, &service.receiving, share).await?;
    let started = Instant::now();
    let message = Message::try_from(request)?;
    let receipt = service.broker.publish(message, SystemTime::now())?;
    let elapsed = started.elapsed().as_secs_f64();
    service.metrics.publish_seconds.observe(elapsed);
    Ok(answer(&PublishResponse::from(receipt)))
}
