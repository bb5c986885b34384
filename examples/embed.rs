//! A broker inside one's own program: served on a port, used without one, and joined by a route of
//! the program's own.
//!
//! `cargo run --example embed`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a person"
)]

use std::time::SystemTime;

use axum::{Router, routing::get};
use fanfare::{
    broker::{BatchLimit, Broker, Limits, SubscribeOptions},
    client::{Client, Event},
    message::Message,
    server::{Server, ServerConfig},
    topic::Topic,
};
use tokio::sync::oneshot;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let broker = Broker::new(Limits::default(), started.as_nanos() as u64)?;

    let mut config = ServerConfig::default();
    config.listen.set_port(0);
    let server = Server::bind(config, broker.clone()).await?;
    let url = format!("http://{}", server.local_addr()?);
    println!("serving on a free port");
    let (stop, stopped) = oneshot::channel::<()>();
    let own_routes = Router::new().route("/version", get(async || "embedded\n"));
    let serving = tokio::spawn(server.with_routes(own_routes).run(async {
        drop(stopped.await);
    }));

    // A subscriber over the network gets what the program publishes directly.
    let topic: Topic = "sensors.kitchen".parse()?;
    let client = Client::connect(&url).await?;
    let mut remote = client.subscribe(topic.clone()).await?;
    broker.publish(Message::new(topic.clone(), "21.5"), SystemTime::now())?;
    if let Some(Event::Message(message)) = remote.next().await.transpose()? {
        println!(
            "over the network: {}",
            String::from_utf8_lossy(&message.payload)
        );
    }

    // And the program reads what clients publish.
    let mut local = broker.subscribe(SubscribeOptions::new("sensors.*".parse()?))?;
    client.publish(Message::new(topic, "22.0")).await?;
    let mut batch = Vec::new();
    let limit = BatchLimit {
        messages: 16,
        bytes: 64 * 1024,
    };
    let lost = local.take(limit, &mut batch).await?;
    let missed = lost.missed;
    for delivery in batch {
        let payload = String::from_utf8_lossy(&delivery.message.payload);
        println!("in the program: {payload}, missed {missed}");
    }

    drop(stop);
    serving.await?;
    Ok(())
}
