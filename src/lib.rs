//! Fanfare: a standalone, topic-based gRPC publish/subscribe broker.
//!
//! The binary `broker` is the product; this library is what it is made of, for programs that embed the
//! broker ([`broker`], [`server`]) or talk to one ([`client`]).
//!
//! Dependencies point one way: `server` to `grpc` and `http`, these to `service`, which is what they share, that to
//! `wire` and `broker`, all of them to `topic`, `message` and `cursor`. The domain, [`broker`], knows no gRPC,
//! HTTP, command line, clock or task.

#![forbid(unsafe_code)]

mod access;
pub mod auth;
pub mod broker;
pub mod certificate;
pub mod client;
pub mod cursor;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod http;
mod http2;
pub mod message;
mod metrics;
mod pem;
pub mod process;
mod reloads;
pub mod server;
mod service;
pub mod topic;
pub mod wire;
