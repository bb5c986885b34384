//! Publishers that never stop.

use std::{sync::Arc, time::Duration};

use fanfare::{
    client::{Client, ClientOptions, PublisherOptions},
    message::Message,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Seen;

/// Topics that are used all the time.
pub(crate) const TOPICS: u64 = 10;
/// How often a publisher sends what is due.
const INTERVAL: Duration = Duration::from_millis(20);
/// One call for each so many messages on streams.
const CALLS_SHARE: u32 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All on one stream, to few topics.
    Stream,
    /// A call each, to a topic that is used once.
    Calls,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Stream, Self::Calls];
}

/// Publishes `rate` messages a second until it is stopped; begins anew when it fails.
pub(crate) async fn publish(
    url: String,
    kind: Kind,
    rate: u32,
    stop: CancellationToken,
    seen: Arc<Seen>,
) {
    while !stop.is_cancelled() {
        let publishing = async {
            match kind {
                Kind::Stream => publish_stream(&url, rate).await,
                Kind::Calls => publish_calls(&url, rate.div_ceil(CALLS_SHARE)).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            ended = publishing => {
                if let Err(error) = ended {
                    eprintln!("a publisher begins anew: {error:#}");
                    Seen::count(&seen.publishers_failed, 1);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn publish_stream(url: &str, rate: u32) -> anyhow::Result<()> {
    let client = Client::with_options(url, ClientOptions::default()).await?;
    let mut publisher = client.publisher(PublisherOptions::default()).await?;
    let mut number = 0_u64;
    let mut due = due(rate);
    loop {
        for _ in 0..due.next().await {
            number += 1;
            let topic = format!("soak.{}", number % TOPICS).parse()?;
            // Up to 1 KiB: with large ones, what mailboxes hold at a moment would hide what stays.
            let size = 1 << (number % 11);
            publisher.send(Message::new(topic, vec![0; size])).await?;
        }
    }
}

async fn publish_calls(url: &str, rate: u32) -> anyhow::Result<()> {
    let client = Client::connect(url).await?;
    let mut number = 0_u64;
    let mut due = due(rate);
    loop {
        for _ in 0..due.next().await {
            number += 1;
            let topic = format!("once.{number}").parse()?;
            client.publish(Message::new(topic, "a message")).await?;
        }
    }
}

/// How many messages are due at even intervals.
struct Due {
    interval: tokio::time::Interval,
    each: f64,
    owed: f64,
}

fn due(rate: u32) -> Due {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Due {
        interval,
        each: f64::from(rate) * INTERVAL.as_secs_f64(),
        owed: 0.0,
    }
}

impl Due {
    async fn next(&mut self) -> u32 {
        self.interval.tick().await;
        self.owed += self.each;
        let now = self.owed.floor();
        self.owed -= now;
        now as u32
    }
}
