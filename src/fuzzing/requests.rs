//! Publish requests read in place, against prost.

use std::collections::HashMap;

use prost::Message;

use crate::wire::{
    pb,
    request::{PublishRequestRef, with_publish_request},
};

/// The bytes are an encoded request.
pub(super) fn requests(data: &[u8]) {
    let read = with_publish_request(data, owned);
    let decoded = pb::PublishRequest::decode(data);
    assert_eq!(read, decoded);
    // Streams carry another message with the same fields.
    let of_stream = pb::PublishStreamRequest::decode(data);
    assert_eq!(of_stream.is_ok(), decoded.is_ok());
    if let Ok(request) = decoded {
        let encoded = request.encode_to_vec();
        let again = with_publish_request(&encoded, owned);
        assert_eq!(again.as_ref(), Ok(&request));
        assert_eq!(owned(PublishRequestRef::from(&request)), request);
    }
}

fn owned(request: PublishRequestRef<'_>) -> pb::PublishRequest {
    let mut attributes = HashMap::new();
    for (name, value) in request.attributes {
        attributes.insert(name.to_owned(), value.to_owned());
    }
    pb::PublishRequest {
        topic: request.topic.to_owned(),
        payload: request.payload.to_vec().into(),
        attributes,
        tag: request.tag.to_owned(),
        key: request.key.to_owned(),
        id: request.id.to_owned(),
        text: request.text.to_owned(),
        end: request.end,
    }
}
