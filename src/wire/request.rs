//! A publish request read in place: to decode it is to allocate each of its texts, most of which are
//! looked at once and let go.
//!
//! What is read is what prost decodes from the same bytes. Whatever is unusual is not read but left to
//! prost, which alone decides on it and words the errors: this may be stricter than prost, never laxer.
//! Nothing is allocated but the list of attributes, if there are any, whose length has a bound. Knows
//! neither gRPC's framing nor what makes a topic or a name valid.

use prost::{DecodeError, Message as _};

use super::pb;
use crate::broker::ATTRIBUTES_CEILING;

/// The longest encoding of a length that is read: 28 bits, which is 256 MiB. No broker takes as much.
const LENGTH_BYTES_MAX: usize = 4;

/// What each field of `PublishRequest` and of an entry of its attributes begins with.
mod key {
    use prost::encoding::WireType;

    pub(super) const TOPIC: u8 = length_delimited(1);
    pub(super) const PAYLOAD: u8 = length_delimited(2);
    pub(super) const ATTRIBUTES: u8 = length_delimited(3);
    pub(super) const TAG: u8 = length_delimited(4);
    pub(super) const KEY: u8 = length_delimited(5);
    pub(super) const ID: u8 = length_delimited(6);
    pub(super) const TEXT: u8 = length_delimited(7);
    pub(super) const END: u8 = (8 << 3) | WireType::Varint as u8;

    pub(super) const ATTRIBUTE_NAME: u8 = length_delimited(1);
    pub(super) const ATTRIBUTE_VALUE: u8 = length_delimited(2);

    const fn length_delimited(field: u8) -> u8 {
        (field << 3) | WireType::LengthDelimited as u8
    }
}

/// A `PublishRequest` whose fields are borrowed from the bytes it came in. As in the proto, what is
/// empty was empty or absent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PublishRequestRef<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    /// Names with their values in the order of the bytes, at most [`ATTRIBUTES_CEILING`]. Of several
    /// with one name, the last one counts.
    pub(crate) attributes: Vec<(&'a str, &'a str)>,
    pub(crate) tag: &'a str,
    pub(crate) key: &'a str,
    pub(crate) id: &'a str,
    pub(crate) text: &'a str,
    pub(crate) end: bool,
}

impl<'a> From<&'a pb::PublishRequest> for PublishRequestRef<'a> {
    fn from(request: &'a pb::PublishRequest) -> Self {
        let attributes = request.attributes.iter();
        Self {
            topic: &request.topic,
            payload: &request.payload,
            attributes: attributes.map(|(n, v)| (n.as_str(), v.as_str())).collect(),
            tag: &request.tag,
            key: &request.key,
            id: &request.id,
            text: &request.text,
            end: request.end,
        }
    }
}

/// Shows an encoded `PublishRequest`, or `PublishStreamRequest`, to `act`.
///
/// # Errors
/// Bytes that are not one.
pub(crate) fn with_publish_request<R>(
    bytes: &[u8],
    act: impl FnOnce(PublishRequestRef<'_>) -> R,
) -> Result<R, DecodeError> {
    match read_publish_request(bytes) {
        Some(request) => Ok(act(request)),
        None => {
            let request = pb::PublishRequest::decode(bytes)?;
            Ok(act(PublishRequestRef::from(&request)))
        }
    }
}

/// The payload of an encoded `PublishRequest` or `PublishStreamRequest` that is just this topic and a payload,
/// in this order, as most of a stream are. `None` says nothing about the bytes.
pub(crate) fn plain_payload<'a>(mut bytes: &'a [u8], topic: &str) -> Option<&'a [u8]> {
    let (key, contents) = take_field(&mut bytes)?;
    if key != key::TOPIC || contents != topic.as_bytes() {
        return None;
    }
    let (key, payload) = take_field(&mut bytes)?;
    (key == key::PAYLOAD && bytes.is_empty()).then_some(payload)
}

