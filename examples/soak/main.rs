//! Lets guests come and go at a broker for a long time, and sees whether anything stays of them.
//!
//! `examples/soak/run` starts the release broker and does it for 30 minutes: publishers that never stop,
//! connections that come fifty a second and leave in every way there is, with every overflow policy.
//! Every few seconds the accounts must balance; at the end, descriptors, connections, streams and
//! subscriptions must be back where they began, and memory must not have grown since the first third.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a person"
)]

mod broker;
mod guest;
mod publish;
mod watch;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{broker::Broker, watch::Watch};

/// How often the broker is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long what guests left behind may take to go: longer than the broker's stall timeout.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Lets guests come and go at the release broker, and sees whether anything stays of them
#[derive(Debug, Parser)]
struct Args {
    /// How long
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Connections that come each second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    guests: u32,
    /// Messages that are published each second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// The broker; without it, the one that was built beside this program
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
}

/// What guests saw, all together.
#[derive(Debug, Default)]
struct Seen {
    guests: AtomicU64,
    received: AtomicU64,
    missed: AtomicU64,
    /// Messages that came before one that was published earlier to the same topic.
    out_of_order: AtomicU64,
    /// Publishers that had to begin anew.
    publishers_failed: AtomicU64,
    /// Guests that the broker refused or ended for another reason than they asked for.
    refused: AtomicU64,
}

impl Seen {
    fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(soak(&args))
}

async fn soak(args: &Args) -> anyhow::Result<ExitCode> {
    let broker = Broker::start(args.broker.as_deref()).await?;
    let mut watch = Watch::new(&broker).await?;
    let seen = Arc::new(Seen::default());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    for kind in publish::Kind::ALL {
        let publishing = publish::publish(
            broker.url().to_owned(),
            kind,
            args.rate,
            stop.clone(),
            Arc::clone(&seen),
        );
        tasks.spawn(publishing);
    }

    let until = Instant::now() + args.duration;
    let mut arrival = tokio::time::interval(Duration::from_secs(1) / args.guests);
    arrival.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    let mut number = 0;
    loop {
        tokio::select! {
            _ = arrival.tick() => {
                number += 1;
                let visit = guest::visit(broker.url().to_owned(), number, Arc::clone(&seen));
                tasks.spawn(visit);
            }
            _ = look.tick() => watch.look(&broker, &seen).await?,
            () = tokio::time::sleep_until(until) => break,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot watch for signals")?;
                break;
            }
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    watch.settle(&broker, SETTLE_TIMEOUT).await?;
    Ok(if watch.report(&seen) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
