//! Clients compiled from the reference's contract, under its own package, path and field numbers: they
//! know nothing of Fanfare, and both their methods work.

use std::{fs, path::PathBuf, process::Command};

use crate::{broker::Broker, program::Program, tools};

#[test]
fn python() {
    if let Some(python) = tools::require("reference::python", tools::python()) {
        let client = tools::here().join("python/reference.py");
        let broker = Broker::start();
        let mut command = Command::new(python);
        Program::run(
            "reference.py",
            command
                .args(["-B".as_ref(), client.as_os_str()])
                .arg(&broker.address),
        );
    }
}

#[test]
fn node() {
    if let Some(node) = tools::require("reference::node", tools::node()) {
        let client = tools::here().join("node/reference.js");
        let broker = Broker::start();
        let mut command = Command::new(node);
        Program::run("reference.js", command.arg(client).arg(&broker.address));
    }
}

/// The publisher knows two topics, the subscribers ask for one of them.
#[test]
fn go() {
    let Some(go) = tools::require("reference::go", tools::go()) else {
        return;
    };
    let programs = build(&go);
    let broker = Broker::start();
    let mut subscribers = [1, 2].map(|number| {
        let mut command = Command::new(programs.join("subscriber"));
        let title = format!("subscriber {number}");
        Program::start(&title, command.arg(&broker.address))
    });
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.line().as_deref(), Some("subscribed"));
    }
    let mut command = Command::new(programs.join("publisher"));
    Program::run("publisher", command.arg(&broker.address));
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.line().as_deref(), Some("hello, gophers!"));
    }
    broker.drain();
    for subscriber in subscribers {
        assert_eq!(
            subscriber.succeed(),
            "subscribed\nhello, gophers!\nunavailable\n"
        );
    }
    broker.drained();
}

/// Compiles the contract and both programs, and hands back where they are.
fn build(go: &tools::Go) -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("interop-go");
    let package = workspace.join("src/interop");
    for program in ["publisher", "subscriber"] {
        let source = format!("{program}/main.go");
        fs::create_dir_all(package.join(program)).unwrap();
        fs::copy(
            tools::here().join("go").join(&source),
            package.join(&source),
        )
        .unwrap();
    }
    // Debian's generator is older than Debian's protoc, and its libraries have Empty elsewhere.
    let options =
        "plugins=grpc,Mgoogle/protobuf/empty.proto=github.com/golang/protobuf/ptypes/empty";
    let out = format!("--go_out={options}:{}", workspace.join("src").display());
    let mut protoc = Command::new(&go.protoc);
    protoc
        .current_dir(tools::here())
        .args(["--proto_path=.", &out, "reference.proto"]);
    Program::run("protoc", &mut protoc);

    let path = format!("{}:{}", workspace.display(), go.libraries.display());
    let programs = workspace.join("bin");
    let mut build = Command::new(&go.go);
    build
        .current_dir(&workspace)
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "")
        .env("GOPATH", path)
        .env("GOCACHE", workspace.join("cache"))
        .args(["build", "-o"])
        .arg(&programs)
        .args(["interop/publisher", "interop/subscriber"]);
    fs::create_dir_all(&programs).unwrap();
    Program::run("go build", &mut build);
    programs
}
