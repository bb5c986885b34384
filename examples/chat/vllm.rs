//! `vllm.proto`, by hand: two messages and one method are not worth a build step of their own.

use std::time::Duration;

use axum::{body::Body, extract::Request, response::Response};
use http::uri::PathAndQuery;
use tokio_stream::Stream;
use tonic::{
    Status, Streaming,
    server::ServerStreamingService,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

pub(crate) const GENERATE: &str = "/vllm.VLLM/Generate";
/// A model server that takes longer to accept a connection is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GenerateRequest {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    #[prost(string, tag = "2")]
    pub(crate) prompt: String,
    #[prost(int32, tag = "3")]
    pub(crate) max_tokens: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GenerateResponse {
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    #[prost(string, tag = "2")]
    pub(crate) token: String,
    #[prost(bool, tag = "3")]
    pub(crate) done: bool,
}

/// A model server, as a client sees it. Connects when it is first called, and anew when it must.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    channel: Channel,
}

impl Model {
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect_lazy();
        Ok(Self { channel })
    }

    /// `timeout` is told to the server; who calls keeps it as well.
    pub(crate) async fn generate(
        &self,
        request: GenerateRequest,
        timeout: Duration,
    ) -> Result<Streaming<GenerateResponse>, Status> {
        let mut rpc = tonic::client::Grpc::new(self.channel.clone());
        let ready = rpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(request);
        request.set_timeout(timeout);
        let codec = ProstCodec::<GenerateRequest, GenerateResponse>::default();
        let path = PathAndQuery::from_static(GENERATE);
        let response = rpc.server_streaming(request, path, codec).await?;
        Ok(response.into_inner())
    }
}

/// Answers one HTTP request for [`GENERATE`] with what `service` streams.
pub(crate) async fn answer<S, T>(service: S, request: Request) -> Response
where
    S: ServerStreamingService<GenerateRequest, Response = GenerateResponse, ResponseStream = T>,
    T: Stream<Item = Result<GenerateResponse, Status>> + Send + 'static,
{
    let codec = ProstCodec::<GenerateResponse, GenerateRequest>::default();
    let mut rpc = tonic::server::Grpc::new(codec);
    rpc.server_streaming(service, request).await.map(Body::new)
}
