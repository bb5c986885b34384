//! The chat example as its users meet it: the broker and each of its programs in a process of its own,
//! spoken to over HTTP, and by a browser.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where, and fail"
)]

mod answers;
mod browser;
#[path = "../../examples/chat/connections.rs"]
mod connections;
mod failures;
mod http;
#[path = "../interop/program.rs"]
#[allow(dead_code, reason = "other tests use all of it")]
mod program;
mod programs;
mod restarts;
mod sharing;
mod streams;
mod support;
#[path = "../interop/tools.rs"]
#[allow(dead_code, reason = "other tests use all of it")]
mod tools;
