//! Fanfare: a standalone, topic-based gRPC publish/subscribe broker.
pub mod broker;
pub mod message;
pub mod topic;
pub mod wire;
