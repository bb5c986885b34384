//! A broker in this process, and what tests need to talk to it.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use fanfare::{
    auth::AuthFile,
    broker::{Broker, Limits, Receipt, Snapshot},
    message::Message,
    server::{Server, ServerConfig},
    wire::pb::{
        PublishRequest, SubscribeRequest, SubscribeResponse,
        pub_sub_service_client::PubSubServiceClient,
    },
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::raw;

/// Far above what anything here takes on a busy machine: running into it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A served broker, shut down when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(ServerConfig::default(), Limits::default()).await
    }

    /// Serves with these settings, on a free port unless one is set.
    pub(crate) async fn start_with(config: ServerConfig, limits: Limits) -> Self {
        Self::start_with_routes(config, limits, axum::Router::new()).await
    }

    pub(crate) async fn start_with_routes(
        config: ServerConfig,
        limits: Limits,
        routes: axum::Router,
    ) -> Self {
        Self::serve(config, limits, |server| server.with_routes(routes)).await
    }

    /// Serves whom the auth file allows to.
    pub(crate) async fn start_with_auth(config: ServerConfig, auth_file: &Path) -> Self {
        Self::start_with_auth_and_limits(config, Limits::default(), auth_file).await
    }

    pub(crate) async fn start_with_auth_and_limits(
        config: ServerConfig,
        limits: Limits,
        auth_file: &Path,
    ) -> Self {
        let (file, policy) = AuthFile::open(auth_file).unwrap();
        let with_auth = |server: Server| server.with_auth(file, policy);
        Self::serve(config, limits, with_auth).await
    }

    async fn serve(
        mut config: ServerConfig,
        limits: Limits,
        with: impl FnOnce(Server) -> Server,
    ) -> Self {
        if config.listen == fanfare::server::LISTEN {
            config.listen.set_port(0);
        }
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let broker = Broker::new(limits, since_1970.as_nanos() as u64).unwrap();
        let server = Server::bind(config, broker.clone()).await.unwrap();
        let address = server.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let run = with(server).run(shutdown.clone().cancelled_owned());
        Self {
            address,
            broker,
            shutdown,
            task: tokio::spawn(run),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> PubSubServiceClient<Channel> {
        PubSubServiceClient::connect(self.url()).await.unwrap()
    }

    /// Begins the drain.
    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the server has returned.
    pub(crate) async fn stopped(&mut self) {
        within(&mut self.task).await.unwrap();
    }

    /// Publishes without a connection.
    pub(crate) fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Receipt {
        let message = Message::new(topic.parse().unwrap(), payload.into());
        self.broker.publish(message, SystemTime::now()).unwrap()
    }

    /// `GET` over HTTP/1.1, on a connection of its own: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        raw::http1(self.address, &request).await
    }

    /// The value of one metric, named with its labels; 0 if it is not there yet.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        value_of(&self.get("/metrics").await.1, name)
    }

    /// How often this limit has refused something.
    pub(crate) async fn rejected(&self, limit: &str) -> u64 {
        self.metric(&format!("fanfare_rejected_total{{limit=\"{limit}\"}}"))
            .await
    }

    /// Waits until a metric has this value.
    pub(crate) async fn until_metric(&self, name: &str, wanted: u64) {
        within(async { while self.metric(name).await != wanted {} }).await;
    }

    /// Waits until the broker's figures are as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        within(async {
            loop {
                let snapshot = self.broker.snapshot();
                if wanted(&snapshot) {
                    return snapshot;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One metric's value in the text of all of them; 0 if it is not there.
pub(crate) fn value_of(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next().map_or(0, |value| value.parse().unwrap())
}

/// Awaits something that must happen.
#[track_caller]
pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        tokio::time::timeout(PATIENCE, future)
            .await
            .unwrap_or_else(|_| panic!("nothing happened in time at {caller}"))
    }
}

pub(crate) fn message(topic: &str, payload: &str) -> PublishRequest {
    PublishRequest {
        topic: topic.to_owned(),
        payload: payload.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) fn filter(filter: &str) -> SubscribeRequest {
    SubscribeRequest {
        topic: filter.to_owned(),
        ..Default::default()
    }
}

/// Subscribes on this connection; live when it returns.
pub(crate) async fn subscribe(
    client: &PubSubServiceClient<Channel>,
    request: SubscribeRequest,
) -> Streaming<SubscribeResponse> {
    let mut client = client.clone();
    within(client.subscribe(request))
        .await
        .unwrap()
        .into_inner()
}

/// The stream's next response.
pub(crate) async fn next(stream: &mut Streaming<SubscribeResponse>) -> SubscribeResponse {
    within(stream.message())
        .await
        .unwrap()
        .expect("the stream goes on")
}

/// The next `count` payloads, as text.
pub(crate) async fn payloads(
    stream: &mut Streaming<SubscribeResponse>,
    count: usize,
) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let payload = next(stream).await.payload;
        payloads.push(String::from_utf8(payload.into()).unwrap());
    }
    payloads
}

/// Reads to the stream's end: the responses until then, and its status.
pub(crate) async fn to_end(
    stream: &mut Streaming<SubscribeResponse>,
) -> (Vec<SubscribeResponse>, Status) {
    let mut responses = Vec::new();
    loop {
        match within(stream.message()).await {
            Ok(Some(response)) => responses.push(response),
            Ok(None) => return (responses, Status::new(Code::Ok, "")),
            Err(status) => return (responses, status),
        }
    }
}
