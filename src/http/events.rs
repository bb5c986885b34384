//! `GET /v1/events`: a subscription as server-sent events, for EventSource.
//!
//! A message is an event of the default type, `message`. Its data is the payload as text where that comes
//! out the same at the other end, and base64 in an event of type `base64` where it would not: payloads that
//! are not UTF-8, and such with carriage returns, which the format turns into line feeds. `format=json`
//! gives whole messages as JSON objects instead, `base64=true` all payloads in base64.
//!
//! Other types tell what happens to the stream: `missed` how many messages were lost to its overflow policy
//! before what follows, `gap` how many of those that were asked for are no longer kept, `end` that the
//! topic has ended and nothing will follow, `closed` why the broker ends the stream otherwise, as an error in
//! JSON. A comment fills silence, so that what lies between does not take the connection for dead. The time
//! after which a reader is to come back differs by reader, so that a restart's readers do not all come at
//! once.
//!
//! A message of a topic with history has its cursor for an id, and so has the beginning of the stream: a
//! reader that comes back with `last-event-id`, as EventSource does by itself, gets what it has not seen, be
//! it the end alone. One that has seen the end is answered 204, for that is what keeps EventSource from coming
//! again.
//!
//! The format: "Server-sent events" in the HTML standard.

use std::fmt::Write;

use axum::{
    body::Body,
    extract::{Extension, RawQuery, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::{
    Api, Share,
    error::{HttpError, Told},
    message_json::{gap_json, put_json, put_message},
    query::{Route, Seen, StreamQuery},
};
use crate::{
    broker::{Encoding, EndReason, Filters},
    cursor::{Cursor, Gap},
    message::{Delivery, DeliveryRef},
    service::{ConnectionShare, Format, LiveStream, StreamEnd, StreamRequest, trace},
    wire::InvalidField,
};

/// A reader comes back after the first of these, and up to the second later; in milliseconds.
const RETRY_MS: (u64, u64) = (1_000, 2_000);

/// What a stream's response says of itself, beside its type.
const HEADERS: [(header::HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    // For proxies that would gather the answer before they pass it on.
    (
        header::HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    ),
];

pub(super) async fn events(
    State(api): State<Api>,
    Extension(share): Share,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let opened = open(&api, &share, &query.unwrap_or_default(), &headers);
    opened.unwrap_or_else(|error| error.count(&api.service.metrics).into_response())
}

fn open(
    api: &Api,
    share: &ConnectionShare,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let mut query = StreamQuery::parse(Route::Events, query)?;
    let mut permit = api
        .service
        .permit_by(headers, query.access_token.take(), share)?;
    let seen = query.last_event(last_event_id(headers)?);
    if let Some(Seen::Cursor(cursor)) = seen {
        query.go_on(cursor);
    }
    let form = EventForm::of(&query);
    let Some(filters) = Filters::new(query.take_topics()) else {
        let reason = "say what to subscribe to, such as topic=orders.*";
        return Err(InvalidField::new("topic", reason).into());
    };
    // EventSource comes back after every end but this answer, also to a broker that has forgotten the topic since.
    // To a reader that has not seen the end it would look like a refusal.
    if seen == Some(Seen::End) {
        for filter in filters.as_slice() {
            permit.as_mut().map_or(Ok(()), |it| it.subscribe(filter))?;
        }
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let request = StreamRequest {
        parent: trace::Parent::of_call(headers),
        permit,
        heartbeat_interval: query.heartbeat,
        heartbeat_interval_default: Some(api.heartbeat_interval),
        options: query.into_options(filters),
        deadline: None,
    };
    let (mut stream, lifeline) = LiveStream::open(&api.service, share, request, form)?;
    let mut beginning = BytesMut::new();
    let retry = RETRY_MS.0 + fastrand::u64(0..=RETRY_MS.1);
    write!(beginning, "retry: {retry}\n\n").expect("memory takes all");
    // Whoever loses the connection before the first message comes goes on from here.
    if let Some(cursor) = stream.cursor() {
        put_id(&mut beginning, cursor);
        beginning.put_slice(b"\n");
    }
    stream.begin_with(beginning.freeze());
    let mut response = respond(stream, "text/event-stream");
    if let Some(lifeline) = lifeline {
        lifeline.fasten_to(&mut response);
    }
    Ok(response)
}

/// What EventSource says when it comes back.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Seen>, InvalidField> {
    let Some(value) = headers.get("last-event-id").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    // What is no text is no id of ours.
    Seen::parse(value.to_str().unwrap_or_default()).map(Some)
}

/// A stream's response.
pub(super) fn respond<F: Format>(stream: LiveStream<F>, content_type: &'static str) -> Response {
    let mut headers = stream.facts();
    headers.extend(HEADERS.map(|(name, value)| (Some(name), value)));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let mut response = Response::new(Body::new(stream));
    *response.headers_mut() = headers;
    response
}

/// How the data of events look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventForm {
    /// The payload, as text where that is exact.
    Text,
    /// The payload in base64.
    Base64,
    /// The message as JSON, the payload as text where it is.
    Json,
    /// The message as JSON, the payload in base64.
    JsonBase64,
}

impl EventForm {
    fn of(query: &StreamQuery) -> Self {
        match (query.wants_json(), query.wants_base64()) {
            (false, false) => Self::Text,
            (false, true) => Self::Base64,
            (true, false) => Self::Json,
            (true, true) => Self::JsonBase64,
        }
    }

    fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::JsonBase64)
    }

    fn put(self, out: &mut BytesMut, delivery: DeliveryRef<'_>) {
        let payload = &*delivery.message.payload;
        if let Some(cursor) = delivery.cursor() {
            put_id(out, cursor);
        }
        // A mark without a payload is no message to who asks for payloads.
        if delivery.message.end && payload.is_empty() && !self.is_json() {
            out.put_slice(b"\n");
            return;
        }
        match self {
            Self::Text => match std::str::from_utf8(payload) {
                Ok(text) if !text.contains('\r') => put_text(out, text),
                _ => {
                    out.put_slice(b"event: base64\n");
                    put_base64(out, payload);
                }
            },
            Self::Base64 => put_base64(out, payload),
            Self::Json | Self::JsonBase64 => {
                out.put_slice(b"data: ");
                put_message(out, delivery, self == Self::JsonBase64);
                out.put_slice(b"\n\n");
            }
        }
    }
}

