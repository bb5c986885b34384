//! The broker as other languages meet it: programs on other gRPC stacks, each in a process of its own,
//! against the built `broker` at its wire.
//!
//! A program is told the address of a broker that it has for itself, judges by itself, and exits with 0
//! or says what it found instead. `install` installs what the programs need; a test whose tool is
//! missing says `SKIPPED` and passes, unless `FANFARE_INTEROP=required`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where, and fail"
)]

mod broker;
mod buf;
mod page;
#[path = "../it/pki.rs"]
#[allow(dead_code, reason = "other tests use all of it")]
mod pki;
mod program;
mod reference;
mod tls;
mod tools;
mod web;

use std::process::Command;

use crate::{broker::Broker, program::Program};

/// One test for each of a client's cases, of the same name.
macro_rules! cases {
    ($client:ident: $($case:ident)+) => {
        mod $client {
            $(
                #[test]
                fn $case() {
                    super::$client(stringify!($case));
                }
            )+
        }
    };
}

cases! { python:
    reflects
    publishes_and_subscribes
    hears_wildcards
    is_told_what_it_missed
    is_told_what_to_change
    checks_health
    leaves_by_deadline_and_by_cancelling
    is_told_of_the_drain
}

cases! { node:
    publishes_and_subscribes
    hears_wildcards
    is_told_what_it_missed
    is_told_what_to_change
    checks_health
    leaves_by_deadline_and_by_cancelling
    is_told_of_the_drain
}

fn python(case: &str) {
    let test = format!("python::{case}");
    if let Some(python) = tools::require(&test, tools::python()) {
        let client = tools::here().join("python/client.py");
        converse(&test, Command::new(python).arg("-B").arg(client), case);
    }
}

fn node(case: &str) {
    let test = format!("node::{case}");
    if let Some(node) = tools::require(&test, tools::node()) {
        let client = tools::here().join("node/client.js");
        converse(&test, Command::new(node).arg(client), case);
    }
}

/// Runs a client's case against a broker, which is drained when the client asks for it.
fn converse(test: &str, client: &mut Command, case: &str) {
    let broker = Broker::start();
    let mut client = Program::start(test, client.arg(&broker.address).arg(case));
    while let Some(line) = client.line() {
        if line == "drain" {
            broker.drain();
        }
    }
    client.succeed();
    if case == "is_told_of_the_drain" {
        broker.drained();
    }
}
