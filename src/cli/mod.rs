//! The subcommands that speak to a broker.
//!
//! Payloads and what scripts read go to stdout, everything else to stderr. Whoever closes stdout has
//! seen enough: that is no failure.

mod check;
mod json;
mod publish;
mod subscribe;
mod token;
mod top;

use std::{
    future::Future,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use fanfare::client::{Client, ClientOptions, ConnectError, Health};

pub(crate) use self::token::bearer_token;
use crate::{
    config::{CheckArgs, ConnectArgs, HealthArgs, PubArgs, SubArgs, TokenArgs, TopArgs},
    shutdown::Signals,
};

pub(crate) fn publish(args: PubArgs) -> anyhow::Result<ExitCode> {
    until_stopped(publish::publish(args))
}

pub(crate) fn subscribe(args: SubArgs) -> anyhow::Result<ExitCode> {
    until_stopped(subscribe::subscribe(args))
}

pub(crate) fn health(args: HealthArgs) -> anyhow::Result<ExitCode> {
    until_stopped(async {
        let client = connect(&args.connect).await?;
        let (answer, code) = match client.health(&args.service).await? {
            Health::Serving => ("SERVING", ExitCode::SUCCESS),
            Health::NotServing => ("NOT_SERVING", ExitCode::FAILURE),
            Health::Unknown => ("UNKNOWN", ExitCode::FAILURE),
        };
        put(format_args!("{answer}\n"))?;
        Ok(code)
    })
}

pub(crate) fn top(args: TopArgs) -> anyhow::Result<ExitCode> {
    until_stopped(top::top(args))
}

/// One line for a person: what failed, and what it failed of.
pub(crate) fn complain(error: &anyhow::Error) {
    tell(format_args!("broker: {error:#}"));
}

/// Runs a command until it is done or a signal ends it.
fn until_stopped(
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let done = runtime.block_on(async {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        tokio::select! {
            biased;
            stop = signals.next() => Ok(stop.exit_code()),
            done = command => done,
        }
    });
    // A read of stdin in progress must not keep the process.
    runtime.shutdown_background();
    match done {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

pub(crate) fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    token::token(args)
}

pub(crate) fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    until_stopped(check::check(args))
}

async fn connect(args: &ConnectArgs) -> anyhow::Result<Client> {
    let options = ClientOptions {
        bearer_token: bearer_token(args)?,
        ..args.options()
    };
    let connected = Client::with_options(&args.server, options).await;
    connected.map_err(|error| {
        let hint = match error {
            ConnectError::Unreachable { .. } => "is the broker running? start one with `broker`",
            ConnectError::Broken { .. } if !args.server.starts_with("https:") => {
                "does it want TLS? try https://"
            }
            _ => return error.into(),
        };
        anyhow!("{:#}; {hint}", anyhow::Error::new(error))
    })
}

/// Writes to stdout at once, so that a reader at the other end of a pipe sees it.
fn put(text: impl std::fmt::Display) -> io::Result<()> {
    put_bytes(text.to_string().as_bytes())
}

fn put_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// A line on stderr, if anybody listens.
fn tell(line: impl std::fmt::Display) {
    drop(writeln!(io::stderr(), "{line}"));
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
