//! From a request to its answer, whatever it came by.
//!
//! Our own methods, called in gRPC over HTTP/2, are answered without a detour; everything else goes
//! through the router, with what belongs to its connection in its extensions.

use axum::body::Body;
use http::{Request, Version};
use tower::ServiceExt;

use super::connection::Context;
use crate::{
    grpc::{self, Answer},
    service::{ConnectionShare, Lifeline},
};

pub(super) async fn answer<'c>(
    mut request: Request<Body>,
    context: &'c Context,
    share: &ConnectionShare,
) -> Answer<'c> {
    if request.version() == Version::HTTP_2
        && let Some(method) = grpc::Method::of_call(&request)
    {
        return method.call(&context.pubsub, share, request).await;
    }
    share.peer().introduce(request.extensions_mut());
    request.extensions_mut().insert(share.clone());
    let answered = Box::pin(context.router.clone().oneshot(request)).await;
    let mut response = answered.unwrap_or_else(|never| match never {});
    Answer {
        lifeline: Lifeline::unfasten_from(&mut response),
        response,
        reading: None,
    }
}
