//! A reader of HTTP/1.0, which has no chunks, and of server-sent events, one line after the other.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// Longer than anything here takes; a test that waits in vain fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reader that was refused waits before it tries again.
const RETRY: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(crate) struct Http {
    /// HOST:PORT
    pub(crate) address: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(found, value)| (found == name).then_some(value.as_str()))
    }
}

impl Http {
    pub(crate) fn new(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap().to_owned();
        Self { address }
    }

    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.read("GET", path, headers, "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.read("POST", path, &[("content-type", "application/json")], body)
    }

    fn read(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (mut answer, mut rest) = self.send(method, path, headers, body);
        rest.read_to_string(&mut answer.body).unwrap();
        answer
    }

    /// A stream, which must be there.
    pub(crate) fn events(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let (answer, lines) = self.send("GET", path, headers, "");
        assert_eq!(answer.status, 200, "{path}");
        Events {
            answer,
            lines,
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Reads a stream to its end as EventSource does, which comes back whenever it is cut off, and as the
    /// page does, which tries again when it is refused.
    pub(crate) fn all_events(&self, path: &str, headers: &[(&str, &str)]) -> Vec<Event> {
        let deadline = Instant::now() + PATIENCE;
        let (mut events, mut last) = (Vec::<Event>::new(), None::<String>);
        while last.as_deref() != Some("end") {
            assert!(Instant::now() < deadline, "no end after {events:?}");
            let mut headers = headers.to_vec();
            headers.extend(last.as_deref().map(|id| ("last-event-id", id)));
            let (answer, lines) = self.send("GET", path, &headers, "");
            if answer.status != 200 {
                assert_eq!(answer.status, 503, "{path}");
                thread::sleep(RETRY);
                continue;
            }
            let some = Events {
                answer,
                lines,
                deadline,
            };
            events.extend(some);
            let mut ids = events.iter().rev().map(|event| &event.id);
            last = ids.find(|id| !id.is_empty()).cloned();
        }
        events
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (Answer, BufReader<TcpStream>) {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("{method} {path} HTTP/1.0\r\nhost: chat\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        socket.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(socket);
        let first = line(&mut lines).unwrap();
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        while let Some((name, value)) = line(&mut lines).unwrap().split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let body = String::new();
        let answer = Answer {
            status,
            headers,
            body,
        };
        (answer, lines)
    }
}

/// The next line; none at the end.
fn line(lines: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = lines.read_line(&mut line).unwrap();
    (read > 0).then(|| line.trim_end().to_owned())
}

/// A stream that is being read; dropping it is leaving.
pub(crate) struct Events {
    pub(crate) answer: Answer,
    lines: BufReader<TcpStream>,
    /// Heartbeats keep a stream alive in which nothing happens.
    deadline: Instant,
}

impl Events {
    /// Reads so many comments.
    pub(crate) fn heartbeats(&mut self, count: usize) {
        for _ in 0..count {
            while self.line().expect("the stream goes on") != ":" {}
        }
    }

    fn line(&mut self) -> Option<String> {
        assert!(Instant::now() < self.deadline, "the stream does not end");
        line(&mut self.lines)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Empty for a token.
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Iterator for Events {
    type Item = Event;

    /// The next event that has data.
    fn next(&mut self) -> Option<Event> {
        let (mut kind, mut id, mut data) = (String::new(), String::new(), String::new());
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                None if line.is_empty() && data.is_empty() => id.clear(),
                None if line.is_empty() => return Some(Event { kind, id, data }),
                Some(("id", value)) => value.trim_start().clone_into(&mut id),
                Some(("data", value)) => data += value.trim_start(),
                Some(("event", value)) => value.trim_start().clone_into(&mut kind),
                _ => {}
            }
        }
    }
}

/// The data of all tokens that a model answers `prompt` with.
pub(crate) fn tokens(prompt: &str) -> Vec<String> {
    let answer = format!("{prompt} generated_response");
    let words: Vec<&str> = answer.split(' ').collect();
    let token = |(place, word)| {
        format!(
            r#"{{"token":"{word}","done":{}}}"#,
            place == words.len() - 1
        )
    };
    words.iter().enumerate().map(token).collect()
}

/// The data of events that are all tokens.
pub(crate) fn data(events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let data = |Event { kind, data, .. }| {
        assert_eq!(kind, "", "there is another event: {data}");
        data
    };
    events.into_iter().map(data).collect()
}
