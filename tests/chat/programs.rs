//! The programs themselves: the model server as other clients of its proto see it, and all of them by one
//! command.

use std::{env, path::Path, process::Command, thread, time::Duration};

use crate::{
    http::{Http, data, tokens},
    program::Program,
    support::{Asked, Chat, chat, check_answers},
    tools,
};

#[test]
fn the_model_server_speaks_its_proto() {
    let test = "programs::the_model_server_speaks_its_proto";
    let Some(buf) = tools::require(test, tools::buf()) else {
        return;
    };
    let chat = Chat::start();
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/chat/vllm.proto");
    let url = format!("{}/vllm.VLLM/Generate", chat.model_url);
    for (prompt, words) in [
        ("two words", &["two", "words", "generated_response"][..]),
        (" ", &["(empty", "prompt)", "generated_response"]),
    ] {
        let mut command = Command::new(&buf);
        command
            .env("BUF_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))
            .args(["curl", "--http2-prior-knowledge", "--protocol", "grpc"])
            .arg("--schema")
            .arg(&proto)
            .args([
                "--data",
                &format!(r#"{{"requestId":"7","prompt":"{prompt}"}}"#),
            ])
            .arg(&url);
        let said = Program::run(test, &mut command);
        let responses = serde_json::Deserializer::from_str(&said).into_iter();
        let responses: Vec<serde_json::Value> = responses.map(Result::unwrap).collect();
        assert_eq!(responses.len(), words.len(), "{said}");
        for (place, (response, word)) in responses.iter().zip(words).enumerate() {
            let expected = if place + 1 == words.len() {
                serde_json::json!({"requestId": "7", "token": word, "done": true})
            } else {
                serde_json::json!({"requestId": "7", "token": word})
            };
            assert_eq!(*response, expected);
        }
    }
}

/// All of them, by one command.
struct All {
    program: Program,
    /// Which process each of them is, the newest last.
    processes: Vec<(String, String)>,
    http: Http,
}

impl All {
    fn start() -> Self {
        let mut command = chat();
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("BROKER_") || name == "CHAT_KEY" {
                command.env_remove(&*name);
            }
        }
        command.arg("all");
        for port in ["--listen", "--broker-listen", "--model-listen"] {
            command.args([port, "127.0.0.1:0"]);
        }
        let program = Program::start("chat all", &mut command);
        let http = Http::new("http://127.0.0.1:0");
        let mut all = Self {
            program,
            processes: Vec::new(),
            http,
        };
        // What the programs say and what the command says come by two ways.
        let mut page = None;
        while all.processes.len() < 5 || page.is_none() {
            let line = all.line();
            if let Some((_, url)) = line.split_once("chat at ") {
                page = url.split("/ ").next().map(str::to_owned);
            }
        }
        all.http = Http::new(&page.expect("it tells where the page is"));
        all
    }

    fn line(&mut self) -> String {
        let line = self.program.line().expect("it goes on");
        if let Some((title, process)) = line.split_once("| is process ") {
            self.processes
                .push((title.trim().to_owned(), process.to_owned()));
        }
        line
    }

    /// Kills one of them, and waits until it is there again.
    fn kill(&mut self, title: &str, is_ready: &str) {
        let mut processes = self.processes.iter().rev();
        let (_, process) = processes.find(|(other, _)| other == title).unwrap();
        let killed = Command::new("kill").args(["-KILL", process]).status();
        assert!(killed.unwrap().success(), "{title}");
        loop {
            let line = self.line();
            if line.starts_with(title) && line.contains(is_ready) {
                return;
            }
        }
    }

    fn ask(&self, prompt: &str) -> Asked {
        let body = serde_json::json!({ "prompt": prompt }).to_string();
        Asked::new(&self.http.post("/v1/chat", &body))
    }

    /// That none of the processes is there any more.
    fn check_gone(processes: &[(String, String)]) {
        for (title, process) in processes {
            let is_gone = (0..200).any(|_| {
                let asked = Command::new("kill").args(["-0", process]).output();
                let is_gone = !asked.unwrap().status.success();
                if !is_gone {
                    thread::sleep(Duration::from_millis(50));
                }
                is_gone
            });
            assert!(is_gone, "{title} is still there");
        }
    }
}

#[test]
fn one_command_starts_all_and_stops_all() {
    let all = All::start();
    let asked = all.ask("hello there");
    let events = all.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(data(events), tokens("hello there"));
    all.program.terminate();
    let All {
        program, processes, ..
    } = all;
    program.succeed();
    All::check_gone(&processes);
}

#[test]
fn what_dies_is_started_again_and_nothing_outlives_the_command() {
    let mut all = All::start();
    let prompt = ["word"; 30].join(" ");
    let asked = [(); 2].map(|()| all.ask(&prompt));
    let mut readers = asked.each_ref().map(|asked| {
        let mut events = all.http.events(&asked.path, &[asked.shown()]);
        assert_eq!(events.next().unwrap().data, tokens(&prompt)[0]);
        events
    });
    all.kill("dispatcher 1", "is ready");
    // Each of the two had one: one is told, and the other one's goes on.
    let ends = readers.each_mut().map(|events| events.last().unwrap().data);
    let is_told = |end: &String| end.contains("the dispatcher is gone");
    let told = ends.iter().filter(|end| is_told(end)).count();
    let done = ends
        .iter()
        .filter(|end| **end == tokens(&prompt)[30])
        .count();
    assert_eq!((told, done), (1, 1), "{ends:?}");
    check_answers(&all.http);

    let asked = all.ask("hello there");
    all.kill("api", "serving at");
    // It knows the secrets that the one before it gave.
    let events = all.http.events(&asked.path, &[asked.shown()]);
    assert_eq!(data(events), tokens("hello there"));
    all.kill("model", "serving at");
    check_answers(&all.http);
    all.kill("broker", "serving address=");
    check_answers(&all.http);

    let All {
        program, processes, ..
    } = all;
    // Kills it.
    drop(program);
    All::check_gone(&processes);
}

#[test]
fn what_dies_over_and_over_ends_the_command() {
    let mut all = All::start();
    for _ in 0..5 {
        all.kill("dispatcher 2", "is ready");
    }
    let (_, last) = all.processes.last().unwrap();
    let killed = Command::new("kill").args(["-KILL", last]).status();
    assert!(killed.unwrap().success());
    let All {
        program, processes, ..
    } = all;
    let (status, said) = program.end();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("and that too often"), "{said}");
    All::check_gone(&processes);
}
