//! What abuse costs others: a broker of its own, a client that behaves, and beside it one attack after the
//! other.
//!
//! The client publishes at a fixed rate, a call for each message, and reads what it publishes on another
//! connection; its latency counts from the time at which a message was due. Each attack is repeated for as
//! long as it is measured, from one connection after the other, as fast as the broker takes it. Exits with
//! 0 if the client saw no failure and no loss, memory kept within its budget and a tenth, and a stalled
//! subscriber and a frozen one were gone in time; the ratios of latency are for the reader.

#[path = "../../tests/it/attack.rs"]
#[allow(dead_code, reason = "the tests use what is not used here")]
mod attack;
mod client;
mod crowd;
mod memory;
mod server;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

use self::{
    attack::Flood,
    client::{Figures, measure},
    server::Server,
};

/// Measures what abuse costs a client that behaves
#[derive(Debug, Parser)]
struct Args {
    /// A short time for each attack, to see that everything runs
    #[arg(long)]
    short: bool,
    /// How long each attack is measured
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        conflicts_with = "short"
    )]
    duration: humantime::Duration,
    /// The broker; without it, the one that was built beside this program
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
}

/// A method that the front door serves itself, and one that goes through the router.
const PATHS: [(&str, &str); 2] = [
    ("direct", "/pubsub.v1.PubSubService/PublishStream"),
    (
        "routed",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ),
];
const FLOODS: [Flood; 11] = [
    Flood::Ping,
    Flood::Settings,
    Flood::Priority,
    Flood::WindowUpdate,
    Flood::Unknown,
    Flood::EmptyData,
    Flood::EmptyContinuation,
    Flood::Continuation,
    Flood::RapidReset,
    Flood::MalformedRequest,
    Flood::EmptyHeaders,
];
/// Frames of one connection, if the broker lets them come.
const FRAMES: usize = 1_000_000;
/// What an attack may at most take, beside the memory budget of the broker's default.
const RSS_MAX: u64 = (1 << 30) / 10 * 11;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let duration = if args.short {
        Duration::from_millis(500)
    } else {
        *args.duration
    };
    let program = std::env::current_exe()?;
    let built = program.parent().and_then(|examples| examples.parent());
    let built = built.context("this program is in no build folder")?;
    let broker = args.broker.unwrap_or_else(|| built.join("broker"));
    let mut is_sound = true;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<26} {:>9} {:>9} {:>7} {:>6} {:>8} {:>9}",
        "attack", "p50 us", "p99 us", "ratio", "failed", "attacks", "rss MiB"
    )?;
    for (name, path) in PATHS {
        let server = Server::start(&broker)?;
        let calm = measure(server.address, duration, std::future::pending::<()>()).await?;
        show(
            &mut out,
            &format!("none ({name})"),
            &calm,
            &calm,
            0,
            &server,
        )?;
        for flood in FLOODS {
            let server = Server::start(&broker)?;
            let attacks = std::cell::Cell::new(0);
            let attacking = repeat(flood, server.address, path, &attacks);
            let figures = measure(server.address, duration, attacking).await?;
            let title = format!("{flood:?} ({name})");
            show(&mut out, &title, &figures, &calm, attacks.get(), &server)?;
            is_sound &= figures.failures == 0 && server.rss_bytes()? < RSS_MAX;
        }
    }
    is_sound &= crowd::stalled_one_in_a_hundred(&broker, duration, &mut out).await?;
    is_sound &= memory::keeps_its_budget(&broker, duration, &mut out).await?;
    Ok(if is_sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn repeat(flood: Flood, address: SocketAddr, path: &str, attacks: &std::cell::Cell<usize>) {
    loop {
        flood.run(address, path, FRAMES).await;
        attacks.set(attacks.get() + 1);
    }
}

fn show(
    out: &mut impl Write,
    title: &str,
    figures: &Figures,
    calm: &Figures,
    attacks: usize,
    server: &Server,
) -> anyhow::Result<()> {
    let (p50, p99) = (figures.quantile(0.5), figures.quantile(0.99));
    let ratio = p99 as f64 / calm.quantile(0.99).max(1) as f64;
    let failures = figures.failures;
    let rss = server.rss_bytes()? >> 20;
    writeln!(
        out,
        "{title:<26} {p50:>9} {p99:>9} {ratio:>7.2} {failures:>6} {attacks:>8} {rss:>9}"
    )?;
    Ok(())
}
