//! Publishes many numbered messages on one stream, and says what became of them.
//!
//! `cargo run --release --example stream` and `cargo run --release --example stream orders.eu 1000000`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a person"
)]

use std::env;

use fanfare::{
    client::{Client, DEFAULT_URL, PublisherOptions},
    message::Message,
    topic::Topic,
};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (topic, count): (Topic, u64) = match args.as_slice() {
        [] => ("numbers".parse()?, 100_000),
        [topic, count] => (topic.parse()?, count.parse()?),
        _ => anyhow::bail!("usage: stream [TOPIC COUNT]"),
    };
    let url = env::var("BROKER_SERVER").unwrap_or_else(|_| DEFAULT_URL.to_owned());
    let client = Client::connect(&url).await?;
    let mut publisher = client.publisher(PublisherOptions::default()).await?;
    let started = Instant::now();
    for number in 1..=count {
        let message = Message::new(topic.clone(), number.to_string());
        publisher.send(message).await?;
    }
    let total = publisher.finish().await?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!(
        "{} accepted, {} rejected, {rate:.0}/s; subscribers got {} of {}",
        total.accepted, total.rejected, total.delivered, total.matched
    );
    for rejection in publisher.take_rejections().list {
        eprintln!("{rejection}");
    }
    Ok(())
}
