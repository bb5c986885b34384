//! The client that behaves: what it publishes arrives, or it says so.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use fanfare::wire::pb::{
    PublishRequest, SubscribeRequest, pub_sub_service_client::PubSubServiceClient,
};
use hdrhistogram::Histogram;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Streaming, transport::Channel};

/// Calls a second: far below what the broker takes, so that latency is the broker's and not a queue's.
const INTERVAL: Duration = Duration::from_millis(2);
/// A message that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// Above it, latency is not told apart.
const MICROS_MAX: u64 = 60_000_000;

pub(crate) struct Figures {
    latency: Histogram<u64>,
    pub(crate) failures: u64,
}

impl Figures {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_bounds(1, MICROS_MAX, 3)?,
            failures: 0,
        })
    }

    /// Takes what another round saw.
    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.failures += other.failures;
        Ok(self.latency.add(&other.latency)?)
    }

    /// In microseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> u64 {
        self.latency.value_at_quantile(quantile)
    }
}

pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<PubSubServiceClient<Channel>> {
    let client = PubSubServiceClient::connect(format!("http://{address}")).await;
    client.context("cannot connect")
}

pub(crate) async fn subscribe(
    address: SocketAddr,
    topic: &str,
) -> anyhow::Result<Streaming<fanfare::wire::pb::SubscribeResponse>> {
    let request = SubscribeRequest {
        topic: topic.to_owned(),
        ..SubscribeRequest::default()
    };
    Ok(connect(address)
        .await?
        .subscribe(request)
        .await?
        .into_inner())
}

/// Publishes and reads for a time.
pub(crate) async fn measure(address: SocketAddr, duration: Duration) -> anyhow::Result<Figures> {
    let mut publisher = connect(address).await?;
    let mut reader = subscribe(address, "good").await?;
    let mut figures = Figures::new()?;
    let mut due = tokio::time::interval(INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let until = Instant::now() + duration;
    let mut sequence = 0;
    while Instant::now() < until {
        let at = due.tick().await;
        let request = PublishRequest {
            topic: "good".to_owned(),
            payload: vec![0; 128].into(),
            ..PublishRequest::default()
        };
        let both = async {
            publisher.publish(request).await?;
            reader.message().await
        };
        sequence += 1;
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(Ok(Some(response))) if response.sequence == sequence => {
                figures
                    .latency
                    .saturating_record(at.elapsed().as_micros() as u64);
            }
            _ => figures.failures += 1,
        }
    }
    Ok(figures)
}