/// Appends what a reader that comes back says in `last-event-id`.
fn put_id(out: &mut BytesMut, cursor: Cursor) {
    writeln!(out, "id: {cursor}").expect("memory takes all");
}

/// Appends text as data, line by line.
fn put_text(out: &mut BytesMut, text: &str) {
    const PREFIX: &[u8] = b"data: ";
    out.reserve(text.len() + 2 * (PREFIX.len() + 1));
    for line in text.split('\n') {
        out.put_slice(PREFIX);
        out.put_slice(line.as_bytes());
        out.put_slice(b"\n");
    }
    out.put_slice(b"\n");
}

fn put_base64(out: &mut BytesMut, payload: &[u8]) {
    out.put_slice(b"data: ");
    let start = out.len();
    out.put_bytes(0, payload.len().div_ceil(3) * 4);
    let encoded = BASE64_STANDARD.encode_slice(payload, &mut out[start..]);
    encoded.expect("there is room for four characters for each three bytes");
    out.put_slice(b"\n\n");
}

fn put_event(out: &mut BytesMut, event: &str, data: &impl serde::Serialize) {
    out.put_slice(b"event: ");
    out.put_slice(event.as_bytes());
    out.put_slice(b"\ndata: ");
    put_json(out, data);
    out.put_slice(b"\n\n");
}

