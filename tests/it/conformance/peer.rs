//! A peer of the broker that speaks in frames, does what a case says, and sees whether what must come of it
//! does.

use std::{collections::BTreeMap, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// An answer so far.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// Header blocks: the head, and what follows the body.
    pub(super) blocks: Vec<Vec<u8>>,
    pub(super) data: Vec<usize>,
    pub(super) is_whole: bool,
}

/// What was heard so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) answers: BTreeMap<u32, Answered>,
    resets: Vec<(u32, u32)>,
    pub(super) goaway: Option<u32>,
    is_closed: bool,
    pongs: usize,
}

impl Heard {
    pub(super) fn answer(&self, stream: u32) -> Option<&Answered> {
        self.answers.get(&stream)
    }

    /// Whether nothing was wrong by now, and all that was answered with this status.
    pub(super) fn is_well(&self, code: u16) -> bool {
        let is_as_said = |answer| status(answer) == Some(code);
        self.resets.is_empty() && self.goaway.is_none() && self.answers.values().all(is_as_said)
    }
}

/// The status that a head says.
fn status(answer: &Answered) -> Option<u16> {
    let mut block = answer.blocks.first()?.as_slice();
    // The table may have a new size.
    if let [0x20, rest @ ..] = block {
        block = rest;
    }
    match block {
        [0x88, ..] => Some(200),
        [0x8d, ..] => Some(404),
        [0x08, 3, text @ ..] => std::str::from_utf8(text.get(..3)?).ok()?.parse().ok(),
        _ => None,
    }
}

/// Whether a call was answered, and all went well.
pub(super) fn is_ok(answer: &Answered) -> bool {
    let last = answer.blocks.last().map(Vec::as_slice).unwrap_or_default();
    let is_ok = |bytes: &[u8]| bytes == b"\x0bgrpc-status\x010";
    status(answer) == Some(200) && last.windows(14).any(is_ok)
}

pub(super) struct Peer {
    socket: TcpStream,
    pub(super) heard: Heard,
}

impl Peer {
    pub(super) async fn connect(address: SocketAddr, opening: &[u8]) -> Self {
        let socket = within(TcpStream::connect(address)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut peer = Self {
            socket,
            heard: Heard::default(),
        };
        peer.say(opening).await;
        peer
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        within(self.socket.write_all(bytes)).await.unwrap();
    }

    /// Hears one frame more; false if there is none to come.
    pub(super) async fn hear(&mut self) -> bool {
        let Some((kind, flags, stream, payload)) = self.read_frame().await else {
            self.heard.is_closed = true;
            return false;
        };
        let number = |at: usize| u32::from_be_bytes(payload[at..][..4].try_into().unwrap());
        let heard = &mut self.heard;
        match kind {
            HEADERS => heard
                .answers
                .entry(stream)
                .or_default()
                .blocks
                .push(payload),
            // An empty one is there for its flag.
            DATA if payload.is_empty() => {}
            DATA => heard
                .answers
                .entry(stream)
                .or_default()
                .data
                .push(payload.len()),
            // With the connection, all that is in progress is cancelled.
            RST_STREAM if heard.goaway.is_some() => {}
            RST_STREAM => heard.resets.push((stream, number(0))),
            GOAWAY => heard.goaway = Some(number(4)),
            PING if flags & ACK != 0 && payload == STILL_THERE => heard.pongs += 1,
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            heard.answers.entry(stream).or_default().is_whole = true;
        }
        true
    }

    pub(super) async fn read_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        within(self.socket.read_exact(&mut head)).await.ok()?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within(self.socket.read_exact(&mut payload)).await.ok()?;
        Some((kind, flags, u32::from_be_bytes([s, t, u, v]), payload))
    }

    /// Hears frames until what was heard is as wanted; false if the connection closes before.
    pub(super) async fn hear_until(&mut self, wanted: impl Fn(&Heard) -> bool) -> bool {
        while !wanted(&self.heard) {
            if !self.hear().await {
                return false;
            }
        }
        true
    }

    /// Has the broker take all that was said; false if it has closed.
    pub(super) async fn sync(&mut self) -> bool {
        let pongs = self.heard.pongs;
        self.say(&attack::frame(PING, 0, 0, &STILL_THERE)).await;
        self.hear_until(|heard| heard.pongs > pongs).await
    }

    /// Does the steps, and looks at what comes of them; what was heard if that is not as it must be.
    pub(super) async fn try_case(&mut self, steps: &[Step], must: Must) -> Result<(), &Heard> {
        let is_as_it_must = self.act(steps).await && self.conclude(must).await;
        if is_as_it_must {
            Ok(())
        } else {
            Err(&self.heard)
        }
    }

    pub(super) async fn act(&mut self, steps: &[Step]) -> bool {
        let mut said = Vec::new();
        for step in steps {
            if let Step::Say(bytes) = step {
                said.extend(bytes);
                continue;
            }
            self.say(&std::mem::take(&mut said)).await;
            let is_heard = match *step {
                HearEnd(stream) => {
                    let is_whole = |heard: &Heard| heard.answer(stream).is_some_and(|a| a.is_whole);
                    self.hear_until(is_whole).await
                }
                HearBytes(stream, bytes) => {
                    let has_come = |a: &Answered| a.data.iter().sum::<usize>() >= bytes;
                    self.hear_until(|heard| heard.answer(stream).is_some_and(has_come))
                        .await
                }
                HearReset(stream) => {
                    let is_reset = |(reset, _): &(u32, u32)| *reset == stream;
                    self.hear_until(|heard| heard.resets.iter().any(is_reset))
                        .await
                }
                Step::Say(_) => true,
            };
            if !is_heard {
                return false;
            }
        }
        // All in one go, so that nothing is left unread when the connection ends: a reset of the
        // connection might overtake the last words.
        self.say(&said).await;
        true
    }

    async fn conclude(&mut self, must: Must) -> bool {
        if let End(_) | Close = must {
            while self.hear().await {}
            let is_told = match must {
                End(code) => self.heard.goaway == Some(code),
                _ => self.heard.goaway.is_none(),
            };
            return is_told && self.heard.resets.is_empty();
        }
        if let Answer(_) | Succeed = must {
            let is_whole = |answer: &Answered| answer.is_whole;
            self.hear_until(|heard| heard.answer(1).is_some_and(is_whole))
                .await;
        }
        // Whoever is woken by what was said is served before anything else is read, so that the second answer
        // comes after all that they have to say.
        let is_there = self.sync().await && self.sync().await;
        let heard = &self.heard;
        let first = heard.answer(1);
        let is_as_it_must = match must {
            Pass => heard.is_well(200),
            Reset(stream, code) => heard.resets == [(stream, code)] && heard.goaway.is_none(),
            Answer(code) => heard.is_well(code),
            Succeed => heard.is_well(200) && first.is_some_and(is_ok),
            Send(sizes) => heard.is_well(200) && first.is_some_and(|first| first.data == sizes),
            End(_) | Close => false,
        };
        is_there && is_as_it_must && self.is_served().await
    }

    /// Whether one more request is answered.
    async fn is_served(&mut self) -> bool {
        self.say(&attack::frame(HEADERS, WHOLE, LAST, &get())).await;
        self.hear_until(|heard| heard.answers.contains_key(&LAST))
            .await
            && status(&self.heard.answers[&LAST]) == Some(200)
    }
}
