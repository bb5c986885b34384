//! `POST /v1/topics/{topic}`: the body is the payload, headers say the rest.
//!
//! `fanfare-tag`, `fanfare-key`, `fanfare-id` and `fanfare-end: true` are what they are in gRPC. Each `fanfare-attribute-NAME` is
//! an attribute; HTTP's names know no case, so attributes that come this way are in lower case. The content
//! type travels as the attribute `content-type`, and the context of a trace as `traceparent` and
//! `tracestate`, if they are not given as attributes. Values are UTF-8.

use std::time::SystemTime;

use axum::{
    body::Body,
    extract::{Extension, Path, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Api, Share,
    error::HttpError,
    message_json::{as_some_text, as_text},
    query::{choose, parameters, parse, shown, unknown_parameter},
};
use crate::{
    broker::{PublishError, Receipt},
    cursor::Cursor,
    message::{AttributeName, Attributes, Key, MessageId, MessageRef, Payload, Tag},
    service::{CallError, ConnectionShare, PubSub, Received, trace},
    topic::Topic,
    wire::InvalidField,
};

const TAG: &str = "fanfare-tag";
const KEY: &str = "fanfare-key";
const ID: &str = "fanfare-id";
const END: &str = "fanfare-end";
/// What all headers begin with that are ours.
const PREFIX: &str = "fanfare-";
/// What an attribute's name comes after.
const ATTRIBUTE_PREFIX: &str = "fanfare-attribute-";
/// Headers that travel as attributes of the same name.
const TRAVELLING: [&str; 3] = ["content-type", "traceparent", TRACESTATE];
const TRACESTATE: &str = "tracestate";

pub(super) async fn publish(
    State(api): State<Api>,
    Extension(share): Share,
    topic: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let published = try_publish(&api.service, &share, topic, request).await;
    match published {
        Ok(receipt) => answer(&receipt),
        Err(error) => error.count(&api.service.metrics).into_response(),
    }
}

async fn try_publish(
    service: &PubSub,
    share: &ConnectionShare,
    topic: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Receipt, HttpError> {
    let (head, body) = request.into_parts();
    let mut permit = service.permit(&head.headers, share)?;
    let topic: Topic = parse("topic", &super::path_topic(topic)?)?;
    let mut allow = || {
        permit
            .as_mut()
            .map_or(Ok(()), |permit| permit.publish(&topic))
    };
    // Asked before the body comes, which may be for nothing, and after it, which may take its time.
    allow()?;
    if let Some(parameter) = parameters(head.uri.query().unwrap_or_default()).next() {
        return Err(unknown_parameter(&parameter?.0).into());
    }
    let said = Said::of(&head.headers)?;
    let parent = trace::Parent::of_call(&head.headers);
    let payload = read(service, share, &head.headers, body).await?;
    share.admit_publish()?;
    allow()?;
    let started = Instant::now();
    let message = MessageRef {
        topic: &topic,
        payload: Payload::Borrowed(&payload),
        attributes: &said.attributes,
        tag: said.tag.as_ref(),
        key: said.key.as_ref(),
        id: said.id.as_ref(),
        end: said.end,
        stencil: None,
    };
    let publish = || service.broker.run().publish(&message, SystemTime::now());
    let receipt = trace::publish(Some(parent), &message, publish)?;
    let elapsed = started.elapsed().as_secs_f64();
    service.metrics.publish_seconds.observe(elapsed);
    Ok(receipt)
}

/// Reads the payload, within the same limits as a request in gRPC.
async fn read(
    service: &PubSub,
    share: &ConnectionShare,
    headers: &HeaderMap,
    body: Body,
) -> Result<BytesMut, HttpError> {
    let is_identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(is_identity)
    {
        return Err(CallError::Compressed.into());
    }
    let max = service.broker.limits().payload_bytes_max;
    let check = |bytes: usize| match bytes > max {
        true => Err(PublishError::PayloadTooLarge { bytes, max }),
        false => Ok(()),
    };
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
    check(announced.unwrap_or(0))?;

    let after = service.receiving.patience;
    let mut received = Received::new(&service.receiving, share);
    let mut body = std::pin::pin!(body);
    let reading = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(CallError::BrokenOff)?.into_data() else {
                continue;
            };
            bytes += data.len();
            check(bytes)?;
            received.wait_for_room(data.len()).await;
            received.extend(&data)?;
        }
        Ok(std::mem::take(&mut received.buffer))
    };
    let read = tokio::time::timeout(after, reading).await;
    read.unwrap_or_else(|_| Err(CallError::TimedOut { after }.into()))
}

