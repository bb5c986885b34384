//! The wires of the systems compared, each as a codec between messages and bytes.
//!
//! A codec knows no socket and no clock. All of them do as little as their protocol allows: what a
//! delivery looks like is known beforehand, so that most of its bytes are compared with a constant, and
//! only its stamp is read. No system's client is then slower than another's by more than its protocol.

mod events;
mod fanfare;
pub(crate) mod floor;
mod http2;
mod mqtt;
mod nats;
mod redis;

use std::collections::BTreeSet;

use ::fanfare::wire::{REFERENCE_SERVICE, SERVICE};
use anyhow::bail;

use crate::system::System;

pub(crate) use self::fanfare::Method;

/// What every payload begins with: its position in the topic, and when it was due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// The topic's first message has position 1; a probe, which is not measured, has 0.
    pub(crate) position: u64,
    /// Since the load's start.
    pub(crate) due_ns: u64,
}

impl Stamp {
    /// Of a message that only shows that its subscriber is there.
    pub(crate) const PROBE: Self = Self {
        position: 0,
        due_ns: 0,
    };
}

pub(crate) const STAMP_BYTES: usize = 16;
/// As many skipped positions are remembered by a connection, for should they come late.
const SKIPPED_MAX: usize = 100_000;

/// What a codec sends and receives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// The number in the topic's name.
    pub(crate) topic: usize,
    /// A payload's size, at least [`STAMP_BYTES`].
    pub(crate) size: usize,
    /// Whether each publish is to be answered on its own.
    pub(crate) acked: bool,
    pub(crate) method: Method,
}

impl Traffic {
    fn topic(self) -> String {
        format!("bench.{}", self.topic)
    }

    pub(crate) fn codec(self, system: System) -> Box<dyn Codec> {
        match system {
            System::Fanfare => Box::new(fanfare::Fanfare::new(self, SERVICE)),
            System::Events => Box::new(events::Events::new(self)),
            System::Nats => Box::new(nats::Nats::new(self)),
            System::Redis => Box::new(redis::Redis::new(self)),
            System::Mosquitto => Box::new(mqtt::Mqtt::new(self)),
            System::Floor => Box::new(floor::Floor::new(self)),
            System::Reference => Box::new(fanfare::Fanfare::new(self, REFERENCE_SERVICE)),
        }
    }
}

/// One connection's protocol.
pub(crate) trait Codec: Send {
    /// What is sent first; the answer is heard as one `ready`.
    fn greet(&mut self, out: &mut Vec<u8>);

    /// Asks for the topic's messages; the answer is heard as one `ready`.
    fn subscribe(&mut self, out: &mut Vec<u8>);

    /// Appends one message, unless flow control forbids it.
    #[must_use]
    fn publish(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool;

    /// Ends what `publish` has left open for further messages of one write.
    fn seal(&mut self, _out: &mut [u8]) {}

    /// Takes what is complete, and appends what the protocol makes us answer; returns how many bytes were
    /// taken.
    fn read(&mut self, bytes: &[u8], heard: &mut Heard, out: &mut Vec<u8>)
    -> anyhow::Result<usize>;
}

/// What a connection has heard so far.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) ready: u64,
    /// How many publishes are answered.
    pub(crate) acked: u64,
    pub(crate) deliveries: u64,
    /// The newest message's position.
    pub(crate) position: u64,
    /// Messages that were skipped and have not come since.
    pub(crate) lost: u64,
    /// The positions of those, the first [`SKIPPED_MAX`] of them; a later one stays lost.
    skipped: BTreeSet<u64>,
    /// Messages that came after a later one, or twice.
    pub(crate) order_breaks: u64,
    /// Where latencies are wanted: when each message taken by the present read was due.
    pub(crate) due_ns: Option<Vec<u64>>,
}

impl Heard {
    fn deliver(&mut self, payload: &[u8]) {
        let field = |at: usize| {
            let bytes = payload[at..at + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes are eight bytes"))
        };
        let position = field(0);
        if position == Stamp::PROBE.position {
            return;
        }
        self.deliveries += 1;
        if position == self.position + 1 {
            self.position = position;
        } else if position > self.position {
            self.lost += position - self.position - 1;
            let room = SKIPPED_MAX - self.skipped.len();
            self.skipped
                .extend((self.position + 1..position).take(room));
            self.position = position;
        } else {
            self.order_breaks += 1;
            self.lost -= u64::from(self.skipped.remove(&position));
        }
        if let Some(due_ns) = &mut self.due_ns {
            due_ns.push(field(8));
        }
    }
}

/// A message whose bytes are always the same but for the stamp.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    stamp_at: usize,
}

impl Template {
    fn new(before: &[u8], size: usize, after: &[u8]) -> Self {
        let mut bytes = before.to_vec();
        bytes.resize(before.len() + size, b'x');
        bytes.extend_from_slice(after);
        Self {
            bytes,
            stamp_at: before.len(),
        }
    }

    fn put(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let at = out.len() + self.stamp_at;
        out.extend_from_slice(&self.bytes);
        out[at..at + 8].copy_from_slice(&stamp.position.to_le_bytes());
        out[at + 8..at + STAMP_BYTES].copy_from_slice(&stamp.due_ns.to_le_bytes());
    }

    /// Takes as many messages of this form as there are; returns their bytes.
    fn take(&self, bytes: &[u8], heard: &mut Heard) -> usize {
        let before = &self.bytes[..self.stamp_at];
        let mut taken = 0;
        while let Some(message) = bytes[taken..].get(..self.bytes.len()) {
            if !message.starts_with(before) {
                break;
            }
            heard.deliver(&message[self.stamp_at..]);
            taken += self.bytes.len();
        }
        taken
    }

    /// Whether these bytes are the beginning of such a message.
    fn is_begun_by(&self, bytes: &[u8]) -> bool {
        let compared = bytes.len().min(self.stamp_at);
        bytes[..compared] == self.bytes[..compared] && bytes.len() < self.bytes.len()
    }
}

/// The line that the bytes begin with, without its end, and its length with it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn unexpected<T>(bytes: &[u8]) -> anyhow::Result<T> {
    let shown = &bytes[..bytes.len().min(80)];
    bail!("the server said `{}`", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_breaks_of_order_are_counted_and_probes_are_not() {
        let mut heard = Heard::default();
        let probe = Stamp::PROBE.position;
        for position in [probe, 1_u64, 2, 5, probe, 3, 6, 6] {
            let mut payload = [0; STAMP_BYTES];
            payload[..8].copy_from_slice(&position.to_le_bytes());
            heard.deliver(&payload);
        }
        assert_eq!(heard.deliveries, 6);
        // 4 is lost; 3 came late, and 6 twice.
        assert_eq!((heard.lost, heard.order_breaks), (1, 2));
        assert_eq!(heard.position, 6);
    }

    #[test]
    fn a_message_that_is_not_complete_waits() {
        let template = Template::new(b"MSG ", 16, b"\r\n");
        let mut out = Vec::new();
        for position in 1..=3 {
            template.put(
                Stamp {
                    position,
                    due_ns: 0,
                },
                &mut out,
            );
        }
        let mut heard = Heard::default();
        let taken = template.take(&out[..out.len() - 1], &mut heard);
        assert_eq!((taken, heard.deliveries), (44, 2));
        assert!(template.is_begun_by(&out[taken..out.len() - 1]));
        assert!(!template.is_begun_by(b"-ERR"));
    }
}
