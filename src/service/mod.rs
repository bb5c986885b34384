//! What every protocol asks of the broker in the same way: who calls, what a connection may take, how a
//! request arrives, how a subscription becomes a stream, and what a caller is told when it goes wrong.
//!
//! The need: gRPC, gRPC-Web and plain HTTP are ways to the same broker, with one set of limits, rights,
//! accounts and errors. So whatever a protocol does not have to do in its own way is here, and the
//! protocols convert. Knows HTTP's bodies and headers; knows no gRPC, no routes and no front door.

mod chunks;
mod lifeline;
mod rate;
mod receiving;
mod refusal;
mod revocation;
mod room;
mod share;
mod stream;
pub(crate) mod trace;

use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    lifeline::Lifeline,
    rate::PublishRate,
    receiving::{Received, Receiving},
    refusal::{CallError, Code, DRAINING, RETRY_AFTER, Refusal, StreamEnd},
    room::room,
    share::ConnectionShare,
    stream::{Format, LiveStream, StreamRequest},
};
use crate::{
    access::{Access, AccessError, Permit},
    auth::Secret,
    broker::{Broker, Limits},
    metrics::Metrics,
};

/// What all ways to the broker need to know; shared by all calls.
#[derive(Debug)]
pub(crate) struct PubSub {
    pub(crate) broker: Broker,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) receiving: Receiving,
    /// Of all publish streams, those that no caller has taken yet.
    pub(crate) rejections: Arc<AtomicUsize>,
    /// Cancelled when streams should come to their end.
    pub(crate) drain: CancellationToken,
    /// The heartbeat intervals that a subscriber may ask for.
    pub(crate) heartbeat_interval: RangeInclusive<Duration>,
    /// Who may do what; without it, anybody anything.
    pub(crate) access: Option<Arc<Access>>,
}

impl PubSub {
    /// The largest request: the largest message, its fields' keys and lengths, and fields unknown
    /// to this version.
    pub(crate) fn request_bytes_max(limits: &Limits) -> usize {
        const FIELDS_BYTES: usize = 64 * 1024;
        limits.payload_bytes_max + limits.attributes_bytes_max.max(FIELDS_BYTES)
    }

    /// What the sender of these headers is to be asked for, if anybody is.
    pub(crate) fn permit(
        &self,
        headers: &HeaderMap,
        share: &ConnectionShare,
    ) -> Result<Option<Permit>, AccessError> {
        self.permit_by(headers, None, share)
    }

    /// [`permit`](Self::permit) for a caller that may have shown a token elsewhere than in a header.
    pub(crate) fn permit_by(
        &self,
        headers: &HeaderMap,
        token: Option<Secret>,
        share: &ConnectionShare,
    ) -> Result<Option<Permit>, AccessError> {
        let Some(access) = &self.access else {
            return Ok(None);
        };
        let caller = access.identify_by(headers, token, share.peer(), share.caller())?;
        Ok(Some(Permit::new(access, caller)))
    }
}
