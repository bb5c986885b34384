//! A delivery as gRPC frames of `SubscribeResponse`.
//!
//! Subscribers that want the same share whole frames, in an [`Encoding`]. For one that gets a message on
//! its own, all fields but the payload are encoded once per message and shared; the payload itself is
//! never encoded, only appended, and what differs between subscribers (`missed`) goes before it: the
//! fields of a protobuf message may come in any order. A frame is gRPC's 5-byte prefix (flag 0, length in 4 bytes big-endian) and the message.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::head::{Head, hex_digits};
use crate::{
    broker::Encoding,
    cursor::{Cursor, Gap},
    message::{Delivery, DeliveryRef},
};

/// gRPC's prefix of a message: a flag and a length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// What the fields of a message without attributes take, with room for a topic of some length.
const ENVELOPE_BYTES_USUAL: usize = 128;

/// A payload of this size or more is passed on by reference, in a chunk of its own: copying it would
/// cost more than a further write.
const PAYLOAD_BYTES_COPIED_MAX: usize = 16 * 1024;

/// Field numbers of `SubscribeResponse`.
mod field {
    pub(super) const PAYLOAD: u32 = 1;
    pub(super) const TOPIC: u32 = 2;
    pub(super) const SEQUENCE: u32 = 3;
    pub(super) const EPOCH: u32 = 4;
    pub(super) const ID: u32 = 5;
    pub(super) const PUBLISH_TIME: u32 = 6;
    pub(super) const ATTRIBUTES: u32 = 7;
    pub(super) const TAG: u32 = 8;
    pub(super) const KEY: u32 = 9;
    pub(super) const MISSED: u32 = 10;
    pub(super) const HEARTBEAT: u32 = 11;
    pub(super) const TEXT: u32 = 12;
    pub(super) const CURSOR: u32 = 13;
    pub(super) const GAP: u32 = 14;
    pub(super) const END: u32 = 15;

    pub(super) const GAP_MISSING: u32 = 1;
    pub(super) const GAP_AT_LEAST: u32 = 2;
}

/// How a subscriber wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// All fields.
    Full,
    /// All fields, the payload as text where it is valid UTF-8.
    Text,
    /// The payload alone, as the reference's clients know it: no notice and no heartbeat.
    PayloadOnly,
}

impl Form {
    /// The form as frames that many share.
    pub(crate) fn encoding(self) -> &'static Encoding {
        static FULL: Encoding = Encoding {
            name: "full",
            put: |out, delivery| put_frame(out, delivery, Form::Full),
        };
        static TEXT: Encoding = Encoding {
            name: "text",
            put: |out, delivery| put_frame(out, delivery, Form::Text),
        };
        static PAYLOAD_ONLY: Encoding = Encoding {
            name: "payload only",
            put: |out, delivery| put_frame(out, delivery, Form::PayloadOnly),
        };
        match self {
            Self::Full => &FULL,
            Self::Text => &TEXT,
            Self::PayloadOnly => &PAYLOAD_ONLY,
        }
    }

    fn payload_field(self, payload: &[u8]) -> u32 {
        match self {
            Self::Text if std::str::from_utf8(payload).is_ok() => field::TEXT,
            _ => field::PAYLOAD,
        }
    }
}

/// Appends a message's whole frame.
fn put_frame(out: &mut BytesMut, delivery: DeliveryRef<'_>, form: Form) {
    let payload = &*delivery.message.payload;
    let start = out.len();
    out.reserve(PREFIX_BYTES + ENVELOPE_BYTES_USUAL + payload.len());
    let mut head = Head::new();
    // The length is known once the fields are written, so the prefix is filled in last.
    if form == Form::PayloadOnly {
        head.put(&[0; PREFIX_BYTES]);
    } else {
        match opening_of_all(&delivery) {
            Some(opening) => {
                out.put_slice(opening);
                head.put_hex(delivery.sequence.0);
            }
            None => put_opening(out, &delivery, PREFIX_BYTES),
        }
        put_own(&mut head, &delivery);
    }
    if !payload.is_empty() {
        head.put_length(form.payload_field(payload), payload.len());
    }
    out.put_slice(head.as_bytes());
    out.put_slice(payload);
    if form != Form::PayloadOnly {
        put_texts(out, &delivery);
    }
    let bytes = out.len() - start - PREFIX_BYTES;
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&frame_bytes(bytes).to_be_bytes());
}

