//! What an auth file says: who proves to be whom by what, and the rules.

use std::collections::HashMap;

use subtle::ConstantTimeEq;

#[cfg(not(feature = "jwt"))]
use super::file::{AuthError, JwtText, ReadNamed};
#[cfg(feature = "jwt")]
pub(super) use super::jwt::JwtPolicy;
use super::{
    identity::{Identity, UserName},
    rules::Rules,
    token::{Secret, TokenHash},
};

/// What a caller shows. A token counts, if there is one; else the names in its certificate, which the
/// connection has verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'c> {
    /// The token of `authorization: Bearer`.
    pub token: Option<&'c Secret>,
    /// The subject's alternative names in the client's certificate.
    pub certificate_names: &'c [String],
}

/// Why nobody knows who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Nothing was shown.
    #[error("the call has no credentials: send `authorization: Bearer TOKEN`")]
    NoCredentials,
    /// What was shown proves nothing. Nobody but the log is told why.
    #[error("the credentials are not valid")]
    Invalid {
        /// What is wrong, without the credentials.
        reason: &'static str,
    },
    /// What was shown proved something until lately.
    #[error("the token has expired")]
    Expired,
}

/// What an auth file says.
#[derive(Debug)]
pub struct Policy {
    pub(super) rules: Rules,
    pub(super) tokens: Vec<(TokenHash, UserName)>,
    pub(super) certificates: HashMap<String, UserName>,
    pub(super) jwt: Option<JwtPolicy>,
}

impl Policy {
    /// Who may do what.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether there is anything by which somebody proves to be this user.
    #[must_use]
    pub fn can_be_proven(&self, user: &UserName) -> bool {
        self.jwt.is_some()
            || self.tokens.iter().any(|(_, owner)| owner == user)
            || self.certificates.values().any(|owner| owner == user)
    }

    /// Who shows these credentials.
    ///
    /// # Errors
    /// Nobody is known to have them.
    pub fn identify(&self, credentials: Credentials<'_>) -> Result<Identity, Unproven> {
        match credentials.token {
            Some(token) => self.identify_token(token),
            None if credentials.certificate_names.is_empty() => Err(Unproven::NoCredentials),
            None => self.identify_certificate(credentials.certificate_names),
        }
    }

    fn identify_token(&self, token: &Secret) -> Result<Identity, Unproven> {
        let hash = TokenHash::of(token);
        let mut found = None;
        // All are compared, each in full: how long it takes says nothing.
        for (known, user) in &self.tokens {
            if known.ct_eq(&hash).into() {
                found = Some(user);
            }
        }
        match (found, &self.jwt) {
            (Some(user), _) => Ok(Identity::of(user.clone())),
            (None, Some(jwt)) if token.expose().contains('.') => {
                let mut identity = jwt.identify(token)?;
                // However many a token names, deciding takes the time of those that say anything.
                let roles = &mut identity.roles;
                roles.retain(|role| self.rules.has_role(role));
                Ok(identity)
            }
            (None, _) => Err(Unproven::Invalid {
                reason: "no user has this token",
            }),
        }
    }

    fn identify_certificate(&self, names: &[String]) -> Result<Identity, Unproven> {
        let mut users = names.iter().filter_map(|name| self.certificates.get(name));
        let invalid = |reason| Err(Unproven::Invalid { reason });
        match users.next() {
            None => invalid("no user has a name of this certificate"),
            Some(user) if users.any(|other| other != user) => {
                invalid("the certificate has names of two users")
            }
            Some(user) => Ok(Identity::of(user.clone())),
        }
    }
}

/// What stands for it in a build without JWTs.
#[cfg(not(feature = "jwt"))]
#[derive(Debug)]
pub(super) enum JwtPolicy {}

#[cfg(not(feature = "jwt"))]
impl JwtPolicy {
    pub(super) fn new(_: JwtText, _: ReadNamed<'_>) -> Result<Self, AuthError> {
        let reason = "this broker was built without JWTs, the feature `jwt`".to_owned();
        Err(AuthError::Jwt { reason })
    }

    fn identify(&self, _: &Secret) -> Result<Identity, Unproven> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::parse(text, &|_| unreachable!("no files are named")).unwrap()
    }

    fn certificate(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_token_that_is_shown_decides_and_a_certificate_stands_in_for_none() {
        let token = Secret::new_token().unwrap();
        let hash = TokenHash::of(&token);
        let policy = policy(&format!(
            "[users.alice]\ntokens = [\"{hash}\"]\n[users.bob]\ncertificates = [\"bob.example\"]"
        ));
        let names = certificate(&["bob.example"]);
        let identify = |token: Option<&Secret>, names: &[String]| {
            let credentials = Credentials {
                token,
                certificate_names: names,
            };
            let identity = policy.identify(credentials);
            identity.map(|identity| identity.user.to_string())
        };
        assert_eq!(identify(Some(&token), &[]), Ok("alice".into()));
        assert_eq!(identify(Some(&token), &names[..]), Ok("alice".into()));
        assert_eq!(identify(None, &names[..]), Ok("bob".into()));
        assert_eq!(identify(None, &[]), Err(Unproven::NoCredentials));
        // A bad token is not mended by a good certificate.
        for bad in [
            "",
            "x",
            "a.b.c",
            token.expose().trim_end_matches(char::is_alphanumeric),
        ] {
            let identified = identify(Some(&bad.into()), &names[..]);
            let reason = "no user has this token";
            assert_eq!(identified, Err(Unproven::Invalid { reason }));
        }
    }

    #[test]
    fn a_certificate_of_two_users_is_nobodys() {
        let policy =
            policy("[users.a]\ncertificates = [\"a1\", \"a2\"]\n[users.b]\ncertificates = [\"b\"]");
        let check = |names: &[&str], expected: Result<&str, &'static str>| {
            let names = certificate(names);
            let identity = policy.identify_certificate(&names);
            let expected = expected.map(str::to_owned);
            let expected = expected.map_err(|reason| Unproven::Invalid { reason });
            assert_eq!(identity.map(|identity| identity.user.to_string()), expected);
        };
        check(&["a1"], Ok("a"));
        check(&["x", "a2", "a1"], Ok("a"));
        check(&["a1", "b"], Err("the certificate has names of two users"));
        check(&["x"], Err("no user has a name of this certificate"));
    }
}
