//! The release broker as a process of its own, and what can be seen of it from outside.
//!
//! Invariant: the process is killed and waited for when its [`Broker`] is dropped.

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// After how long the broker forgets topics that nobody uses. By default these are five minutes, and the memory for
/// topics that come and go rises and falls with that: so seldom that a line through a run's samples shows a part of
/// a wave instead of what stays.
const TOPIC_IDLE_TIMEOUT: &str = "1m";
/// How long the broker may take to listen, or to answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    address: SocketAddr,
    url: String,
}

impl Broker {
    pub(crate) async fn start(path: Option<&Path>) -> anyhow::Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => beside_this_program()?,
        };
        // The port is free once this listener is dropped.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = free.local_addr()?;
        drop(free);
        let child = Command::new(&path)
            .args(["--listen", &address.to_string(), "--log-level", "error"])
            .args(["--topic-idle-timeout", TOPIC_IDLE_TIMEOUT])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let mut broker = Self {
            child,
            address,
            url: format!("http://{address}"),
        };
        let until = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect(address).await {
            if let Some(status) = broker.child.try_wait()? {
                bail!("the broker ended at once: {status}");
            }
            ensure!(
                Instant::now() < until,
                "the broker does not listen: {error}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(broker)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Each metric without labels, and the sums over the labels of the others.
    pub(crate) async fn metrics(&self) -> anyhow::Result<HashMap<String, u64>> {
        let text = tokio::time::timeout(PATIENCE, self.get("/metrics")).await??;
        let mut metrics = HashMap::new();
        for line in text.lines().filter(|line| line.starts_with("fanfare_")) {
            let (name, value) = line.rsplit_once(' ').context("a metric has a value")?;
            let name = name.split('{').next().unwrap_or(name);
            if let Ok(value) = value.parse::<u64>() {
                *metrics.entry(name.to_owned()).or_default() += value;
            }
        }
        Ok(metrics)
    }

    async fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Open descriptors, and resident memory in KiB; see proc(5).
    pub(crate) fn resources(&self) -> anyhow::Result<(usize, u64)> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let descriptors = fs::read_dir(process.join("fd"))?.count();
        let status = fs::read_to_string(process.join("status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
        let rss = rss.context("proc(5) describes VmRSS")?.parse()?;
        Ok((descriptors, rss))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has no state that would have to be saved; one that has ended already is no concern.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn beside_this_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(Path::parent);
    let broker = folder.context("an example is in a folder")?.join("broker");
    ensure!(
        broker.is_file(),
        "{} does not exist; `cargo build --release --bin broker` makes it",
        broker.display()
    );
    Ok(broker)
}
