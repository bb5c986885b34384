//! A ChatGPT-like back end on Fanfare alone: an HTTP API with a page to chat on, dispatchers that share the
//! requests, and a mock model server. See README.md.
//!
//! `examples/chat/run` builds and starts all of it, with a broker.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to a person"
)]

mod all;
mod api;
mod batch;
mod child;
mod compare;
mod connections;
mod dispatcher;
mod events;
mod interrupt;
mod job;
mod metrics;
mod model;
mod secret;
mod vllm;
mod watch;

use std::net::SocketAddr;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;

use self::interrupt::Stop;

/// A ChatGPT-like back end on Fanfare alone
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// Starts a broker, the model server, dispatchers and the API, each as a process, until Ctrl-C
    All(all::AllArgs),
    /// Serves the HTTP API and the page
    Api(api::ApiArgs),
    /// Takes requests, and publishes the model's answers
    Dispatcher(dispatcher::DispatcherArgs),
    /// Serves the mock model
    Model(model::ModelArgs),
    /// Compares requests in batches with one after the other
    Compare(compare::CompareArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let program = Args::parse().program;
    let stop = Stop::on_signals()?;
    tokio::select! {
        ended = run(program, stop.clone()) => ended,
        () = stop.insisted() => Err(anyhow::anyhow!("stopped at once")),
    }
}

async fn run(program: Program, stop: Stop) -> anyhow::Result<()> {
    match program {
        Program::All(args) => all::run(args, stop).await,
        Program::Api(args) => api::run(args, stop).await,
        Program::Dispatcher(args) => dispatcher::run(args, stop).await,
        Program::Model(args) => model::run(args, stop).await,
        Program::Compare(args) => compare::run(args).await,
    }
}

/// Says where, in a line that whoever started the program may wait for.
async fn listen(title: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen at {address}"))?;
    println!("{title}: serving at http://{}", listener.local_addr()?);
    Ok(listener)
}
