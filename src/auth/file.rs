//! The auth file's text, and what it has to be to become a [`Policy`].
//!
//! Whatever is not known is refused, and what is wrong is said by the name of its place. A text in the
//! wrong place may be a secret, so none is repeated but names and filters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    identity::{NameError, RoleName, UserName},
    pattern::{RuleFilter, RuleFilterError},
    policy::{JwtPolicy, Policy},
    rules::{Filters, Grants, Right, Rules, User},
    token::{TokenHash, TokenHashError},
};

/// The most token hashes in one file: each is compared with what a new connection shows.
pub const TOKENS_MAX: usize = 10_000;

/// What is wrong with the text of an auth file. The operator must change it.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Not TOML, or not of the expected shape.
    #[error("line {line}: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A name that is none.
    #[error("{place}: {source}")]
    Name {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A filter that is none.
    #[error("{place}: {source}")]
    Filter {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        source: RuleFilterError,
    },
    /// A hash that is none.
    #[error("users.{user}.tokens: {source}")]
    Token {
        /// Whose.
        user: UserName,
        /// What is wrong with it.
        source: TokenHashError,
    },
    /// A token that is not one user's alone.
    #[error("users.{user}.tokens: another user, or this one twice, has the same token")]
    SharedToken {
        /// The second user.
        user: UserName,
    },
    /// A certificate's name that is not one user's alone.
    #[error("users.{user}.certificates: `{name}` stands for `{other}` already")]
    SharedCertificate {
        /// The second user.
        user: UserName,
        /// The first one.
        other: UserName,
        /// The name.
        name: String,
    },
    /// More hashes than [`TOKENS_MAX`].
    #[error("{tokens} tokens exceed the limit of {TOKENS_MAX}")]
    TooManyTokens {
        /// How many there are.
        tokens: usize,
    },
    /// A user's role without a section.
    #[error("users.{user}.roles: there is no [roles.{role}]")]
    UnknownRole {
        /// The user.
        user: UserName,
        /// The role.
        role: RoleName,
    },
    /// How JWTs are checked does not fit together.
    #[error("jwt: {reason}")]
    Jwt {
        /// What does not fit.
        reason: String,
    },
    /// A file that it names could not be read.
    #[error("cannot read {}: {reason}", .path.display())]
    Named {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl AuthError {
    fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = &text.as_bytes()[..at];
        Self::Syntax {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            reason: without_values(error.message()),
        }
    }
}

/// A complaint about a text of the wrong type, or that is not one of a few, repeats it, and it may be a
/// secret.
fn without_values(message: &str) -> String {
    const VARIANT: &str = "unknown variant `";
    if let (Some(start), Some(end)) = (message.find("string \""), message.rfind('"')) {
        return format!("{}a string{}", &message[..start], &message[end + 1..]);
    }
    if let Some((_, expected)) = message
        .strip_prefix(VARIANT)
        .and_then(|rest| rest.rsplit_once("`, expected "))
    {
        return format!("expected {expected}");
    }
    message.lines().collect::<Vec<_>>().join("; ")
}

/// How files that the text names are read.
pub(super) type ReadNamed<'r> = &'r dyn Fn(&Path) -> Result<Vec<u8>, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    everyone: GrantsText,
    #[serde(default)]
    roles: BTreeMap<String, GrantsText>,
    #[serde(default)]
    users: BTreeMap<String, UserText>,
    jwt: Option<JwtText>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantsText {
    #[serde(default)]
    publish: FiltersText,
    #[serde(default)]
    subscribe: FiltersText,
    #[serde(default)]
    rights: BTreeSet<Right>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserText {
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    publish: FiltersText,
    #[serde(default)]
    subscribe: FiltersText,
    #[serde(default)]
    rights: BTreeSet<Right>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FiltersText {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

/// How JWTs are checked, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "jwt"),
    expect(dead_code, reason = "said to be of no use without the feature")
)]
pub(super) struct JwtText {
    pub(super) algorithms: Vec<String>,
    pub(super) issuer: String,
    pub(super) audience: String,
    pub(super) public_key_file: Option<PathBuf>,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) jwks_file: Option<PathBuf>,
    pub(super) roles_claim: Option<String>,
}

impl Policy {
    /// What the text of an auth file says; `read` reads the files that it names.
    ///
    /// # Errors
    /// Anything in it that is not understood, or does not fit together.
    pub(crate) fn parse(text: &str, read: ReadNamed<'_>) -> Result<Self, AuthError> {
        let parsed: Text = toml::from_str(text).map_err(|error| AuthError::syntax(text, &error))?;
        let mut rules = Rules {
            everyone: grants("everyone", parsed.everyone)?,
            ..Rules::default()
        };
        for (name, text) in parsed.roles {
            let place = format!("roles.{name}");
            let role = role_name(&place, &name)?;
            rules.roles.insert(role, grants(&place, text)?);
        }
        let mut keys = Keys::default();
        for (name, text) in parsed.users {
            let place = format!("users.{name}");
            let named = name.parse();
            let user: UserName = named.map_err(|source| AuthError::Name {
                place: place.clone(),
                source,
            })?;
            keys.add(&user, &text.tokens, text.certificates)?;
            let roles = roles(&user, &text.roles, &rules)?;
            let text = GrantsText {
                publish: text.publish,
                subscribe: text.subscribe,
                rights: text.rights,
            };
            let grants = grants(&place, text)?;
            rules.users.insert(user, User { roles, grants });
        }
        let jwt = parsed.jwt.map(|jwt| JwtPolicy::new(jwt, read));
        Ok(Self {
            rules,
            tokens: keys.tokens,
            certificates: keys.certificates,
            jwt: jwt.transpose()?,
        })
    }
}

/// What users prove themselves by.
#[derive(Default)]
struct Keys {
    tokens: Vec<(TokenHash, UserName)>,
    /// The same hashes, as text.
    known: HashSet<String>,
    certificates: HashMap<String, UserName>,
}

impl Keys {
    fn add(
        &mut self,
        user: &UserName,
        tokens: &[String],
        certificates: Vec<String>,
    ) -> Result<(), AuthError> {
        for text in tokens {
            let hash: TokenHash = text.parse().map_err(|source| AuthError::Token {
                user: user.clone(),
                source,
            })?;
            if self.tokens.len() == TOKENS_MAX {
                return Err(AuthError::TooManyTokens {
                    tokens: TOKENS_MAX + 1,
                });
            }
            if !self.known.insert(hash.to_string()) {
                return Err(AuthError::SharedToken { user: user.clone() });
            }
            self.tokens.push((hash, user.clone()));
        }
        for name in certificates {
            // A DNS name, which has neither an `@` nor a colon, is the same in any case, and comes to us in
            // lower case.
            let name = if name.contains(['@', ':']) {
                name
            } else {
                name.to_ascii_lowercase()
            };
            if let Some(other) = self.certificates.get(&name) {
                return Err(AuthError::SharedCertificate {
                    user: user.clone(),
                    other: other.clone(),
                    name,
                });
            }
            self.certificates.insert(name, user.clone());
        }
        Ok(())
    }
}

fn role_name(place: &str, text: &str) -> Result<RoleName, AuthError> {
    text.parse().map_err(|source| AuthError::Name {
        place: place.to_owned(),
        source,
    })
}

fn roles(
    user: &UserName,
    texts: &[String],
    rules: &Rules,
) -> Result<BTreeSet<RoleName>, AuthError> {
    let role = |text: &String| {
        let role = role_name(&format!("users.{user}.roles"), text)?;
        if rules.roles.contains_key(&role) {
            Ok(role)
        } else {
            Err(AuthError::UnknownRole {
                user: user.clone(),
                role,
            })
        }
    };
    texts.iter().map(role).collect()
}

fn grants(place: &str, text: GrantsText) -> Result<Grants, AuthError> {
    let filters = |action: &str, text: FiltersText| {
        let list = |effect: &str, texts: Vec<String>| {
            let place = format!("{place}.{action}.{effect}");
            let filter = |text: String| {
                text.parse::<RuleFilter>()
                    .map_err(|source| AuthError::Filter {
                        place: format!("{place}: `{}`", text.escape_debug()),
                        source,
                    })
            };
            texts.into_iter().map(filter).collect::<Result<Vec<_>, _>>()
        };
        Ok(Filters {
            allow: list("allow", text.allow)?,
            deny: list("deny", text.deny)?,
        })
    };
    Ok(Grants {
        publish: filters("publish", text.publish)?,
        subscribe: filters("subscribe", text.subscribe)?,
        rights: text.rights,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let text = text.replace("HASH", HASH);
        let error = Policy::parse(&text, &|_| Err("not there".into())).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }

    #[test]
    fn a_mistake_is_said_with_its_place() {
        for (text, expected) in [
            (
                "[users.a]\n[user.b]",
                "line 2: unknown field `user`, expected one of `everyone`, `roles`, `users`, `jwt`",
            ),
            (
                "[users.a]\npublish.allow = [\"a..b\"]",
                "users.a.publish.allow: `a..b`: topic has an empty token at byte 2",
            ),
            (
                "[everyone]\nsubscribe.deny = [\"a.{x}\"]",
                "everyone.subscribe.deny: `a.{x}`: `{x}` is not a placeholder: there is only `{user}`",
            ),
            (
                "[users.a]\nroles = [\"r\"]",
                "users.a.roles: there is no [roles.r]",
            ),
            (
                "[users.a]\ntokens = [\"HASH\"]\n[users.b]\ntokens = [\"HASH\"]",
                "users.b.tokens: another user, or this one twice, has the same token",
            ),
            (
                "[users.a]\ncertificates = [\"x\"]\n[users.b]\ncertificates = [\"X\"]",
                "users.b.certificates: `x` stands for `a` already",
            ),
            (
                "[users.\"a b\"]",
                "users.a b: name has a blank or control character at byte 1",
            ),
        ] {
            check_error(text, expected);
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        for text in [
            "[users.a]\ntokens = [\"hunter2\"]",
            "[users.a]\ntokens = \"hunter2\"",
            "[users]\na = \"hunter2\"",
            "[users.a]\nroles = \"hunter2\"",
            "[users.a]\ntokens = [\"hunter2\"",
            "[users.a]\ntokens = hunter2",
            "[users.a]\nrights = [\"hunter2\"]",
            "[jwt]\nalgorithms = \"hunter2\"",
        ] {
            let error = Policy::parse(text, &|_| Err("not there".into())).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
