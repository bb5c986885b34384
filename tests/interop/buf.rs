//! buf: `buf curl` does what grpcurl does, on the contract that reflection tells it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{broker::Broker, program::Program, tools};

fn buf(test: &str) -> Option<PathBuf> {
    tools::require(&format!("buf::{test}"), tools::buf())
}

fn curl(buf: &Path) -> Command {
    let mut command = Command::new(buf);
    command
        .env("BUF_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))
        .args(["curl", "--http2-prior-knowledge", "--protocol", "grpc"]);
    command
}

/// Calls a method with this request, and hands back the response.
fn call(buf: &Path, broker: &Broker, method: &str, request: &str) -> String {
    let url = format!("{}/{method}", broker.url());
    Program::run(method, curl(buf).args(["--data", request, &url]))
}

fn check_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
}

#[test]
fn lists_and_describes() {
    let Some(buf) = buf("lists_and_describes") else {
        return;
    };
    let broker = Broker::start();
    for protocol in ["grpc-v1", "grpc-v1alpha"] {
        let list = |what: &str| {
            let arguments = ["--reflect-protocol", protocol, what, &broker.url()];
            Program::run(what, curl(&buf).args(arguments))
        };
        let services = ["pubsub.v1.PubSubService\n", "grpc.health.v1.Health\n"];
        check_contains(&list("--list-services"), &services);
        let methods = [
            "pubsub.v1.PubSubService/Publish\n",
            "pubsub.v1.PubSubService/Subscribe\n",
            "grpc.health.v1.Health/Watch\n",
        ];
        check_contains(&list("--list-methods"), &methods);
    }
}

#[test]
fn publishes_and_subscribes_as_text() {
    let Some(buf) = buf("publishes_and_subscribes_as_text") else {
        return;
    };
    let broker = Broker::start();
    let url = format!("{}/pubsub.v1.PubSubService/Subscribe", broker.url());
    let request = r#"{"topic": "greetings.*", "text": true}"#;
    let arguments = ["--verbose", "--data", request, &url];
    let mut subscriber = Program::start("subscribe", curl(&buf).args(arguments));
    subscriber.until("the headers", |line| {
        line.contains("Fanfare-Mailbox-Capacity: 1024")
            .then_some(())
    });

    let request = r#"{"topic": "greetings.warm", "text": "hello, \"world\"!"}"#;
    let outcome = call(&buf, &broker, "pubsub.v1.PubSubService/Publish", request);
    check_contains(
        &outcome,
        &[r#""sequence": "1""#, r#""matched": 1"#, r#""delivered": 1"#],
    );

    let found = |part: &'static str| move |line: &str| line.contains(part).then_some(());
    subscriber.until("the topic", found(r#""topic": "greetings.warm""#));
    subscriber.until("the text", found(r#""text": "hello, \"world\"!""#));

    broker.drain();
    subscriber.until("the status", found(r#""code": "unavailable""#));
    broker.drained();
}

#[test]
fn is_told_what_to_change() {
    let Some(buf) = buf("is_told_what_to_change") else {
        return;
    };
    let broker = Broker::start();
    let url = format!("{}/pubsub.v1.PubSubService/Publish", broker.url());
    let arguments = ["--data", r#"{"topic": "not a topic"}"#, &url];
    let (status, said) = Program::start("publish", curl(&buf).args(arguments)).end();
    // buf's exit status is the gRPC code in the upper five bits.
    assert_eq!(status.code(), Some(3 << 3), "{said}");
    check_contains(
        &said,
        &[r#""code": "invalid_argument""#, "google.rpc.BadRequest"],
    );
}

#[test]
fn asks_for_health() {
    let Some(buf) = buf("asks_for_health") else {
        return;
    };
    let broker = Broker::start();
    let health = |request| call(&buf, &broker, "grpc.health.v1.Health/Check", request);
    for request in ["{}", r#"{"service": "pubsub.v1.PubSubService"}"#] {
        check_contains(&health(request), &[r#""status": "SERVING""#]);
    }
}
