//! A broker in a process of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Stopped when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    pub(crate) fn start(broker: &Path) -> anyhow::Result<Self> {
        Self::start_with(broker, &[])
    }

    pub(crate) fn start_with(broker: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(broker);
        let args = ["--listen", "127.0.0.1:0", "--threads", "1"];
        let logs = [
            "--log-format",
            "json",
            "--log-level",
            "fanfare=info,broker=info",
        ];
        command.args(args).args(logs).args(more);
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", broker.display()))?;
        let stderr = child.stderr.take().context("the log is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let line = lines.next().context("the broker said nothing")??;
        // Warnings of attacks are not for reading, but a full pipe would stop the broker.
        std::thread::spawn(move || lines.for_each(drop));
        let line: serde_json::Value = serde_json::from_str(&line)?;
        let address = line["fields"]["address"].as_str();
        let address = address.context("the broker told no address")?.parse()?;
        Ok(Self { address, child })
    }

    /// One metric's value.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let mut socket = TcpStream::connect(self.address).await?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let mut lines = answer.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.context("no such metric")?.trim().parse()?)
    }

    /// The most memory that it had in use so far.
    pub(crate) fn rss_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib
            .context("no peak in the process's status")?
            .parse::<u64>()?
            * 1_024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
