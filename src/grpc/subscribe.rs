//! `Subscribe`: a mailbox becomes a stream, whose trailers tell its end.
//!
//! When the response's headers are out, the subscription is live.

use axum::{body::Body, extract::Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, header::CONTENT_TYPE};

use super::{
    call::{CONTENT_TYPE_GRPC, read_request},
    deadline::Deadline,
    status::end_trailers,
};
use crate::{
    broker::Encoding,
    cursor::{Cursor, Gap},
    message::Delivery,
    service::{
        ConnectionShare, Format, Lifeline, LiveStream, PubSub, Refusal, StreamEnd, StreamRequest,
        trace,
    },
    wire::{
        Subscribe,
        frame::{Form, put_delivery, put_gap, put_heartbeat, put_missed, put_missed_before},
        pb::SubscribeRequest,
    },
};

pub(super) async fn subscribe(
    service: &PubSub,
    share: &ConnectionShare,
    request: Request,
    form: Form,
) -> Result<(Response<Body>, Option<Lifeline>), Refusal> {
    let deadline = Deadline::of(request.headers())?;
    let permit = service.permit(request.headers(), share)?;
    let parent = trace::Parent::of_call(request.headers());
    let request: SubscribeRequest =
        read_request(request.into_body(), deadline, &service.receiving, share).await?;
    let request = Subscribe::try_from(request)?;
    let form = match form {
        Form::Full if request.text => Form::Text,
        form => form,
    };
    let request = StreamRequest {
        parent,
        permit,
        options: request.options,
        heartbeat_interval: request.heartbeat_interval,
        heartbeat_interval_default: None,
        deadline: deadline.at(),
    };
    let (stream, lifeline) = LiveStream::open(service, share, request, form)?;
    Ok((respond(stream), lifeline))
}

fn respond(stream: LiveStream<Form>) -> Response<Body> {
    let mut headers = stream.facts();
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    // Said once in a stream's life. Indexed, it would stay in the tables of both ends for as long
    // as the connection lives.
    let values = headers.values_mut();
    values.for_each(|value| value.set_sensitive(true));
    let mut response = Response::new(Body::new(stream));
    *response.headers_mut() = headers;
    response
}

impl Format for Form {
    fn encoding(&self) -> &'static Encoding {
        (*self).encoding()
    }

    fn put_delivery(&self, out: &mut BytesMut, delivery: &Delivery, missed: u64) -> Option<Bytes> {
        put_delivery(out, delivery, missed, *self)
    }

    fn put_missed_before(&self, out: &mut BytesMut, missed: u64, frames: Bytes) -> Bytes {
        match self {
            Self::PayloadOnly => frames,
            Self::Full | Self::Text => put_missed_before(out, missed, frames),
        }
    }

    fn put_missed(&self, out: &mut BytesMut, missed: u64) {
        match self {
            Self::PayloadOnly => {}
            Self::Full | Self::Text => put_missed(out, missed),
        }
    }

    fn put_gap(&self, out: &mut BytesMut, gap: Gap, place: Option<Cursor>) {
        match self {
            // Its clients know payloads alone, and ask for nothing that could be gone.
            Self::PayloadOnly => {}
            Self::Full | Self::Text => put_gap(out, gap, place),
        }
    }

    /// The reference's clients know no heartbeat, and cannot ask for one.
    fn put_heartbeat(&self, out: &mut BytesMut) {
        match self {
            Self::PayloadOnly => {}
            Self::Full | Self::Text => put_heartbeat(out),
        }
    }

    fn put_end(&self, _: &mut BytesMut, end: &StreamEnd, missed: u64) -> Option<HeaderMap> {
        Some(end_trailers(end, missed))
    }
}
