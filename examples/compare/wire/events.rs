//! Fanfare's server-sent events over HTTP/1.1: the reading end alone, since who publishes much does so in
//! gRPC. Payloads come in base64, for they hold numbers.

use anyhow::{bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Codec, Heard, STAMP_BYTES, Stamp, Traffic, line, unexpected};

const GREETING: &[u8] = b"HEAD /ready HTTP/1.1\r\nhost: x\r\n\r\n";
const DATA: &[u8] = b"data: ";
const END: &[u8] = b"\n\n";
/// The first characters of a payload, which hold its stamp: whole groups of four.
const STAMP_TEXT_BYTES: usize = STAMP_BYTES.div_ceil(3) * 4;

#[derive(Debug)]
pub(super) struct Events {
    traffic: Traffic,
    /// Of an event, without its end.
    event_bytes: usize,
    /// What is left of the present chunk; 0 between two.
    chunk: usize,
    /// Whether the response's head is still to come.
    in_head: bool,
}

impl Events {
    pub(super) fn new(traffic: Traffic) -> Self {
        Self {
            traffic,
            event_bytes: DATA.len() + traffic.size.div_ceil(3) * 4,
            chunk: 0,
            in_head: true,
        }
    }

    /// Takes what is there of a chunk; returns how many bytes that were. An event is whole in its chunk.
    fn read_chunk(&mut self, bytes: &[u8], heard: &mut Heard) -> anyhow::Result<usize> {
        let here = &bytes[..bytes.len().min(self.chunk)];
        let mut taken = 0;
        while taken < here.len() {
            let rest = &here[taken..];
            if rest.starts_with(DATA) {
                let Some(end) = rest.get(self.event_bytes..self.event_bytes + END.len()) else {
                    break;
                };
                ensure!(end == END, "an event of another size came");
                let mut stamp = [0; STAMP_TEXT_BYTES / 4 * 3];
                let text = &rest[DATA.len()..DATA.len() + STAMP_TEXT_BYTES];
                BASE64_STANDARD.decode_slice(text, &mut stamp)?;
                heard.deliver(&stamp);
                taken += self.event_bytes + END.len();
            } else if let Some(end) = rest.windows(2).position(|pair| pair == END) {
                // When to come back, or a comment.
                if !rest.starts_with(b"retry: ") && !rest.starts_with(b":") {
                    return unexpected(rest);
                }
                taken += end + END.len();
            } else {
                break;
            }
        }
        self.chunk -= taken;
        Ok(taken)
    }
}

impl Codec for Events {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(GREETING);
    }

    fn subscribe(&mut self, out: &mut Vec<u8>) {
        self.in_head = true;
        let topic = self.traffic.topic();
        let path = format!("/v1/events?topic={topic}&base64=true");
        out.extend_from_slice(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    }

    fn publish(&mut self, _: Stamp, _: &mut Vec<u8>) -> bool {
        unreachable!("its publisher speaks gRPC")
    }

    fn read(&mut self, bytes: &[u8], heard: &mut Heard, _: &mut Vec<u8>) -> anyhow::Result<usize> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            if self.chunk > 0 {
                let length = self.read_chunk(rest, heard)?;
                taken += length;
                if self.chunk > 0 {
                    return Ok(taken);
                }
                continue;
            }
            let Some((line, length)) = line(rest) else {
                return Ok(taken);
            };
            if self.in_head {
                if line.starts_with(b"HTTP/1.1 ") && !line.starts_with(b"HTTP/1.1 200") {
                    return unexpected(line);
                }
                if line.is_empty() {
                    self.in_head = false;
                    heard.ready += 1;
                }
            } else if !line.is_empty() {
                let Ok(size) = usize::from_str_radix(std::str::from_utf8(line)?, 16) else {
                    bail!("`{}` is no size of a chunk", line.escape_ascii());
                };
                self.chunk = size;
            }
            taken += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Method;

    #[test]
    fn events_are_heard_in_whatever_pieces_they_come() {
        let traffic = Traffic {
            topic: 0,
            size: 32,
            acked: false,
            method: Method::PublishStream,
        };
        let event = |position: u64| {
            let mut payload = [b'x'; 32];
            payload[..8].copy_from_slice(&position.to_le_bytes());
            format!("data: {}\n\n", BASE64_STANDARD.encode(payload))
        };
        let chunk = |text: String| format!("{:x}\r\n{text}\r\n", text.len());
        let answer = [
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned(),
            chunk("retry: 1000\n\n".to_owned()),
            chunk(event(1) + &event(2)),
            chunk(":\n\n".to_owned()),
            chunk(event(3)),
        ];
        let answer = answer.concat().into_bytes();
        for size in 1..answer.len() {
            let (mut events, mut heard) = (Events::new(traffic), Heard::default());
            let mut waiting = Vec::new();
            for piece in answer.chunks(size) {
                waiting.extend_from_slice(piece);
                let taken = events.read(&waiting, &mut heard, &mut Vec::new()).unwrap();
                waiting.drain(..taken);
            }
            assert_eq!((heard.ready, heard.deliveries, heard.lost), (1, 3, 0));
            assert!(waiting.is_empty(), "{waiting:?}");
        }
    }
}
