//! The programs themselves: the model server as other clients of its proto see it, and all of them by one
//! command.

use std::{env, path::Path, process::Command};

use crate::{
    http::{Http, data, tokens},
    program::Program,
    support::{Asked, Chat, chat},
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

#[test]
fn one_command_starts_all_and_stops_all() {
    let mut command = chat();
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("BROKER_") {
            command.env_remove(name);
        }
    }
    command.arg("all");
    for port in ["--listen", "--broker-listen", "--model-listen"] {
        command.args([port, "127.0.0.1:0"]);
    }
    let mut all = Program::start("chat all", &mut command);
    // They come by two ways, and so in any order.
    let (mut children, mut page) = (Vec::new(), None);
    while children.len() < 2 || page.is_none() {
        let line = all.line().expect("it tells where all of them are");
        if let Some((_, url)) = line.split_once(": serving at ") {
            children.push(url.to_owned());
        }
        if let Some((_, url)) = line.split_once("chat at ") {
            page = url.split("/ ").next().map(str::to_owned);
        }
    }
    let url = page.expect("it tells where the page is");
    let http = Http::new(&url);
    let asked = Asked::new(&http.post("/v1/chat", r#"{"prompt":"hello there"}"#));
    let events = http.events(&asked.path, &[asked.shown()]);
    assert_eq!(data(events), tokens("hello there"));
    all.terminate();
    all.succeed();
    // The model server and the API.
    for url in children {
        let address = url.strip_prefix("http://").unwrap();
        assert!(std::net::TcpStream::connect(address).is_err(), "{url}");
    }
}
