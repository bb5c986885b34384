//! Keeps a broker's malformed status details from tonic, which panics on them.
//!
//! `grpc-status-details-bin` that is no base64 is dropped, from headers and trailers; code and message
//! of the status stay as they are.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};
use tower::{ServiceExt as _, util::MapResponse};

use super::token::Authorized;

/// A channel whose responses tonic can take.
pub(super) type Guarded = MapResponse<Authorized, fn(Response<Body>) -> Response<Body>>;

/// As tonic decodes it: gRPC leaves out the padding, and accepts it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn guarded(channel: Authorized) -> Guarded {
    channel.map_response(with_sound_details)
}

fn with_sound_details(mut response: Response<Body>) -> Response<Body> {
    drop_unsound_details(response.headers_mut());
    response.map(|body| {
        Body::new(body.map_frame(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                drop_unsound_details(trailers);
            }
            frame
        }))
    })
}

fn drop_unsound_details(headers: &mut HeaderMap) {
    if let Some(details) = headers.get(Status::GRPC_STATUS_DETAILS)
        && BASE64.decode(details).is_err()
    {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(details: &'static str, sound: bool) {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("3"));
        headers.insert("grpc-status-details-bin", HeaderValue::from_static(details));
        drop_unsound_details(&mut headers);
        assert_eq!(headers.len(), if sound { 2 } else { 1 }, "{details:?}");
        assert!(Status::from_header_map(&headers).is_some());
    }

    #[test]
    fn only_details_that_tonic_can_decode_remain() {
        check("", true);
        check("CAM", true);
        check("CAM=", true);
        check("*!*", false);
        check("A", false);
        check("CAM==", false);
        check("CAN", false);
        check("CA-_", false);
    }
}