/// Reads an encoded `PublishRequest`, or `PublishStreamRequest`, which has the same fields. `None`
/// says nothing about the bytes but that prost has to decode them.
fn read_publish_request(mut bytes: &[u8]) -> Option<PublishRequestRef<'_>> {
    let mut request = PublishRequestRef::default();
    while !bytes.is_empty() {
        if let [key::END, rest @ ..] = bytes {
            // A number is written as a length is.
            let (end, rest) = split_length(rest)?;
            request.end = end != 0;
            bytes = rest;
            continue;
        }
        let (key, contents) = take_field(&mut bytes)?;
        // The last one of a field wins, but those before must be valid, too.
        match key {
            key::TOPIC => request.topic = text(contents)?,
            key::PAYLOAD => request.payload = contents,
            key::ATTRIBUTES if request.attributes.len() < ATTRIBUTES_CEILING => {
                request.attributes.push(read_attribute(contents)?);
            }
            key::TAG => request.tag = text(contents)?,
            key::KEY => request.key = text(contents)?,
            key::ID => request.id = text(contents)?,
            key::TEXT => request.text = text(contents)?,
            _ => return None,
        }
    }
    Some(request)
}

/// An entry of a map is a message of its own, either field of which may be absent.
fn read_attribute(mut bytes: &[u8]) -> Option<(&str, &str)> {
    let (mut name, mut value) = ("", "");
    while !bytes.is_empty() {
        let (key, contents) = take_field(&mut bytes)?;
        match key {
            key::ATTRIBUTE_NAME => name = text(contents)?,
            key::ATTRIBUTE_VALUE => value = text(contents)?,
            _ => return None,
        }
    }
    Some((name, value))
}

/// Takes a field's key and contents off the front. If the field is not length-delimited, the contents
/// mean nothing, and the key is none of [`key`]'s.
#[inline]
fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&key, rest) = bytes.split_first()?;
    let (length, rest) = split_length(rest)?;
    let (contents, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((key, contents))
}

#[inline]
fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (at, &byte) in bytes.iter().enumerate().take(LENGTH_BYTES_MAX) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((length, &bytes[at + 1..]));
        }
    }
    None
}

