//! The publisher of a fixed rate: a thread of its own, since a runtime's timers are no finer than a
//! millisecond. It sleeps until shortly before a message is due, and then looks at the clock.

use std::{
    hint,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::ensure;
use tokio::time::Instant;

use crate::wire::{Codec, Heard, Stamp};

/// How late the system may wake a sleeper.
const SLEEP_SLACK: Duration = Duration::from_micros(150);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes `count` messages, each stamped with the time at which it was due; returns the connection,
/// for the caller to keep until all has arrived: closing it earlier may take the last messages with it.
pub(crate) fn publish(
    address: SocketAddr,
    codec: Box<dyn Codec>,
    epoch: Instant,
    rate: u64,
    count: u64,
) -> anyhow::Result<Pacer> {
    let mut pacer = Pacer {
        stream: TcpStream::connect(address)?,
        codec,
        heard: Heard::default(),
        out: Vec::new(),
        received: Vec::new(),
    };
    pacer.stream.set_nodelay(true)?;
    pacer.stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    pacer.codec.greet(&mut pacer.out);
    while pacer.heard.ready < 1 {
        pacer.send()?;
        pacer.hear()?;
    }
    pacer.stream.set_nonblocking(true)?;
    let started = Instant::now();
    for position in 1..=count {
        let due = started + Duration::from_secs(1).mul_f64(position as f64 / rate as f64);
        wait_until(due);
        let stamp = Stamp {
            position,
            due_ns: (due - epoch).as_nanos() as u64,
        };
        let allowed = pacer.codec.publish(stamp, &mut pacer.out);
        ensure!(
            allowed,
            "the server's flow control holds a moderate rate back"
        );
        pacer.codec.seal(&mut pacer.out);
        pacer.send()?;
        pacer.hear()?;
    }
    Ok(pacer)
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    thread::sleep(left.saturating_sub(SLEEP_SLACK));
    while Instant::now() < due {
        hint::spin_loop();
    }
}

pub(crate) struct Pacer {
    stream: TcpStream,
    codec: Box<dyn Codec>,
    heard: Heard,
    out: Vec<u8>,
    received: Vec<u8>,
}

impl Pacer {
    fn send(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Takes what the server has sent.
    fn hear(&mut self) -> anyhow::Result<()> {
        let mut bytes = [0; 4 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => anyhow::bail!("the server closed the publisher's connection"),
            Ok(length) => self.received.extend_from_slice(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let taken = self
            .codec
            .read(&self.received, &mut self.heard, &mut self.out)?;
        self.received.drain(..taken);
        self.send()
    }
}
