//! MQTT 3.1.1 with QoS 0: nothing but the connection and the subscription is answered.

use super::{Codec, Heard, Stamp, Template, Traffic, unexpected};

const CONNACK: u8 = 0x20;
const SUBACK: u8 = 0x90;

#[derive(Debug)]
pub(super) struct Mqtt {
    topic: String,
    /// Of a message in either direction.
    message: Template,
}

impl Mqtt {
    pub(super) fn new(traffic: Traffic) -> Self {
        let topic = traffic.topic();
        let mut before = vec![0x30];
        put_length(&mut before, 2 + topic.len() + traffic.size);
        put_text(&mut before, &topic);
        Self {
            topic,
            message: Template::new(&before, traffic.size, b""),
        }
    }
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

impl Codec for Mqtt {
    fn greet(&mut self, out: &mut Vec<u8>) {
        // Protocol level 4, a clean session, no keepalive, and an id that the server chooses.
        out.extend_from_slice(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        out.push(0x82);
        put_length(out, 2 + 2 + self.topic.len() + 1);
        out.extend_from_slice(&[0, 1]);
        put_text(out, &self.topic);
        out.push(0);
    }

    fn publish(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
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
            let rest = &bytes[taken..];
            match rest {
                [] => return Ok(taken),
                [CONNACK, 2, _, 0, ..] => taken += 4,
                [SUBACK, 3, _, _, 0, ..] => taken += 5,
                [CONNACK | SUBACK, ..] if rest.len() < 5 => return Ok(taken),
                rest if self.message.is_begun_by(rest) => return Ok(taken),
                other => return unexpected(other),
            }
            heard.ready += 1;
        }
    }
}
