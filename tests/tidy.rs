//! The architecture, told as absences: which module may name what. See ARCHITECTURE.md.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where, and fail"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// About this many lines before its tests is a file's budget.
const LINES_MAX: usize = 400;

fn rust_files(under: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(under)];
    while let Some(path) = folders.pop() {
        if path.ends_with("tests") || path.ends_with("tests.rs") {
            // Modules of tests alone may name what they like, and are described by what they test.
        } else if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            folders.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    assert!(!files.is_empty(), "nothing to check under {under}");
    files
}

/// What grouped imports (`use crate::{a::b, c}`) name, one path each.
fn grouped_imports(code: &str) -> String {
    let mut names = String::new();
    for (at, group) in code.match_indices("crate::{") {
        let mut depth = 1;
        let mut is_first = true;
        let mut name = String::new();
        for c in code[at + group.len()..].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => is_first = true,
                c if depth == 1 && is_first && (c.is_alphanumeric() || c == '_') => name.push(c),
                c if depth == 1 && !c.is_whitespace() => is_first = false,
                _ => {}
            }
            if (!is_first || depth == 0 || c == ',') && !name.is_empty() {
                names += &format!("crate::{name}\n");
                name.clear();
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// The code of a file before its tests, without comments, and with its grouped imports spelt out.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let code: String = lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let imports = grouped_imports(&code);
    code + &imports
}

#[test]
fn grouped_imports_are_seen() {
    let code = "use crate::{\n    broker::{Broker, x::Y},\n    wire, topic::Topic as _,\n};";
    let names = "crate::broker\ncrate::wire\ncrate::topic\n";
    assert_eq!(grouped_imports(code), names);
}

/// Whether the code names the word, not just as a part of another.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[track_caller]
fn check_absent(under: &str, words: &[&str]) {
    for file in rust_files(under) {
        let code = code(&file);
        for word in words {
            assert!(!names(&code, word), "{} names `{word}`", file.display());
        }
    }
}

#[test]
fn the_domain_knows_no_grpc_http_command_line_clock_or_task() {
    let words = [
        "tonic",
        "prost",
        "prost_types",
        "http",
        "hyper",
        "axum",
        "tower",
        "clap",
        "tokio",
        "Instant",
        "SystemTime::now",
        "spawn",
        "tracing",
        "crate::wire",
        "crate::grpc",
        "crate::http",
        "crate::server",
        "crate::client",
        "crate::metrics",
    ];
    check_absent("src/broker", &words);
    check_absent("src/topic.rs", &words);
    check_absent("src/message", &words);
    check_absent("src/cursor.rs", &words);
    check_absent("src/auth", &words);
    check_absent("src/auth", &["crate::broker", "crate::access"]);
    check_absent("src/broker", &["crate::auth", "crate::access"]);
    check_absent("src/topic.rs", &["crate::broker"]);
    check_absent("src/message", &["crate::broker"]);
    check_absent("src/cursor.rs", &["crate::broker"]);
}

#[test]
fn the_wire_knows_no_server_and_no_client() {
    check_absent(
        "src/wire",
        &[
            "crate::grpc",
            "crate::http",
            "crate::server",
            "crate::client",
            "tokio",
            "axum",
        ],
    );
}

#[test]
fn the_client_knows_no_broker() {
    check_absent(
        "src/client",
        &[
            "crate::broker",
            "crate::grpc",
            "crate::http",
            "crate::server",
            "crate::metrics",
        ],
    );
}

#[test]
fn access_knows_headers_and_no_adapter() {
    let words = [
        "tonic",
        "prost",
        "hyper",
        "axum",
        "clap",
        "crate::broker",
        "crate::wire",
        "crate::grpc",
        "crate::http",
        "crate::server",
        "crate::client",
    ];
    check_absent("src/access", &words);
}

#[test]
fn what_all_protocols_share_knows_none_of_them() {
    let words = [
        "tonic",
        "hyper",
        "clap",
        "crate::grpc",
        "crate::http",
        "crate::server",
        "crate::client",
    ];
    check_absent("src/service", &words);
    check_absent("src/access", &["crate::service"]);
    check_absent("src/wire", &["crate::service"]);
    check_absent("src/broker", &["crate::service"]);
}

#[test]
fn adapters_know_no_front_door_and_nothing_knows_the_command_line() {
    check_absent(
        "src/grpc",
        &["crate::server", "crate::http", "crate::client", "clap"],
    );
    check_absent(
        "src/http",
        &["crate::server", "crate::client", "tonic", "clap"],
    );
    check_absent("src/server", &["crate::client", "clap"]);
}

#[test]
fn statuses_are_built_in_one_place() {
    for file in rust_files("src/grpc") {
        if !file.ends_with("status.rs") {
            let code = code(&file);
            assert!(!names(&code, "Status::new"), "{}", file.display());
            assert!(!names(&code, "tonic::Status"), "{}", file.display());
        }
    }
    check_absent("src/server", &["tonic"]);
}

#[test]
fn one_module_is_unsafe_and_no_queue_is_unbounded() {
    check_absent("src", &["unbounded_channel", "UnboundedSender"]);
    for file in rust_files("src") {
        let is_unsafe = names(&code(&file), "unsafe");
        assert_eq!(is_unsafe, file.ends_with("heap.rs"), "{}", file.display());
    }
}

#[test]
fn every_file_opens_with_its_page_and_keeps_its_budget() {
    for file in rust_files("src") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} has no page", file.display());
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
        let count = lines.count();
        assert!(count <= LINES_MAX, "{} has {count} lines", file.display());
    }
}
