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

/// How a program is started.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) title: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Finds what the program has to say, in the line that says that it is ready.
    pub(crate) find: fn(&str) -> Option<String>,
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) recipe: Recipe,
    process: Process,
    /// Kills the process when this program has ended without doing so, however that came about: it waits
    /// for the end of a pipe that this program alone holds.
    _reaper: Process,
}

impl Child {
    /// Starts a program and waits for the line in which it says that it is ready. All that it says goes to
    /// stderr.
    pub(crate) async fn start(recipe: Recipe) -> anyhow::Result<(Self, String)> {
        let (process, reaper, found) = start(&recipe).await?;
        let child = Self {
            recipe,
            process,
            _reaper: reaper,
        };
        Ok((child, found))
    }

    /// Starts it again, once it has ended.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let (process, reaper, _) = start(&self.recipe).await?;
        self.process = process;
        self._reaper = reaper;
        Ok(())
    }

    /// How it ended.
    pub(crate) async fn ended(&mut self) -> String {
        let title = &self.recipe.title;
        match self.process.wait().await {
            Ok(status) => format!("{title} has ended: {status}"),
            Err(error) => format!("{title} cannot be waited for: {error}"),
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

async fn start(recipe: &Recipe) -> anyhow::Result<(Process, Process, String)> {
    let Recipe { title, program, .. } = recipe;
    let mut process = Command::new(program)
        .args(&recipe.args)
        .envs(recipe.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Ctrl-C is for the one that started it, which stops the others in their order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let id = process.id().context("it has just been started")?;
    let reaper = reaper(id)?;
    eprintln!("{title:<12} | is process {id}");
    let (said, mut lines) = mpsc::channel(1);
    forward(title, process.stdout.take(), said.clone());
    forward(title, process.stderr.take(), said);
    let starting = async {
        while let Some(line) = lines.recv().await {
            if let Some(found) = (recipe.find)(&line) {
                return Ok(found);
            }
        }
        bail!("{title} has ended");
    };
    let found = timeout(START_TIMEOUT, starting).await;
    let found = found.with_context(|| format!("{title} does not start"))??;
    // What it says from here on is forwarded, and not waited for.
    drop(lines);
    Ok((process, reaper, found))
}

fn reaper(id: u32) -> anyhow::Result<Process> {
    Command::new("sh")
        .args(["-c", r#"read -r _; kill -KILL "$1""#, "reaper"])
        .arg(id.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .spawn()
        .context("cannot start sh")
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

/// The broker that was built beside this program, with history for responses; and its URL.
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
    let recipe = Recipe {
        title: "broker".to_owned(),
        program: broker,
        args: args.into_iter().map(str::to_owned).collect(),
        environment: Vec::new(),
        find: |line| {
            let (_, address) = line.split_once("serving address=")?;
            let address = address.split_whitespace().next()?;
            Some(format!("http://{address}"))
        },
    };
    Child::start(recipe).await
}

/// Responses are kept for long enough to reload a page, requests are not: a group takes them as they come.
const BROKER_ARGS: [&str; 4] = [
    "--history",
    "inference-requests=off",
    "--history",
    "*=messages:10000,bytes:4MiB,age:10m",
];
