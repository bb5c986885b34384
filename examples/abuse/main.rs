//! What abuse costs others: a broker of its own, a client that behaves, and beside it one attack after the
//! other.
//!
//! The client publishes at a fixed rate, a call for each message, and reads what it publishes on another
//! connection; its latency counts from the time at which a message was due. Each attack comes from a process of
//! its own, and is repeated for as long as it is measured, one connection after the other, as fast as the
//! broker takes it. On a machine of few cores the attacker's own work is in the client's way, too. So each round also
//! measures the client while the same attacker is at another broker of that machine: what is above that is what the
//! broker itself lets through. The attacker gives way to the rest, and the other broker does not: it is cut off
//! as often there as here. Exits with
//! 0 if the client saw no failure and no loss, memory kept within its budget and a tenth, and a stalled
//! subscriber and a frozen one were gone in time; the ratios of latency are for the reader.

#[path = "../../tests/it/attack.rs"]
#[allow(dead_code, reason = "the tests use what is not used here")]
mod attack;
mod client;
mod crowd;
mod held_back;
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
/// Times that each measurement is made, in turn with the others.
const ROUNDS: u32 = 3;
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
        Duration::from_millis(600)
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

/// Where an attacker is while the client is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Nowhere,
    Elsewhere,
    Here,
}

/// What a flood came to, over all rounds.
struct Flooded {
    alone: Figures,
    elsewhere: Figures,
    here: Figures,
    attacks: u64,
    rss_bytes: u64,
}

/// Returns whether nobody else saw a failure, and memory was bounded.
async fn floods(broker: &Path, duration: Duration, out: &mut impl Write) -> anyhow::Result<bool> {
    writeln!(
        out,
        "p99 of a client that behaves, us: alone, with the attacker at another broker, and at its own\n\
         {:<26} {:>8} {:>10} {:>8} {:>6} {:>13} {:>7} {:>8} {:>8}",
        "attack",
        "alone",
        "elsewhere",
        "here",
        "ratio",
        "to elsewhere",
        "failed",
        "attacks",
        "rss MiB"
    )?;
    let mut is_sound = true;
    for (name, path) in PATHS {
        for flood in FLOODS {
            let flooded = rounds(broker, flood, path, duration / ROUNDS).await?;
            let p99 = |figures: &Figures| figures.quantile(0.99).max(1);
            let [alone, elsewhere, here] =
                [&flooded.alone, &flooded.elsewhere, &flooded.here].map(p99);
            let ratio = |to: u64| here as f64 / to as f64;
            writeln!(
                out,
                "{:<26} {alone:>8} {elsewhere:>10} {here:>8} {:>6.2} {:>13.2} {:>7} {:>8} {:>8}",
                format!("{flood:?} ({name})"),
                ratio(alone),
                ratio(elsewhere),
                flooded.here.failures,
                flooded.attacks,
                flooded.rss_bytes >> 20,
            )?;
            is_sound &= flooded.here.failures == 0 && flooded.rss_bytes < RSS_MAX;
        }
    }
    Ok(is_sound)
}

/// Measures the three in turn.
async fn rounds(
    broker: &Path,
    flood: Flood,
    path: &str,
    duration: Duration,
) -> anyhow::Result<Flooded> {
    let mut flooded = Flooded {
        alone: Figures::new()?,
        elsewhere: Figures::new()?,
        here: Figures::new()?,
        attacks: 0,
        rss_bytes: 0,
    };
    for _ in 0..ROUNDS {
        for at in [At::Nowhere, At::Elsewhere, At::Here] {
            let server = Server::start(broker)?;
            let other = match at {
                At::Elsewhere => Some(Server::start(broker)?),
                At::Nowhere | At::Here => None,
            };
            let target = match at {
                At::Nowhere => None,
                At::Elsewhere | At::Here => Some(other.as_ref().unwrap_or(&server).address),
            };
            let attacker = target.map(|target| Attacker::start(flood, target, path));
            let attacker = attacker.transpose()?;
            let figures = measure(server.address, duration).await?;
            drop(attacker);
            match at {
                At::Nowhere => flooded.alone.add(&figures)?,
                At::Elsewhere => flooded.elsewhere.add(&figures)?,
                At::Here => {
                    flooded.here.add(&figures)?;
                    flooded.rss_bytes = flooded.rss_bytes.max(server.rss_bytes()?);
                    let accepted = server.metric("fanfare_connections_accepted_total");
                    flooded.attacks += accepted.await?;
                }
            }
        }
    }
    Ok(flooded)
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
