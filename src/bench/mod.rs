//! `broker bench`: a load of known shape against a broker, and what came of it.
//!
//! Losses and breaks of order are counted, not assumed. The figure that survives a noisy machine is
//! the server's processor time per delivery, over the same interval as the deliveries. The load is
//! bounded: in unanswered calls, in how far subscribers may be behind, and in time.

mod load;
mod pacer;
mod payload;
mod report;
mod sender;
mod tally;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use fanfare::{
    client::{Authorized, BearerToken, Client, TlsConnector},
    process::Usage,
};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::Endpoint;

use self::{
    load::{Load, Received},
    payload::STAMP_BYTES,
    report::Report,
};
use crate::{
    cli::bearer_token,
    config::{BenchArgs, ConnectArgs},
};

/// How long the last messages may take to arrive once nothing more is published.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    // One thread sends what one publisher has in flight in the order in which it was made; several
    // would reorder it before it reaches the broker.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let format = args.format;
    let measured = runtime.block_on(measure(args));
    runtime.shutdown_background();
    report::print(&measured?, format)?;
    Ok(ExitCode::SUCCESS)
}

/// The broker to measure.
struct Target {
    server: String,
    endpoint: Endpoint,
    /// For an `https` URL.
    tls: Option<TlsConnector>,
    token: Option<BearerToken>,
}

impl Target {
    fn new(args: &ConnectArgs) -> anyhow::Result<Self> {
        let options = args.options();
        let client = Client::connect_lazy(&args.server, options.clone())?;
        let tls = client
            .url()
            .starts_with("https:")
            .then(|| TlsConnector::new(options.tls.unwrap_or_default(), options.connect_timeout));
        let endpoint = Endpoint::from_shared(client.url().to_owned())
            .context("the server's URL is not valid")?
            .tcp_nodelay(true)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        Ok(Self {
            server: args.server.clone(),
            endpoint,
            tls,
            token: bearer_token(args)?,
        })
    }

    async fn connect(&self) -> anyhow::Result<Authorized> {
        let connected = match &self.tls {
            Some(tls) => self.endpoint.connect_with_connector(tls.clone()).await,
            None => self.endpoint.connect().await,
        };
        let authorized = connected.map(|channel| Authorized::new(channel, self.token.clone()));
        authorized.with_context(|| format!("no broker answers at {}", self.server))
    }
}

fn usage(pid: Option<u32>) -> anyhow::Result<Option<Usage>> {
    let usage = |pid| Usage::of(pid).with_context(|| format!("cannot read /proc/{pid}"));
    pid.map(usage).transpose()
}

async fn measure(args: BenchArgs) -> anyhow::Result<Report> {
    let size = args.size.as_u64() as usize;
    ensure!(
        size >= STAMP_BYTES,
        "size of {size} bytes is below {STAMP_BYTES}, which time, publisher and position take"
    );
    let target = Target::new(&args.connect)?;
    let load = Arc::new(Load::new(&args));
    let idle = usage(args.server_pid)?;

    let mut subscribers = JoinSet::new();
    let mut channel = target.connect().await?;
    for index in 0..args.subscribers {
        if index > 0 && index % args.subscriptions_per_connection == 0 {
            channel = target.connect().await?;
        }
        let stream = load.subscribe(channel.clone(), index).await?;
        subscribers.spawn(Arc::clone(&load).receive(stream, index));
    }
    let subscribed = usage(args.server_pid)?;

    let mut publishers = JoinSet::new();
    let mut channels = Vec::new();
    for _ in 0..args.publishers {
        channels.push(target.connect().await?);
    }
    let pacer = args.rate.map(|rate| load.pacer(rate));
    for (index, channel) in channels.into_iter().enumerate() {
        let publisher = Arc::clone(&load).publish(channel, index, size, pacer.clone());
        publishers.spawn(publisher);
    }
    let bar = progress(*args.warmup + *args.duration);
    watch(&bar, *args.warmup, &load).await;
    load.start_recording();
    let (published_from, delivered_from) = load.counts();
    let cpu_from = usage(args.server_pid)?;
    let started = Instant::now();
    watch(&bar, *args.duration, &load).await;
    let elapsed = started.elapsed();
    let (published_to, delivered_to) = load.counts();
    let cpu_to = usage(args.server_pid)?;
    load.stop_publishing();
    bar.finish_and_clear();

    let mut expected = 0;
    while let Some(published) = publishers.join_next().await {
        expected += published.context("a publisher panicked")??;
    }
    load.settle(expected, SETTLE).await;
    load.stop_receiving();
    let mut received = Received::default();
    while let Some(one) = subscribers.join_next().await {
        received.merge(&one.context("a subscriber panicked")??);
    }
    let memory = idle.zip(subscribed);
    Ok(Report {
        elapsed,
        payload_bytes: size,
        wanted_per_s: args.rate,
        published: published_to.since(&published_from),
        delivered: delivered_to.since(&delivered_from),
        lost: expected.saturating_sub(received.messages),
        missed_told: received.missed,
        order_breaks: received.order_breaks,
        server_cpu: cpu_from.zip(cpu_to).map(|(from, to)| to.cpu - from.cpu),
        idle_bytes_per_subscriber: memory.and_then(|(idle, subscribed)| {
            let bytes = subscribed.rss_bytes.saturating_sub(idle.rss_bytes);
            bytes.checked_div(args.subscribers as u64)
        }),
        latency: received.latency,
    })
}

/// Shows progress for a time.
async fn watch(bar: &ProgressBar, time: Duration, load: &Load) {
    let until = Instant::now() + time;
    while Instant::now() < until && !load.has_failed() {
        let step = Duration::from_millis(100).min(until - Instant::now());
        tokio::time::sleep(step).await;
        bar.inc(step.as_millis() as u64);
        bar.set_message(format!("{} delivered", load.received()));
    }
}

/// On stderr, and only for a person: indicatif hides it where stderr is no terminal.
fn progress(time: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("[{elapsed}] {bar:40} {msg}")
        .expect("the template is constant and valid");
    ProgressBar::new(time.as_millis() as u64).with_style(style)
}