/// Appends a message's frame. A large payload is not copied but returned, to follow right after.
pub(crate) fn put_delivery(
    chunk: &mut BytesMut,
    delivery: &Delivery,
    missed: u64,
    form: Form,
) -> Option<Bytes> {
    let payload = &delivery.message.payload;
    let envelope: &[u8] = match form {
        Form::PayloadOnly => &[],
        _ => delivery.encoded_with(envelope),
    };
    // An empty payload is proto3's default and stays off the wire.
    let payload_bytes = match payload.len() {
        0 => 0,
        bytes => 1 + encoded_len_varint(bytes as u64) + bytes,
    };
    let missed_bytes = match (missed, form) {
        (0, _) | (_, Form::PayloadOnly) => 0,
        _ => 1 + encoded_len_varint(missed),
    };
    let is_large = payload.len() >= PAYLOAD_BYTES_COPIED_MAX;
    let bytes = missed_bytes + envelope.len() + payload_bytes;
    // No room for what is not copied: it would be held for as long as the few bytes before it.
    let not_copied = if is_large { payload.len() } else { 0 };
    chunk.reserve(PREFIX_BYTES + bytes - not_copied);
    put_prefix(chunk, bytes);
    if missed_bytes > 0 {
        put_varint(chunk, field::MISSED, missed);
    }
    chunk.put_slice(envelope);
    if payload.is_empty() {
        return None;
    }
    put_length(chunk, form.payload_field(payload), payload.len());
    if is_large {
        return Some(payload.clone());
    }
    chunk.put_slice(payload);
    None
}

/// Appends the beginning of a first frame that also tells a loss; the rest of the frames is returned, to
/// follow right after.
pub(crate) fn put_missed_before(chunk: &mut BytesMut, missed: u64, mut frames: Bytes) -> Bytes {
    let prefix = frames.split_to(PREFIX_BYTES);
    let bytes = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    put_prefix(chunk, 1 + encoded_len_varint(missed) + bytes);
    put_varint(chunk, field::MISSED, missed);
    frames
}

/// Appends a notice of loss that goes on its own.
pub(crate) fn put_missed(chunk: &mut BytesMut, missed: u64) {
    put_prefix(chunk, 1 + encoded_len_varint(missed));
    put_varint(chunk, field::MISSED, missed);
}

/// Appends a notice of what is no longer kept.
pub(crate) fn put_gap(chunk: &mut BytesMut, gap: Gap, place: Option<Cursor>) {
    let mut fields = Head::new();
    if gap.missing > 0 {
        fields.put_varint(field::GAP_MISSING, gap.missing);
    }
    if gap.at_least {
        fields.put_varint(field::GAP_AT_LEAST, 1);
    }
    let mut head = Head::new();
    if let Some(place) = place {
        let place = [place.epoch.0, place.position.0, place.sequence.0];
        head.put_cursor(field::CURSOR, place);
    }
    head.put_length(field::GAP, fields.as_bytes().len());
    put_prefix(chunk, head.as_bytes().len() + fields.as_bytes().len());
    chunk.put_slice(head.as_bytes());
    chunk.put_slice(fields.as_bytes());
}

/// Appends a heartbeat.
pub(crate) fn put_heartbeat(chunk: &mut BytesMut) {
    put_prefix(chunk, 2);
    put_varint(chunk, field::HEARTBEAT, 1);
}

/// Appends gRPC's prefix of an uncompressed message of `bytes` bytes.
pub(crate) fn put_prefix(chunk: &mut BytesMut, bytes: usize) {
    chunk.put_u8(0);
    chunk.put_u32(frame_bytes(bytes));
}

