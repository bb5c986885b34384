//! The channel that all calls of a client share: how it is set up, and how one that is dead without
//! knowing it is replaced.

use std::future::Future;

use http::{Uri, uri::Scheme};
use parking_lot::Mutex;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    error::CallError,
    guard::{Guarded, guarded},
    options::{ClientOptions, MESSAGE_BYTES_MAX},
    status::ErrorMap,
    tls::{TlsConnector, TlsError},
    token::Authorized,
};
use crate::wire::pb::pub_sub_service_client::PubSubServiceClient;

/// What a broker may send on one subscription before the application reads: keeps a reader that
/// pauses from filling the memory of its process.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all subscriptions together, which is no bound: each has its own, and if they shared a smaller
/// one, some that nobody reads would take all of it and hold up the others. Also the measure of how many small
/// frames `h2` lets wait before it takes them for an attack and disconnects.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

const USER_AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// Which of a client's channels, one after the other, a call went out on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

#[derive(Debug)]
pub(super) struct Connection {
    url: String,
    options: ClientOptions,
    endpoint: Endpoint,
    /// For an `https` URL.
    tls: Option<TlsConnector>,
    channel: Mutex<(Generation, Channel)>,
}

impl Connection {
    pub(super) fn new(uri: Uri, options: ClientOptions) -> Self {
        let url = uri.to_string().trim_end_matches('/').to_owned();
        let tls = (uri.scheme() == Some(&Scheme::HTTPS)).then(|| {
            let tls = options.tls.clone().unwrap_or_default();
            TlsConnector::new(tls, options.connect_timeout)
        });
        let endpoint = Endpoint::from(uri)
            .user_agent(USER_AGENT)
            .expect("a crate's version is a valid header value")
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(true);
        let endpoint = match tls {
            // It keeps the time itself, so that what took too long counts as not connected.
            Some(_) => endpoint,
            None => endpoint.connect_timeout(options.connect_timeout),
        };
        let channel = connect_lazy(&endpoint, tls.as_ref());
        Self {
            url,
            options,
            endpoint,
            tls,
            channel: Mutex::new((Generation(0), channel)),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether TLS can be had, if it is wanted.
    pub(super) async fn check_tls(&self) -> Result<(), TlsError> {
        match &self.tls {
            Some(tls) => tls.check().await,
            None => Ok(()),
        }
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// The present channel. It reconnects by itself when it knows that it is broken.
    pub(super) fn channel(&self) -> (Generation, Guarded) {
        let current = self.channel.lock();
        let token = self.options.bearer_token.clone();
        let channel = Authorized::new(current.1.clone(), token);
        (current.0, guarded(channel))
    }

    pub(super) fn pubsub(&self) -> (Generation, PubSubServiceClient<Guarded>) {
        let (generation, channel) = self.channel();
        let rpc = PubSubServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        (generation, rpc)
    }

    /// Lets later calls connect anew: nothing is heard on this channel, and it may take the keepalive
    /// half a minute to notice. Calls that are under way on it go on.
    pub(super) fn abandon(&self, generation: Generation) {
        let mut current = self.channel.lock();
        if current.0 == generation {
            let channel = connect_lazy(&self.endpoint, self.tls.as_ref());
            *current = (Generation(generation.0 + 1), channel);
        }
    }

    /// Waits for an answer no longer than a call may take. The deadline that travels with a call does
    /// not do: it begins only once the channel is connected.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Status>, CallError> {
        let timeout = self.options.request_timeout;
        tokio::time::timeout(timeout, call)
            .await
            .map_err(|_| CallError::DeadlineExceeded { timeout })
    }

    pub(super) fn errors(&self) -> ErrorMap<'_> {
        ErrorMap {
            url: &self.url,
            timeout: self.options.request_timeout,
        }
    }
}

fn connect_lazy(endpoint: &Endpoint, tls: Option<&TlsConnector>) -> Channel {
    match tls {
        Some(tls) => endpoint.connect_with_connector_lazy(tls.clone()),
        None => endpoint.connect_lazy(),
    }
}
