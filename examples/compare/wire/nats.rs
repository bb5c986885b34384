//! NATS' text protocol: `SUB`, `PUB`, `MSG`; answered with `+OK` in its verbose mode, else not at all.

use super::{Codec, Heard, Stamp, Template, Traffic, line, unexpected};

#[derive(Debug)]
pub(super) struct Nats {
    traffic: Traffic,
    publish: Template,
    delivery: Template,
    /// How many `+OK` answer something other than a publish.
    other_oks: u64,
}

impl Nats {
    pub(super) fn new(traffic: Traffic) -> Self {
        let (topic, size) = (traffic.topic(), traffic.size);
        let publish = format!("PUB {topic} {size}\r\n");
        let delivery = format!("MSG {topic} 1 {size}\r\n");
        Self {
            traffic,
            publish: Template::new(publish.as_bytes(), size, b"\r\n"),
            delivery: Template::new(delivery.as_bytes(), size, b"\r\n"),
            other_oks: 0,
        }
    }
}

impl Codec for Nats {
    fn greet(&mut self, out: &mut Vec<u8>) {
        let verbose = self.traffic.acked;
        self.other_oks += u64::from(verbose);
        let connect = format!("CONNECT {{\"verbose\":{verbose},\"pedantic\":false}}\r\nPING\r\n");
        out.extend_from_slice(connect.as_bytes());
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        self.other_oks += u64::from(self.traffic.acked);
        let subscribe = format!("SUB {} 1\r\nPING\r\n", self.traffic.topic());
        out.extend_from_slice(subscribe.as_bytes());
    }

    fn publish(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
        self.publish.put(stamp, out);
        true
    }

    fn read(
        &mut self,
        bytes: &[u8],
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> anyhow::Result<usize> {
        let mut taken = 0;
        loop {
            taken += self.delivery.take(&bytes[taken..], heard);
            let rest = &bytes[taken..];
            if rest.is_empty() || self.delivery.is_begun_by(rest) {
                return Ok(taken);
            }
            let Some((line, length)) = line(rest) else {
                return Ok(taken);
            };
            match line {
                b"+OK" if self.other_oks > 0 => self.other_oks -= 1,
                b"+OK" => heard.acked += 1,
                b"PONG" => heard.ready += 1,
                b"PING" => out.extend_from_slice(b"PONG\r\n"),
                info if info.starts_with(b"INFO ") => {}
                other => return unexpected(other),
            }
            taken += length;
        }
    }
}
