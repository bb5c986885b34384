//! The broker as the web meets it: curl, Python's own library, and in Node what a browser has, EventSource,
//! fetch, and gRPC-Web through connect-web.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{broker::Broker, program::Program, tools};

/// One test for each case of `node/web.js`, of the same name, with what its broker needs.
macro_rules! cases {
    ($($case:ident $args:expr;)+) => {
        mod node {
            $(
                #[test]
                fn $case() {
                    super::node(stringify!($case), &$args);
                }
            )+
        }
    };
}

cases! {
    publishes_and_subscribes_in_grpc_web [];
    is_told_what_to_change_in_grpc_web [];
    is_told_of_the_drain_in_grpc_web [];
    hears_events [];
    comes_back_by_itself_and_misses_nothing ["--history", "*=messages:100000"];
}

fn node(case: &str, args: &[&str]) {
    let test = format!("web::node::{case}");
    let Some(node) = tools::require(&test, tools::node_with_event_source()) else {
        return;
    };
    let descriptors = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{case}.binpb"));
    fs::write(&descriptors, fanfare::wire::DESCRIPTORS).unwrap();
    let broker = Broker::start_with(args);
    let mut command = Command::new(node);
    command
        .args(["--experimental-eventsource", "--no-warnings"])
        .arg(tools::here().join("node/web.js"))
        .args([&broker.address, case])
        .arg(&descriptors);
    let mut client = Program::start(&test, &mut command);
    while let Some(line) = client.line() {
        if line == "drain" {
            broker.drain();
        }
    }
    client.succeed();
}

#[test]
fn python() {
    if let Some(python) = tools::require("web::python", tools::python()) {
        let broker = Broker::start();
        let mut command = Command::new(python);
        command
            .arg("-B")
            .arg(tools::here().join("python/web.py"))
            .arg(&broker.address);
        Program::run("web.py", &mut command);
    }
}

/// What the README shows, over both versions of HTTP.
#[test]
fn curl() {
    let Some(curl) = tools::require("web::curl", tools::curl()) else {
        return;
    };
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let broker = Broker::start();
        let run = |args: &[&str]| {
            let mut command = Command::new(&curl);
            command.args(["--silent", "--show-error", "--no-buffer", version]);
            command.args(args);
            command
        };
        let orders = format!("{}/v1/topics/orders.eu", broker.url());
        let filter = format!("{}/v1/topics/orders.%3E/messages", broker.url());
        let events = format!("{}/v1/events?topic=orders.*", broker.url());
        let mut lines = Program::start("lines", &mut run(&[&filter]));
        let mut events = Program::start("events", &mut run(&[&events]));
        let header = "Fanfare-Tag: paid";
        let mut publish = run(&[
            &orders,
            "--header",
            header,
            "--data-binary",
            "42\nsprockets",
        ]);
        // curl does not say when a stream is live; what it has not heard yet matched nobody.
        let mut matched = 0;
        while matched < 2 {
            let outcome = Program::run("publish", &mut publish);
            let outcome: Value = serde_json::from_str(&outcome).unwrap();
            matched = outcome["matched"].as_u64().unwrap();
        }
        let line: Value = serde_json::from_str(&lines.line().unwrap()).unwrap();
        assert_eq!(
            (&line["topic"], &line["tag"]),
            (&"orders.eu".into(), &"paid".into())
        );
        assert_eq!(line["payload"], "42\nsprockets");
        assert!(events.line().unwrap().starts_with("retry: "));
        for expected in ["", "data: 42", "data: sprockets", ""] {
            assert_eq!(events.line().as_deref(), Some(expected));
        }

        let wrong = format!("{}/v1/topics/a..b", broker.url());
        let mut refused = run(&[&wrong, "--fail-with-body", "--data", "x"]);
        let (status, said) = Program::start("refused", &mut refused).end();
        assert_eq!(status.code(), Some(22), "{said}");
        assert!(
            said.contains("topic has an empty token at byte 2"),
            "{said}"
        );

        broker.drain();
        let said = lines.succeed();
        assert!(
            said.ends_with("\"the broker is shutting down\"}}\n"),
            "{said}"
        );
        assert!(events.succeed().contains("event: closed\n"));
        broker.drained();
    }
}
