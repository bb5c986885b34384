//! `broker`: serves, and speaks to a broker from the shell.
//!
//! Here and in the modules below, errors end as one line for a person, and a result becomes an exit
//! code: 0 done, 1 failed, 2 wrong usage, and what the subcommands document for themselves.

mod bench;
mod cli;
mod config;
mod heap;
mod serve;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

use self::config::{Cli, Command};

fn main() -> ExitCode {
    heap::keep_freed();
    let cli = Cli::parse();
    let done = match cli.command {
        None => telemetry::init(&cli.log, &cli.trace).and_then(|telemetry| {
            let served = serve::serve(cli.serve);
            telemetry.finish();
            served
        }),
        Some(Command::Pub(args)) => cli::publish(args),
        Some(Command::Sub(args)) => cli::subscribe(args),
        Some(Command::Health(args)) => cli::health(args),
        Some(Command::Top(args)) => cli::top(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Token(args)) => cli::token(&args),
        Some(Command::Check(args)) => cli::check(*args),
    };
    done.unwrap_or_else(|error| {
        cli::complain(&error);
        ExitCode::FAILURE
    })
}
