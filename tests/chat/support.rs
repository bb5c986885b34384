//! A broker, a model server, dispatchers and an API, each on a free port and killed when dropped.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
    time::Duration,
};

use crate::{
    http::{Answer, Http, data, tokens},
    program::Program,
};

/// The key that every API here makes its secrets with.
const KEY: &str = "the key of these tests";

/// How the programs are started: `Default` with short times.
pub(crate) struct Settings {
    pub(crate) word_delay: &'static str,
    pub(crate) claim_timeout: &'static str,
    pub(crate) heartbeat: &'static str,
    /// What is kept of each response; empty for no history.
    pub(crate) history: &'static str,
    /// The broker's other options.
    pub(crate) broker: &'static [&'static str],
    pub(crate) dispatchers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            word_delay: "100ms",
            claim_timeout: "10s",
            heartbeat: "15s",
            history: "*=messages:10000,bytes:4MiB,age:10m",
            broker: &[],
            dispatchers: 1,
        }
    }
}

/// All that a chat needs. Whoever takes a program out of it has killed it.
pub(crate) struct Chat {
    pub(crate) api: Option<Program>,
    pub(crate) dispatchers: Vec<Program>,
    pub(crate) model: Option<Program>,
    pub(crate) http: Http,
    pub(crate) broker_url: String,
    pub(crate) model_url: String,
    broker: Option<Program>,
    settings: Settings,
}

impl Chat {
    pub(crate) fn start() -> Self {
        Self::start_with(Settings::default())
    }

    pub(crate) fn start_with(settings: Settings) -> Self {
        let (broker, broker_url) = broker("127.0.0.1:0", &settings);
        let args = ["model", "--listen", "127.0.0.1:0", "--word-delay"];
        let (model, model_url) = serve(chat().args(args).arg(settings.word_delay));
        let (api, url) = api("127.0.0.1:0", &broker_url, &settings);
        let mut chat = Self {
            api: Some(api),
            dispatchers: Vec::new(),
            model: Some(model),
            http: Http::new(&url),
            broker_url,
            model_url,
            broker: Some(broker),
            settings,
        };
        for _ in 0..chat.settings.dispatchers {
            chat.add_dispatcher(&[]);
        }
        chat
    }

    pub(crate) fn add_dispatcher(&mut self, args: &[&str]) {
        let mut command = chat();
        command.args(["dispatcher", "--broker", &self.broker_url]);
        command.args(["--model", &self.model_url]).args(args);
        let mut dispatcher = Program::start("dispatcher", &mut command);
        let is_ready = |line: &str| line.ends_with("is ready").then_some(());
        dispatcher.until("being ready", is_ready);
        self.dispatchers.push(dispatcher);
    }

    /// Kills the API and starts another one at its address.
    pub(crate) fn replace_api(&mut self) {
        self.api = None;
        let (api, _) = api(&self.http.address, &self.broker_url, &self.settings);
        self.api = Some(api);
    }

    /// Another API that shares the work.
    pub(crate) fn other_api(&self) -> (Program, Http) {
        let (api, url) = api("127.0.0.1:0", &self.broker_url, &self.settings);
        (api, Http::new(&url))
    }

    /// Kills the broker, with all that it has kept.
    pub(crate) fn kill_broker(&mut self) {
        self.broker = None;
    }

    /// Starts another broker at the address of the one that was killed.
    pub(crate) fn start_broker(&mut self) {
        let address = self.broker_url.strip_prefix("http://").unwrap();
        let (broker, _) = broker(address, &self.settings);
        self.broker = Some(broker);
    }

    pub(crate) fn ask(&self, prompt: &str) -> Asked {
        let body = serde_json::json!({ "prompt": prompt }).to_string();
        Asked::new(&self.http.post("/v1/chat", &body))
    }

    /// Waits until a prompt is taken, and that it is answered in full.
    #[track_caller]
    pub(crate) fn check_answers(&self) {
        check_answers(&self.http);
    }

    /// Publishes a request as an API does.
    pub(crate) fn publish_job(&self, id: &str, prompt: &str) {
        let job = serde_json::json!({ "request_id": id, "prompt": prompt }).to_string();
        let broker = Http::new(&self.broker_url);
        let answer = broker.post("/v1/topics/inference-requests", &job);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Waits until a prompt is taken at an API, and that it is answered in full.
#[track_caller]
pub(crate) fn check_answers(http: &Http) {
    let taken = (0..200).find_map(|_| {
        let answer = http.post("/v1/chat", r#"{"prompt":"again"}"#);
        if answer.status != 202 {
            thread::sleep(Duration::from_millis(100));
        }
        (answer.status == 202).then_some(answer)
    });
    let asked = Asked::new(&taken.expect("a prompt is taken"));
    let events = http.all_events(&asked.path, &[asked.shown()]);
    assert_eq!(data(events), tokens("again"));
}

impl Chat {
    /// Waits until the broker has so many live subscriptions.
    pub(crate) fn wait_for_subscriptions(&self, count: u32) {
        let wanted = format!("fanfare_subscriptions {count}");
        let broker = Http::new(&self.broker_url);
        let is_there = (0..200).any(|_| {
            let metrics = broker.get("/metrics", &[]).body;
            let found = metrics.lines().any(|line| line == wanted);
            if !found {
                thread::sleep(Duration::from_millis(50));
            }
            found
        });
        assert!(is_there, "waited in vain for {wanted}");
    }
}

/// An accepted request.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Asked {
    pub(crate) fn new(answer: &Answer) -> Self {
        assert_eq!(answer.status, 202, "{answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let id = body["request_id"].as_str().unwrap().to_owned();
        Self {
            path: format!("/stream/{id}"),
            id,
            secret: answer.header("stream-secret").unwrap().to_owned(),
        }
    }

    /// The header that shows the secret.
    pub(crate) fn shown(&self) -> (&str, &str) {
        ("stream-secret", &self.secret)
    }
}

fn api(listen: &str, broker_url: &str, settings: &Settings) -> (Program, String) {
    let mut command = chat();
    command.args(["api", "--listen", listen, "--broker", broker_url]);
    command.args(["--claim-timeout", settings.claim_timeout]);
    command.args(["--heartbeat", settings.heartbeat]);
    command.args(["--key", KEY]);
    serve(&mut command)
}

fn serve(command: &mut Command) -> (Program, String) {
    let mut program = Program::start("chat", command);
    let url = program.until("telling its address", |line| {
        let (_, url) = line.split_once(": serving at ")?;
        Some(url.to_owned())
    });
    (program, url)
}

fn broker(listen: &str, settings: &Settings) -> (Program, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("BROKER_") {
            command.env_remove(name);
        }
    }
    command.args(["--listen", listen]).args(settings.broker);
    if !settings.history.is_empty() {
        command.args(["--history", "inference-requests=off"]);
        command.args(["--history", settings.history]);
    }
    let mut broker = Program::start("broker", &mut command);
    let url = broker.until("telling its address", |line| {
        let (_, address) = line.split_once("serving address=")?;
        let address = address.split_whitespace().next()?;
        Some(format!("http://{address}"))
    });
    (broker, url)
}

/// The example, which `cargo test` builds beside the broker, but not for a test that is run alone.
pub(crate) fn chat() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_broker")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--example", "chat"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        build.arg("--manifest-path").arg(manifest);
        build.arg("--target-dir").arg(folder.parent().unwrap());
        assert!(build.status().unwrap().success(), "the example is built");
        folder.join("examples/chat")
    });
    Command::new(program)
}
