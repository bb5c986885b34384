//! Publishes: the demo's two messages, or `TOPIC PAYLOAD`.
//!
//! `cargo run --example pub` and `cargo run --example pub -- orders.eu "42 sprockets"`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a person"
)]

use std::env;

use fanfare::{
    client::{Client, DEFAULT_URL},
    message::Message,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let messages: Vec<(&str, &str)> = match args.as_slice() {
        [] => vec![("gocn", "hello, gophers!"), ("greeting", "hello, world!")],
        [topic, payload] => vec![(topic, payload)],
        _ => anyhow::bail!("usage: pub [TOPIC PAYLOAD]"),
    };
    let url = env::var("BROKER_SERVER").unwrap_or_else(|_| DEFAULT_URL.to_owned());
    let client = Client::connect(&url).await?;
    for (topic, payload) in messages {
        let message = Message::new(topic.parse()?, payload.to_owned());
        let receipt = client.publish(message).await?;
        println!(
            "{topic}: {} of {} got it",
            receipt.delivered, receipt.matched
        );
    }
    Ok(())
}
