//! Redis' RESP2: `SUBSCRIBE`, `PUBLISH`, each publish answered with a number.

use super::{Codec, Heard, Stamp, Template, Traffic, line, unexpected};

#[derive(Debug)]
pub(super) struct Redis {
    topic: String,
    publish: Template,
    delivery: Template,
    subscribed: Vec<u8>,
}

impl Redis {
    pub(super) fn new(traffic: Traffic) -> Self {
        let (topic, size) = (traffic.topic(), traffic.size);
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let topic_bulk = bulk(&topic);
        let message = |verb| format!("*3\r\n{}{topic_bulk}${size}\r\n", bulk(verb));
        Self {
            publish: Template::new(message("PUBLISH").as_bytes(), size, b"\r\n"),
            delivery: Template::new(message("message").as_bytes(), size, b"\r\n"),
            subscribed: format!("*3\r\n{}{topic_bulk}:1\r\n", bulk("subscribe")).into_bytes(),
            topic,
        }
    }
}

impl Codec for Redis {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("SUBSCRIBE {}\r\n", self.topic).as_bytes());
    }

    fn publish(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
        self.publish.put(stamp, out);
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
            taken += self.delivery.take(&bytes[taken..], heard);
            let rest = &bytes[taken..];
            if rest.is_empty() || self.delivery.is_begun_by(rest) {
                return Ok(taken);
            }
            if rest.starts_with(&self.subscribed) {
                heard.ready += 1;
                taken += self.subscribed.len();
                continue;
            }
            if self.subscribed.starts_with(rest) {
                return Ok(taken);
            }
            let Some((line, length)) = line(rest) else {
                return Ok(taken);
            };
            match line {
                [b':', ..] => heard.acked += 1,
                b"+PONG" => heard.ready += 1,
                other => return unexpected(other),
            }
            taken += length;
        }
    }
}
