//! One message on its way to all its mailboxes: owned and encoded once, and only if somebody asks.

use std::{sync::Arc, time::SystemTime};

use bytes::BytesMut;

use super::{batch::Encoding, memory::Memory};
use crate::{
    cursor::Position,
    message::{Delivery, DeliveryRef, Epoch, MessageRef, Sequence},
};

/// What an owned message takes beside what it counts for in a mailbox: the allocations of its parts, and
/// what is encoded of it; as measured, rounded up.
const OWNED_OVERHEAD_BYTES: usize = 256;

/// A message with its place, and what was made of it for those it went to so far.
#[derive(Debug)]
pub(crate) struct Parting<'m> {
    memory: &'m Arc<Memory>,
    delivery: DeliveryRef<'m>,
    size: usize,
    shared: Option<Arc<Delivery>>,
    /// Whether more than one lane may ask for the same bytes.
    keeps_frame: bool,
    frame: Option<(&'static str, BytesMut)>,
}

impl<'m> Parting<'m> {
    pub(crate) fn new(
        memory: &'m Arc<Memory>,
        message: MessageRef<'m>,
        epoch: Epoch,
        sequence: Sequence,
        published_at: SystemTime,
    ) -> Self {
        Self {
            memory,
            delivery: DeliveryRef {
                message,
                epoch,
                sequence,
                published_at,
                position: None,
            },
            size: message.size(),
            shared: None,
            keeps_frame: false,
            frame: None,
        }
    }

    /// Gives the message a place among all that is kept.
    pub(crate) fn keep_at(mut self, position: Position) -> Self {
        self.delivery.position = Some(position);
        self
    }

    /// Whether it is in its topic's log, for those who read that.
    pub(crate) fn is_kept(&self) -> bool {
        self.delivery.position.is_some()
    }

    pub(crate) fn message(&self) -> &MessageRef<'m> {
        &self.delivery.message
    }

    /// What the message counts for in a mailbox, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Says how many lanes will ask for the message's bytes.
    pub(crate) fn expect_lanes(&mut self, lanes: usize) {
        self.keeps_frame = lanes > 1;
    }

    /// The message as one that its mailboxes share. Its payload outlives it where a connection sends that
    /// on as it is, so the count of both is the payload's.
    pub(crate) fn shared(&mut self) -> &Arc<Delivery> {
        self.shared.get_or_insert_with(|| {
            let mut delivery = self.delivery.to_delivery();
            let payload = std::mem::take(&mut delivery.message.payload);
            let held = self.memory.hold(self.size + OWNED_OVERHEAD_BYTES);
            delivery.message.payload = held.count(payload);
            Arc::new(delivery)
        })
    }

    /// Appends the message as the encoding writes it.
    pub(crate) fn put(&mut self, encoding: &Encoding, out: &mut BytesMut) {
        if !self.keeps_frame {
            return (encoding.put)(out, self.delivery);
        }
        match &self.frame {
            Some((name, frame)) if *name == encoding.name => out.extend_from_slice(frame),
            _ => {
                let mut frame = BytesMut::new();
                (encoding.put)(&mut frame, self.delivery);
                out.extend_from_slice(&frame);
                self.frame = Some((encoding.name, frame));
            }
        }
    }
}
