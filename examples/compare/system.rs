//! The systems compared, each as a fresh process on a free port of loopback, pinned to one core.
//!
//! Invariant: a process that was started is killed and waited for when its [`Server`] is dropped.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use tokio::time::Instant;

/// The core of the servers; the load has the other.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Where the reference listens: it takes no arguments.
const REFERENCE_PORT: u16 = 1234;
/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A free port may be taken by another between being found and being used.
const START_ATTEMPTS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum System {
    Fanfare,
    /// Fanfare's server-sent events: subscribers over HTTP/1.1, the publisher in gRPC
    Events,
    Nats,
    Redis,
    Mosquitto,
    /// Plain TCP with one write for each batch and subscriber: what no broker can go below.
    Floor,
    /// The Go program that Fanfare replaces, with `--reference`
    Reference,
}

impl System {
    pub(crate) const ALL: [Self; 7] = [
        Self::Fanfare,
        Self::Events,
        Self::Nats,
        Self::Redis,
        Self::Mosquitto,
        Self::Floor,
        Self::Reference,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fanfare => "Fanfare",
            Self::Events => "SSE",
            Self::Nats => "NATS",
            Self::Redis => "Redis",
            Self::Mosquitto => "mosquitto",
            Self::Floor => "floor",
            Self::Reference => "reference",
        }
    }

    /// In what its publishers speak.
    pub(crate) fn publisher(self) -> Self {
        match self {
            Self::Events => Self::Fanfare,
            system => system,
        }
    }

    /// Whether one publisher's messages arrive in the order in which they were sent, also where it does not
    /// wait for each answer. The reference serves each call on a goroutine of its own.
    pub(crate) fn keeps_order(self) -> bool {
        self != Self::Reference
    }

    /// Whether a subscription is answered before its first message. Where it is not, only a message
    /// tells that it is there.
    pub(crate) fn answers_subscriptions(self) -> bool {
        self != Self::Reference
    }
}

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Machine {
    broker: PathBuf,
    reference: Option<PathBuf>,
    /// For logs and configurations.
    scratch: PathBuf,
    cores: Option<(usize, usize)>,
}

impl Machine {
    /// Pins this process to its core, if there are two and `taskset` is installed.
    pub(crate) fn new(
        broker: PathBuf,
        reference: Option<PathBuf>,
        scratch: PathBuf,
    ) -> anyhow::Result<Self> {
        if !broker.is_file() {
            bail!(
                "{} does not exist; `cargo build --release --bin broker` makes it",
                broker.display()
            );
        }
        if let Some(missing) = reference.iter().find(|reference| !reference.is_file()) {
            bail!("{} does not exist", missing.display());
        }
        let processors = thread::available_parallelism()?.get();
        let cores =
            (processors > 1 && find("taskset").is_some()).then_some((SERVER_CORE, LOAD_CORE));
        if let Some((_, load)) = cores {
            let pinned = Command::new("taskset")
                .args(["-a", "-c", "-p", &load.to_string()])
                .arg(std::process::id().to_string())
                .stdout(Stdio::null())
                .status()?;
            if !pinned.success() {
                bail!("taskset cannot pin this process to core {load}");
            }
        }
        Ok(Self {
            broker,
            reference,
            scratch,
            cores,
        })
    }

    /// Whether servers and load have a core each.
    pub(crate) fn is_pinned(&self) -> bool {
        self.cores.is_some()
    }

