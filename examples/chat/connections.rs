//! One API's connections to the broker: one for what is answered at once, and as many as it takes for what
//! is read, since a broker takes no more than 256 subscriptions on one unless it is told to.
//!
//! Promises: who does not read holds up nobody else, neither on the same connection nor on another; and a
//! connection that nobody reads on any more is closed.

use std::sync::Arc;

use anyhow::{Context, ensure};
use fanfare::{
    client::{
        Client, ClientOptions, Event, PublishError, Receipt, Subscribe, SubscribeError,
        Subscription,
    },
    message::Message,
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most subscriptions of one connection. The client takes 64 KiB ahead of a reader who does not read,
/// and 8 MiB for all readers of a connection: those of so many fit.
const SUBSCRIPTIONS_MAX: usize = 100;
/// The most connections that are read on: 20,000 subscriptions, two for each response that one reader reads.
const CONNECTIONS_MAX: usize = 200;

#[derive(Debug)]
pub(crate) struct Connections {
    url: String,
    publishing: Client,
    reading: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    /// Its places for subscriptions; each subscription holds one.
    places: Arc<Semaphore>,
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.places.available_permits() == SUBSCRIPTIONS_MAX
    }
}

impl Connections {
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            publishing: Client::connect(url).await?,
            reading: Mutex::default(),
        })
    }

    pub(crate) async fn publish(&self, message: Message) -> Result<Receipt, PublishError> {
        self.publishing.publish(message).await
    }

    pub(crate) async fn subscribe(&self, subscribe: Subscribe) -> anyhow::Result<Reading> {
        let (client, place) = self.place()?;
        let subscription = client.subscribe(subscribe).await?;
        Ok(Reading {
            subscription,
            _place: place,
        })
    }

    /// On the first connection that has a place, so that the last ones become idle.
    fn place(&self) -> anyhow::Result<(Client, OwnedSemaphorePermit)> {
        let mut reading = self.reading.lock();
        let mut is_first = true;
        // The first one stays, for whoever comes next.
        reading.retain(|connection| std::mem::take(&mut is_first) || !connection.is_idle());
        for Connection { client, places } in &*reading {
            if let Ok(place) = Arc::clone(places).try_acquire_owned() {
                return Ok((client.clone(), place));
            }
        }
        ensure!(reading.len() < CONNECTIONS_MAX, "too much is being read");
        let client = Client::connect_lazy(&self.url, ClientOptions::default())?;
        let places = Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX));
        let place = Arc::clone(&places).try_acquire_owned();
        let place = place.context("a new connection has places")?;
        reading.push(Connection {
            client: client.clone(),
            places,
        });
        Ok((client, place))
    }
}

/// A subscription in its place.
pub(crate) struct Reading {
    subscription: Subscription,
    _place: OwnedSemaphorePermit,
}

impl Reading {
    pub(crate) async fn next(&mut self) -> Option<Result<Event, SubscribeError>> {
        self.subscription.next().await
    }
}
