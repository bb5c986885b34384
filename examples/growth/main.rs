//! Measures how Fanfare's memory and costs grow, and shows them beside the curves that the benches
//! measured.
//!
//! `examples/growth/run` does all of it. Each figure of the library comes from a fresh process, each of
//! the broker from a fresh broker, so that none stands on what another one left. Exits with 0 if what
//! should be forgotten was.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a person"
)]

mod cost;
mod curves;
#[path = "../compare/interrupt.rs"]
mod interrupt;
mod memory;
mod served;
mod short_lived;
mod table;

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::Context;
use clap::Parser;
use fanfare::{
    broker::{Broker, SubscribeOptions, Subscription},
    message::Message,
};
use serde_json::json;

use self::table::Table;

/// Measures how the memory and the cost of the library and of the release broker grow
#[derive(Debug, Parser)]
struct Args {
    /// Small numbers, to see in seconds that everything runs; their figures say little
    #[arg(long)]
    short: bool,
    /// How the figures are shown, on stdout
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The broker; without it, the one that was built beside this program
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// Where the benches left their results, to show them as well
    #[arg(long, value_name = "FOLDER")]
    curves: Option<PathBuf>,
    /// Measures one cost in this process: what this program starts itself as
    #[arg(long, hide = true)]
    cost: Option<cost::Kind>,
    /// Measures what is left of topics of which so many live at a time, the same way
    #[arg(long, hide = true)]
    short_lived: Option<usize>,
    #[arg(long, hide = true, default_value_t = 1_000)]
    count: usize,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    /// Tables
    #[default]
    Text,
    /// One JSON object
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(kind) = args.cost {
        println!("{}", kind.measure(args.count)?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(together) = args.short_lived {
        println!("{}", short_lived::measure(args.count, together)?);
        return Ok(ExitCode::SUCCESS);
    }
    // This program is at `target/release/examples/growth`.
    let program = std::env::current_exe()?;
    let built = program
        .parent()
        .and_then(|examples| examples.parent())
        .context("this program is in no build folder")?;
    let broker = args.broker.unwrap_or_else(|| built.join("broker"));
    interrupt::watch()?;
    let mut tables = vec![cost::table(args.short)?];
    tables.extend(short_lived::tables(args.short)?);
    tables.extend(served::tables(&broker, args.short)?);
    if let Some(folder) = &args.curves {
        tables.extend(curves::tables(folder)?);
    }
    match args.format {
        Format::Text => tables.iter().for_each(|table| println!("{table}")),
        Format::Json => {
            let tables: Vec<_> = tables.iter().map(Table::as_json).collect();
            println!("{:#}", json!({ "short": args.short, "tables": tables }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn topic(index: usize) -> String {
    format!("response:{index}")
}

/// With the smallest mailbox: what waits in one is not what is measured here.
fn subscribe(broker: &Broker, filter: &str) -> anyhow::Result<Subscription> {
    let options = SubscribeOptions {
        mailbox_capacity: Some(1),
        ..SubscribeOptions::new(filter.parse()?)
    };
    Ok(broker.subscribe(options)?)
}

fn publish(broker: &Broker, topic: &str) -> anyhow::Result<()> {
    let message = Message::new(topic.parse()?, "");
    broker.publish(message, SystemTime::UNIX_EPOCH)?;
    Ok(())
}
