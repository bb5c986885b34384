//! The wire contract as code: the messages generated from `proto/`, their conversions to and from our
//! own types, the frames that subscribers are sent, and the broker's figures as JSON.
//!
//! The only place where lints are relaxed, for what is generated. Knows protobuf, JSON and gRPC's framing;
//! knows no server and no client.

mod convert;
pub mod figures;
pub(crate) mod frame;
mod head;
pub(crate) mod request;

pub use self::convert::{InvalidField, Subscribe};
pub(crate) use self::convert::{Publish, next_topic};

/// The generated messages and client of `pubsub.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/"
)]
pub mod pb {
    tonic::include_proto!("pubsub.v1");
}

/// The encoded descriptors of `proto/`, with their comments, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Our service's full name.
pub const SERVICE: &str = "pubsub.v1.PubSubService";

/// The full name under which the reference's clients know the same service.
pub const REFERENCE_SERVICE: &str = "proto.PubSubService";

/// Names of the metadata that a subscription's response carries.
pub mod metadata {
    /// Response header: the mailbox's bound in messages, as granted.
    pub const MAILBOX_CAPACITY: &str = "fanfare-mailbox-capacity";
    /// Response header: the mailbox's bound in bytes.
    pub const MAILBOX_BYTES: &str = "fanfare-mailbox-bytes";
    /// Response header: the topic's epoch, in decimal; absent for a filter with wildcards.
    pub const EPOCH: &str = "fanfare-epoch";
    /// Response header: the sequence of the topic's newest message; absent like the epoch.
    pub const HEAD_SEQUENCE: &str = "fanfare-head-sequence";
    /// Response header: from where to go on if nothing arrives; absent where nothing is kept, or where the
    /// same start does it.
    pub const CURSOR: &str = "fanfare-cursor";
    /// Trailer: messages lost since the last response.
    pub const MISSED: &str = "fanfare-missed";
    /// Trailer: `true` if the stream has come to its topic's end, with status OK.
    pub const TOPIC_ENDED: &str = "fanfare-topic-ended";
}
