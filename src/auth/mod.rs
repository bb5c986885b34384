//! Who calls, and what it may do.
//!
//! One file names users, how they prove who they are, and rules: topic filters that allow or deny
//! publishing and subscribing, for everyone, for a role or for one user. [`AuthFile`] reads it and what
//! it names, [`Policy`] is what it says, [`Rules`] decide.
//!
//! The promises: without proof there is no identity, and without a rule no right; what one rule denies
//! no other allows; a subscription whose filter reaches a denied topic is refused as a whole; a name
//! never widens a rule; an answer never depends on whether a topic exists; a secret is never shown, not
//! in errors either. Whatever is odd, such as a certificate of two users or a key without its algorithm,
//! is refused.
//!
//! Knows no gRPC, no HTTP and no task. What a JWT's `exp` and `nbf` mean now is the one thing asked of
//! a clock, by the library that checks them.

mod certificate_name;
mod file;
mod guesses;
mod identity;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(feature = "jwt")]
mod jwt_key;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod oracle;
mod pattern;
mod policy;
#[cfg(feature = "jwt")]
mod ring_provider;
mod rules;
mod source;
mod token;

pub use self::{
    certificate_name::CertificateNameError,
    file::{AuthError, TOKENS_MAX},
    guesses::{GUESS_INTERVAL, GUESSES_MAX, Guesses, PEERS_MAX},
    identity::{Identity, NAME_BYTES_MAX, NameError, RoleName, UserName},
    pattern::{RuleFilter, RuleFilterError},
    policy::{Credentials, Policy, Unproven},
    rules::{Action, Decision, Holder, Right, Rule, Rules},
    source::{AUTH_FILE_BYTES_MAX, AuthFile, AuthFileError},
    token::{NoRandomness, Secret, TokenHash, TokenHashError},
};

#[cfg(test)]
mod tests;