impl Format for EventForm {
    fn encoding(&self) -> &'static Encoding {
        static TEXT: Encoding = Encoding {
            name: "events",
            put: |out, delivery| EventForm::Text.put(out, delivery),
        };
        static BASE64: Encoding = Encoding {
            name: "events, base64",
            put: |out, delivery| EventForm::Base64.put(out, delivery),
        };
        static JSON: Encoding = Encoding {
            name: "events, json",
            put: |out, delivery| EventForm::Json.put(out, delivery),
        };
        static JSON_BASE64: Encoding = Encoding {
            name: "events, json, base64",
            put: |out, delivery| EventForm::JsonBase64.put(out, delivery),
        };
        match self {
            Self::Text => &TEXT,
            Self::Base64 => &BASE64,
            Self::Json => &JSON,
            Self::JsonBase64 => &JSON_BASE64,
        }
    }

    fn put_delivery(&self, out: &mut BytesMut, delivery: &Delivery, missed: u64) -> Option<Bytes> {
        if missed > 0 {
            self.put_missed(out, missed);
        }
        self.put(out, delivery.as_delivery_ref());
        None
    }

    fn put_missed(&self, out: &mut BytesMut, missed: u64) {
        put_event(out, "missed", &json!({ "missed": missed }));
    }

    fn put_gap(&self, out: &mut BytesMut, gap: Gap, place: Option<Cursor>) {
        // Whoever comes back after this is not told it again, unless what is gone is newer than what is next.
        if let Some(place) = place {
            put_id(out, place);
        }
        put_event(out, "gap", &gap_json(gap));
    }

    fn put_heartbeat(&self, out: &mut BytesMut) {
        out.put_slice(b":\n\n");
    }

    fn put_end(&self, out: &mut BytesMut, end: &StreamEnd, missed: u64) -> Option<HeaderMap> {
        if missed > 0 {
            self.put_missed(out, missed);
        }
        match end {
            StreamEnd::Ended(EndReason::TopicEnded) => {
                out.put_slice(b"id: ");
                out.put_slice(Seen::END.as_bytes());
                out.put_slice(b"\n");
                put_event(out, "end", &json!({}));
            }
            end => put_event(out, "closed", &Told::from(end)),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        cursor::Position,
        message::{Epoch, Message, Sequence},
    };

    /// Type, data and last id of each event, by the letter of the HTML standard ("interpreting an event stream"),
    /// as of the whole stream: nothing is left of an event that no empty line ends.
    fn interpret(stream: &str) -> Vec<(String, String, String)> {
        let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
        let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
        let (mut events, mut event, mut data) = (Vec::new(), String::new(), String::new());
        let mut id = String::new();
        for line in lines.split_terminator('\n') {
            if line.is_empty() {
                if let Some(data) = std::mem::take(&mut data).strip_suffix('\n') {
                    events.push((event.clone(), data.to_owned(), id.clone()));
                }
                event.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event),
                "data" => {
                    data.push_str(value);
                    data.push('\n');
                }
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                _ => {}
            }
        }
        events
    }

    /// What lines, fields and text are made of, and what is no text.
    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "\n",
            "\n",
            "\r",
            "\r\n",
            " ",
            ":",
            "data",
            "id: 7",
            "event: end",
            "\0",
            "\u{feff}",
            "é",
            "a",
        ];
        let text =
            proptest::sample::select(pieces.to_vec()).prop_map(|text| text.as_bytes().to_vec());
        let piece = prop_oneof![9 => text, 1 => Just(vec![0xff])];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_browser_reads_the_payload_that_was_published(
            payloads in proptest::collection::vec(payloads(), 1..4),
            form in proptest::sample::select(vec![EventForm::Text, EventForm::Base64]),
        ) {
            let mut out = BytesMut::new();
            for (index, payload) in (1..).zip(&payloads) {
                let message = Message::new("t".parse().unwrap(), payload.clone());
                let delivery = DeliveryRef {
                    message: message.as_message_ref(),
                    epoch: Epoch(1),
                    sequence: Sequence(index),
                    published_at: SystemTime::UNIX_EPOCH,
                    position: Some(Position(index)),
                };
                form.put(&mut out, delivery);
            }
            let events = interpret(std::str::from_utf8(&out).unwrap());
            prop_assert_eq!(events.len(), payloads.len());
            for (index, ((event, data, id), payload)) in (1..).zip(events.into_iter().zip(payloads)) {
                let data = match (form, &*event) {
                    (EventForm::Text, "base64") | (EventForm::Base64, "") => {
                        BASE64_STANDARD.decode(data).unwrap()
                    }
                    (EventForm::Text, "") => data.into_bytes(),
                    other => panic!("{other:?}"),
                };
                prop_assert_eq!(data, payload);
                prop_assert_eq!(id, format!("1-{index}-{index}"));
            }
        }
    }
}
