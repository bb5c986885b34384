//! The built binary, used from a shell.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use crate::{
    pki::{Authority, Files, VALID},
    raw::Raw,
};

/// The binary without the environment's own settings.
fn broker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    for (name, _) in std::env::vars() {
        if name.starts_with("BROKER_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    broker(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A process that is ended with the test. Its log is read as it comes: a full pipe would stop it.
pub(crate) struct Running {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Running {
    fn spawn(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = mpsc::channel();
        thread::spawn(move || {
            let lossy = |line: std::io::Result<Vec<u8>>| {
                String::from_utf8_lossy(&line.unwrap()).into_owned()
            };
            stderr
                .split(b'\n')
                .map(lossy)
                .try_for_each(|line| lines.send(line))
        });
        Self { child, log }
    }

    /// Reads the log up to the line that has this text.
    fn log_line(&mut self, wanted: &str) -> String {
        let found = self.log.iter().find(|line| line.contains(wanted));
        found.unwrap_or_else(|| panic!("the log ended without {wanted:?}"))
    }

    pub(crate) fn rest_of_log(&mut self) -> String {
        let lines: Vec<String> = self.log.iter().collect();
        lines.join("\n")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn stdout(&mut self) -> String {
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        stdout.read_to_string(&mut out).unwrap();
        out
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A broker on a free port, and its URL.
pub(crate) fn serve(args: &[&str]) -> (Running, String) {
    let listen = ["--listen", "127.0.0.1:0", "--log-format", "json"];
    let mut served = Running::spawn(broker(&[&listen[..], args].concat()));
    let line = served.log_line("\"serving\"");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = line["fields"]["address"].as_str().unwrap();
    (served, format!("http://{address}"))
}

/// `broker sub`, live when this returns.
fn sub(url: &str, args: &[&str]) -> Running {
    let mut sub = Running::spawn(broker(&[&["sub", "-s", url], args].concat()));
    sub.log_line("subscribed to");
    sub
}

#[test]
fn payloads_go_to_stdout_and_everything_else_to_stderr() {
    let (_broker, url) = serve(&[]);
    let mut first = sub(&url, &["gocn", "--count", "2"]);
    let mut raw = sub(&url, &["gocn", "--count", "2", "--format", "raw"]);
    let published = run(&["pub", "-s", &url, "gocn", "hello, gophers!"]);
    assert_eq!(text(&published.stdout), "");
    assert_eq!(
        text(&published.stderr),
        "published 1 message to gocn: 2 matched, 2 delivered, 0 lost to full mailboxes\n"
    );
    assert!(run(&["pub", "-s", &url, "gocn", "again"]).status.success());
    assert_eq!(first.stdout(), "hello, gophers!\nagain\n");
    assert_eq!(raw.stdout(), "hello, gophers!again");
    assert_eq!((first.exit_code(), raw.exit_code()), (Some(0), Some(0)));
}

#[test]
fn json_shows_all_that_came_along() {
    let (_broker, url) = serve(&[]);
    let mut json = sub(&url, &["a.>", "-n", "1", "--format", "json", "--tag", "t"]);
    let publish = [
        "pub", "-s", &url, "a.b", "x", "-a", "k=v=w", "--tag", "t", "--key", "the key", "--id",
        "mine", "--format", "json",
    ];
    let receipt: serde_json::Value = serde_json::from_slice(&run(&publish).stdout).unwrap();
    assert_eq!(
        (&receipt["id"], &receipt["delivered"]),
        (&"mine".into(), &1.into())
    );
    let message: serde_json::Value = serde_json::from_str(&json.stdout()).unwrap();
    for (field, expected) in [
        ("topic", "a.b"),
        ("payload", "x"),
        ("key", "the key"),
        ("tag", "t"),
    ] {
        assert_eq!(message[field], expected);
    }
    assert_eq!(message["attributes"]["k"], "v=w");
    assert_eq!(message["epoch"], receipt["epoch"]);
}

#[test]
fn each_line_of_stdin_is_a_message() {
    let (_broker, url) = serve(&[]);
    let mut lines = sub(&url, &["t", "-n", "3"]);
    let mut command = broker(&["pub", "-s", &url, "t"]);
    let mut publish = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = publish.stdin.take().unwrap();
    stdin.write_all(b"one\n\nthree").unwrap();
    drop(stdin);
    assert!(publish.wait().unwrap().success());
    assert_eq!(lines.stdout(), "one\n\nthree\n");
}

#[test]
fn a_file_is_one_message() {
    let (_broker, url) = serve(&[]);
    let mut whole = sub(&url, &["t", "-n", "1", "--format", "raw"]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"line\nline\n").unwrap();
    let path = file.path().to_str().unwrap();
    assert!(
        run(&["pub", "-s", &url, "t", "--file", path])
            .status
            .success()
    );
    assert_eq!(whole.stdout(), "line\nline\n");
}

#[track_caller]
fn check_refused(output: &Output, code: i32, line: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with(line), "{said}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(&["--listen", &address]);
    check_refused(
        &refused,
        1,
        &format!("broker: cannot listen on {address}: "),
    );
    assert_eq!(text(&refused.stderr).lines().count(), 1);

    let url = format!("http://{}", {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    });
    let refused = run(&["pub", "-s", &url, "t", "x"]);
    check_refused(&refused, 1, &format!("broker: no broker answers at {url}"));
    assert!(text(&refused.stderr).contains("is the broker running?"));
    assert_eq!(text(&refused.stderr).lines().count(), 1);

    let unreadable = run(&["pub", "t", "--file", "/nowhere/at/all"]);
    check_refused(&unreadable, 1, "broker: cannot read /nowhere/at/all: ");
    check_refused(
        &run(&["pub", "a b", "x"]),
        1,
        "broker: topic has a blank or control character at byte 1\n",
    );
    check_refused(
        &run(&["--mailbox-bytes", "1KiB"]),
        1,
        "broker: mailbox_bytes of 1024 is below",
    );
    for (args, line) in [
        (
            ["--attributes-bytes-max", "18446744073709551615"],
            "broker: attributes_bytes_max of 18446744073709551615 exceeds the ceiling of 49152",
        ),
        (
            ["--subscriptions-per-connection-max", "18446744073709551615"],
            "broker: subscriptions_per_connection_max of 18446744073709551615 exceeds 100000000",
        ),
        (
            ["--keepalive-interval", "500000000000y"],
            "broker: keepalive_interval of",
        ),
        (
            ["--idle-topics-max", "1"],
            "broker: idle_topics_max of 1 is below the minimum of 32",
        ),
    ] {
        check_refused(&run(&args), 1, line);
    }
    let negative = broker(&[]).env("BROKER_PAYLOAD_BYTES_MAX", "-1").output();
    let negative = negative.unwrap();
    assert!(text(&negative.stderr).contains("`-1` is not a size: write 65536, 64KiB or 1MiB"));
    check_refused(
        &run(&["pub", "t", "--file", "/dev/zero"]),
        1,
        "broker: /dev/zero exceeds the limit of 16777216 bytes for a payload",
    );
    check_refused(
        &run(&["--log-level", "a=b=c"]),
        1,
        "broker: --log-level `a=b=c` is not valid",
    );
    check_refused(
        &run(&["--listen", "here"]),
        2,
        "error: invalid value 'here'",
    );
    check_refused(&run(&["--nonsense"]), 2, "error: unexpected argument");
    let by_environment = broker(&[]).env("BROKER_LISTEN", "here").output().unwrap();
    check_refused(&by_environment, 2, "error: invalid value 'here'");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let (_broker, url) = serve(&[]);
    let health = |args: &[&str], env: &str| {
        let mut command = broker(&[&["health"], args].concat());
        command.env("BROKER_SERVER", env).output().unwrap().status
    };
    let nobody = "http://127.0.0.1:1";
    assert!(health(&[], &url).success());
    assert!(health(&["-s", &url], nobody).success());
    assert_eq!(health(&["-s", nobody], &url).code(), Some(1));
    let listening = broker(&["pub", "-s", &url, "t", "x"])
        .env("BROKER_LISTEN", "127.0.0.1:9")
        .status();
    assert!(
        listening.unwrap().success(),
        "serving's settings are no conflict"
    );
}

#[test]
fn health_is_an_answer_and_an_exit_code() {
    let (_broker, url) = serve(&[]);
    let serving = run(&["health", "-s", &url, "proto.PubSubService"]);
    assert_eq!(text(&serving.stdout), "SERVING\n");
    assert!(serving.status.success());
    check_refused(&run(&["health", "-s", &url, "nobody"]), 1, "broker: ");
}

#[test]
fn a_subscriber_tells_by_its_exit_code_why_it_ended() {
    let (_broker, url) = serve(&[]);
    let late = run(&["sub", "-s", &url, "t", "--timeout", "1ms"]);
    assert_eq!(late.status.code(), Some(124));
    let mut interrupted = sub(&url, &["t"]);
    interrupted.signal("-INT");
    assert_eq!(interrupted.exit_code(), Some(130));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (_broker, url) = serve(&[]);
    let mut piped = sub(&url, &["t"]);
    drop(piped.child.stdout.take());
    assert!(run(&["pub", "-s", &url, "t", "x"]).status.success());
    assert_eq!(piped.exit_code(), Some(0));
}

#[test]
fn sigterm_drains_and_exits_with_0() {
    let (mut broker, url) = serve(&[]);
    let mut reader = sub(&url, &["t"]);
    broker.signal("-TERM");
    assert_eq!(broker.exit_code(), Some(0));
    let log = broker.rest_of_log();
    let order = ["stopping", "not ready", "draining", "drained"].map(|word| {
        let quoted = format!("\"{word}");
        log.find(&quoted)
            .unwrap_or_else(|| panic!("{word} is not in {log}"))
    });
    assert!(order.is_sorted(), "{log}");
    assert_eq!(
        reader.child.try_wait().unwrap(),
        None,
        "the reader reconnects"
    );
    reader.signal("-TERM");
    assert_eq!(reader.exit_code(), Some(143));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_exits_at_once() {
    let (mut broker, url) = serve(&["--drain-timeout", "1h", "--request-timeout", "1h"]);
    // A call in flight that never ends holds the drain; the answer behind it says that it has begun.
    let mut raw = Raw::connect(url.strip_prefix("http://").unwrap().parse().unwrap()).await;
    let headers = raw.grpc("/pubsub.v1.PubSubService/Publish");
    let endless = raw.start(headers).await;
    assert_eq!(raw.get("/health").await.1, "ok\n");
    broker.signal("-INT");
    broker.log_line("\"draining\"");
    broker.signal("-INT");
    assert_eq!(broker.exit_code(), Some(130));
    drop(endless);
}

#[test]
fn logs_are_structured_and_hold_no_payload_and_no_control_character() {
    let (mut broker, url) = serve(&["--log-level", "trace"]);
    let secret = "hunter2";
    let mut reader = sub(&url, &["t", "-n", "1"]);
    assert!(run(&["pub", "-s", &url, "t", secret]).status.success());
    assert_eq!(reader.stdout(), "hunter2\n");
    let mut hostile = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    hostile
        .write_all(b"GET /\x1b[31m%1b%0a HTTP/1.1\r\nhost: a\r\nx: \x1b\r\n\r\n")
        .unwrap();
    hostile.read_to_end(&mut Vec::new()).unwrap();
    broker.signal("-TERM");
    let log = broker.rest_of_log();
    assert_eq!(broker.exit_code(), Some(0));
    assert!(!log.contains(secret), "a payload is in the log");
    for line in log.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["timestamp"].is_string() && line["level"].is_string());
    }
}

#[test]
fn a_benchmark_counts_what_it_did() {
    let (broker, url) = serve(&[]);
    let pid = broker.child.id().to_string();
    let bench = run(&[
        "bench",
        "-s",
        &url,
        "--duration",
        "200ms",
        "--warmup",
        "50ms",
        "-p",
        "2",
        "-n",
        "4",
        "--topics",
        "2",
        "--format",
        "json",
        "--server-pid",
        &pid,
    ]);
    let report: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
    let figure = |name: &str| report[name].as_u64().unwrap();
    assert!(
        figure("published") > 0 && figure("delivered") > 0,
        "{report}"
    );
    assert_eq!((figure("lost"), figure("order_breaks")), (0, 0), "{report}");
    assert!(report["server_cpu_s"].is_number());
}

#[test]
fn top_prints_one_screen_without_control_codes() {
    let (broker, url) = serve(&[]);
    let _sub = sub(&url, &["orders.>"]);
    let published = run(&["pub", "orders.eu", "12345", "-s", &url]);
    assert!(published.status.success());
    let top = run(&["top", "--once", "--interval", "100ms", "-s", &url]);
    assert!(top.status.success(), "{top:?}");
    let screen = text(&top.stdout);
    assert!(
        !screen.contains(|c: char| c != '\n' && c.is_control()),
        "{screen:?}"
    );
    for wanted in [
        &format!("Fanfare {} at {url}, up ", env!("CARGO_PKG_VERSION")),
        "1 subscribers in 0 groups, 1 topics, 0 messages kept, ",
        "TOPIC (1)\n",
        "            1         0  orders.eu\n",
        "FILTERS, GROUP (1)\n",
        "       0 of  1024           0             1  drop_newest ",
        "127.0.0.1        orders.>\n",
    ] {
        assert!(screen.contains(wanted), "{wanted:?} is not in:\n{screen}");
    }
    let found = run(&[
        "top",
        "--search",
        "nothing",
        "--interval",
        "100ms",
        "-s",
        &url,
    ]);
    assert!(text(&found.stdout).contains("TOPIC (0 found among 1)\n"));
    drop(broker);
    let nobody = run(&["top", "--once", "-s", &url]);
    check_refused(&nobody, 1, &format!("broker: no broker answers at {url}"));
}

#[test]
fn all_commands_speak_tls_and_say_who_they_are() {
    let authority = Authority::new("command line");
    let files = Files::new(&authority);
    files.write_pair("client", &authority.issue("me.example", VALID));
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let serving = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ];
    let (mut server, url) = serve(&serving);
    let url = url.replace("http://", "https://");
    let (cert, key) = (path("client.pem"), path("client.key"));
    let trusting = [
        "-s",
        &url,
        "--tls-ca",
        &ca,
        "--tls-server-name",
        "localhost",
    ];
    let known = [&trusting[..], &["--tls-cert", &cert, "--tls-key", &key]].concat();

    let mut sub = Running::spawn(broker(&[&["sub", "t", "-n", "1"], &known[..]].concat()));
    sub.log_line("subscribed to");
    let published = run(&[&["pub", "t", "secret"], &known[..]].concat());
    assert!(published.status.success(), "{published:?}");
    assert_eq!(sub.stdout(), "secret\n");
    assert!(
        run(&[&["health"], &known[..]].concat()).status.success(),
        "the same for all"
    );
    let bench = ["bench", "--duration", "50ms", "--warmup", "1ms"];
    let bench = run(&[&bench, &known[..]].concat());
    assert!(bench.status.success(), "{bench:?}");
    let by_environment = broker(&["health", "-s", &url])
        .env("BROKER_CLIENT_TLS_CA", &ca)
        .env("BROKER_CLIENT_TLS_CERT", &cert)
        .env("BROKER_CLIENT_TLS_KEY", &key)
        .env("BROKER_CLIENT_TLS_SERVER_NAME", "localhost")
        .status();
    assert!(by_environment.unwrap().success());

    let unknown = run(&[&["health"], &trusting[..]].concat());
    let broke = format!("broker: the connection to {url} broke before a broker answered: ");
    check_refused(&unknown, 1, &broke);
    assert!(text(&unknown.stderr).contains("CertificateRequired"));
    let trusted = run(&["health", "-s", &url, "--tls-ca", &cert]);
    let insecure = format!("broker: no secure connection to {url}: invalid peer certificate: ");
    check_refused(&trusted, 1, &insecure);
    let plain = run(&["health", "-s", url.strip_prefix("https://").unwrap()]);
    assert!(text(&plain.stderr).contains("does it want TLS? try https://"));
    let halved = run(&["health", "--tls-cert", &cert]);
    check_refused(&halved, 2, "error: the following required arguments");

    // SIGHUP asks for a look at the files, and is answered at once, good or bad.
    let untouched = "the TLS files are as they were";
    server.signal("-HUP");
    server.log_line(untouched);
    files.write("server.key", "garbage");
    server.signal("-HUP");
    let line = server.log_line("the new TLS files do not work: the old ones stay in force");
    assert!(line.contains("\"ERROR\""), "{line}");
    assert!(line.contains("no private key in "), "{line}");
    files.write_pair("server", &authority.issue("localhost", VALID));
    server.signal("-HUP");
    server.log_line("new TLS credentials are in force for new connections");
    assert!(run(&[&["health"], &known[..]].concat()).status.success());
}

/// A SIGHUP may be meant for all of a session, or of a host.
#[test]
fn a_hangup_ends_no_broker_and_has_the_auth_file_looked_at_at_once() {
    let (mut open, url) = serve(&[]);
    open.signal("-HUP");
    open.log_line("SIGHUP: there are no files to look at");
    assert!(run(&["health", "-s", &url]).status.success());

    let (folder, _) = guarded("");
    let auth_file = path_in(&folder, "auth.toml");
    let (mut guarded, url) = serve(&["--auth-file", &auth_file]);
    guarded.signal("-HUP");
    guarded.log_line("the auth file is as it was");
    std::fs::write(&auth_file, "[users").unwrap();
    guarded.signal("-HUP");
    guarded.log_line("the auth file is wrong: what it said before stays in force");
    std::fs::write(&auth_file, "[users.bob]").unwrap();
    guarded.signal("-HUP");
    guarded.log_line("the auth file has changed and is in force");
    assert!(run(&["health", "-s", &url]).status.success());
}

#[test]
fn plaintext_in_the_open_is_refused_with_both_ways_out() {
    // None of these is listened on: that is refused before it is tried.
    for listen in ["0.0.0.0:1234", "[::]:1234"] {
        let refused = run(&["--listen", listen]);
        check_refused(
            &refused,
            1,
            &format!("broker: {listen} can be reached from outside"),
        );
        for way_out in ["--tls-cert", "--insecure-plaintext"] {
            assert!(text(&refused.stderr).contains(way_out));
        }
        let checked = run(&["check", "--listen", listen]);
        check_refused(&checked, 1, "broker: the configuration is not valid: ");
    }
    // An address for documentation, which is no machine's.
    let nowhere = "192.0.2.1:1234";
    let told = run(&["--listen", nowhere, "--insecure-plaintext"]);
    check_refused(&told, 1, &format!("broker: cannot listen on {nowhere}"));
    let told = broker(&["--listen", nowhere])
        .env("BROKER_INSECURE_PLAINTEXT", "1")
        .output();
    check_refused(
        &told.unwrap(),
        1,
        &format!("broker: cannot listen on {nowhere}"),
    );
    let missing = ["check", "--tls-cert", "/no/cert", "--tls-key", "/no/key"];
    let not_valid = "broker: the configuration is not valid: TLS does not work: cannot read /no/";
    check_refused(&run(&missing), 1, not_valid);
    let half = run(&["--tls-cert", "server.pem"]);
    check_refused(&half, 2, "error: the following required arguments");
}

/// Each failed accept is followed by a pause: the log counts them in ten seconds, in which a busy loop
/// would make millions.
#[test]
fn without_file_descriptors_the_broker_waits_calmly_and_goes_on_when_there_are_some() {
    let mut limited = Command::new("sh");
    let serve = "ulimit -n 40; exec \"$0\" --listen 127.0.0.1:0 --log-format json";
    limited.args(["-c", serve, env!("CARGO_BIN_EXE_broker")]);
    let mut served = Running::spawn(limited);
    let field = |line: String, name: &str| {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        line["fields"][name].clone()
    };
    let address = field(served.log_line("\"serving\""), "address");
    let address = address.as_str().unwrap();
    // Silent ones are closed after five seconds, and leave room for a third of these each time.
    let sockets: Vec<_> = (0..120)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    assert_eq!(field(served.log_line("cannot accept"), "count"), 1);
    let failures = field(served.log_line("cannot accept"), "count")
        .as_u64()
        .unwrap();
    assert!(failures <= 110, "{failures} in ten seconds");
    drop(sockets);
    let health = ["health", "-s", &format!("http://{address}")];
    while !run(&health).status.success() {}
}

/// A folder with an auth file, and with a file that holds the token of its one user.
fn guarded(rules: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let minted = run(&["token"]);
    assert!(minted.status.success());
    std::fs::write(folder.path().join("alice.token"), &minted.stdout).unwrap();
    let hash = text(&minted.stderr).trim();
    let auth = format!("[users.alice]\ntokens = [\"{hash}\"]\n{rules}");
    std::fs::write(folder.path().join("auth.toml"), auth).unwrap();
    let token = text(&minted.stdout).trim().to_owned();
    (folder, token)
}

fn path_in(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

#[test]
fn a_token_is_made_with_its_hash_and_shown_from_a_file_or_a_variable() {
    let (folder, token) = guarded("publish.allow = [\"a\"]");
    let auth_file = path_in(&folder, "auth.toml");
    let token_file = path_in(&folder, "alice.token");
    let (_broker, url) = serve(&["--auth-file", &auth_file]);
    let refused = run(&["pub", "-s", &url, "a", "x"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        text(&refused.stderr),
        "broker: the broker wants to know who calls: the call has no credentials: send \
         `authorization: Bearer TOKEN`\n"
    );
    let with_file = run(&["pub", "-s", &url, "a", "x", "--token-file", &token_file]);
    assert!(with_file.status.success(), "{with_file:?}");
    let mut with_variable = broker(&["pub", "-s", &url, "a", "x"]);
    with_variable.env("BROKER_TOKEN", &token);
    assert!(with_variable.status().unwrap().success());
    // Health asks nobody.
    assert!(run(&["health", "-s", &url]).status.success());

    let mut hashed = broker(&["token", "--hash"]);
    let hashed = hashed.stdin(std::fs::File::open(&token_file).unwrap());
    let hashed = hashed.output().unwrap();
    let auth = std::fs::read_to_string(&auth_file).unwrap();
    assert!(auth.contains(text(&hashed.stdout).trim()));
}

#[test]
fn no_secret_is_ever_logged() {
    let (folder, token) = guarded("publish.allow = [\"a\"]\nrights = [\"metrics\"]");
    let auth_file = path_in(&folder, "auth.toml");
    let token_file = path_in(&folder, "alice.token");
    let (mut served, url) = serve(&["--auth-file", &auth_file, "--log-level", "trace"]);
    let wrong = format!("{token}wrong");
    let wrong_file = path_in(&folder, "wrong.token");
    std::fs::write(&wrong_file, &wrong).unwrap();
    let mut said = String::new();
    for file in [&token_file, &wrong_file] {
        for args in [["pub", "a", "x"], ["pub", "b", "x"]] {
            let sent = run(&[&args[..], &["-s", &url, "--token-file", file]].concat());
            said += text(&sent.stderr);
        }
        let address = url.trim_start_matches("http://");
        let token = std::fs::read_to_string(file).unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            token.trim()
        );
        socket.write_all(request.as_bytes()).unwrap();
        socket.read_to_string(&mut said).unwrap();
    }
    // A file that is wrong in every way is told of, too.
    let wrong_auth = format!("[users.alice]\ntokens = [\"{token}\"]\n");
    std::fs::write(&auth_file, wrong_auth).unwrap();
    for line in served.log.iter() {
        said += &line;
        if line.contains("the auth file is wrong") {
            assert!(line.contains("not the hash of a token"), "{line}");
            break;
        }
    }
    served.signal("-TERM");
    said += &served.rest_of_log();
    // The log is as full as it gets, and its reader has seen all of it.
    assert!(said.contains("\"TRACE\"") && said.contains("refused credentials"));
    assert!(!said.contains(&token), "{said}");
}

#[test]
fn check_says_in_plain_words_what_a_user_may_do() {
    let rules = r#"
        roles = ["writer"]
        subscribe = { allow = ["orders.>"], deny = ["orders.secret.>"] }
        rights = ["metrics"]
        [roles.writer]
        publish.allow = ["orders.*"]
        [everyone]
        publish.allow = ["inbox.{user}"]
    "#;
    let (folder, _) = guarded(rules);
    let auth_file = path_in(&folder, "auth.toml");
    let check = |args: &[&str]| {
        let output = run(&[&["check", "--auth-file", &auth_file][..], args].concat());
        let code = output.status.code();
        let said = text(&output.stdout).to_owned() + text(&output.stderr);
        let (first, rest) = said.split_once('\n').unwrap();
        let valid = format!("the configuration is valid, and so is {auth_file}");
        assert_eq!(first, valid);
        (code, rest.to_owned())
    };
    assert_eq!(check(&[]), (Some(0), String::new()));
    let all = "\
        user `alice` may publish to `inbox.alice`, by a rule for everyone\n\
        user `alice` may publish to `orders.*`, by a rule for role `writer`\n\
        user `alice` may never subscribe to `orders.secret.>`, by a rule for user `alice`\n\
        user `alice` may subscribe to `orders.>`, by a rule for user `alice`\n\
        a filter that overlaps what user `alice` may never subscribe to is refused as a whole\n\
        user `alice` may use metrics\n\
        user `alice` may not use reflection\n";
    assert_eq!(check(&["--as", "alice"]), (Some(0), all.to_owned()));
    let yes = "yes: user `alice` may publish to `inbox.alice`: the rule for everyone allows `inbox.{user}`\n";
    let asked = check(&["--as", "alice", "--publish", "inbox.alice"]);
    assert_eq!(asked, (Some(0), yes.to_owned()));
    let denied = "no: user `alice` may not subscribe to `orders.>`: the rule for user `alice` denies `orders.secret.>`\n";
    let asked = check(&["--as", "alice", "--subscribe", "orders.>"]);
    assert_eq!(asked, (Some(3), denied.to_owned()));
    let nobody = format!("nobody can prove to be user `bob` by {auth_file}: ")
        + "it has no token and no certificate for it, and no [jwt]\n";
    let nothing =
        nobody + "no: user `bob` may not publish to `orders.eu`: no rule allows all of it\n";
    let asked = check(&["--as", "bob", "--publish", "orders.eu"]);
    assert_eq!(asked, (Some(3), nothing.clone()));
    let role = check(&["--as", "bob", "--role", "writer", "--publish", "orders.eu"]);
    assert_eq!(role.0, Some(0));
    let unknown =
        format!("{auth_file} has no [roles.wirter]: the role neither gives nor takes anything\n");
    let role = check(&["--as", "bob", "--role", "wirter", "--publish", "orders.eu"]);
    assert_eq!(role, (Some(3), unknown + &nothing));
}

#[test]
fn check_says_what_a_user_may_do_whose_name_no_topic_has_as_a_token() {
    let rules = r#"
        [everyone]
        publish.allow = ["inbox.{user}.>"]
        subscribe = { allow = ["inbox.{user}.>", "news"], deny = ["secret.{user}"] }
        [users."a.b"]
        certificates = ["a.b"]
    "#;
    let (folder, _) = guarded(rules);
    let auth_file = path_in(&folder, "auth.toml");
    let output = run(&["check", "--auth-file", &auth_file, "--as", "a.b"]);
    let none = "`inbox.{user}.>`, in a rule for everyone, gives user `a.b` nothing: its name is no token of a topic\n";
    let all = [
        "user `a.b` may publish to nothing\n",
        none,
        "user `a.b` may never subscribe to `secret.*`, by a rule for everyone\n",
        none,
        "user `a.b` may subscribe to `news`, by a rule for everyone\n",
        "a filter that overlaps what user `a.b` may never subscribe to is refused as a whole\n",
        "user `a.b` may not use metrics\n",
        "user `a.b` may not use reflection\n",
    ];
    let said = text(&output.stdout);
    let (_, said) = said.split_once('\n').unwrap();
    assert_eq!(said, all.concat());
}

#[test]
fn check_takes_the_options_of_logs_and_refuses_what_the_broker_does() {
    let taken = run(&[
        "check",
        "--log-level",
        "info,hyper=debug",
        "--log-format",
        "json",
    ]);
    assert_eq!(taken.status.code(), Some(0), "{taken:?}");
    for (variable, value, code) in [
        ("BROKER_LOG_LEVEL", "x=y=z", 1),
        ("BROKER_LOG_FORMAT", "xml", 2),
    ] {
        for command in [&["check"][..], &["--listen", "127.0.0.1:0"]] {
            let refused = broker(command).env(variable, value).output().unwrap();
            let said = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(code), "{said}");
            assert!(said.contains(value), "{said}");
        }
    }
}

#[test]
fn the_hash_of_what_can_be_guessed_is_not_told() {
    let hash = |text: &str| {
        let mut hash = broker(&["token", "--hash"]);
        let mut hash = hash
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        hash.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        hash.wait_with_output().unwrap()
    };
    assert_eq!(hash(&"x".repeat(32)).status.code(), Some(0));
    check_refused(
        &hash("hunter2\n"),
        1,
        "broker: a token of 7 characters is below the minimum of 32: `broker token` makes one that nobody can guess",
    );
    check_refused(&hash("\n"), 1, "broker: standard input has no token");
}

#[test]
fn check_finds_what_would_keep_the_broker_from_starting() {
    let (folder, token) = guarded("publish.allow = [\"a..b\"]");
    let auth_file = path_in(&folder, "auth.toml");
    let missing = path_in(&folder, "missing.toml");
    let check = |args: &[&str], expected: &str| {
        for command in [&["check"][..], &["--listen", "127.0.0.1:0"]] {
            let output = run(&[command, args].concat());
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let said = text(&output.stderr);
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains(&token), "{said}");
        }
    };
    let wrong = "users.alice.publish.allow: `a..b`: topic has an empty token at byte 2";
    check(&["--auth-file", &auth_file], wrong);
    check(&["--auth-file", &missing], "No such file");
    check(&["--guesses-max", "0"], "guesses_max is 0");
    std::fs::write(&auth_file, "[jwt]\nalgorithms = [\"RS256\"]\nissuer = \"i\"\naudience = \"a\"\npublic_key_file = \"k.pem\"").unwrap();
    check(
        &["--auth-file", &auth_file],
        "cannot read k.pem: No such file",
    );
    let open = run(&["check"]);
    assert!(open.status.success());
    let said = "the configuration is valid; without --auth-file, anybody may do anything\n";
    assert_eq!(text(&open.stdout), said);
}

#[test]
fn check_explains_what_is_kept() {
    let rules = "inference-requests=off;*=messages:10000,bytes:4MiB,age:10m";
    let by_variable = broker(&["check"]).env("BROKER_HISTORY", rules).output();
    let each = rules.split(';').flat_map(|rule| ["--history", rule]);
    let by_flags = run(&["check"].into_iter().chain(each).collect::<Vec<_>>());
    let said = "the configuration is valid; without --auth-file, anybody may do anything\n\
        a topic that `inference-requests` matches keeps nothing for replay\n\
        a topic that `*` matches keeps its newest 10000 messages, 4.0 MiB at most, for 10m\n\
        the first rule that matches decides; all topics together keep 64.0 MiB at most\n";
    assert_eq!(text(&by_variable.unwrap().stdout), said);
    assert_eq!(text(&by_flags.stdout), said);
    let refused = |args: &[&str], code: i32, line: &str| {
        check_refused(&run(&[&["check"], args].concat()), code, line);
    };
    refused(
        &["--history", "*"],
        2,
        "error: invalid value '*' for '--history <RULE>': `*` has no `=`: write FILTER=off or \
         FILTER=messages:1000",
    );
    refused(
        &["--history", "*=messages:0"],
        1,
        "broker: history messages of 0 is below the minimum of 1",
    );
    refused(
        &["--history", "*=messages:1", "--history-bytes", "600MiB"],
        1,
        "broker: history_bytes of 629145600 exceeds the ceiling of 536870912",
    );
}

#[test]
fn a_subscriber_starts_in_the_past_and_stops_at_the_end() {
    let (_broker, url) = serve(&["--history", "*=messages:3"]);
    let receipts = run(&["pub", "-s", &url, "t", "one", "--format", "json"]);
    let receipt: serde_json::Value = serde_json::from_slice(&receipts.stdout).unwrap();
    let cursor = receipt["cursor"].as_str().unwrap();
    let mut command = broker(&["pub", "-s", &url, "t", "--end"]);
    let mut publish = command.stdin(Stdio::piped()).spawn().unwrap();
    publish
        .stdin
        .take()
        .unwrap()
        .write_all(b"two\nthree\nfour\n")
        .unwrap();
    assert!(publish.wait().unwrap().success());
    let check = |from: &str, payloads: &str, told: &str| {
        let output = run(&["sub", "-s", &url, "t", "--from", from]);
        assert_eq!(text(&output.stdout), payloads, "{from}");
        let expected = format!("subscribed to t at {url}\n{told}the topic has ended\n");
        assert_eq!(text(&output.stderr), expected, "{from}");
        assert_eq!(output.status.code(), Some(0));
    };
    check("all", "two\nthree\nfour\n", "");
    check("last:2", "three\nfour\n", "");
    check(
        "last:4",
        "two\nthree\nfour\n",
        "missed 1 message: no longer kept\n",
    );
    check(
        "since:1h",
        "two\nthree\nfour\n",
        "missed 1 message: no longer kept\n",
    );
    check(cursor, "two\nthree\nfour\n", "");
    check("now", "", "");
    let json = run(&[
        "sub", "-s", &url, "t", "--from", "last:1", "--format", "json",
    ]);
    let message: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&message["payload"], &message["end"]),
        (&"four".into(), &true.into())
    );
    assert!(message["cursor"].is_string());
    let more = run(&["pub", "-s", &url, "t", "five"]);
    check_refused(
        &more,
        1,
        "broker: the topic takes no more: the topic has ended: its last message has been published",
    );
    let wrong = run(&["sub", "-s", &url, "t", "--from", "then"]);
    check_refused(&wrong, 2, "error: invalid value 'then'");
    let empty = run(&["pub", "-s", &url, "u", "", "--end"]);
    assert!(empty.status.success());
    let nothing = broker(&["pub", "-s", &url, "v", "--end"]).output().unwrap();
    assert!(nothing.status.success(), "no line, and yet an end");
    let ended = run(&["sub", "-s", &url, "v", "--from", "all"]);
    assert_eq!(text(&ended.stdout), "\n");
}

#[test]
fn the_readmes_auth_file_answers_as_the_readme_says() {
    let readme = include_str!("../../README.md");
    let after = readme.split_once("travels in the clear:\n\n").unwrap().1;
    let (sample, shown) = after
        .split_once("\n\n    $ (umask 077; broker token > alice.token)\n")
        .unwrap();
    let (folder, token) = guarded("");
    let hash = {
        let mut hashed = broker(&["token", "--hash"]);
        let token_file = std::fs::File::open(path_in(&folder, "alice.token")).unwrap();
        let hashed = hashed.stdin(token_file).output().unwrap();
        text(&hashed.stdout).trim().to_owned()
    };
    assert!(!sample.contains(&token));
    let sample: String = sample
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n")
        .collect();
    let auth_file = path_in(&folder, "auth.toml");
    std::fs::write(&auth_file, sample.replace("sha256:6b86...", &hash)).unwrap();

    let check = || {
        let asked = ["--as", "alice", "--subscribe", "orders.>"];
        let mut checked = broker(&[&["check", "--auth-file", "auth.toml"], &asked[..]].concat());
        let checked = checked.current_dir(folder.path()).output().unwrap();
        let said = text(&checked.stdout).to_owned() + text(&checked.stderr);
        for line in said.lines() {
            assert!(shown.contains(line), "{said}");
        }
        assert_eq!(said.lines().count(), 2, "{said}");
        assert_eq!(checked.status.code(), Some(3));
    };
    // As it is printed, and with an issuer.
    check();
    let with_issuer = std::fs::read_to_string(&auth_file).unwrap();
    let with_issuer: Vec<&str> = with_issuer
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .collect();
    assert!(with_issuer.iter().any(|line| line.starts_with("[jwt]")));
    std::fs::write(&auth_file, with_issuer.join("\n")).unwrap();
    let modulus = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        [0xff; 256],
    );
    let keys =
        serde_json::json!({"keys": [{"kty": "RSA", "alg": "RS256", "n": modulus, "e": "AQAB"}]});
    std::fs::write(path_in(&folder, "keys.json"), keys.to_string()).unwrap();
    check();
}
