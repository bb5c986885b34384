//! What subscribers cost the release broker, as `broker bench` measures it: idle, and for each message.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    interrupt,
    table::{Table, grouped},
};

/// How subscribers come.
struct Shape {
    name: &'static str,
    counts: &'static [usize],
    /// The most that share a connection.
    per_connection: usize,
    one_topic: bool,
}

const IDLE: [Shape; 4] = [
    Shape {
        name: "own connection",
        counts: &[500, 1_000, 2_000],
        per_connection: 1,
        one_topic: true,
    },
    Shape {
        name: "own connection, own topic",
        counts: &[500, 1_000, 2_000],
        per_connection: 1,
        one_topic: false,
    },
    Shape {
        name: "1,000 on each connection",
        counts: &[1_000, 2_000, 10_000],
        per_connection: 1_000,
        one_topic: true,
    },
    Shape {
        name: "1,000 on each connection, own topic",
        counts: &[1_000, 2_000, 10_000],
        per_connection: 1_000,
        one_topic: false,
    },
];

const PUBLISH: [Shape; 2] = [
    Shape {
        name: "own connection",
        counts: &[1, 10, 100, 1_000],
        per_connection: 1,
        one_topic: true,
    },
    Shape {
        name: "1,000 on each connection",
        counts: &[10, 100, 1_000, 10_000],
        per_connection: 1_000,
        one_topic: true,
    },
];

/// How many messages subscribers may be behind, each on average. The same for all, since it makes the
/// batches; and so few that what waits for 10,000 is below what all mailboxes may hold.
const WINDOW: &str = "100";

impl Shape {
    /// The least of them in the short form.
    fn counts(&self, short: bool) -> &'static [usize] {
        &self.counts[..if short { 1 } else { self.counts.len() }]
    }

    /// What `broker bench` tells of so many, with a fresh broker.
    fn bench(&self, broker: &Path, count: usize, load: [&str; 3]) -> anyhow::Result<Value> {
        interrupt::check()?;
        let server = Server::start(broker)?;
        let topics = if self.one_topic { 1 } else { count };
        let [publishers, warmup, duration] = load;
        let bench = Command::new(broker)
            .arg("bench")
            .args(["--publishers", publishers])
            .args(["--warmup", warmup, "--duration", duration])
            .args(["--subscribers", &count.to_string()])
            .args(["--topics", &topics.to_string()])
            .args(["--window", WINDOW])
            .arg("--subscriptions-per-connection")
            .arg(self.per_connection.to_string())
            .args(["--server", &server.url])
            .args(["--server-pid", &server.child.id().to_string()])
            .args(["--format", "json"])
            .stderr(Stdio::inherit())
            .output()?;
        let status = bench.status;
        ensure!(status.success(), "`broker bench` failed: {status}");
        Ok(serde_json::from_slice(&bench.stdout)?)
    }
}

/// A column for each count, and the shapes' figures at theirs.
fn table(
    shapes: &[Shape],
    short: bool,
    title: &str,
    mut figure: impl FnMut(&Shape, usize) -> anyhow::Result<Option<f64>>,
) -> anyhow::Result<Table> {
    let counts = shapes.iter().flat_map(|shape| shape.counts(short));
    let columns: BTreeSet<usize> = counts.copied().collect();
    let mut rows = Vec::new();
    for shape in shapes {
        let figures = columns.iter().map(|count| {
            if shape.counts(short).contains(count) {
                figure(shape, *count)
            } else {
                Ok(None)
            }
        });
        let figures = figures.collect::<anyhow::Result<_>>()?;
        rows.push((shape.name.to_owned(), figures));
    }
    Ok(Table {
        title: title.to_owned(),
        over: "subscribers",
        columns: columns.iter().map(|count| grouped(*count as u64)).collect(),
        rows,
    })
}

pub(crate) fn tables(broker: &Path, short: bool) -> anyhow::Result<Vec<Table>> {
    let idle = table(
        &IDLE,
        short,
        "The broker's resident memory for each idle subscriber, in bytes",
        |shape, count| {
            let outcome = shape.bench(broker, count, ["0", "0s", "0s"])?;
            Ok(outcome["server_idle_bytes_per_subscriber"].as_f64())
        },
    )?;
    let load = match short {
        true => ["1", "50ms", "100ms"],
        false => ["1", "500ms", "2s"],
    };
    let publish = table(
        &PUBLISH,
        short,
        "The broker's processor time for each delivery, in ns, one publisher on a stream, 128 bytes",
        |shape, count| {
            let outcome = shape.bench(broker, count, load)?;
            ensure!(outcome["lost"] == 0, "deliveries were lost: {outcome}");
            let us = outcome["server_cpu_us_per_delivery"].as_f64();
            Ok(us.map(|us| us * 1e3))
        },
    )?;
    Ok(vec![idle, publish])
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
