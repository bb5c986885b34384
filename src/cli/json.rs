//! Messages and outcomes as JSON, one object a line.

use base64::{Engine, prelude::BASE64_STANDARD};
use fanfare::client::{Receipt, Received};
use serde_json::{Map, Value, json};

/// A message. Its payload is `payload` if it is text, else `payload_base64`.
pub(super) fn message(message: &Received) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("topic", message.topic.as_str().into());
    put("sequence", message.sequence.0.into());
    put("epoch", message.epoch.0.into());
    put("id", message.id.as_str().into());
    let time = humantime::format_rfc3339_nanos(message.published_at);
    put("publish_time", time.to_string().into());
    match std::str::from_utf8(&message.payload) {
        Ok(text) => put("payload", text.into()),
        Err(_) => put(
            "payload_base64",
            BASE64_STANDARD.encode(&message.payload).into(),
        ),
    };
    if !message.attributes.is_empty() {
        let attributes = message.attributes.iter();
        let attributes: Map<_, _> = attributes
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        put("attributes", attributes.into());
    }
    if let Some(tag) = &message.tag {
        put("tag", tag.as_str().into());
    }
    if let Some(key) = &message.key {
        put("key", key.as_str().into());
    }
    if let Some(cursor) = &message.cursor {
        put("cursor", cursor.to_string().into());
    }
    if message.end {
        put("end", true.into());
    }
    object.into()
}

/// What became of a message.
pub(super) fn receipt(receipt: &Receipt) -> Value {
    let mut outcome = json!({
        "id": receipt.id,
        "epoch": receipt.epoch.0,
        "sequence": receipt.sequence.0,
        "matched": receipt.matched,
        "delivered": receipt.delivered,
        "dropped": receipt.dropped,
        "displaced": receipt.displaced,
    });
    if let Some(cursor) = &receipt.cursor {
        outcome["cursor"] = cursor.to_string().into();
    }
    outcome
}