fn frame_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("the payload's ceiling keeps messages far below 4 GiB")
}

fn envelope(delivery: &Delivery) -> Bytes {
    let mut out = BytesMut::with_capacity(ENVELOPE_BYTES_USUAL);
    put_envelope(&mut out, delivery.as_delivery_ref());
    out.freeze()
}

/// All fields of a message but its payload.
fn put_envelope(out: &mut BytesMut, delivery: DeliveryRef<'_>) {
    put_opening(out, &delivery, 0);
    let mut head = Head::new();
    put_own(&mut head, &delivery);
    out.put_slice(head.as_bytes());
    put_texts(out, &delivery);
}

/// A frame up to the digits of the message's own sequence, if that is the same for all that are published
/// together: their sequences must have as many.
fn opening_of_all<'m>(delivery: &DeliveryRef<'m>) -> Option<&'m [u8]> {
    let message = &delivery.message;
    let stencil = message.stencil.filter(|_| message.id.is_none())?;
    let digits = hex_digits(delivery.sequence.0);
    stencil.written_with(digits, || {
        let mut opening = BytesMut::with_capacity(ENVELOPE_BYTES_USUAL);
        put_opening(&mut opening, delivery, PREFIX_BYTES);
        opening.truncate(opening.len() - digits);
        opening.into()
    })
}

/// After so much room for a prefix, what messages of one topic and time have in common. An id made of the
/// message's place comes last, and in that the sequence.
fn put_opening(out: &mut BytesMut, delivery: &DeliveryRef<'_>, prefix_bytes: usize) {
    out.put_bytes(0, prefix_bytes);
    put_text(out, field::TOPIC, delivery.message.topic.as_str());
    let mut head = Head::new();
    head.put_fixed64(field::EPOCH, delivery.epoch.0);
    head.put_time(field::PUBLISH_TIME, delivery.published_at);
    if delivery.message.id.is_none() {
        head.put_place(field::ID, delivery.epoch.0, delivery.sequence.0);
    }
    out.put_slice(head.as_bytes());
}

/// The numbers that are the message's own.
fn put_own(head: &mut Head, delivery: &DeliveryRef<'_>) {
    head.put_varint(field::SEQUENCE, delivery.sequence.0);
    if let Some(position) = delivery.position {
        let cursor = [delivery.epoch.0, position.0, delivery.sequence.0];
        head.put_cursor(field::CURSOR, cursor);
    }
    if delivery.message.end {
        head.put_varint(field::END, 1);
    }
}

/// What the publisher said beside the payload.
fn put_texts(out: &mut BytesMut, delivery: &DeliveryRef<'_>) {
    let message = &delivery.message;
    if let Some(id) = message.id {
        put_text(out, field::ID, id.as_str());
    }
    for (name, value) in message.attributes.iter() {
        put_attribute(out, field::ATTRIBUTES, name, value);
    }
    if let Some(tag) = message.tag {
        put_text(out, field::TAG, tag.as_str());
    }
    if let Some(key) = message.key {
        put_text(out, field::KEY, key.as_str());
    }
}

/// A map entry is a message with the key as field 1 and the value as field 2.
pub(crate) fn put_attribute(out: &mut BytesMut, field: u32, name: &str, value: &str) {
    let text_bytes = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
    put_length(out, field, text_bytes(name) + text_bytes(value));
    put_text(out, 1, name);
    put_text(out, 2, value);
}

