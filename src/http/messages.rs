//! `GET /v1/topics/{filter}/messages`: a subscription as lines of JSON, for curl and scripts.
//!
//! A line is one object: a message has a `topic`; what happens to the stream has `missed` (so many were lost
//! to its overflow policy before what follows) or, on the last line, `error`. An empty line is a heartbeat,
//! for who asks for one.

use axum::{
    extract::{Extension, Path, RawQuery, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use serde_json::json;

use super::{
    Api, Share,
    error::{HttpError, Told},
    events::respond,
    message_json::{gap_json, put_json, put_message},
    query::{Route, StreamQuery, parse},
};
use crate::{
    broker::{Encoding, EndReason},
    cursor::{Cursor, Gap},
    message::{Delivery, DeliveryRef},
    service::{ConnectionShare, Format, LiveStream, StreamEnd, StreamRequest, trace},
    topic::TopicFilter,
};

pub(super) async fn messages(
    State(api): State<Api>,
    Extension(share): Share,
    filter: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let opened = open(&api, &share, filter, &query.unwrap_or_default(), &headers);
    opened.unwrap_or_else(|error| error.count(&api.service.metrics).into_response())
}

fn open(
    api: &Api,
    share: &ConnectionShare,
    filter: Result<Path<String>, PathRejection>,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let permit = api.service.permit(headers, share)?;
    let query = StreamQuery::parse(Route::Messages, query)?;
    let filter: TopicFilter = parse("topic", &super::path_topic(filter)?)?;
    let form = Lines {
        base64: query.wants_base64(),
    };
    let request = StreamRequest {
        parent: trace::Parent::of_call(headers),
        permit,
        heartbeat_interval: query.heartbeat,
        heartbeat_interval_default: None,
        options: query.into_options(filter.into()),
        deadline: None,
    };
    let (stream, lifeline) = LiveStream::open(&api.service, share, request, form)?;
    let mut response = respond(stream, "application/x-ndjson");
    if let Some(lifeline) = lifeline {
        lifeline.fasten_to(&mut response);
    }
    Ok(response)
}

/// Messages as lines.
#[derive(Clone, Copy, Debug)]
struct Lines {
    /// All payloads in base64.
    base64: bool,
}

impl Lines {
    fn put(self, out: &mut BytesMut, delivery: DeliveryRef<'_>) {
        put_message(out, delivery, self.base64);
        out.put_slice(b"\n");
    }
}

fn put_line(out: &mut BytesMut, line: &impl serde::Serialize) {
    put_json(out, line);
    out.put_slice(b"\n");
}

impl Format for Lines {
    fn encoding(&self) -> &'static Encoding {
        static AUTO: Encoding = Encoding {
            name: "lines",
            put: |out, delivery| Lines { base64: false }.put(out, delivery),
        };
        static BASE64: Encoding = Encoding {
            name: "lines, base64",
            put: |out, delivery| Lines { base64: true }.put(out, delivery),
        };
        if self.base64 { &BASE64 } else { &AUTO }
    }

    fn put_delivery(&self, out: &mut BytesMut, delivery: &Delivery, missed: u64) -> Option<Bytes> {
        if missed > 0 {
            self.put_missed(out, missed);
        }
        self.put(out, delivery.as_delivery_ref());
        None
    }

    fn put_missed(&self, out: &mut BytesMut, missed: u64) {
        put_line(out, &json!({ "missed": missed }));
    }

    fn put_gap(&self, out: &mut BytesMut, gap: Gap, place: Option<Cursor>) {
        let mut line = json!({ "gap": gap_json(gap) });
        if let Some(place) = place {
            line["cursor"] = place.to_string().into();
        }
        put_line(out, &line);
    }

    fn put_heartbeat(&self, out: &mut BytesMut) {
        out.put_slice(b"\n");
    }

    fn put_end(&self, out: &mut BytesMut, end: &StreamEnd, missed: u64) -> Option<HeaderMap> {
        if missed > 0 {
            self.put_missed(out, missed);
        }
        match end {
            StreamEnd::Ended(EndReason::TopicEnded) => put_line(out, &json!({ "end": true })),
            end => put_line(out, &json!({ "error": Told::from(end) })),
        }
        None
    }
}
