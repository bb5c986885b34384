//! From a request to its answer, whatever it came by.
//!
//! Our own methods, called in gRPC over HTTP/2, are answered without a detour; everything else goes
//! through the router, with what belongs to its connection in its extensions.

use axum::body::Body;
use http::{Request, Response};
use tower::ServiceExt;

use super::{
    connection::Context,
    weighed::{NoRoom, weigh},
};
use crate::{
    broker::Memory,
    grpc::{self, Answer, Method},
    http as plain_http,
    metrics::Limit,
    service::{CallError, ConnectionShare, Lifeline},
};

/// Answers a request; `method` is one of ours if that is called in gRPC over HTTP/2.
pub(super) async fn answer<'c>(
    mut request: Request<Body>,
    method: Option<Method>,
    context: &'c Context,
    share: &ConnectionShare,
) -> Answer<'c> {
    if let Some(method) = method {
        return method.call(&context.pubsub, share, request).await;
    }
    share.peer().introduce(request.extensions_mut());
    request.extensions_mut().insert(share.clone());
    let is_grpc = grpc::is_grpc(request.headers());
    let answered = Box::pin(context.router.clone().oneshot(request)).await;
    let mut response = answered.unwrap_or_else(|never| match never {});
    let lifeline = Lifeline::unfasten_from(&mut response);
    if lifeline.is_none() {
        let weighed = weigh(response, context.pubsub.broker.memory());
        response = weighed.unwrap_or_else(|NoRoom| refuse_for_memory(is_grpc, context));
    }
    Answer {
        lifeline,
        response,
        reading: None,
    }
}

/// Whether there is room for a request that counts by now.
///
/// Whoever asks whether the broker lives is answered always, and at once; the broker would be restarted otherwise.
/// Streams that are no use to publishers must leave these the last of it.
pub(super) fn has_room(path: &str, is_companion: bool, memory: &Memory) -> bool {
    match path {
        "/health" | "/ready" => true,
        _ if is_companion && path != grpc::HEALTH_CHECK => !memory.is_full(),
        _ => !memory.would_pass(0),
    }
}

/// The answer to a request for which there is no room.
pub(super) fn refuse_for_memory(is_grpc: bool, context: &Context) -> Response<Body> {
    context.metrics.reject(Limit::Memory);
    let budget = context.pubsub.broker.memory().budget();
    let refusal = CallError::MemoryFull { budget }.into();
    if is_grpc {
        grpc::refuse(refusal)
    } else {
        plain_http::refuse(refusal)
    }
}
