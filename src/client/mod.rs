//! The Rust client: connect, publish, subscribe as a stream.
//!
//! [`Client::publish`] publishes one message and waits for its receipt; a [`Publisher`] sends many on one
//! stream and is answered as it goes.
//!
//! A subscription outlives its connection: when that breaks, the client resubscribes with backoff and
//! says what may have been lost, before it delivers anything further. Publishing is never repeated
//! behind the application's back, since a repeated message would be a duplicate. Invariants: every
//! message lost is told once, as [`Event::Missed`] or as part of a [`Gap`]; every wait has a bound;
//! whatever a broker sends, the client answers with an error and not with a panic.
//!
//! ```no_run
//! use fanfare::client::{Client, DEFAULT_URL, Event};
//! use fanfare::{message::Message, topic::Topic};
//!
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! let topic: Topic = "orders.eu".parse()?;
//! let client = Client::connect(DEFAULT_URL).await?;
//! let mut orders = client.subscribe(topic.clone()).await?;
//! client.publish(Message::new(topic, "42")).await?;
//! while let Some(event) = orders.next().await {
//!     match event? {
//!         Event::Message(order) => println!("{:?}", order.payload),
//!         Event::Missed(count) => println!("fell behind and lost {count}"),
//!         Event::Gap(gap) => println!("{gap} no longer kept"),
//!         Event::Resubscribed { gap, .. } => println!("was away, lost {gap}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod connect_error;
mod connection;
mod convert;
mod error;
mod figures;
mod gap;
mod guard;
mod health;
mod in_flight;
mod live;
mod options;
mod publish_frame;
mod publish_stream;
mod publisher;
mod silence;
mod status;
mod subscribe;
mod subscription;
mod tls;
mod token;
mod url;

use std::{fmt, sync::Arc};

use http::uri::Scheme;
use tonic::Request;

use self::connection::Connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::publish_frame::Outgoing;
pub use self::{
    connect_error::ConnectError,
    convert::{Malformed, Receipt, Received},
    error::{
        CallError, FiguresError, HealthError, PublishError, PublisherError, SendError,
        SubscribeError, TicketError, TransportError,
    },
    gap::{Gap, Start},
    health::Health,
    in_flight::{Answered, Position, Rejection, Rejections},
    live::Facts,
    options::*,
    publisher::{Publisher, Ticket},
    subscribe::{OverflowPolicy, Subscribe},
    subscription::{Event, Subscription},
    tls::{Identity, TlsConnector, TlsError, TlsOptions},
    token::{Authorized, BearerToken, BearerTokenError},
    url::UrlError,
};
pub use crate::pem::{NoPem, PemError};
use crate::{
    message::Message,
    wire::{
        figures::{Stats, SubscriberList, TopicList},
        pb,
    },
};

/// Where a broker listens unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:1234";

/// A connection to a broker. Clones share it, and calls on all of them run side by side.
///
/// A connection that breaks is made anew by the next call.
#[derive(Clone)]
pub struct Client {
    connection: Arc<Connection>,
}

