//! What is encoded by hand, as prost decodes it: deliveries, and the client's messages.

use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use super::input::Input;
use crate::{
    client::{Outgoing, Received},
    cursor::Position,
    message::{Attributes, Delivery, Epoch, Message, Sequence},
    wire::{
        frame::{Form, put_delivery, put_heartbeat, put_missed, put_missed_before},
        pb,
    },
};

/// Where payloads begin to be passed on by reference; the fuzzer would never come to it by itself.
const PAYLOAD_BYTES_LONG: usize = 16 * 1024;

/// A message with its place, and what its subscriber is told to have missed.
pub(super) fn frames(data: &[u8]) {
    check_arrival(data);
    let mut input = Input::new(data);
    let missed = if input.flag() { input.u64() } else { 0 };
    let (epoch, sequence) = (Epoch(input.u64()), Sequence(input.u64()));
    let since = Duration::new(input.u64() >> 20, (input.u64() % 1_000_000_000) as u32);
    let messages: Vec<Message> = std::iter::from_fn(|| message(&mut input)).take(8).collect();
    let mut outgoing = Outgoing::default();
    for message in &messages {
        let at = SystemTime::UNIX_EPOCH + since;
        let mut delivery = Delivery::new(message.clone(), epoch, sequence, at);
        delivery.position = message.end.then_some(Position(sequence.0));
        check_delivery(&delivery, since, missed);
        outgoing.put(message);
    }
    check_outgoing(outgoing, messages);
}

/// The next message, if the bytes go on; names that are none are left out.
fn message(input: &mut Input<'_>) -> Option<Message> {
    if input.is_empty() {
        return None;
    }
    let shape = input.byte();
    let has = |bit: u8| shape & (1 << bit) != 0;
    let topic = input.text().parse();
    let mut message = Message::new(topic.unwrap_or_else(|_| default_topic()), Bytes::new());
    message.payload = Bytes::copy_from_slice(input.bytes());
    if has(0) {
        let long = message
            .payload
            .repeat(PAYLOAD_BYTES_LONG / message.payload.len().max(1));
        message.payload = long.into();
    }
    let tag = has(1).then(|| input.text());
    message.tag = tag.and_then(|text| text.parse().ok());
    let key = has(2).then(|| input.text());
    message.key = key.and_then(|text| text.parse().ok());
    let id = has(3).then(|| input.text());
    message.id = id.and_then(|text| text.parse().ok());
    message.end = shape & 0x80 != 0;
    let attributes = (0..(shape >> 4) & 7).map(|_| (input.text(), input.text()));
    message.attributes = attributes
        .filter_map(|(name, value)| Some((name.parse().ok()?, value)))
        .collect::<Attributes>();
    Some(message)
}

fn default_topic() -> crate::topic::Topic {
    "t".parse().expect("it is a topic")
}

fn check_delivery(delivery: &Delivery, since: Duration, missed: u64) {
    let message = &delivery.message;
    let full = pb::SubscribeResponse {
        payload: message.payload.clone(),
        topic: message.topic.to_string(),
        sequence: delivery.sequence.0,
        epoch: delivery.epoch.0,
        id: match &message.id {
            Some(id) => id.to_string(),
            None => format!("{:x}-{:x}", delivery.epoch.0, delivery.sequence.0),
        },
        publish_time: Some(prost_types::Timestamp {
            seconds: since.as_secs() as i64,
            nanos: since.subsec_nanos() as i32,
        }),
        attributes: message.attributes.iter().map(owned).collect(),
        tag: text(message.tag.as_ref().map(|tag| tag.as_str())),
        key: text(message.key.as_ref().map(|key| key.as_str())),
        missed: 0,
        heartbeat: false,
        text: String::new(),
        cursor: text(
            delivery
                .cursor()
                .map(|cursor| cursor.to_string())
                .as_deref(),
        ),
        gap: None,
        end: message.end,
    };
    let bare = pb::SubscribeResponse {
        payload: message.payload.clone(),
        ..Default::default()
    };
    let as_text = match String::from_utf8(message.payload.to_vec()) {
        Ok(text) => pb::SubscribeResponse {
            payload: Bytes::new(),
            text,
            ..full.clone()
        },
        Err(_) => full.clone(),
    };
    let received = Received::try_from(full.clone()).expect("what a broker sends is well-formed");
    assert_eq!(received.topic, message.topic);
    assert_eq!(received.attributes, message.attributes);
    assert_eq!(received.published_at, delivery.published_at);
    for (form, expected) in [
        (Form::Full, full),
        (Form::Text, as_text),
        (Form::PayloadOnly, bare),
    ] {
        let told = if form == Form::PayloadOnly { 0 } else { missed };
        let with_missed = |missed| pb::SubscribeResponse {
            missed,
            ..expected.clone()
        };
        let mut chunk = BytesMut::new();
        if let Some(payload) = put_delivery(&mut chunk, delivery, missed, form) {
            chunk.extend_from_slice(&payload);
        }
        assert_eq!(read(chunk), with_missed(told));

        let mut shared = BytesMut::new();
        (form.encoding().put)(&mut shared, delivery.as_delivery_ref());
        assert_eq!(read(shared.clone()), expected);
        let mut chunk = BytesMut::new();
        let rest = put_missed_before(&mut chunk, missed, shared.freeze());
        chunk.extend_from_slice(&rest);
        assert_eq!(read(chunk), with_missed(missed));
    }
    check_notices(missed);
}

/// What goes without a message.
fn check_notices(missed: u64) {
    let notice = pb::SubscribeResponse {
        missed,
        ..Default::default()
    };
    let mut chunk = BytesMut::new();
    put_missed(&mut chunk, missed);
    assert_eq!(read(chunk), notice);
    let heartbeat = pb::SubscribeResponse {
        heartbeat: true,
        ..Default::default()
    };
    let mut chunk = BytesMut::new();
    put_heartbeat(&mut chunk);
    assert_eq!(read(chunk), heartbeat);
}

/// The one message of these frames, read the way any gRPC client does.
fn read(mut frame: BytesMut) -> pb::SubscribeResponse {
    assert_eq!(frame.get_u8(), 0);
    assert_eq!(frame.get_u32() as usize, frame.len());
    pb::SubscribeResponse::decode(frame).expect("frames are well-formed")
}

fn check_outgoing(mut outgoing: Outgoing, messages: Vec<Message>) {
    let mut sent = BytesMut::new();
    while let Some(chunk) = outgoing.take() {
        sent.extend_from_slice(&chunk);
    }
    for message in messages {
        assert_eq!(sent.get_u8(), 0);
        let bytes = sent.get_u32() as usize;
        let request = pb::PublishRequest::decode(sent.split_to(bytes));
        assert_eq!(request, Ok(message.into()));
    }
    assert!(sent.is_empty());
}

/// A client takes any bytes for a broker's answer, and what it makes of them is what they say.
fn check_arrival(data: &[u8]) {
    let Ok(response) = pb::SubscribeResponse::decode(data) else {
        return;
    };
    if let Ok(received) = Received::try_from(response.clone()) {
        assert_eq!(received.topic.as_str(), response.topic);
        assert_eq!(received.payload, response.payload);
        assert_eq!(received.sequence.0, response.sequence);
        let attributes = received.attributes.iter().map(owned).collect();
        assert_eq!(response.attributes, attributes);
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn text(name: Option<&str>) -> String {
    name.unwrap_or_default().to_owned()
}
