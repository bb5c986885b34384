//! The least that a broker can do: topics are numbers, messages have a length, nothing is answered.
//! `floor.rs` beside this folder is its server.

use super::{Codec, Heard, Stamp, Template, Traffic, unexpected};

/// What a connection says first.
pub(crate) const HELLO: u8 = b'H';
/// What it says next, with its topic in the byte that follows.
pub(crate) const PUBLISHER: u8 = b'P';
pub(crate) const SUBSCRIBER: u8 = b'S';
/// How all but publishers are answered.
pub(crate) const READY: u8 = 0xff;

#[derive(Debug)]
pub(super) struct Floor {
    topic: u8,
    message: Template,
    is_announced: bool,
}

impl Floor {
    pub(super) fn new(traffic: Traffic) -> Self {
        let length = (traffic.size as u32).to_be_bytes();
        Self {
            topic: traffic.topic as u8,
            message: Template::new(&length, traffic.size, b""),
            is_announced: false,
        }
    }
}

impl Codec for Floor {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.push(HELLO);
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[SUBSCRIBER, self.topic]);
    }

    fn publish(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
        if !self.is_announced {
            out.extend_from_slice(&[PUBLISHER, self.topic]);
            self.is_announced = true;
        }
        self.message.put(stamp, out);
        true
    }

    fn read(
        &mut self,
        bytes: &[u8],
        heard: &mut Heard,
        _out: &mut Vec<u8>,
    ) -> anyhow::Result<usize> {
        let mut taken = 0;
        loop {
            taken += self.message.take(&bytes[taken..], heard);
            match &bytes[taken..] {
                [] => return Ok(taken),
                [READY, ..] => taken += 1,
                rest if self.message.is_begun_by(rest) => return Ok(taken),
                other => return unexpected(other),
            }
            heard.ready += 1;
        }
    }
}
