//! Compares Fanfare with NATS, Redis and mosquitto on this machine; `README.md` beside this file says how
//! and what the figures mean.
//!
//! Each run starts a fresh server, pinned to one core, and drives its wire directly from another. Rounds
//! are interleaved: every system does a workload before any does the next. Exits with 0 if all ran
//! without a loss, and without a break of order where the system promises one; how the ratios came out is
//! for the reader.

mod floor;
mod interrupt;
mod link;
mod load;
mod pacer;
mod plot;
mod progress;
mod report;
mod results;
mod system;
mod wire;
mod workload;

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;

use self::{
    load::{Effort, Outcome},
    results::{Results, figure},
    system::{Machine, System},
    workload::Workload,
};

/// Compares the release broker with NATS, Redis and mosquitto, where they are installed
#[derive(Debug, Parser)]
struct Args {
    /// One short round, to see that everything runs; its figures mean nothing
    #[arg(long)]
    short: bool,
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "short")]
    rounds: usize,
    /// How long each run is measured, after a quarter of that as warm-up
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2s",
        conflicts_with = "short"
    )]
    duration: humantime::Duration,
    /// How many messages a subscriber may be behind before its publisher waits; Fanfare's mailboxes hold
    /// 1,024 by default
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    window: u64,
    /// Only these systems
    #[arg(long, value_name = "SYSTEM", value_enum, value_delimiter = ',')]
    systems: Vec<System>,
    /// Only these workloads
    #[arg(long, value_name = "WORKLOAD", value_enum, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// The broker; without it, the one that was built beside this program
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// The Go reference's program, which then takes its part; README.md says what it is
    #[arg(long, value_name = "PATH")]
    reference: Option<PathBuf>,
    /// Where `compare.json` and `compare.svg` go; without it, `compare` in the build folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Serves as the floor does: what this program starts itself as
    #[arg(long, value_name = "ADDRESS", hide = true)]
    serve_floor: Option<SocketAddr>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(address) = args.serve_floor {
        floor::serve(address)?;
        return Ok(ExitCode::SUCCESS);
    }
    // This program is at `target/release/examples/compare`.
    let program = std::env::current_exe()?;
    let built = program
        .parent()
        .and_then(|examples| examples.parent())
        .context("this program is in no build folder")?;
    let broker = args.broker.clone();
    let broker = broker.unwrap_or_else(|| built.join("broker"));
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| built.with_file_name("compare"));
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    interrupt::watch()?;
    let scratch = tempfile::tempdir()?;
    let reference = args.reference.as_ref().map(std::path::absolute);
    let machine = Machine::new(
        std::path::absolute(broker)?,
        reference.transpose()?,
        scratch.path().to_owned(),
    )?;
    let systems = installed(&args, &machine)?;

    let results = compare(&args, &machine, &systems)?;

    let mut stdout = io::stdout().lock();
    report::print(&results, &mut stdout)?;
    let json = report::as_json(&results, &systems, machine.is_pinned());
    let (json_path, svg_path) = (out.join("compare.json"), out.join("compare.svg"));
    fs::write(&json_path, format!("{json:#}\n"))?;
    fs::write(&svg_path, plot::svg(&results))?;
    let (json_path, svg_path) = (json_path.display(), svg_path.display());
    writeln!(stdout, "\nwritten: {json_path}, {svg_path}")?;
    let is_sound = systems.iter().all(|(system, _)| {
        let (lost, order_breaks) = results.faults(*system);
        lost == 0 && (order_breaks == 0 || !system.keeps_order())
    });
    Ok(match is_sound && results.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The systems wanted that are there, each with its version. Says which are missing.
fn installed(args: &Args, machine: &Machine) -> anyhow::Result<Vec<(System, String)>> {
    let mut stdout = io::stdout().lock();
    let mut systems = Vec::new();
    for system in System::ALL {
        let is_wanted = args.systems.is_empty() || args.systems.contains(&system);
        let name = system.name();
        match machine.version(system) {
            _ if !is_wanted => {}
            Some(version) => {
                writeln!(stdout, "{name}: {version}")?;
                systems.push((system, version));
            }
            None if system == System::Reference && args.systems.is_empty() => {}
            None if system == System::Reference => {
                writeln!(stdout, "{name}: no --reference, left out")?;
            }
            None => writeln!(stdout, "{name}: not installed, left out")?,
        }
    }
    if !machine.is_pinned() {
        writeln!(
            stdout,
            "servers and load share their cores, for want of a second core or of taskset: \
             compare with care"
        )?;
    }
    Ok(systems)
}

fn compare(
    args: &Args,
    machine: &Machine,
    systems: &[(System, String)],
) -> anyhow::Result<Results> {
    let duration = match args.short {
        true => Duration::from_millis(150),
        false => *args.duration,
    };
    let effort = Effort {
        warmup: duration / 4,
        duration,
        window: match args.short {
            true => args.window.min(100),
            false => args.window,
        },
    };
    let mut results = Results::default();
    for round in 1..=if args.short { 1 } else { args.rounds } {
        for workload in Workload::ALL {
            if !args.workloads.is_empty() && !args.workloads.contains(&workload) {
                continue;
            }
            for (system, _) in systems {
                if !workload.suits(*system) {
                    continue;
                }
                let name = format!("round {round}: {}: {}", workload.name(), system.name());
                interrupt::check()?;
                let outcome = run_one(machine, *system, workload, effort);
                say(&name, workload, &outcome)?;
                match outcome {
                    Ok(outcome) => {
                        results.outcomes.insert((workload, *system, round), outcome);
                    }
                    Err(error) => results.failures.push(format!("{name}: {error:#}")),
                }
            }
        }
    }
    Ok(results)
}

fn run_one(
    machine: &Machine,
    system: System,
    workload: Workload,
    effort: Effort,
) -> anyhow::Result<Outcome> {
    let server = machine.start(system)?;
    load::run(system, &server, workload.shape(), effort)
}

/// Progress, on stderr.
fn say(name: &str, workload: Workload, outcome: &anyhow::Result<Outcome>) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    match outcome {
        Err(error) => writeln!(stderr, "{name}: FAILED: {error:#}"),
        Ok(outcome) => {
            let figure = figure(outcome, workload.measure()).unwrap_or_default();
            let (figure, unit) = (report::short(figure), workload.measure().unit());
            writeln!(stderr, "{name}: {figure} {unit}")
        }
    }
}
