//! The built `broker` on a free port, in a process of its own.

use std::{env, process::Command};

use crate::program::Program;

/// A serving broker, killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    program: Program,
    /// HOST:PORT
    pub(crate) address: String,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("BROKER_") {
                command.env_remove(name);
            }
        }
        command.args(["--listen", "127.0.0.1:0"]).args(args);
        let mut program = Program::start("broker", &mut command);
        let address = program.until("telling its address", |line| {
            let (_, address) = line.split_once("serving address=")?;
            address.split_whitespace().next().map(str::to_owned)
        });
        Self { program, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Begins the drain, by SIGTERM.
    pub(crate) fn drain(&self) {
        self.program.terminate();
    }

    /// Waits for the end of the drain, which must be a success.
    pub(crate) fn drained(self) {
        self.program.succeed();
    }
}
