//! A response as server-sent events: each token with the cursor after it, from which a reader that comes
//! back goes on.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse,
    sse::{Event as Sse, KeepAlive},
};
use fanfare::{
    client::{Client, Event, Received, Subscribe, Subscription},
    cursor::{Cursor, StartAt},
};
use futures_util::stream;
use serde_json::json;

use crate::job::{self, Chunk, DispatcherName, RequestId};

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

/// Unsubscribes when the reader leaves, since that drops the stream.
pub(crate) async fn open(
    client: &Client,
    id: &RequestId,
    start: StartAt,
    heartbeat: Duration,
) -> anyhow::Result<impl IntoResponse + use<>> {
    let subscribe = Subscribe::new(id.response()).start_at(start);
    let subscription = client.subscribe(subscribe).await?;
    let first = Sse::default().retry(RETRY);
    let reader = Reader {
        subscription,
        has_end: false,
    };
    let rest = stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    let first = stream::once(async { Ok::<_, Infallible>(first) });
    let events = futures_util::StreamExt::chain(first, rest);
    let events = axum::response::Sse::new(events);
    let heartbeat = KeepAlive::new().interval(heartbeat);
    // Proxies are not to gather what comes.
    let headers = [("x-accel-buffering", "no")];
    Ok((headers, events.keep_alive(heartbeat)))
}

struct Reader {
    subscription: Subscription,
    /// Whether the last event has been made.
    has_end: bool,
}

impl Reader {
    /// The next event; none once the response has ended, or the reader must come back.
    async fn next(&mut self) -> Option<Sse> {
        loop {
            match self.subscription.next().await {
                Some(Ok(Event::Message(message))) => {
                    if DispatcherName::of_claim(&message.attributes).is_none()
                        && let Ok(chunk) = serde_json::from_slice(&message.payload)
                    {
                        self.has_end |= message.end;
                        return Some(token(&message, &chunk));
                    }
                }
                Some(Ok(Event::Gap(gap))) => {
                    let gap = json!({ "missing": gap.missing, "at_least": gap.at_least });
                    return Some(Sse::default().event("gap").data(gap.to_string()));
                }
                // The connection to the broker broke, or the reader is slow. What it has not seen is
                // kept, and it comes back to where it was.
                Some(Ok(Event::Resubscribed { .. } | Event::Missed(_))) => return None,
                Some(Err(error)) => {
                    eprintln!("api: a reader is sent away: {error}");
                    return None;
                }
                None if self.has_end => return None,
                // Without it, a reader would come back for ever.
                None => {
                    self.has_end = true;
                    let lost = Chunk::failed("the end of the answer is no longer kept");
                    return Some(Sse::default().id(END).data(job::json(&lost)));
                }
            }
        }
    }
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
