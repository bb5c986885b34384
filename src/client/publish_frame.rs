//! Messages as gRPC frames of `PublishStreamRequest`, gathered into few large chunks.
//!
//! A message is encoded once, by the task that publishes it, into the buffer that goes to the socket: no
//! queue of messages, and no copy of a name or of a large payload. Invariant: the chunks, one after the
//! other, are the frames of the messages in their order. Knows nothing of bounds: whoever puts messages
//! in has made sure that there is room.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    message::{Key, Message, Tag},
    wire::frame::{PREFIX_BYTES, put_attribute, put_length, put_text, put_varint},
};

/// What a chunk holds before the next one begins: a few HTTP/2 frames, so that neither buffers nor writes
/// are many.
const CHUNK_BYTES: usize = 32 * 1024;
/// A payload of this size or more is passed on by reference, in a chunk of its own: copying it would cost
/// more than a further write.
const PAYLOAD_BYTES_COPIED_MAX: usize = 16 * 1024;

/// Field numbers of `PublishStreamRequest`.
mod field {
    pub(super) const TOPIC: u32 = 1;
    pub(super) const PAYLOAD: u32 = 2;
    pub(super) const ATTRIBUTES: u32 = 3;
    pub(super) const TAG: u32 = 4;
    pub(super) const KEY: u32 = 5;
    pub(super) const ID: u32 = 6;
    pub(super) const END: u32 = 8;
}

/// What has been encoded and not been taken by the connection yet.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    chunks: VecDeque<Bytes>,
    /// The chunk that is being filled, after all `chunks`.
    open: BytesMut,
}

impl Outgoing {
    /// Appends a message, which is far below 4 GiB.
    pub(crate) fn put(&mut self, message: &Message) {
        let payload = &message.payload;
        let by_reference = payload.len() >= PAYLOAD_BYTES_COPIED_MAX;
        // All that the message carries, and what it is charged on top is more than keys and lengths take.
        let copied = message.size() - if by_reference { payload.len() } else { 0 };
        self.make_room(copied);

        let out = &mut self.open;
        let begin = out.len();
        out.put_bytes(0, PREFIX_BYTES);
        put_fields(out, message);
        let mut bytes = out.len() - begin - PREFIX_BYTES;
        if !payload.is_empty() {
            let head = out.len();
            put_length(out, field::PAYLOAD, payload.len());
            bytes += out.len() - head + payload.len();
        }
        if !by_reference {
            out.put_slice(payload);
        }
        let length = u32::try_from(bytes).expect("the client's limit is far below 4 GiB");
        out[begin + 1..begin + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        if by_reference {
            self.close_chunk();
            self.chunks.push_back(payload.clone());
        }
    }

    /// The next bytes to send.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let closed = self.chunks.pop_front();
        closed.or_else(|| (!self.open.is_empty()).then(|| self.open.split().freeze()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.open.is_empty()
    }

    /// A chunk that is full is closed instead of moved to a larger buffer.
    fn make_room(&mut self, bytes: usize) {
        if self.open.capacity() - self.open.len() < bytes {
            self.close_chunk();
            self.open.reserve(bytes.max(CHUNK_BYTES));
        }
    }

    fn close_chunk(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push_back(self.open.split().freeze());
        }
    }
}

/// All fields but the payload; what is empty stays off the wire.
fn put_fields(out: &mut BytesMut, message: &Message) {
    put_text(out, field::TOPIC, message.topic.as_str());
    for (name, value) in message.attributes.iter() {
        put_attribute(out, field::ATTRIBUTES, name, value);
    }
    if let Some(tag) = message.tag.as_ref().map(Tag::as_str) {
        put_text(out, field::TAG, tag);
    }
    if let Some(key) = message.key.as_ref().map(Key::as_str) {
        put_text(out, field::KEY, key);
    }
    if let Some(id) = &message.id {
        put_text(out, field::ID, id.as_str());
    }
    if message.end {
        put_varint(out, field::END, 1);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::wire::pb;

    fn messages() -> impl Strategy<Value = Message> {
        let attributes = prop::collection::btree_map("[a-z]{1,9}", ".{0,200}", 0..4);
        let optional = || prop::option::of("[a-z]{1,128}");
        let size = prop_oneof![
            0usize..300,
            Just(PAYLOAD_BYTES_COPIED_MAX - 1),
            Just(PAYLOAD_BYTES_COPIED_MAX),
            30_000usize..70_000
        ];
        (
            attributes,
            optional(),
            optional(),
            optional(),
            size,
            any::<bool>(),
        )
            .prop_map(|(attributes, tag, key, id, size, end)| Message {
                topic: "räume.küche".parse().unwrap(),
                payload: vec![b'x'; size].into(),
                attributes: attributes
                    .into_iter()
                    .map(|(name, value)| (name.parse().unwrap(), value))
                    .collect(),
                tag: tag.map(|text| text.parse().unwrap()),
                key: key.map(|text| text.parse().unwrap()),
                id: id.map(|text| text.parse().unwrap()),
                end,
            })
    }

    /// What a broker reads.
    fn read(outgoing: &mut Outgoing) -> Vec<pb::PublishRequest> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = outgoing.take() {
            bytes.extend_from_slice(&chunk);
        }
        let mut bytes = bytes.freeze();
        let mut requests = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(bytes.get_u8(), 0, "not compressed");
            let length = bytes.get_u32() as usize;
            let request = pb::PublishStreamRequest::decode(bytes.split_to(length)).unwrap();
            requests.push(pb::PublishRequest {
                topic: request.topic,
                payload: request.payload,
                attributes: request.attributes,
                tag: request.tag,
                key: request.key,
                id: request.id,
                text: request.text,
                end: request.end,
            });
        }
        requests
    }

    proptest! {
        #[test]
        fn any_messages_are_read_as_they_were_put(
            rounds in prop::collection::vec(prop::collection::vec(messages(), 0..5), 1..4),
        ) {
            let mut outgoing = Outgoing::default();
            for messages in rounds {
                messages.iter().for_each(|message| outgoing.put(message));
                let expected: Vec<_> = messages.into_iter().map(Into::into).collect();
                prop_assert_eq!(read(&mut outgoing), expected);
                prop_assert!(outgoing.is_empty());
            }
        }
    }

    #[test]
    fn a_large_payload_is_not_copied() {
        let message = Message::new("t".parse().unwrap(), vec![7; PAYLOAD_BYTES_COPIED_MAX]);
        let mut outgoing = Outgoing::default();
        outgoing.put(&message);
        outgoing.take().unwrap();
        assert_eq!(outgoing.take().unwrap().as_ptr(), message.payload.as_ptr());
        assert!(outgoing.is_empty());
    }

    #[test]
    fn small_messages_share_chunks() {
        let message = Message::new("t".parse().unwrap(), vec![7; 20]);
        let mut outgoing = Outgoing::default();
        (0..10_000).for_each(|_| outgoing.put(&message));
        let chunks = std::iter::from_fn(|| outgoing.take());
        let bytes: Vec<_> = chunks.map(|chunk| chunk.len()).collect();
        assert_eq!(bytes.iter().sum::<usize>(), 10_000 * 30);
        assert!(bytes.len() <= 11, "{bytes:?}");
    }
}
