//! The auth file's text, and what it has to be to become a [`Policy`].
//!
//! Whatever is not known is refused, and what is wrong is said by the name of its place. A text in the
//! wrong place may be a secret, so none is repeated but names and filters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Display,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    certificate_name::{CertificateName, CertificateNameError},
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
    #[error("{place}: {reason}")]
    Name {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        reason: NameError,
    },
    /// A filter that is none.
    #[error("{place}: {reason}")]
    Filter {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        reason: RuleFilterError,
    },
    /// A hash that is none.
    #[error("{place}: {reason}")]
    Token {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        reason: TokenHashError,
    },
    /// A token that is not one user's alone.
    #[error("{place}: another user, or this one twice, has the same token")]
    SharedToken {
        /// Where it stands for the second time.
        place: String,
    },
    /// A certificate's name that is none.
    #[error("{place}: {reason}")]
    Certificate {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        reason: CertificateNameError,
    },
    /// A certificate's name that is not one user's alone.
    #[error("{place}: `{name}` stands for `{other}` already")]
    SharedCertificate {
        /// Where it stands for the second time.
        place: String,
        /// The first user.
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
    #[error("{place}: there is no [roles.{role}]")]
    UnknownRole {
        /// Where it stands.
        place: String,
        /// The role.
        role: RoleName,
    },
    /// How JWTs are checked does not fit together.
    #[error("jwt: {reason}")]
    Jwt {
        /// What does not fit.
        reason: String,
    },
    /// A file that it names could not be read, or does not hold what it should.
    #[error("jwt.{key}: {reason}")]
    Named {
        /// What the file should hold.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl AuthError {
    fn syntax(text: &str, error: &toml::de::Error) -> Self {
        Self::Syntax {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            reason: without_values(error.message()),
        }
    }
}

/// The line, from 1, of what begins at this byte.
fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// A complaint about a value of the wrong type, or that is not one of a few, repeats it, and it may be a
/// secret.
fn without_values(message: &str) -> String {
    let after = |start: &str| message.strip_prefix(start)?.rsplit_once(", expected ");
    for start in ["invalid type: ", "invalid value: "] {
        if let Some((value, expected)) = after(start) {
            let kind = value.split(['`', '"']).next().unwrap_or_default();
            return format!("{start}{}, expected {expected}", kind.trim_end());
        }
    }
    if let Some((_, expected)) = after("unknown variant ") {
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
    tokens: Vec<Spanned<String>>,
    #[serde(default)]
    certificates: Vec<Spanned<String>>,
    #[serde(default)]
    roles: Vec<Spanned<String>>,
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
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
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
        let written = Written(text);
        let mut rules = Rules {
            everyone: written.grants("everyone", parsed.everyone)?,
            ..Rules::default()
        };
        for (name, text) in parsed.roles {
            let place = format!("roles.{name}");
            let role = name_at(&name, || place.clone())?;
            rules.roles.insert(role, written.grants(&place, text)?);
        }
        let mut keys = Keys::default();
        for (name, text) in parsed.users {
            let place = format!("users.{name}");
            let user: UserName = name_at(&name, || place.clone())?;
            keys.add(written, &user, &text.tokens, &text.certificates)?;
            let roles = written.roles(&place, &text.roles, &rules)?;
            let text = GrantsText {
                publish: text.publish,
                subscribe: text.subscribe,
                rights: text.rights,
            };
            let grants = written.grants(&place, text)?;
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
        written: Written<'_>,
        user: &UserName,
        tokens: &[Spanned<String>],
        certificates: &[Spanned<String>],
    ) -> Result<(), AuthError> {
        for text in tokens {
            let place = || written.place(text, format_args!("users.{user}.tokens"));
            let hash: TokenHash = text.as_ref().parse().map_err(|reason| AuthError::Token {
                place: place(),
                reason,
            })?;
            if self.tokens.len() == TOKENS_MAX {
                return Err(AuthError::TooManyTokens {
                    tokens: TOKENS_MAX + 1,
                });
            }
            if !self.known.insert(hash.to_string()) {
                return Err(AuthError::SharedToken { place: place() });
            }
            self.tokens.push((hash, user.clone()));
        }
        for text in certificates {
            let place = || written.place(text, format_args!("users.{user}.certificates"));
            let name: CertificateName =
                text.as_ref()
                    .parse()
                    .map_err(|reason| AuthError::Certificate {
                        place: place(),
                        reason,
                    })?;
            let name = String::from(name);
            if let Some(other) = self.certificates.get(&name) {
                return Err(AuthError::SharedCertificate {
                    place: place(),
                    other: other.clone(),
                    name,
                });
            }
            self.certificates.insert(name, user.clone());
        }
        Ok(())
    }
}

fn name_at<N: FromStr<Err = NameError>>(
    text: &str,
    place: impl FnOnce() -> String,
) -> Result<N, AuthError> {
    text.parse().map_err(|reason| AuthError::Name {
        place: place(),
        reason,
    })
}

/// The text of a file, by which a mistake is said with its line.
#[derive(Clone, Copy)]
struct Written<'t>(&'t str);

impl Written<'_> {
    fn place(self, at: &Spanned<String>, place: impl Display) -> String {
        format!("line {}: {place}", line_of(self.0, at.span().start))
    }

    fn roles(
        self,
        place: &str,
        texts: &[Spanned<String>],
        rules: &Rules,
    ) -> Result<BTreeSet<RoleName>, AuthError> {
        let role = |text: &Spanned<String>| {
            let place = || self.place(text, format_args!("{place}.roles"));
            let role = name_at(text.as_ref(), place)?;
            if rules.roles.contains_key(&role) {
                Ok(role)
            } else {
                let place = place();
                Err(AuthError::UnknownRole { place, role })
            }
        };
        texts.iter().map(role).collect()
    }

    fn grants(self, place: &str, text: GrantsText) -> Result<Grants, AuthError> {
        let list = |at: &str, texts: Vec<Spanned<String>>| {
            let filter = |text: Spanned<String>| {
                let parsed = text.as_ref().parse::<RuleFilter>();
                parsed.map_err(|reason| {
                    let place = self.place(&text, format_args!("{place}.{at}"));
                    let shown = text.as_ref().escape_debug();
                    let place = format!("{place}: `{shown}`");
                    AuthError::Filter { place, reason }
                })
            };
            texts.into_iter().map(filter).collect::<Result<Vec<_>, _>>()
        };
        Ok(Grants {
            publish: Filters {
                allow: list("publish.allow", text.publish.allow)?,
                deny: list("publish.deny", text.publish.deny)?,
            },
            subscribe: Filters {
                allow: list("subscribe.allow", text.subscribe.allow)?,
                deny: list("subscribe.deny", text.subscribe.deny)?,
            },
            rights: text.rights,
        })
    }
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
                "line 2: users.a.publish.allow: `a..b`: topic has an empty token at byte 2",
            ),
            (
                "[everyone]\nsubscribe.deny = [\"a.{x}\"]",
                "line 2: everyone.subscribe.deny: `a.{x}`: `{x}` is not a placeholder: there is only `{user}`",
            ),
            (
                "[users.a]\nroles = [\"r\"]",
                "line 2: users.a.roles: there is no [roles.r]",
            ),
            (
                "[users.a]\ntokens = [\"HASH\"]\n[users.b]\ntokens = [\"HASH\"]",
                "line 4: users.b.tokens: another user, or this one twice, has the same token",
            ),
            (
                "[users.a]\ncertificates = [\"x\"]\n[users.b]\ncertificates = [\"X\"]",
                "line 4: users.b.certificates: `x` stands for `a` already",
            ),
            (
                "[users.a]\nroles = [\n  \"r s\",\n]",
                "line 3: users.a.roles: name has a blank or control character at byte 1",
            ),
            (
                "[users.a]\ncertificates = [\"CN=a\"]",
                "line 2: users.a.certificates: no name that counts in a certificate: write a DNS name, an e-mail \
                 address or a URI as it stands there",
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
            "[jwt]\nalgorithms = [\"hunter2\"]\nissuer = \"i\"\naudience = \"a\"\nsecret_file = \"f\"",
            "[jwt]\nalgorithms = [\"HS256\"]\nissuer = \"i\"\naudience = \"a\"\nsecret_file = \"hunter2\"",
            "[users.a]\nroles = [\"x, expected hunter2\", 7]\nrights = [\"x, expected hunter2\"]",
            "[users.a]\ncertificates = [\"a\", \"hunter2 hunter2\"]",
        ] {
            let error = Policy::parse(text, &|_| Err("not there".into())).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        for value in ["1234567", "-1234567", "0.1234567", "1234567-01-01"] {
            let text = format!("[users.a]\ntokens = [{value}]");
            let error = Policy::parse(&text, &|_| Err("not there".into())).unwrap_err();
            assert!(!error.to_string().contains("1234567"), "{error}");
        }
        check_error(
            "[users.a]\ntokens = [true]",
            "line 2: invalid type: boolean, expected a string",
        );
    }
}
