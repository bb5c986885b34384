//! A response as server-sent events: each token with the cursor after it, from which a reader that comes
//! back goes on.
//!
//! Promise: what a reader asked for and does not get, it is told, as a `gap` or as the reason of the end.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse,
    sse::{Event as Sse, KeepAlive},
};
use fanfare::{
    client::{Event, Received},
    cursor::{Cursor, Gap, StartAt},
    message::Sequence,
};
use futures_util::stream;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    connections::Reading,
    job::{self, Chunk},
};

/// How long a reader that was cut off waits before it comes back.
const RETRY: Duration = Duration::from_secs(1);
/// The id of a response's last event: there is nothing after it.
const END: &str = "end";

/// Where a reader that comes back has been.
pub(crate) enum After {
    Cursor(Cursor),
    End,
    Unknown,
}

pub(crate) fn after(last_event_id: &[u8]) -> After {
    let text = std::str::from_utf8(last_event_id).unwrap_or_default();
    match text.parse() {
        _ if text == END => After::End,
        Ok(cursor) => After::Cursor(cursor),
        Err(_) => After::Unknown,
    }
}

pub(crate) struct Reader {
    messages: Reading,
    start: StartAt,
    /// Whether a message has come.
    has_begun: bool,
    /// What comes after a gap that was found at a message.
    waiting: Option<Sse>,
    /// Cancelled when it turns out that nothing is known of the request.
    unknown: CancellationToken,
    /// Whether the last event has been made.
    has_end: bool,
}

impl Reader {
    pub(crate) fn new(messages: Reading, start: StartAt, unknown: CancellationToken) -> Self {
        Self {
            messages,
            start,
            has_begun: false,
            waiting: None,
            unknown,
            has_end: false,
        }
    }

    /// Unsubscribes when the reader leaves, since that drops the stream.
    pub(crate) fn events(self, heartbeat: Duration) -> impl IntoResponse + use<> {
        let first = Sse::default().retry(RETRY);
        let rest = stream::unfold(self, |mut reader| async {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        });
        let first = stream::once(async { Ok::<_, Infallible>(first) });
        let events = futures_util::StreamExt::chain(first, rest);
        let events = axum::response::Sse::new(events);
        let heartbeat = KeepAlive::new().interval(heartbeat);
        // Proxies are not to gather what comes.
        let headers = [("x-accel-buffering", "no")];
        (headers, events.keep_alive(heartbeat))
    }

    /// The next event; none once the response has ended, or the reader must come back.
    async fn next(&mut self) -> Option<Sse> {
        loop {
            if let Some(event) = self.waiting.take() {
                return Some(event);
            }
            let event = tokio::select! {
                event = self.messages.next() => event,
                // If something has come after all, whoever comes back is watched over again.
                () = self.unknown.cancelled() => {
                    let is_told = self.has_begun || self.has_end;
                    return (!is_told).then(|| self.end("nothing is known of the request"));
                }
            };
            match event {
                Some(Ok(Event::Message(message))) => {
                    self.waiting = self.token(&message);
                    if let Some(gap) = self.gap_before(&message) {
                        return Some(told(gap));
                    }
                }
                // The sequence of the first message tells of all that came before it.
                Some(Ok(Event::Gap(_))) if self.start == StartAt::All && !self.has_begun => {}
                Some(Ok(Event::Gap(gap))) => return Some(told(gap)),
                // The connection to the broker broke, or the reader is slow. What it has not seen is
                // kept, and it comes back to where it was.
                Some(Ok(Event::Resubscribed { .. } | Event::Missed(_))) => return None,
                Some(Err(error)) => {
                    eprintln!("api: a reader is sent away: {error}");
                    return None;
                }
                None if self.has_end => return None,
                // Without it, a reader would come back for ever.
                None => return Some(self.end("the end of the answer is no longer kept")),
            }
        }
    }

    /// What was published before the first message that came, but for the claim, which is no token.
    fn gap_before(&mut self, message: &Received) -> Option<Gap> {
        if std::mem::replace(&mut self.has_begun, true) || self.start != StartAt::All {
            return None;
        }
        match message.sequence {
            // The broker has restarted since the claim, and has forgotten what came before.
            Sequence(1) if job::is_token(message) => Some(Gap::UNKNOWN),
            Sequence(1 | 2) => None,
            Sequence(sequence) => Some(Gap::exactly(sequence - 2)),
        }
    }

    fn token(&mut self, message: &Received) -> Option<Sse> {
        if job::is_claim(message) {
            return None;
        }
        let chunk = serde_json::from_slice(&message.payload).ok()?;
        self.has_end |= message.end;
        Some(token(message, &chunk))
    }

    fn end(&mut self, error: &str) -> Sse {
        self.has_end = true;
        let failed = Chunk::failed(error);
        Sse::default().id(END).data(job::json(&failed))
    }
}

fn told(gap: Gap) -> Sse {
    let gap = json!({ "missing": gap.missing, "at_least": gap.at_least });
    Sse::default().event("gap").data(gap.to_string())
}

/// Written anew, so that nothing but a chunk reaches a reader.
fn token(message: &Received, chunk: &Chunk) -> Sse {
    let event = Sse::default().data(job::json(chunk));
    match message.cursor {
        _ if message.end => event.id(END),
        Some(cursor) => event.id(cursor.to_string()),
        None => event,
    }
}