#[inline]
fn text(contents: &[u8]) -> Option<&str> {
    std::str::from_utf8(contents).ok()
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::{SizeRange, hash_map, vec},
        prelude::*,
        sample::{Index, select},
    };
    use prost::{
        Message as _,
        encoding::{WireType, encode_key, encode_varint},
    };

    use super::*;
    use crate::wire::pb;

    impl From<PublishRequestRef<'_>> for pb::PublishRequest {
        fn from(request: PublishRequestRef<'_>) -> Self {
            let attributes = request.attributes.into_iter();
            Self {
                topic: request.topic.to_owned(),
                payload: request.payload.to_vec().into(),
                attributes: attributes
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                tag: request.tag.to_owned(),
                key: request.key.to_owned(),
                id: request.id.to_owned(),
                text: request.text.to_owned(),
                end: request.end,
            }
        }
    }

    /// What is read, which must be what prost decodes.
    fn read(bytes: &[u8]) -> Result<Option<pb::PublishRequest>, TestCaseError> {
        let request = read_publish_request(bytes).map(Into::into);
        if let Some(request) = &request {
            let decoded = pb::PublishRequest::decode(bytes);
            prop_assert_eq!(Ok(request), decoded.as_ref());
        }
        Ok(request)
    }

    fn delimited(field: u32, contents: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_key(field, WireType::LengthDelimited, &mut bytes);
        encode_varint(contents.len() as u64, &mut bytes);
        [&bytes, contents].concat()
    }

    fn texts() -> impl Strategy<Value = String> + Clone {
        let long = (100usize..150).prop_map(|count| "é".repeat(count));
        prop_oneof!["", "[a-z]{1,9}", ".{0,9}", long]
    }

    /// Bytes among which those with a meaning on the wire are many.
    fn bytes(count: impl Into<SizeRange>) -> impl Strategy<Value = Vec<u8>> + Clone {
        let telling =
            select(b"\x00\x01\x02\x03\x0a\x12\x1a\x22\x2a\x32\x3a\x40\x7f\x80\xff".as_slice());
        vec(prop_oneof![any::<u8>(), telling], count)
    }

    fn payloads() -> impl Strategy<Value = Vec<u8>> + Clone {
        let long = (100usize..20_000).prop_map(|count| vec![b'x'; count]);
        prop_oneof![bytes(0..9), long]
    }

    fn requests() -> impl Strategy<Value = pb::PublishRequest> {
        let attributes = prop_oneof![
            8 => hash_map(texts(), texts(), 0..5),
            1 => hash_map("[a-z]{9}", texts(), ATTRIBUTES_CEILING),
        ];
        let others = [(); 5].map(|()| texts());
        (payloads(), attributes, others, any::<bool>()).prop_map(
            |(payload, attributes, [topic, tag, key, id, text], end)| pb::PublishRequest {
                topic,
                payload: payload.into(),
                attributes,
                tag,
                key,
                id,
                text,
                end,
            },
        )
    }

    /// One field of the proto. An entry of the attributes may lack its name or value, or repeat it.
    fn fields() -> impl Strategy<Value = Vec<u8>> + Clone {
        let parts = (1u32..3, prop_oneof!["", "[ab]", "[a-zü]{9}"]);
        let entries = vec(parts, 0..4).prop_map(|fields| {
            let fields = fields.iter();
            let fields = fields.map(|(field, text)| delimited(*field, text.as_bytes()));
            delimited(3, &fields.collect::<Vec<_>>().concat())
        });
        prop_oneof![
            (select(vec![1, 4, 5, 6, 7]), texts())
                .prop_map(|(field, text)| delimited(field, text.as_bytes())),
            payloads().prop_map(|payload| delimited(2, &payload)),
            entries,
            select(vec![0u64, 1, 2, 127, 128, 1 << 27]).prop_map(|end| {
                let mut bytes = vec![0x40];
                encode_varint(end, &mut bytes);
                bytes
            }),
        ]
    }

    /// What else may stand in a field's place. Some of it prost skips, and some it even reads.
    fn odd_fields() -> impl Strategy<Value = Vec<u8>> {
        let keys = (1u32..20, 0u32..8).prop_map(|(field, wire_type)| {
            let mut key = Vec::new();
            encode_varint(u64::from(field << 3 | wire_type), &mut key);
            key
        });
        let any_type = (keys, bytes(0..10)).prop_map(|(key, contents)| [key, contents].concat());
        let groups = (1u32..20, fields()).prop_map(|(field, contents)| {
            let (mut start, mut end) = (Vec::new(), Vec::new());
            encode_key(field, WireType::StartGroup, &mut start);
            encode_key(field, WireType::EndGroup, &mut end);
            [start, contents, end].concat()
        });
        let long_varints = (1u8..8, 0usize..11, 0u8..4, 0usize..11).prop_map(
            |(field, key_padding, length, length_padding)| {
                let padded = |byte: u8, padding: usize| match padding {
                    0 => vec![byte],
                    _ => [&[byte | 0x80], &vec![0x80; padding - 1][..], &[0]].concat(),
                };
                let contents = vec![b'a'; length.into()];
                let key = padded(field << 3 | 2, key_padding);
                [key, padded(length, length_padding), contents].concat()
            },
        );
        let no_texts = (1u32..8, bytes(1..4)).prop_map(|(field, text)| delimited(field, &text));
        let anything = prop_oneof![any_type, groups, long_varints, no_texts].boxed();
        let in_entries = anything
            .clone()
            .prop_map(|contents| delimited(3, &contents));
        prop_oneof![4 => anything, 1 => in_entries]
    }

    /// Replaces some bytes, none or all from some place on, by others or by none.
    #[derive(Clone, Debug)]
    struct Edit {
        at: Index,
        removed: usize,
        inserted: Vec<u8>,
    }

    impl Edit {
        fn apply(self, bytes: &mut Vec<u8>) {
            let begin = self.at.index(bytes.len() + 1);
            let end = begin.saturating_add(self.removed).min(bytes.len());
            bytes.splice(begin..end, self.inserted);
        }
    }

    fn edits() -> impl Strategy<Value = Edit> {
        let removed = select(vec![0, 1, 1, 1, 2, usize::MAX]);
        (any::<Index>(), removed, bytes(0..3)).prop_map(|(at, removed, inserted)| Edit {
            at,
            removed,
            inserted,
        })
    }

    proptest! {
        #[test]
        fn what_prost_encodes_is_read(request in requests()) {
            prop_assert_eq!(read(&request.encode_to_vec())?, Some(request));
        }

        #[test]
        fn fields_may_come_in_any_order_and_more_than_once(fields in vec(fields(), 0..12)) {
            prop_assert!(read(&fields.concat())?.is_some());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn what_is_read_of_a_damaged_or_odd_request_is_what_prost_decodes(
            fields in vec(prop_oneof![9 => fields(), 1 => odd_fields()], 0..8),
            edits in vec(edits(), 0..4),
        ) {
            let mut bytes = fields.concat();
            edits.into_iter().for_each(|edit| edit.apply(&mut bytes));
            read(&bytes)?;
        }

        #[test]
        fn what_is_plain_is_a_topic_and_a_payload(
            topic in texts(),
            fields in vec(prop_oneof![9 => fields(), 1 => odd_fields()], 0..2),
            edits in vec(edits(), 0..2),
        ) {
            let mut bytes = [delimited(1, topic.as_bytes()), fields.concat()].concat();
            edits.into_iter().for_each(|edit| edit.apply(&mut bytes));
            let expected = plain_payload(&bytes, &topic).map(|payload| PublishRequestRef {
                topic: &topic,
                payload,
                ..Default::default()
            });
            if expected.is_some() {
                prop_assert_eq!(read_publish_request(&bytes), expected);
            }
        }

        #[test]
        fn what_is_read_of_any_bytes_is_what_prost_decodes(bytes in bytes(0..40)) {
            read(&bytes)?;
        }
    }

    #[test]
    fn most_messages_are_plain() {
        let long = "t".repeat(255);
        for topic in ["t", "räume.küche", &long] {
            let request = pb::PublishRequest {
                topic: topic.to_owned(),
                payload: vec![b'x'; 200].into(),
                ..Default::default()
            };
            let bytes = request.encode_to_vec();
            assert_eq!(plain_payload(&bytes, topic), Some(&*request.payload));
            assert_eq!(plain_payload(&bytes, "other"), None);
            let tagged = pb::PublishRequest {
                tag: "x".into(),
                ..request
            };
            assert_eq!(plain_payload(&tagged.encode_to_vec(), topic), None);
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_prost() {
        #[track_caller]
        fn check(bytes: &[u8], prost_decodes: bool) {
            assert_eq!(read_publish_request(bytes), None, "{bytes:02x?}");
            let decoded = pb::PublishRequest::decode(bytes);
            assert_eq!(decoded.is_ok(), prost_decodes, "{decoded:?}");
        }
        let unknown_field = [0x4a, 0];
        check(&unknown_field, true);
        let end_as_text = [0x42, 0];
        check(&end_as_text, false);
        let end_in_five_bytes = [0x40, 0x80, 0x80, 0x80, 0x80, 1];
        check(&end_in_five_bytes, true);
        let end_past_the_end = [0x40, 0x80];
        check(&end_past_the_end, false);
        let group = [0x4b, 0x4c];
        check(&group, true);
        let key_in_two_bytes = [0x8a, 0, 0];
        check(&key_in_two_bytes, true);
        let length_in_five_bytes = [0x0a, 0x80, 0x80, 0x80, 0x80, 0];
        check(&length_in_five_bytes, true);
        let number_as_topic = [0x08, 0];
        check(&number_as_topic, false);
        let length_past_the_end = [0x0a, 2, b'a'];
        check(&length_past_the_end, false);
        let topic_of_no_text_before_another = [0x0a, 1, 0xff, 0x0a, 1, b'a'];
        check(&topic_of_no_text_before_another, false);
        let name_past_its_entry = [0x1a, 2, 0x0a, 1, b'a'];
        check(&name_past_its_entry, false);
    }

    #[test]
    fn a_list_of_attributes_has_a_bound_and_without_any_takes_no_memory() {
        let entry = delimited(3, &[]);
        let entries = entry.repeat(ATTRIBUTES_CEILING + 1);
        let attributes = |count| {
            let request = read_publish_request(&entries[..count * entry.len()]);
            request.map(|request| request.attributes)
        };
        assert_eq!(attributes(0).unwrap().capacity(), 0);
        let most = attributes(ATTRIBUTES_CEILING);
        assert_eq!(most, Some(vec![("", ""); ATTRIBUTES_CEILING]));
        assert_eq!(attributes(ATTRIBUTES_CEILING + 1), None);
    }
}
