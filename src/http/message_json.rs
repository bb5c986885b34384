//! A message as one JSON object, without a line break in it.
//!
//! Numbers that may pass 2^53, where JavaScript's end, are strings, as protobuf's JSON has them. A
//! payload is `payload` if it is text, and `payload_base64` else; what a message does not have is not there.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{display::Base64Display, prelude::BASE64_STANDARD};
use bytes::{BufMut, BytesMut};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::{
    cursor::{Cursor, Gap},
    message::{Attributes, DeliveryRef, message_id},
};

/// The last second that RFC 3339 can write: its years have four digits.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

#[derive(Serialize)]
struct MessageJson<'m> {
    topic: &'m str,
    #[serde(serialize_with = "as_text")]
    sequence: u64,
    #[serde(serialize_with = "as_text")]
    epoch: u64,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_some_text"
    )]
    cursor: Option<Cursor>,
    id: &'m str,
    #[serde(serialize_with = "as_text")]
    time: Rfc3339,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'m str>,
    #[serde(skip_serializing_if = "has_none", serialize_with = "as_map")]
    attributes: &'m Attributes,
    /// Whether it is the topic's last one.
    #[serde(skip_serializing_if = "is_false")]
    end: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'m str>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_some_base64"
    )]
    payload_base64: Option<&'m [u8]>,
}

/// Appends the object. `base64` wants all payloads so.
pub(super) fn put_message(out: &mut BytesMut, delivery: DeliveryRef<'_>, base64: bool) {
    let message = &delivery.message;
    let payload = &*message.payload;
    let text = std::str::from_utf8(payload).ok().filter(|_| !base64);
    let id = message_id(message.id, delivery.epoch, delivery.sequence);
    let json = MessageJson {
        topic: message.topic.as_str(),
        sequence: delivery.sequence.0,
        epoch: delivery.epoch.0,
        cursor: delivery.cursor(),
        id: &id,
        time: Rfc3339(delivery.published_at),
        tag: message.tag.map(|tag| tag.as_str()),
        key: message.key.map(|key| key.as_str()),
        attributes: message.attributes,
        end: message.end,
        payload: text,
        payload_base64: text.is_none().then_some(payload),
    };
    put_json(out, &json);
}

/// What is no longer kept.
pub(super) fn gap_json(gap: Gap) -> serde_json::Value {
    json!({ "missing": gap.missing, "at_least": gap.at_least })
}

/// Appends anything as JSON.
pub(super) fn put_json(out: &mut BytesMut, value: &impl Serialize) {
    serde_json::to_writer(out.writer(), value).expect("memory takes all, and names are text");
}

/// Serializes what can be written as a string.
pub(super) fn as_text<S: Serializer>(
    value: &impl fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(super) fn as_some_text<S: Serializer>(
    value: &Option<impl fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it asks about by reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

fn has_none(attributes: &&Attributes) -> bool {
    attributes.is_empty()
}

fn as_map<S: Serializer>(attributes: &&Attributes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(attributes.iter())
}

fn as_some_base64<S: Serializer>(
    payload: &Option<&[u8]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let payload = payload.unwrap_or_default();
    serializer.collect_str(&Base64Display::new(payload, &BASE64_STANDARD))
}

/// A time as RFC 3339 writes it; one that it cannot is the nearest that it can.
struct Rfc3339(SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or(Duration::ZERO).min(LAST_SECOND);
        humantime::format_rfc3339_nanos(SystemTime::UNIX_EPOCH + since).fmt(f)
    }
}
