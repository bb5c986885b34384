//! Subscribes to the demo's topic, or to `FILTER`, and prints each payload until Ctrl-C.
//!
//! `cargo run --example sub` and `cargo run --example sub -- 'orders.>'`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a person"
)]

use std::env;

use fanfare::{
    client::{Client, DEFAULT_URL, Event},
    topic::TopicFilter,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let filter = env::args().nth(1).unwrap_or_else(|| "gocn".to_owned());
    let filter: TopicFilter = filter.parse()?;
    let url = env::var("BROKER_SERVER").unwrap_or_else(|_| DEFAULT_URL.to_owned());
    let client = Client::connect(&url).await?;
    let mut subscription = client.subscribe(filter.clone()).await?;
    eprintln!("subscribed to {filter}");
    while let Some(event) = subscription.next().await {
        match event? {
            Event::Message(message) => println!("{}", String::from_utf8_lossy(&message.payload)),
            Event::Gap(gap) => eprintln!("{gap} no longer kept"),
            Event::Missed(count) => eprintln!("fell behind and missed {count} messages"),
            Event::Resubscribed { gap, .. } => eprintln!("was away and missed {gap}"),
        }
    }
    Ok(())
}
