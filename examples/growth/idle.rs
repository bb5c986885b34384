//! What an idle subscriber costs the release broker, as `broker bench` measures it.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, ensure};

use crate::{
    interrupt,
    table::{Table, grouped},
};

/// How subscribers come.
struct Shape {
    name: &'static str,
    counts: [usize; 3],
    /// The most that share a connection.
    per_connection: usize,
    one_topic: bool,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "own connection",
        counts: [500, 1_000, 2_000],
        per_connection: 1,
        one_topic: true,
    },
    Shape {
        name: "own connection, own topic",
        counts: [500, 1_000, 2_000],
        per_connection: 1,
        one_topic: false,
    },
    Shape {
        name: "1,000 on each connection",
        counts: [1_000, 2_000, 10_000],
        per_connection: 1_000,
        one_topic: true,
    },
    Shape {
        name: "1,000 on each connection, own topic",
        counts: [1_000, 2_000, 10_000],
        per_connection: 1_000,
        one_topic: false,
    },
];

pub(crate) fn table(broker: &Path, short: bool) -> anyhow::Result<Table> {
    let counts = |shape: &'static Shape| &shape.counts[..if short { 1 } else { 3 }];
    let columns: BTreeSet<usize> = SHAPES.iter().flat_map(counts).copied().collect();
    let mut rows = Vec::new();
    for shape in &SHAPES {
        let figures = columns
            .iter()
            .map(|&count| match counts(shape).contains(&count) {
                true => measure(broker, shape, count).map(Some),
                false => Ok(None),
            });
        let figures = figures.collect::<anyhow::Result<_>>()?;
        rows.push((shape.name.to_owned(), figures));
    }
    Ok(Table {
        title: "The broker's resident memory for each idle subscriber, in bytes".to_owned(),
        over: "subscribers",
        columns: columns.iter().map(|count| grouped(*count as u64)).collect(),
        rows,
    })
}

fn measure(broker: &Path, shape: &Shape, count: usize) -> anyhow::Result<f64> {
    interrupt::check()?;
    let server = Server::start(broker)?;
    let topics = if shape.one_topic { 1 } else { count };
    let bench = Command::new(broker)
        .arg("bench")
        .args(["--publishers", "0", "--warmup", "0s", "--duration", "0s"])
        .args(["--subscribers", &count.to_string()])
        .args(["--topics", &topics.to_string()])
        .args([
            "--subscriptions-per-connection",
            &shape.per_connection.to_string(),
        ])
        .args(["--server", &server.url])
        .args(["--server-pid", &server.child.id().to_string()])
        .args(["--format", "json"])
        .stderr(Stdio::inherit())
        .output()?;
    let status = bench.status;
    ensure!(status.success(), "`broker bench` failed: {status}");
    let outcome: serde_json::Value = serde_json::from_slice(&bench.stdout)?;
    outcome["server_idle_bytes_per_subscriber"]
        .as_f64()
        .context("`broker bench` did not tell the memory of an idle subscriber")
}

/// A broker on a free port of loopback, killed and waited for when dropped.
#[derive(Debug)]
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(broker: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(broker);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BROKER_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["--listen", "127.0.0.1:0", "--threads", "1"])
            .args(["--subscriptions-per-connection-max", "1000"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", broker.display()))?;
        let mut server = Self {
            child,
            url: String::new(),
        };
        let log = server.child.stderr.take().expect("stderr is piped");
        let mut log = BufReader::new(log);
        let mut line = String::new();
        while server.url.is_empty() {
            line.clear();
            ensure!(log.read_line(&mut line)? > 0, "the broker ended at once");
            let address = line.split_once("serving address=").map(|(_, rest)| rest);
            if let Some(address) = address.and_then(|rest| rest.split_whitespace().next()) {
                server.url = format!("http://{address}");
            }
        }
        // A pipe that nobody reads would fill up.
        thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has no state that would have to be saved; one that has ended already is no concern.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
