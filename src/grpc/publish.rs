//! `Publish`: one message in, its fate out.

use std::{sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    extract::{Request, State},
    response::IntoResponse,
};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::{
    PubSub,
    call::{answer, read_request},
    deadline::Deadline,
    status::Refusal,
    translate::is_grpc,
};
use crate::{
    message::Message,
    wire::pb::{PublishRequest, PublishResponse},
};

pub(super) async fn publish(
    State(service): State<Arc<PubSub>>,
    request: Request,
) -> Response<Body> {
    if !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    match publish_one(&service, request).await {
        Ok(response) => answer(&response),
        Err(refusal) => {
            if let Some(limit) = refusal.limit() {
                service.metrics.reject(limit);
            }
            refusal.into_response()
        }
    }
}

async fn publish_one(service: &PubSub, request: Request) -> Result<PublishResponse, Refusal> {
    let deadline = Deadline::of(request.headers())?;
    let request: PublishRequest =
        read_request(request.into_body(), deadline, &service.receiving).await?;
    let started = Instant::now();
    let message = Message::try_from(request)?;
    let receipt = service.broker.publish(message, SystemTime::now())?;
    let elapsed = started.elapsed().as_secs_f64();
    service.metrics.publish_seconds.observe(elapsed);
    Ok(receipt.into())
}
