//! TLS as other stacks speak it: BoringSSL under Python's gRPC, and whatever curl was built with.

use std::process::Command;

use crate::{
    broker::Broker,
    pki::{Authority, Files, VALID},
    program::Program,
    tools,
};

/// A broker that demands certificates, the files, and one for a client.
fn serve() -> (Broker, Files) {
    let authority = Authority::new("interop");
    let files = Files::new(&authority);
    files.write_pair("client", &authority.issue("me.example", VALID));
    let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|name| files.path(name));
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let broker = Broker::start_with(&[
        "--tls-cert",
        &path(&cert),
        "--tls-key",
        &path(&key),
        "--tls-client-ca",
        &path(&ca),
    ]);
    (broker, files)
}

#[test]
fn python() {
    if let Some(python) = tools::require("tls::python", tools::python()) {
        let (broker, files) = serve();
        let mut command = Command::new(python);
        command
            .arg("-B")
            .arg(tools::here().join("python/tls.py"))
            .arg(&broker.address)
            .args(["ca.pem", "client.pem", "client.key"].map(|name| files.path(name)));
        Program::run("tls.py", &mut command);
    }
}

#[test]
fn curl() {
    let Some(curl) = tools::require("tls::curl", tools::curl()) else {
        return;
    };
    let (broker, files) = serve();
    let (_, port) = broker.address.rsplit_once(':').unwrap();
    let curl = |version: &str| {
        let mut command = Command::new(&curl);
        command
            .args(["--silent", "--show-error", version])
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .args(["--write-out", "%{http_version}"])
            .arg("--cacert")
            .arg(files.path("ca.pem"))
            .arg(format!("https://localhost:{port}/ready"));
        command
    };
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut command = curl(version);
        let [cert, key] = ["client.pem", "client.key"].map(|name| files.path(name));
        command.arg("--cert").arg(cert).arg("--key").arg(key);
        let said = Program::run("curl", &mut command);
        assert_eq!(said, format!("ready\n{spoken}\n"));
    }
    let (status, said) = Program::start("curl", &mut curl("--http1.1")).end();
    assert!(!status.success(), "{said}");
}
