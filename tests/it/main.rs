//! The broker as its users meet it: a real server on a free port, spoken to through real clients.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where, and fail"
)]

mod abuse;
mod attack;
mod auth;
mod cli;
mod client;
mod conformance;
mod cors;
mod delivery;
mod drain;
mod fault_proxy;
mod faults;
mod figures;
mod grpc_web;
mod history;
mod http;
mod http_auth;
mod http_events;
mod http_publish;
mod http_resume;
mod lifecycle;
mod limits;
#[cfg(feature = "otlp")]
mod otlp;
mod overflow;
mod overload;
mod pki;
mod publish_stream;
mod publisher;
mod pubsub;
mod raw;
mod reconnect;
mod reference;
mod resume;
mod support;
mod tls;
mod two_paths;
mod web;
