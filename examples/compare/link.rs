//! One connection of the load: a socket, its codec, and what it has heard.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{self, Interest},
    net::TcpStream,
};

use crate::wire::{Codec, Heard, Stamp};

/// How long a server may take to answer a greeting or a subscription.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a probe has to arrive before the next is published, and how many there may be.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBES_MAX: usize = 1_000;
const SCRATCH_BYTES: usize = 256 * 1024;

/// The buffer that all connections of the thread read into, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Scratch(Rc<RefCell<Box<[u8]>>>);

impl Scratch {
    pub(crate) fn new() -> Self {
        let bytes = vec![0; SCRATCH_BYTES];
        Self(Rc::new(RefCell::new(bytes.into_boxed_slice())))
    }
}

pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) codec: Box<dyn Codec>,
    pub(crate) heard: Heard,
    /// What is to be sent, of which `sent` bytes have been.
    pub(crate) out: Vec<u8>,
    sent: usize,
    scratch: Scratch,
    /// Received, and not complete.
    leftover: Vec<u8>,
}

impl Link {
    pub(crate) async fn connect(
        address: SocketAddr,
        mut codec: Box<dyn Codec>,
        scratch: &Scratch,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut out = Vec::new();
        codec.greet(&mut out);
        let mut link = Self {
            stream,
            codec,
            heard: Heard::default(),
            out,
            sent: 0,
            scratch: scratch.clone(),
            leftover: Vec::new(),
        };
        link.wait_until_ready(1).await?;
        Ok(link)
    }

    /// Subscribes this connection to its topic, as often as told.
    pub(crate) async fn subscribe(&mut self, times: usize) -> anyhow::Result<()> {
        for _ in 0..times {
            self.codec.subscribe(&mut self.out);
        }
        self.wait_until_ready(1 + times as u64).await
    }

    /// The same where the server answers a subscription with its first message alone: `prober` publishes
    /// probes until one has come.
    pub(crate) async fn subscribe_with_probes(
        &mut self,
        times: usize,
        prober: &mut Self,
    ) -> anyhow::Result<()> {
        for _ in 0..times {
            self.codec.subscribe(&mut self.out);
        }
        let ready = 1 + times as u64;
        for _ in 0..PROBES_MAX {
            prober.probe().await?;
            let arrived = tokio::time::timeout(PROBE_INTERVAL, self.wait_until_ready(ready));
            if let Ok(arrived) = arrived.await {
                return arrived;
            }
        }
        bail!("none of {PROBES_MAX} probes has arrived")
    }

    /// Publishes a message that is not measured, and waits until it is answered.
    async fn probe(&mut self) -> anyhow::Result<()> {
        let unanswered = self.heard.acked;
        let allowed = self.codec.publish(Stamp::PROBE, &mut self.out);
        ensure!(allowed, "the server's flow control holds a probe back");
        self.codec.seal(&mut self.out);
        self.wait_until(|heard| heard.acked > unanswered).await
    }

    async fn wait_until_ready(&mut self, ready: u64) -> anyhow::Result<()> {
        self.wait_until(|heard| heard.ready >= ready).await
    }

    async fn wait_until(&mut self, is_heard: impl Fn(&Heard) -> bool) -> anyhow::Result<()> {
        let answered = async {
            while !is_heard(&self.heard) {
                self.push()?;
                self.stream.ready(self.interest()).await?;
                self.pull()?;
            }
            Ok(())
        };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
        answered.context("the server does not answer")?
    }

    /// What the socket is to be watched for.
    pub(crate) fn interest(&self) -> Interest {
        match self.out.is_empty() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        }
    }

    /// Sends as much as the socket takes.
    pub(crate) fn push(&mut self) -> anyhow::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.try_write(&self.out[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads once, if there is anything.
    pub(crate) fn pull(&mut self) -> anyhow::Result<()> {
        let mut scratch = self.scratch.0.borrow_mut();
        let kept = self.leftover.len();
        scratch[..kept].copy_from_slice(&self.leftover);
        let length = match self.stream.try_read(&mut scratch[kept..]) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        ensure!(length > 0, "the server closed the connection");
        let bytes = &scratch[..kept + length];
        let taken = self.codec.read(bytes, &mut self.heard, &mut self.out)?;
        self.leftover.clear();
        self.leftover.extend_from_slice(&bytes[taken..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const HELLO: u8 = b'h';
    const SUBSCRIBE: u8 = b's';
    const PUBLISH: u8 = b'p';
    const READY: u8 = b'r';
    const ANSWER: u8 = b'a';

    /// A protocol of single bytes.
    struct Bytes;

    impl Codec for Bytes {
        fn greet(&mut self, out: &mut Vec<u8>) {
            out.push(HELLO);
        }

        fn subscribe(&mut self, out: &mut Vec<u8>) {
            out.push(SUBSCRIBE);
        }

        fn publish(&mut self, stamp: Stamp, out: &mut Vec<u8>) -> bool {
            assert_eq!(stamp.position, Stamp::PROBE.position);
            out.push(PUBLISH);
            true
        }

        fn read(
            &mut self,
            bytes: &[u8],
            heard: &mut Heard,
            _out: &mut Vec<u8>,
        ) -> anyhow::Result<usize> {
            for byte in bytes {
                match *byte {
                    READY => heard.ready += 1,
                    _ => heard.acked += 1,
                }
            }
            Ok(bytes.len())
        }
    }

    /// Answers the first connection's subscription with the publish of this number, on the second.
    async fn serve(listener: TcpListener, number: usize) -> io::Result<()> {
        let (mut subscriber, _) = listener.accept().await?;
        assert_eq!(subscriber.read_u8().await?, HELLO);
        subscriber.write_all(&[READY]).await?;
        let (mut prober, _) = listener.accept().await?;
        assert_eq!(prober.read_u8().await?, HELLO);
        prober.write_all(&[READY]).await?;
        for publish in 1.. {
            assert_eq!(prober.read_u8().await?, PUBLISH);
            prober.write_all(&[ANSWER]).await?;
            if publish == number {
                assert_eq!(subscriber.read_u8().await?, SUBSCRIBE);
                subscriber.write_all(&[READY]).await?;
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_subscription_is_there_once_a_probe_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, 3));
        let scratch = Scratch::new();
        let connect = || Link::connect(address, Box::new(Bytes), &scratch);
        let (mut link, mut prober) = (connect().await.unwrap(), connect().await.unwrap());
        link.subscribe_with_probes(1, &mut prober).await.unwrap();
        assert_eq!(link.heard.ready, 2);
        assert!(prober.heard.acked >= 3);
        server.abort();
    }
}