/// What the headers say of a message.
struct Said {
    tag: Option<Tag>,
    key: Option<Key>,
    id: Option<MessageId>,
    end: bool,
    attributes: Attributes,
}

impl Said {
    fn of(headers: &HeaderMap) -> Result<Self, InvalidField> {
        let is_known = |name: &str| {
            !name.starts_with(PREFIX)
                || name.starts_with(ATTRIBUTE_PREFIX)
                || [TAG, KEY, ID, END].contains(&name)
        };
        let mut names = headers.keys().map(HeaderName::as_str);
        // Whoever sends one means something by it, which would not happen.
        if let Some(name) = names.find(|name| !is_known(name)) {
            let reason = format!("`{}` is not a header of this route", shown(name));
            return Err(InvalidField::new("headers", reason));
        }
        let text = |name| Ok(one(headers, name)?.filter(|text| !text.is_empty()));
        let tag = text(TAG)?.map(|text| parse(TAG, text)).transpose()?;
        let key = text(KEY)?.map(|text| parse(KEY, text)).transpose()?;
        let id = text(ID)?.map(|text| parse(ID, text)).transpose()?;
        let choices = [("true", true), ("false", false)];
        let end = text(END)?
            .map(|text| choose(END, text, &choices))
            .transpose()?;
        let travelling = TRAVELLING.iter().filter_map(|name| {
            let value = match *name {
                // Its parts may come in several headers (Trace Context, section 3.3.1).
                TRACESTATE => joined(headers, name),
                name => one(headers, name).map(|value| value.map(str::to_owned)),
            };
            Some(value.transpose()?.map(|value| (*name, value)))
        });
        let given = headers.keys().filter_map(|header| {
            let name = header.as_str().strip_prefix(ATTRIBUTE_PREFIX)?;
            let value = one(headers, header.as_str()).transpose()?;
            Some(value.map(|value| (name, value.to_owned())))
        });
        // The last of a name counts: what is given as an attribute.
        let attributes = travelling.chain(given).map(|attribute| {
            let (name, value) = attribute?;
            let name: AttributeName = parse("fanfare-attribute", name)?;
            Ok((name, value))
        });
        Ok(Self {
            tag,
            key,
            id,
            end: end.unwrap_or(false),
            attributes: attributes.collect::<Result<_, InvalidField>>()?,
        })
    }
}

/// The value of a header that is there once, if it is there.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, InvalidField> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(utf8).transpose();
    let value = value.map_err(|reason| invalid(name, reason))?;
    match values.next() {
        None => Ok(value),
        Some(_) => Err(invalid(name, "is given twice")),
    }
}

/// All values of a header as one, if it is there.
fn joined(headers: &HeaderMap, name: &str) -> Result<Option<String>, InvalidField> {
    let values = headers.get_all(name).iter().map(utf8);
    let values = values.collect::<Result<Vec<_>, _>>();
    let values = values.map_err(|reason| invalid(name, reason))?;
    Ok((!values.is_empty()).then(|| values.join(",")))
}

fn utf8(value: &HeaderValue) -> Result<&str, &'static str> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| "is not UTF-8")
}

fn invalid(name: &str, reason: &str) -> InvalidField {
    let known = [TAG, KEY, ID, END].into_iter().chain(TRAVELLING);
    let mut known = known.filter(|known| *known == name);
    let field = known.next().unwrap_or("fanfare-attribute");
    InvalidField::new(field, format!("{name} {reason}"))
}

/// What became of the message. What may pass 2^53 is a string, as in protobuf's JSON.
#[derive(Serialize)]
struct Outcome<'r> {
    id: &'r str,
    #[serde(serialize_with = "as_text")]
    epoch: u64,
    #[serde(serialize_with = "as_text")]
    sequence: u64,
    matched: u32,
    delivered: u32,
    dropped: u32,
    #[serde(serialize_with = "as_text")]
    displaced: u64,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_some_text"
    )]
    cursor: Option<Cursor>,
}

fn answer(receipt: &Receipt) -> Response {
    super::json_response(&Outcome {
        id: &receipt.id(),
        epoch: receipt.epoch.0,
        sequence: receipt.sequence.0,
        matched: receipt.matched,
        delivered: receipt.delivered,
        dropped: receipt.dropped,
        displaced: receipt.displaced,
        cursor: receipt.cursor(),
    })
}
