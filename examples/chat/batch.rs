//! Requests in batches: as many as have come within a time window, up to a count.

use std::time::Duration;

use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, timeout_at},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BatchArgs {
    /// The most requests of a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) batch_size: u16,
    /// How long the first request of a batch waits for others
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    pub(crate) batch_window: Duration,
    /// How many batches are in progress at a time; the next one waits until one is done
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) batches: u16,
}

/// The next batch; an empty one once nothing can come any more.
pub(crate) async fn collect<T>(queue: &mut Receiver<T>, args: &BatchArgs) -> Vec<T> {
    let mut batch: Vec<T> = queue.recv().await.into_iter().collect();
    let until = Instant::now() + args.batch_window;
    while batch.len() < args.batch_size.into() {
        match timeout_at(until, queue.recv()).await {
            Ok(Some(next)) => batch.push(next),
            Ok(None) | Err(_) => break,
        }
    }
    batch
}
