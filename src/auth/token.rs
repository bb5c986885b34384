//! Tokens: secrets that a caller shows, of which the broker keeps a hash.
//!
//! A token is 256 random bits, so that one SHA-256 hides it as well as any slow hash would: there is
//! nothing to guess it from. A password is not a token. What is secret is never shown by `Debug`.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use subtle::{Choice, ConstantTimeEq};

/// What a token starts with, for people and for programs that look for secrets in the wrong place.
const PREFIX: &str = "fanfare_";
const HASH_PREFIX: &str = "sha256:";
const HASH_BYTES: usize = 32;

/// What a caller shows to prove who it is. It is never printed, and comparing two takes a time that does
/// not depend on where they differ.
#[derive(Clone, Eq)]
pub struct Secret(Arc<str>);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A new token. Pass it on, and keep its [hash](TokenHash::of).
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn new_token() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 32];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| NoRandomness)?;
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(format!("{PREFIX}{text}").as_str().into())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// The SHA-256 of a token, written as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; HASH_BYTES]);

/// Why a text is no hash of a token. The text is not repeated: it may be the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the hash of a token: `broker token` prints one, `sha256:` and 64 hexadecimal digits")]
pub struct TokenHashError;

impl TokenHash {
    /// The hash of what a caller shows.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let hash = digest(&SHA256, secret.expose().as_bytes());
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Whether the two are the same, in a time that does not depend on where they differ.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl ConstantTimeEq for TokenHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl FromStr for TokenHash {
    type Err = TokenHashError;

    fn from_str(text: &str) -> Result<Self, TokenHashError> {
        let digits = text.strip_prefix(HASH_PREFIX).ok_or(TokenHashError)?;
        if digits.len() != 2 * HASH_BYTES || !digits.is_ascii() {
            return Err(TokenHashError);
        }
        let mut bytes = [0; HASH_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = str::from_utf8(pair).expect("the digits are ASCII");
            let digits_only = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            let read = u8::from_str_radix(pair, 16).ok().filter(|_| digits_only);
            *byte = read.ok_or(TokenHashError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash of a secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash_and_printed_nowhere() {
        let token = Secret::new_token().unwrap();
        let hash = TokenHash::of(&token);
        let read: TokenHash = hash.to_string().parse().unwrap();
        assert!(read.is_same(&hash));
        assert!(!read.is_same(&TokenHash::of(&Secret::new_token().unwrap())));
        assert_eq!(token.expose().len(), PREFIX.len() + 43);
        assert_eq!(format!("{token:?} {hash:?}"), "[secret] [hash of a secret]");
    }

    #[test]
    fn a_hash_is_the_one_that_other_tools_print() {
        // printf abc | sha256sum
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(TokenHash::of(&"abc".into()).to_string(), known);
    }

    #[test]
    fn what_is_no_hash_is_not_repeated() {
        let digits = "0".repeat(64);
        for text in [
            "",
            "sha256:",
            "secret",
            &digits,
            &format!("sha256:{}", &digits[1..]),
            &format!("sha256:+{}", &digits[1..]),
            &format!("sha256:é{}", &digits[2..]),
        ] {
            let error = text.parse::<TokenHash>().unwrap_err().to_string();
            assert!(error.starts_with("not the hash of a token"), "{error}");
        }
    }
}