pub(crate) fn put_text(out: &mut BytesMut, field: u32, text: &str) {
    put_length(out, field, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// The key of a field and the length of what follows.
pub(crate) fn put_length(out: &mut BytesMut, field: u32, bytes: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes as u64, out);
}

pub(crate) fn put_varint(out: &mut BytesMut, field: u32, value: u64) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use bytes::Buf;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::{
        cursor::Position,
        message::{Epoch, Message, Sequence, Stencil},
        wire::pb,
    };

    fn delivery(message: Message, sequence: u64) -> Delivery {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        Delivery::new(message, Epoch(u64::MAX - 1), Sequence(sequence), at)
    }

    fn frame(delivery: &Delivery, missed: u64, form: Form) -> Bytes {
        let mut chunk = BytesMut::new();
        if let Some(payload) = put_delivery(&mut chunk, delivery, missed, form) {
            chunk.extend_from_slice(&payload);
        }
        chunk.freeze()
    }

    /// Reads one frame the way any gRPC client does.
    fn read(mut frame: Bytes) -> pb::SubscribeResponse {
        assert_eq!(frame.get_u8(), 0);
        assert_eq!(frame.get_u32() as usize, frame.len());
        pb::SubscribeResponse::decode(frame).unwrap()
    }

    fn messages() -> impl Strategy<Value = Message> {
        let attributes = prop::collection::btree_map("[a-z]{1,9}", ".{0,200}", 0..4);
        let end = any::<bool>();
        let optional = || prop::option::of("[a-z]{1,200}");
        let size = prop_oneof![
            0usize..300,
            Just(PAYLOAD_BYTES_COPIED_MAX),
            16_000usize..40_000
        ];
        (attributes, optional(), optional(), optional(), size, end).prop_map(
            |(attributes, tag, key, id, size, end)| Message {
                topic: "räume.küche".parse().unwrap(),
                payload: vec![b'x'; size].into(),
                attributes: attributes
                    .into_iter()
                    .map(|(name, value)| (name.parse().unwrap(), value))
                    .collect(),
                tag: tag.map(|text| text.parse().unwrap()),
                key: key.map(|text| text.parse().unwrap()),
                id: id.map(|text| text[..text.len().min(128)].parse().unwrap()),
                end,
            },
        )
    }

    proptest! {
        #[test]
        fn a_frame_decodes_to_what_was_published(
            message in messages(),
            sequence in 1u64..,
            missed in prop_oneof![Just(0), any::<u64>()],
            position in prop::option::of(prop_oneof![0u64..300, any::<u64>()]),
        ) {
            let mut delivery = delivery(message.clone(), sequence);
            delivery.position = position.map(Position);
            let expected = pb::SubscribeResponse {
                payload: message.payload.clone(),
                topic: message.topic.to_string(),
                sequence,
                epoch: u64::MAX - 1,
                id: delivery.id().into_owned(),
                publish_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
                attributes: message
                    .attributes
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                tag: message.tag.map(|tag| tag.to_string()).unwrap_or_default(),
                key: message.key.map(|key| key.to_string()).unwrap_or_default(),
                missed,
                heartbeat: false,
                text: String::new(),
                cursor: delivery.cursor().map(|cursor| cursor.to_string()).unwrap_or_default(),
                gap: None,
                end: message.end,
            };
            prop_assert_eq!(&read(frame(&delivery, missed, Form::Full)), &expected);
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            let expected_text =
                pb::SubscribeResponse { payload: Bytes::new(), text, ..expected.clone() };
            prop_assert_eq!(&read(frame(&delivery, missed, Form::Text)), &expected_text);
            let bare = pb::SubscribeResponse {
                payload: message.payload,
                ..Default::default()
            };
            prop_assert_eq!(&read(frame(&delivery, missed, Form::PayloadOnly)), &bare);

            let alone = pb::SubscribeResponse { missed: 0, ..expected };
            let alone_text = pb::SubscribeResponse { missed: 0, ..expected_text };
            let shared = [(Form::Full, alone), (Form::Text, alone_text), (Form::PayloadOnly, bare)];
            for (form, expected) in shared {
                let mut out = BytesMut::from(&b"before"[..]);
                (form.encoding().put)(&mut out, delivery.as_delivery_ref());
                let shared = out.freeze().split_off(6);
                prop_assert_eq!(&read(shared.clone()), &expected);
                let mut out = BytesMut::new();
                let rest = put_missed_before(&mut out, 1 + missed / 2, shared);
                out.extend_from_slice(&rest);
                let told = pb::SubscribeResponse { missed: 1 + missed / 2, ..expected };
                prop_assert_eq!(read(out.freeze()), told);
            }
        }
    }

    proptest! {
        #[test]
        fn what_messages_have_in_common_is_written_once_and_reads_the_same(
            messages in prop::collection::vec(messages(), 1..6),
            first in prop_oneof![1u64..40, 250u64..260, Just(u64::MAX - 9), any::<u64>()],
        ) {
            for form in [Form::Full, Form::Text, Form::PayloadOnly] {
                let stencil = Stencil::default();
                let mut out = BytesMut::new();
                for (at, message) in messages.iter().enumerate() {
                    let sequence = (first | 1).saturating_add(at as u64);
                    let delivery = delivery(message.clone(), sequence);
                    let mut with_stencil = delivery.as_delivery_ref();
                    with_stencil.message.stencil = Some(&stencil);
                    (form.encoding().put)(&mut out, with_stencil);
                    let frame = out.split().freeze();
                    (form.encoding().put)(&mut out, delivery.as_delivery_ref());
                    prop_assert_eq!(read(frame), read(out.split().freeze()));
                }
            }
        }
    }

    #[test]
    fn a_payload_that_is_no_text_stays_bytes() {
        let delivery = delivery(Message::new("t".parse().unwrap(), vec![0xff, 0xfe]), 1);
        let response = read(frame(&delivery, 0, Form::Text));
        assert_eq!(response.payload, vec![0xff, 0xfe]);
        assert_eq!(response.text, "");
    }

    #[test]
    fn notices_and_heartbeats_carry_nothing_else() {
        const LONGEST: Cursor = Cursor {
            epoch: Epoch(u64::MAX),
            position: Position(u64::MAX),
            sequence: Sequence(u64::MAX),
        };
        let mut chunk = BytesMut::new();
        put_missed(&mut chunk, 300);
        let missed = pb::SubscribeResponse {
            missed: 300,
            ..Default::default()
        };
        assert_eq!(read(chunk.freeze()), missed);

        for gap in [
            Gap::exactly(1),
            Gap::exactly(u64::MAX),
            Gap::at_least(300),
            Gap::UNKNOWN,
        ] {
            for place in [None, "1-2-3".parse().ok(), Some(LONGEST)] {
                let mut chunk = BytesMut::new();
                put_gap(&mut chunk, gap, place);
                let expected = pb::SubscribeResponse {
                    gap: Some(pb::Gap {
                        missing: gap.missing,
                        at_least: gap.at_least,
                    }),
                    cursor: place.map(|place| place.to_string()).unwrap_or_default(),
                    ..Default::default()
                };
                assert_eq!(read(chunk.freeze()), expected);
            }
        }

        let mut chunk = BytesMut::new();
        put_heartbeat(&mut chunk);
        let heartbeat = pb::SubscribeResponse {
            heartbeat: true,
            ..Default::default()
        };
        assert_eq!(read(chunk.freeze()), heartbeat);
    }

    #[test]
    fn what_goes_before_a_large_payload_holds_no_room_for_it() {
        let payload = vec![0; PAYLOAD_BYTES_COPIED_MAX];
        let delivery = delivery(Message::new("t".parse().unwrap(), payload), 1);
        let mut chunk = BytesMut::new();
        assert!(put_delivery(&mut chunk, &delivery, 7, Form::Full).is_some());
        assert!(chunk.capacity() < 512, "{}", chunk.capacity());
    }

    #[test]
    fn a_message_is_encoded_once_and_shared() {
        let delivery = delivery(Message::new("t".parse().unwrap(), "x"), 1);
        let first = delivery.encoded_with(envelope).as_ptr();
        frame(&delivery, 7, Form::Full);
        let second = delivery.encoded_with(|_| unreachable!("encoded twice"));
        assert_eq!(second.as_ptr(), first);
    }
}
