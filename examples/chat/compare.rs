//! What batches bring: the same requests one after the other, in batches, and in several batches at a time.
//!
//! The mock model answers any number of calls side by side as fast as one, so what is measured is the
//! dispatcher, and how well it keeps the model busy; a real model gains less from each further call.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use fanfare::{
    client::{Event, Subscribe},
    cursor::StartAt,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    batch::BatchArgs,
    child,
    connections::Connections,
    dispatcher::{DispatcherArgs, Member},
    interrupt::Stop,
    job::{Job, RequestId},
    model,
};

/// How long one round may take.
const ROUND_TIMEOUT: Duration = Duration::from_secs(300);
const PROMPT: &str = "four words to repeat";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// How many requests, all at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    requests: u16,
    /// How many dispatchers share them
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    dispatchers: u16,
    /// How long the model takes for each of five words
    #[arg(long, value_name = "TIME", default_value = "80ms", value_parser = humantime::parse_duration)]
    word_delay: Duration,
}

pub(crate) async fn run(args: CompareArgs) -> anyhow::Result<()> {
    let stop = Stop::default();
    let (broker, url) = child::broker("127.0.0.1:0").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let model_url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(model::serve(listener, args.word_delay, stop.clone()));
    println!("batch size  batches at a time  seconds  requests/s  ratio");
    let mut alone = None;
    for (batch_size, batches) in [(1, 1), (8, 1), (8, 4)] {
        let dispatcher = DispatcherArgs {
            broker: url.clone(),
            model: model_url.clone(),
            model_timeout: Duration::from_secs(120),
            batch: BatchArgs {
                batch_size,
                batch_window: Duration::from_millis(50),
                batches,
            },
        };
        let round = timeout(ROUND_TIMEOUT, round(&args, &dispatcher)).await;
        let took = round.context("a round takes too long")??.as_secs_f64();
        let ratio = *alone.get_or_insert(took) / took;
        let rate = f64::from(args.requests) / took;
        println!("{batch_size:>10}  {batches:>17}  {took:>7.2}  {rate:>10.1}  {ratio:>5.1}");
    }
    stop.request();
    broker.stop().await;
    Ok(())
}

/// How long it takes until all responses have ended.
async fn round(args: &CompareArgs, dispatcher: &DispatcherArgs) -> anyhow::Result<Duration> {
    let stop = Stop::default();
    let mut dispatchers = JoinSet::new();
    for _ in 0..args.dispatchers {
        let member = Member::join(dispatcher).await?;
        let (batch, stop) = (dispatcher.batch.clone(), stop.clone());
        dispatchers.spawn(async move { member.work(&batch, stop).await });
    }
    let connections = Arc::new(Connections::open(&dispatcher.broker).await?);
    let started = Instant::now();
    let mut responses = JoinSet::new();
    for _ in 0..args.requests {
        let job = Job {
            request_id: RequestId::random()?,
            prompt: PROMPT.to_owned(),
            max_tokens: 0,
        };
        connections.publish(job.message()?).await?;
        responses.spawn(read(Arc::clone(&connections), job.request_id));
    }
    while let Some(response) = responses.join_next().await {
        response??;
    }
    let took = started.elapsed();
    stop.request();
    while let Some(ended) = dispatchers.join_next().await {
        ended??;
    }
    Ok(took)
}

async fn read(connections: Arc<Connections>, id: RequestId) -> anyhow::Result<()> {
    let subscribe = Subscribe::new(id.response()).start_at(StartAt::All);
    let mut response = connections.subscribe(subscribe).await?;
    while let Some(event) = response.next().await {
        if let Event::Message(message) = event? {
            let text = String::from_utf8_lossy(&message.payload);
            anyhow::ensure!(!text.contains("error"), "a response failed: {text}");
        }
    }
    Ok(())
}
