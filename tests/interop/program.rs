//! A program in a process of its own, which can neither hang a test nor outlive it.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// Above what each program gives itself, so that it can say what it was waiting for.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a program that has closed its output is asked whether it has exited.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// A running program: killed when dropped, and when it takes too long.
#[derive(Debug)]
pub(crate) struct Program {
    title: String,
    child: Child,
    lines: Receiver<String>,
    /// All that it has said, on stdout and stderr, as far as it was read here.
    transcript: String,
    deadline: Instant,
}

impl Program {
    pub(crate) fn start(title: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{title}: cannot start {command:?}: {error}"));
        let (sender, lines) = channel();
        forward_lines(child.stdout.take().unwrap(), sender.clone());
        forward_lines(child.stderr.take().unwrap(), sender);
        Self {
            title: title.to_owned(),
            child,
            lines,
            transcript: String::new(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Runs a program to its end, which must be a success, and hands back all that it has said.
    pub(crate) fn run(title: &str, command: &mut Command) -> String {
        Self::start(title, command).succeed()
    }

    /// The next line that it says; none once it has closed its output.
    pub(crate) fn line(&mut self) -> Option<String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.transcript.push_str(&line);
                self.transcript.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.fail("takes too long"),
        }
    }

    /// Reads until a line of which `find` makes something.
    pub(crate) fn until<T>(&mut self, wanted: &str, find: impl Fn(&str) -> Option<T>) -> T {
        loop {
            let Some(line) = self.line() else {
                self.fail(&format!("has ended without {wanted}"));
            };
            if let Some(found) = find(&line) {
                return found;
            }
        }
    }

    /// Asks it to stop, by SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends it a signal, as `kill` names it.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success(), "{}: cannot be sent {name}", self.title);
    }

    /// Reads to its end, however it ends, and hands back all that it has said.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        while self.line().is_some() {}
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, std::mem::take(&mut self.transcript));
            }
            if Instant::now() > self.deadline {
                self.fail("does not exit");
            }
            thread::sleep(EXIT_POLL);
        }
    }

    /// Reads to its end, which must be a success, and hands back all that it has said.
    pub(crate) fn succeed(self) -> String {
        let title = self.title.clone();
        let (status, transcript) = self.end();
        assert!(
            status.success(),
            "{title}: {status}; it said:\n{transcript}"
        );
        transcript
    }

    fn fail(&self, how: &str) -> ! {
        panic!("{}: {how}; it said:\n{}", self.title, self.transcript)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Either fails only if the program has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Passes on what is read, line by line, until the other end closes it.
fn forward_lines(output: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            // Who has stopped listening misses nothing that a test looks at.
            drop(lines.send(String::from_utf8_lossy(&line).into_owned()));
        }
    });
}