impl Client {
    /// Connects to the broker at `url`, `host:port`, `http://host:port` or `https://host:port`, and waits
    /// until it has answered a first call, for 5 seconds at most.
    ///
    /// # Errors
    /// A URL that is none, or no broker there.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::with_options(url, ClientOptions::default()).await
    }

    /// [`connect`](Self::connect), with other bounds or with TLS of one's own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`ClientOptions::tls`] that does not work.
    pub async fn with_options(url: &str, options: ClientOptions) -> Result<Self, ConnectError> {
        let client = Self::connect_lazy(url, options)?;
        client.connection.check_tls().await.map_err(Arc::new)?;
        client.probe().await?;
        Ok(client)
    }

    /// A client that connects when it is first used, for programs that may start before their broker.
    /// The files that [`ClientOptions::tls`] names are read then too.
    ///
    /// # Errors
    /// A URL that is none, or one without TLS where TLS is asked for.
    ///
    /// # Panics
    /// Outside a tokio runtime, which the connection runs on.
    pub fn connect_lazy(url: &str, options: ClientOptions) -> Result<Self, UrlError> {
        let uri = url::parse(url)?;
        if options.tls.is_some() && uri.scheme() == Some(&Scheme::HTTP) {
            let url = url.to_owned();
            return Err(UrlError::Plaintext { url });
        }
        let connection = Arc::new(Connection::new(uri, options));
        Ok(Self { connection })
    }

    /// Publishes a message and says what became of it.
    ///
    /// Messages published one after the other, each awaited, arrive in that order. A failed call is
    /// not repeated: [`PublishError::may_be_published`] tells whether a retry risks a duplicate, and
    /// the same holds for a call that is dropped before it ends.
    ///
    /// # Errors
    /// What the broker refused, and what can befall any call.
    pub async fn publish(&self, message: Message) -> Result<Receipt, PublishError> {
        let mut request = Request::new(pb::PublishRequest::from(message));
        request.set_timeout(self.connection.options().request_timeout);
        let (_, mut rpc) = self.connection.pubsub();
        match self.connection.answer(rpc.publish(request)).await? {
            Ok(response) => Ok(response.into_inner().into()),
            Err(status) => Err(self.connection.errors().publish(status)),
        }
    }

    /// A stream of its own for many messages, which are answered by position: the way for anyone who
    /// publishes more than now and then. [`PublisherOptions::default()`] will do.
    ///
    /// # Errors
    /// What can befall any call. This attempt is not repeated.
    pub async fn publisher(&self, options: PublisherOptions) -> Result<Publisher, PublisherError> {
        Publisher::open(Arc::clone(&self.connection), options).await
    }

    /// Delivers each message published from now on that `subscribe` asks for; a
    /// [`TopicFilter`](crate::topic::TopicFilter) or [`Topic`](crate::topic::Topic) will do.
    ///
    /// Once this returns, the subscription is live: nothing published afterwards is lost to a race.
    ///
    /// # Errors
    /// What the broker refused, and what can befall any call. This first attempt is not repeated.
    pub async fn subscribe(
        &self,
        subscribe: impl Into<Subscribe>,
    ) -> Result<Subscription, SubscribeError> {
        Subscription::open(Arc::clone(&self.connection), subscribe.into()).await
    }

    /// Asks how the broker (`""`) or one of its services, such as `pubsub.v1.PubSubService`, is.
    ///
    /// # Errors
    /// A service that the broker does not have, and what can befall any call.
    pub async fn health(&self, service: &str) -> Result<Health, HealthError> {
        health::check(&self.connection, service).await
    }

    /// The broker and its process as a whole, in figures.
    ///
    /// # Errors
    /// A broker that has no such figures, and what can befall any call.
    pub async fn stats(&self) -> Result<Stats, FiguresError> {
        figures::get(&self.connection, "/v1/stats", &[]).await
    }

    /// Up to `limit` topics, at most 1,000, whose name holds `search`, in the order of `sort`: `rate` or
    /// `name`.
    ///
    /// # Errors
    /// A broker that has no such figures, and what can befall any call.
    pub async fn topics(
        &self,
        search: &str,
        sort: &str,
        limit: usize,
    ) -> Result<TopicList, FiguresError> {
        let limit = limit.to_string();
        let query = [("search", search), ("sort", sort), ("limit", &limit)];
        figures::get(&self.connection, "/v1/topics", &query).await
    }

    /// Up to `limit` subscribers, at most 1,000, whose filter, group or address holds `search`, those with
    /// the most waiting messages first.
    ///
    /// # Errors
    /// A broker that has no such figures, and what can befall any call.
    pub async fn subscribers(
        &self,
        search: &str,
        limit: usize,
    ) -> Result<SubscriberList, FiguresError> {
        let limit = limit.to_string();
        let query = [("search", search), ("limit", &limit)];
        figures::get(&self.connection, "/v1/subscribers", &query).await
    }

    /// The broker's address, as the client understood it.
    #[must_use]
    pub fn url(&self) -> &str {
        self.connection.url()
    }

    /// Any answer to a health check proves a gRPC server, be it a refusal.
    async fn probe(&self) -> Result<(), ConnectError> {
        let url = self.url().to_owned();
        let timeout = self.connection.options().connect_timeout;
        let Ok(answer) = tokio::time::timeout(timeout, self.health("")).await else {
            return Err(ConnectError::Silent { url, timeout });
        };
        match answer {
            Err(HealthError::Call(CallError::Unreachable { source, .. }))
                if source.is_handshake() =>
            {
                Err(ConnectError::Handshake { url, source })
            }
            Err(HealthError::Call(CallError::Unreachable { source, .. })) => {
                Err(ConnectError::Unreachable { url, source })
            }
            Err(HealthError::Call(CallError::ConnectionLost { source })) => {
                Err(ConnectError::Broken { url, source })
            }
            Err(HealthError::Call(CallError::DeadlineExceeded { timeout })) => {
                Err(ConnectError::Silent { url, timeout })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url()).finish()
    }
}
