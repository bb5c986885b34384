//! HTTP/2 as a server speaks it (RFC 9113), without a socket, a clock or a task.
//!
//! A broker's messages are small and many, and its connections idle and many: what a frame costs and what
//! an idle connection keeps is what a delivery costs and what a subscriber keeps. So frames are read from
//! where they were received, and written to where they are sent from, both of which connections share; a
//! stream queues nothing that it sends, and what it was sent is one piece of memory, however many frames it
//! came in.
//!
//! [`Connection`] is fed with bytes, and says which requests have begun; whoever serves one reads its
//! [`Inbound`] and writes to its [`Outbound`] half. All of them share the connection's state, whose lock is
//! never waited for where one task drives a connection and its calls.
//! Invariants: bytes mean the same however they are cut; a peer that breaks the rules ends its stream or its
//! connection with the code that the RFC names; what a peer can make a connection keep is bounded, by
//! the windows, the number of streams, and the size of a header block.
//!
//! Knows no gRPC, no broker, no limits but those it is given.

mod allowance;
mod config;
mod connection;
mod control;
mod fields;
mod frame;
mod head;
mod hpack;
mod receive;
mod settings;
mod skipped;
mod state;
mod stream;

pub(crate) use self::{
    config::Config,
    connection::{Connection, Failure, Kept, Request},
    frame::{PREFACE, Reason},
    head::map_bytes,
    stream::{Broken, Inbound, Outbound},
};

#[cfg(test)]
mod tests;
