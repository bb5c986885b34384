//! The secret of a stream: what its creator got, and whoever reads it must show.
//!
//! A signature of the request's id, so that nothing has to be remembered. A wrong secret and an unknown
//! id are one and the same.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderName,
    header::{COOKIE, HeaderValue},
};
use ring::hmac;

use crate::job::{self, RequestId};

const COOKIE_NAME: &str = "stream-secret";
pub(crate) const HEADER: HeaderName = HeaderName::from_static("stream-secret");
/// Longer than history keeps a response.
const COOKIE_SECONDS: u32 = 3_600;

#[derive(Debug)]
pub(crate) struct SecretKey(hmac::Key);

impl SecretKey {
    /// Without a key, one that nobody knows.
    pub(crate) fn new(key: Option<&str>) -> anyhow::Result<Self> {
        let key = match key {
            Some(key) => hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()),
            None => hmac::Key::new(hmac::HMAC_SHA256, &job::random::<32>()?),
        };
        Ok(Self(key))
    }

    pub(crate) fn secret(&self, id: &RequestId) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, id.as_str().as_bytes()))
    }

    /// Whether a cookie, the header, or `secret` in the query, shows the secret of this id.
    pub(crate) fn is_shown(&self, id: &RequestId, headers: &HeaderMap, query: &str) -> bool {
        let cookies = headers.get_all(COOKIE).into_iter();
        let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
        let cookies = cookies.flat_map(|cookies| cookies.split(';'));
        let pairs = query.split('&').map(|pair| pair.split_once('='));
        let in_query = pairs.flatten().filter(|(name, _)| *name == "secret");
        let in_cookies = cookies.filter_map(|cookie| cookie.trim().split_once('='));
        let in_cookies = in_cookies.filter(|(name, _)| *name == COOKIE_NAME);
        let in_header = headers.get(HEADER).and_then(|secret| secret.to_str().ok());
        let secrets = in_query.chain(in_cookies).map(|(_, secret)| secret);
        secrets.chain(in_header).any(|secret| {
            let signature = URL_SAFE_NO_PAD.decode(secret).unwrap_or_default();
            // Takes the same time for every wrong signature.
            hmac::verify(&self.0, id.as_str().as_bytes(), &signature).is_ok()
        })
    }
}

/// For this stream alone, and for no script.
pub(crate) fn cookie(id: &RequestId, secret: &str) -> anyhow::Result<HeaderValue> {
    let cookie = format!(
        "{COOKIE_NAME}={secret}; Path=/stream/{id}; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
    );
    Ok(cookie.parse()?)
}
