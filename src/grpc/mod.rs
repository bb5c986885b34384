//! The gRPC side of the broker: one file per method, what they share, and the services beside them.
//!
//! Convert, call, convert: a request becomes the domain's types, the domain answers, the answer goes
//! out. Statuses are built in [`status`] alone. The same methods are served under two names: our own,
//! and the one that the reference's clients were compiled with.

mod call;
mod deadline;
mod drain_body;
mod health;
mod publish;
mod publish_answers;
mod publish_stream;
mod status;
mod subscribe;
mod translate;
mod web;

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    middleware,
    routing::any,
};
use http::Response;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::{
    drain_body::{EndsOn, end_in_time},
    status::refuse_client_stream,
    translate::{pass_calls, refuse_head},
};
pub(crate) use self::{
    health::Readiness,
    status::{internal_error, refuse},
    translate::{answer_in_grpc, is_grpc, is_grpc_web},
};
use crate::{
    access::Access,
    service::{ConnectionShare, Lifeline, PubSub},
    wire,
    wire::frame::Form,
};

/// What asks once whether the broker is well.
pub(crate) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// A method of `PubSubService`, under either of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Publish,
    PublishStream,
    Subscribe(Form),
}

/// What a caller gets, and what has to go on meanwhile for it.
pub(crate) struct Answer<'s> {
    pub(crate) response: Response<Body>,
    /// Reads the request on; ends by itself.
    pub(crate) reading: Option<Pin<Box<dyn Future<Output = ()> + Send + 's>>>,
    /// Says when to let go of the response.
    pub(crate) lifeline: Option<Lifeline>,
}

impl From<Response<Body>> for Answer<'_> {
    fn from(response: Response<Body>) -> Self {
        Self {
            response,
            reading: None,
            lifeline: None,
        }
    }
}

impl Method {
    const ALL: [(&str, Self); 5] = [
        ("/pubsub.v1.PubSubService/Publish", Self::Publish),
        (
            "/pubsub.v1.PubSubService/PublishStream",
            Self::PublishStream,
        ),
        (
            "/pubsub.v1.PubSubService/Subscribe",
            Self::Subscribe(Form::Full),
        ),
        ("/proto.PubSubService/Publish", Self::Publish),
        (
            "/proto.PubSubService/Subscribe",
            Self::Subscribe(Form::PayloadOnly),
        ),
    ];

    /// The method that a request's path names.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(name, method)| (name == path).then_some(method))
    }

    /// The method that a request calls in gRPC.
    pub(crate) fn of_call<B>(request: &http::Request<B>) -> Option<Self> {
        Self::of(request.uri().path()).filter(|_| is_grpc(request.headers()))
    }

    pub(crate) async fn call<'s>(
        self,
        service: &'s PubSub,
        share: &ConnectionShare,
        request: Request,
    ) -> Answer<'s> {
        if let Some(refusal) = refuse_head(&request) {
            return refusal.into();
        }
        // Boxed each for itself: a call takes the memory of its own method, and a stream that lasts
        // keeps none of it.
        let answered = match self {
            Self::Publish => Box::pin(publish::publish(service, share, request))
                .await
                .map(Answer::from),
            Self::PublishStream => publish_stream::publish_stream(service, share, request).map(
                |(response, reading)| Answer {
                    response,
                    reading: Some(Box::pin(reading)),
                    lifeline: None,
                },
            ),
            Self::Subscribe(form) => Box::pin(subscribe::subscribe(service, share, request, form))
                .await
                .map(|(response, lifeline)| Answer {
                    response,
                    reading: None,
                    lifeline,
                }),
        };
        answered.unwrap_or_else(|refusal| {
            if let Some(limit) = refusal.limit() {
                service.metrics.reject(limit);
            }
            refuse(refusal).into()
        })
    }
}

/// Our own methods for whoever does not call them in gRPC over HTTP/2: for gRPC-Web, and to be refused.
pub(crate) fn method_routes(service: Arc<PubSub>) -> Router {
    let paths = Method::ALL.map(|(path, _)| path).into_iter();
    paths
        .fold(Router::new(), |router, path| router.route(path, any(call)))
        .with_state(service)
}

async fn call(
    State(service): State<Arc<PubSub>>,
    Extension(share): Extension<ConnectionShare>,
    request: Request,
) -> Response<Body> {
    let method = Method::of(request.uri().path()).expect("only methods are routed here");
    if method == Method::PublishStream && is_grpc(request.headers()) {
        return refuse_client_stream();
    }
    let mut answer = method.call(&service, &share, request).await;
    if let Some(lifeline) = answer.lifeline.take() {
        lifeline.fasten_to(&mut answer.response);
    }
    answer.response
}

/// Health, which is open to anybody, and reflection. Their streams, which would never end by themselves,
/// end on drain.
pub(crate) fn companion_routes(
    readiness: &Readiness,
    drain: CancellationToken,
    access: Option<Arc<Access>>,
) -> Router {
    /// Names of services and symbols are short.
    const REQUEST_BYTES_MAX: usize = 4 * 1024;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = reflection()
        .build_v1()
        .expect("the descriptors were compiled by build.rs")
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let v1alpha = reflection()
        .build_v1alpha()
        .expect("the descriptors were compiled by build.rs")
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let health = readiness
        .service()
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let routes = |routes: Routes, access| {
        let ends_on = EndsOn {
            drain: drain.clone(),
            access,
        };
        let routes = routes.into_axum_router().reset_fallback();
        routes
            .route_layer(middleware::from_fn(pass_calls))
            .layer(middleware::from_fn_with_state(ends_on, end_in_time))
    };
    routes(Routes::new(health), None).merge(routes(Routes::new(v1).add_service(v1alpha), access))
}