    /// The system's program and what it calls itself, if it is installed.
    pub(crate) fn version(&self, system: System) -> Option<String> {
        let program = self.program(system)?;
        let output = Command::new(&program)
            .arg(match system {
                System::Mosquitto => "-h",
                System::Floor => return Some("one write per batch and subscriber".to_owned()),
                // It would serve, whatever it is told.
                System::Reference => return Some(program.display().to_string()),
                _ => "--version",
            })
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Some(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    fn program(&self, system: System) -> Option<PathBuf> {
        match system {
            System::Fanfare | System::Events => Some(self.broker.clone()),
            System::Floor => std::env::current_exe().ok(),
            System::Reference => self.reference.clone(),
            System::Nats => find("nats-server"),
            System::Redis => find("redis-server"),
            System::Mosquitto => find("mosquitto"),
        }
    }

    pub(crate) fn start(&self, system: System) -> anyhow::Result<Server> {
        let mut attempt = 1;
        loop {
            match self.try_start(system) {
                Err(error) if attempt == START_ATTEMPTS => {
                    return Err(error.context(format!("cannot start {}", system.name())));
                }
                Err(_) => attempt += 1,
                Ok(server) => return Ok(server),
            }
        }
    }

    fn try_start(&self, system: System) -> anyhow::Result<Server> {
        let program = self.program(system).context("it is not installed")?;
        let port = match system {
            System::Reference => REFERENCE_PORT,
            _ => 0,
        };
        // The port is free once this listener is dropped.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on port {port} of loopback"))?;
        let address = free.local_addr()?;
        drop(free);
        let mut command = match self.cores {
            Some((core, _)) => {
                // It replaces itself by the program: the process keeps its id.
                let mut taskset = Command::new("taskset");
                taskset.args(["-c", &core.to_string()]).arg(program);
                taskset
            }
            None => Command::new(program),
        };
        let log_path = self.scratch.join(format!("{}.log", system.name()));
        let log = fs::File::create(&log_path)?;
        command
            .args(self.arguments(system, address)?)
            .current_dir(&self.scratch)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BROKER_") {
                command.env_remove(name);
            }
        }
        if system == System::Reference {
            command.env("GOMAXPROCS", "1");
        }
        let mut server = Server {
            child: command.spawn()?,
            address,
        };
        server
            .wait_until_it_listens()
            .with_context(|| format!("its log is {}", log_path.display()))?;
        Ok(server)
    }

    /// One thread for each, nothing kept on disk, and no limit that the load would run into.
    fn arguments(&self, system: System, address: SocketAddr) -> io::Result<Vec<String>> {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let text = |arguments: &[&str]| arguments.iter().map(ToString::to_string).collect();
        Ok(match system {
            System::Fanfare | System::Events => text(&[
                "--listen",
                &address.to_string(),
                "--threads",
                "1",
                "--log-level",
                "warn",
            ]),
            System::Nats => text(&["--addr", &ip, "--port", &port]),
            System::Redis => text(&[
                "--bind",
                &ip,
                "--port",
                &port,
                "--save",
                "",
                "--appendonly",
                "no",
            ]),
            System::Mosquitto => {
                let path = self.scratch.join("mosquitto.conf");
                let config = format!(
                    "listener {port} {ip}\nallow_anonymous true\npersistence false\n\
                     max_queued_messages 0\nset_tcp_nodelay true\nuser root\n"
                );
                fs::write(&path, config)?;
                text(&["-c", &path.to_string_lossy()])
            }
            System::Floor => text(&["--serve-floor", &address.to_string()]),
            System::Reference => Vec::new(),
        })
    }
}

/// The program of this name on the path, or where servers are installed.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file())
}

/// A system that runs.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once: {status}");
            }
            match TcpStream::connect(self.address) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(&self.child.id().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has no state that would have to be saved; one that has ended already is no concern.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process has used, from Linux's `/proc` (see proc(5)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time, user and system, of all threads.
    pub(crate) cpu: Duration,
    /// How long its threads could have run and had no core, if the kernel tells.
    pub(crate) waited: Duration,
    /// Memory that is resident.
    pub(crate) rss_bytes: u64,
}

/// `/proc/PID/stat` counts in this unit on every Linux that Rust runs on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

impl Usage {
    /// Of this process.
    pub(crate) fn own() -> anyhow::Result<Self> {
        Self::of("self")
    }

    fn of(process: &str) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = Path::new("/proc").join(process).join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let usage = Self::parse(&read("stat")?, &read("status")?)
            .ok_or_else(|| anyhow!("/proc/{process} is not as proc(5) describes it"))?;
        Ok(Self {
            waited: waited(process).unwrap_or_default(),
            ..usage
        })
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let after_name = stat.rsplit_once(')')?.1;
        let mut fields = after_name.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u32>().ok();
        let cpu = TICK * (ticks()? + ticks()?);
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = rss.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self {
            cpu,
            waited: Duration::ZERO,
            rss_bytes: kib * 1024,
        })
    }
}

/// The second number of each thread's `schedstat`, in nanoseconds.
fn waited(process: &str) -> Option<Duration> {
    let tasks = fs::read_dir(Path::new("/proc").join(process).join("task")).ok()?;
    let mut ns = 0;
    for task in tasks {
        // A thread may end at any time.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else {
            continue;
        };
        ns += text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_memory_are_found() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1 1 1";
        let usage = Usage::parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t4\n").unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(2));
        assert_eq!(usage.rss_bytes, 2 * 1024 * 1024);
    }
}
