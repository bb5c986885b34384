//! The other programs, each in a process of its own that does not outlive this one.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child as Process, Command},
    sync::mpsc,
    time::timeout,
};

/// How long a program may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a program may take to end in order: longer than the broker's drain.
const END_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Child {
    title: String,
    process: Process,
}

impl Child {
    /// Starts a program and waits for the line in which `find` finds what it has to say. All that it says
    /// goes to stderr.
    pub(crate) async fn start<T>(
        title: &str,
        program: &Path,
        args: &[String],
        find: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<(Self, T)> {
        let mut process = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C is for the one that started it, which stops the others in their order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (said, mut lines) = mpsc::channel(1);
        forward(title, process.stdout.take(), said.clone());
        forward(title, process.stderr.take(), said);
        let starting = async {
            while let Some(line) = lines.recv().await {
                if let Some(found) = find(&line) {
                    return Ok(found);
                }
            }
            bail!("{title} has ended");
        };
        let found = timeout(START_TIMEOUT, starting).await;
        let found = found.with_context(|| format!("{title} does not start"))??;
        // What it says from here on is forwarded, and not waited for.
        drop(lines);
        let title = title.to_owned();
        Ok((Self { title, process }, found))
    }

    /// How it ended.
    pub(crate) async fn ended(&mut self) -> String {
        match self.process.wait().await {
            Ok(status) => format!("{} has ended: {status}", self.title),
            Err(error) => format!("{} cannot be waited for: {error}", self.title),
        }
    }

    /// Asks it to end, and kills it if it does not.
    pub(crate) async fn stop(mut self) {
        if let Some(id) = self.process.id() {
            // Fails only if the program has ended already.
            let mut kill = Command::new("kill");
            kill.args(["-TERM", &id.to_string()]).stderr(Stdio::null());
            drop(kill.status().await);
        }
        if timeout(END_TIMEOUT, self.process.wait()).await.is_err() {
            drop(self.process.kill().await);
        }
    }
}

/// Passes on what is read, line by line.
fn forward(
    title: &str,
    output: Option<impl AsyncRead + Send + Unpin + 'static>,
    lines: mpsc::Sender<String>,
) {
    let Some(output) = output else { return };
    let title = title.to_owned();
    tokio::spawn(async move {
        let mut output = BufReader::new(output).lines();
        while let Ok(Some(line)) = output.next_line().await {
            eprintln!("{title:<12} | {line}");
            // Fails once nobody waits for a line any more.
            drop(lines.send(line).await);
        }
    });
}

/// The broker that was built beside this program, with history for responses.
pub(crate) async fn broker(listen: &str) -> anyhow::Result<(Child, String)> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(Path::parent);
    let broker: PathBuf = folder.context("an example is in a folder")?.join("broker");
    ensure!(
        broker.is_file(),
        "{} does not exist; `cargo build --bin broker` makes it",
        broker.display()
    );
    let mut args = vec!["--listen", listen];
    args.extend(BROKER_ARGS);
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let start = Child::start("broker", &broker, &args, |line| {
        let (_, address) = line.split_once("serving address=")?;
        let address = address.split_whitespace().next()?;
        Some(format!("http://{address}"))
    });
    start.await
}

/// Responses are kept for long enough to reload a page, requests are not: a group takes them as they come.
const BROKER_ARGS: [&str; 4] = [
    "--history",
    "inference-requests=off",
    "--history",
    "*=messages:10000,bytes:4MiB,age:10m",
];
