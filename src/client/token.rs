//! The token by which a client says who it is. It travels with each call, and is shown nowhere.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, header::AUTHORIZATION};
use tonic::{body::Body, transport::Channel};
use tower::Service;

/// What a broker is shown as `authorization: Bearer TOKEN`: a token of its auth file, or a JWT.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken(Arc<HeaderValue>);

/// Why a text is no token. The text is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is empty, or has a character that no token has")]
pub struct BearerTokenError;

impl FromStr for BearerToken {
    type Err = BearerTokenError;

    fn from_str(text: &str) -> Result<Self, BearerTokenError> {
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let value = is_token.then(|| HeaderValue::try_from(format!("Bearer {text}")));
        let mut value = value.and_then(Result::ok).ok_or(BearerTokenError)?;
        // Kept out of the tables of both ends, and out of logs.
        value.set_sensitive(true);
        Ok(Self(value.into()))
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A channel that shows a token with each call, if there is one: for those who use the generated client
/// themselves.
#[derive(Clone, Debug)]
pub struct Authorized {
    channel: Channel,
    token: Option<BearerToken>,
}

impl Authorized {
    /// Shows the token with each call on this channel.
    #[must_use]
    pub fn new(channel: Channel, token: Option<BearerToken>) -> Self {
        Self { channel, token }
    }
}

impl Service<Request<Body>> for Authorized {
    type Response = <Channel as Service<Request<Body>>>::Response;
    type Error = <Channel as Service<Request<Body>>>::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(BearerToken(value)) = &self.token {
            request
                .headers_mut()
                .insert(AUTHORIZATION, HeaderValue::clone(value));
        }
        self.channel.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_shown_nowhere() {
        for text in ["", "a b", "a\nb", "é", " x"] {
            let error = text.parse::<BearerToken>().unwrap_err().to_string();
            assert!(
                text.is_empty() || !error.contains(&format!("`{text}`")),
                "{error}"
            );
        }
        let token: BearerToken = "hunter2".parse().unwrap();
        assert_eq!(format!("{token:?} {:?}", token.0), "[secret] Sensitive");
    }
}
