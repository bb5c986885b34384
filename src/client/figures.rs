//! The broker in figures: the same JSON that its page reads, over the client's own connection.

use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use tonic::{Code, Status, body::Body};
use tower::{Service as _, ServiceExt as _};

use super::{connection::Connection, error::FiguresError};

/// Far more than the largest list takes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Asks for one of the figures; `query` is what follows the `?`.
pub(super) async fn get<T: DeserializeOwned>(
    connection: &Connection,
    path: &str,
    query: &[(&str, &str)],
) -> Result<T, FiguresError> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    let uri = Uri::try_from(format!("{path}?{query}")).expect("what is encoded is valid in a URI");
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    let (_, mut channel) = connection.channel();
    let answer = connection.answer(async {
        let call = async { channel.ready().await?.call(request).await };
        let response = call.await.map_err(from_transport)?;
        read(response).await
    });
    match answer.await? {
        Ok(json) => Ok(serde_json::from_slice(&json)?),
        Err(status) => Err(connection.errors().call(status).into()),
    }
}

/// tonic finds out by itself what its own errors mean.
fn from_transport(error: tonic::transport::Error) -> Status {
    Status::from_error(Box::new(error))
}

async fn read(response: Response<Body>) -> Result<Vec<u8>, Status> {
    let status = response.status();
    let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = collected.map_err(Status::from_error)?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body.into());
    }
    Err(Status::new(code(status), message(&body)))
}

/// What an error says, in JSON or as plain text.
fn message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let told = json
        .as_ref()
        .and_then(|json| json["error"]["message"].as_str());
    match told {
        Some(told) => told.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

/// As google.rpc maps its codes, read backwards.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_as_the_broker_tells_it_in_json_or_in_plain_text() {
        let json =
            br#"{"error": {"code": "INVALID_ARGUMENT", "message": "limit `x` is not 0 to 1000"}}"#;
        assert_eq!(message(json), "limit `x` is not 0 to 1000");
        assert_eq!(message(b"no credentials\n"), "no credentials");
        assert_eq!(message(b"\xff{"), "\u{fffd}{");
    }
}
