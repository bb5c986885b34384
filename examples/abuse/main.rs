//! What abuse costs others: a broker of its own, a client that behaves, and beside it one attack after the
//! other.
//!
//! The client publishes at a fixed rate, a call for each message, and reads what it publishes on another
//! connection; its latency counts from the time at which a message was due. Each attack comes from a process of
//! its own, and is repeated for as long as it is measured, one connection after the other, as fast as the
//! broker takes it. The attacker is nicer than the others where it can be: on a machine of few cores it would
//! measure itself. Exits with
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
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};

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
    /// Only these parts
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Attacks this address: what this program starts itself for
    #[arg(long, value_name = "ADDRESS", hide = true, requires_all = ["flood", "path"])]
    attack: Option<SocketAddr>,
    #[arg(long, value_enum, hide = true)]
    flood: Option<Flood>,
    #[arg(long, hide = true)]
    path: Option<String>,
    /// The broker; without it, the one that was built beside this program
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Floods,
    Crowd,
    Memory,
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
    if let (Some(address), Some(flood), Some(path)) = (args.attack, args.flood, &args.path) {
        loop {
            flood.run(address, path, FRAMES).await;
        }
    }
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    let duration = if args.short {
        Duration::from_millis(500)
    } else {
        *args.duration
    };
    let program = std::env::current_exe()?;
    let built = program.parent().and_then(|examples| examples.parent());
    let built = built.context("this program is in no build folder")?;
    let broker = args.broker.clone();
    let broker = broker.unwrap_or_else(|| built.join("broker"));
    let mut is_sound = true;
    let mut out = io::stdout().lock();
    if wants(Part::Floods) {
        is_sound &= floods(&broker, duration, &mut out).await?;
    }
    if wants(Part::Crowd) {
        is_sound &= crowd::stalled_one_in_a_hundred(&broker, duration, &mut out).await?;
    }
    if wants(Part::Memory) {
        is_sound &= memory::keeps_its_budget(&broker, duration, &mut out).await?;
    }
    Ok(if is_sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns whether nobody else saw a failure, and memory was bounded.
async fn floods(broker: &Path, duration: Duration, out: &mut impl Write) -> anyhow::Result<bool> {
    writeln!(
        out,
        "{:<26} {:>9} {:>9} {:>7} {:>6} {:>8} {:>9}",
        "attack", "p50 us", "p99 us", "ratio", "failed", "attacks", "rss MiB"
    )?;
    let mut is_sound = true;
    for (name, path) in PATHS {
        let server = Server::start(broker)?;
        let calm = measure(server.address, duration).await?;
        show(out, &format!("none ({name})"), &calm, &calm, &server).await?;
        for flood in FLOODS {
            let server = Server::start(broker)?;
            let attacker = Attacker::start(flood, server.address, path)?;
            let figures = measure(server.address, duration).await?;
            drop(attacker);
            let title = format!("{flood:?} ({name})");
            show(out, &title, &figures, &calm, &server).await?;
            is_sound &= figures.failures == 0 && server.rss_bytes()? < RSS_MAX;
        }
    }
    Ok(is_sound)
}

/// This program once more, which attacks until it is dropped.
struct Attacker(Child);

impl Attacker {
    fn start(flood: Flood, address: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let flood = flood
            .to_possible_value()
            .context("every flood has a name")?;
        let program = std::env::current_exe()?;
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program);
        command.args(["--attack", &address.to_string(), "--path", path]);
        command.args(["--flood", flood.get_name()]);
        Ok(Self(command.spawn().context("cannot start an attacker")?))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn show(
    out: &mut impl Write,
    title: &str,
    figures: &Figures,
    calm: &Figures,
    server: &Server,
) -> anyhow::Result<()> {
    let (p50, p99) = (figures.quantile(0.5), figures.quantile(0.99));
    let ratio = p99 as f64 / calm.quantile(0.99).max(1) as f64;
    let failures = figures.failures;
    let rss = server.rss_bytes()? >> 20;
    let attacks = server.metric("fanfare_connections_accepted_total").await?;
    writeln!(
        out,
        "{title:<26} {p50:>9} {p99:>9} {ratio:>7.2} {failures:>6} {attacks:>8} {rss:>9}"
    )?;
    Ok(())
}
