//! One connection of the load: a socket, its codec, and what it has heard.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    io::{self, Interest},
    net::TcpStream,
};

use crate::wire::{Codec, Heard};

/// How long a server may take to answer a greeting or a subscription.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
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

    async fn wait_until_ready(&mut self, ready: u64) -> anyhow::Result<()> {
        let answered = async {
            while self.heard.ready < ready {
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
