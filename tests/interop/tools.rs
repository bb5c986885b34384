//! What the foreign programs need, and what happens where it is missing.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// Where this test binary's sources, and the foreign programs, are.
pub(crate) fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// Hands on what was found. Where it was not, says so and lets the test pass without it, or, with
/// `FANFARE_INTEROP=required` in the environment, fails.
pub(crate) fn require<T>(test: &str, found: Result<T, &'static str>) -> Option<T> {
    match found {
        Ok(tool) => Some(tool),
        Err(missing) if env::var_os("FANFARE_INTEROP").is_some_and(|it| it == "required") => {
            panic!("{test}: {missing} is not installed: run tests/interop/install")
        }
        Err(missing) => {
            // Not `eprintln!`: the test harness swallows that where a test passes.
            let line = format!("SKIPPED: {test}: {missing} is not installed\n");
            io::stderr().write_all(line.as_bytes()).unwrap();
            None
        }
    }
}

/// A Python that has the packages of `python/requirements.txt`.
pub(crate) fn python() -> Result<PathBuf, &'static str> {
    let venv = here().join("python/.venv");
    if !venv.join("installed").exists() {
        return Err("the Python client's environment");
    }
    Ok(venv.join("bin/python"))
}

/// A curl, which speaks HTTP/2 nearly everywhere.
pub(crate) fn curl() -> Result<PathBuf, &'static str> {
    on_path("curl").ok_or("curl")
}

/// A Node; the packages of `node/package.json` are where it finds them.
pub(crate) fn node() -> Result<PathBuf, &'static str> {
    if !here().join("node/node_modules/@grpc/grpc-js").exists() {
        return Err("the Node client's package grpc-js");
    }
    on_path("node").ok_or("Node")
}

/// A Node that has an EventSource, with the packages for gRPC-Web.
pub(crate) fn node_with_event_source() -> Result<PathBuf, &'static str> {
    let node = node()?;
    if !here()
        .join("node/node_modules/@connectrpc/connect-web")
        .exists()
    {
        return Err("the Node client's package connect-web");
    }
    let mut command = Command::new(&node);
    command.args(["--experimental-eventsource", "-e", "new EventSource"]);
    let said = command.output().map_err(|_| "Node")?;
    // It has no URL to go to, and says so if it knows what it is.
    if !String::from_utf8_lossy(&said.stderr).contains("TypeError") {
        return Err("a Node with an EventSource (20.18 or later)");
    }
    Ok(node)
}

/// A Chromium, and what drives it.
pub(crate) fn browser() -> Result<PathBuf, &'static str> {
    if !here().join("node/node_modules/playwright-core").exists() {
        return Err("the Node package playwright-core");
    }
    let mut names = ["chromium", "chromium-browser", "google-chrome"].into_iter();
    names.find_map(on_path).ok_or("Chromium")
}

/// npm has a package for each platform; on others, buf may be on the path.
pub(crate) fn buf() -> Result<PathBuf, &'static str> {
    let packages = fs::read_dir(here().join("node/node_modules/@bufbuild"));
    packages
        .into_iter()
        .flatten()
        .filter_map(|package| Some(package.ok()?.path().join("bin/buf")))
        .find(|buf| buf.is_file())
        .or_else(|| on_path("buf"))
        .ok_or("buf")
}

/// What compiles a Go client without a network.
#[derive(Debug)]
pub(crate) struct Go {
    pub(crate) go: PathBuf,
    pub(crate) protoc: PathBuf,
    /// Where Debian's packages of Go libraries are.
    pub(crate) libraries: PathBuf,
}

pub(crate) fn go() -> Result<Go, &'static str> {
    let libraries = PathBuf::from("/usr/share/gocode");
    if !libraries.join("src/google.golang.org/grpc").exists() {
        return Err("Debian's golang-google-grpc-dev");
    }
    on_path("protoc-gen-go").ok_or("protoc-gen-go")?;
    Ok(Go {
        go: on_path("go").ok_or("Go")?,
        protoc: on_path("protoc").ok_or("protoc")?,
        libraries,
    })
}

fn on_path(program: &str) -> Option<PathBuf> {
    let directories = env::var_os("PATH")?;
    env::split_paths(&directories)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}
