//! Who calls: a user's name and roles, once they are proven.

use std::{fmt, str::FromStr, sync::Arc, time::SystemTime};

use crate::topic::Topic;

/// The longest name of a user or role, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;

/// A user's name: 1 to [`NAME_BYTES_MAX`] bytes of UTF-8 without blanks or control characters. It may
/// well be one that no topic has as a token, such as an e-mail address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// A role's name, with the same syntax.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName(Arc<str>);

/// Why a text is no name. The caller must change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("name is empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("name of {bytes} bytes exceeds the limit of {NAME_BYTES_MAX}")]
    TooLong {
        /// The length given, in bytes.
        bytes: usize,
    },
    /// A blank or control character, at this byte.
    #[error("name has a blank or control character at byte {at}")]
    BlankOrControl {
        /// The offset of the character, in bytes.
        at: usize,
    },
}

fn checked(text: &str) -> Result<Arc<str>, NameError> {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    match (text.len(), text.find(odd)) {
        (0, _) => Err(NameError::Empty),
        (bytes, _) if bytes > NAME_BYTES_MAX => Err(NameError::TooLong { bytes }),
        (_, Some(at)) => Err(NameError::BlankOrControl { at }),
        (_, None) => Ok(text.into()),
    }
}

impl UserName {
    /// The name as a token of a topic, if a topic can have it as one.
    pub(super) fn as_token(&self) -> Option<&str> {
        let is_token = !self.0.contains('.') && self.0.parse::<Topic>().is_ok();
        is_token.then_some(&*self.0)
    }
}

macro_rules! name_traits {
    ($type:ty) => {
        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}
name_traits!(UserName);
name_traits!(RoleName);

/// A caller whose credentials were proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who it is.
    pub user: UserName,
    /// Roles that the credentials name, beside those that the auth file gives the user.
    pub roles: Vec<RoleName>,
    /// When the proof runs out, if it does.
    pub expires_at: Option<SystemTime>,
}

impl Identity {
    /// A user with the roles of the auth file, for as long as that says so.
    #[must_use]
    pub fn of(user: UserName) -> Self {
        Self {
            user,
            roles: Vec::new(),
            expires_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_blanks_and_an_end() {
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<UserName>().map(|_| ()), expected, "{text:?}");
        };
        for text in ["alice", "auth0|42", "alice@example.com", "*", ">", "a.b"] {
            check(text, Ok(()));
        }
        check("", Err(NameError::Empty));
        check("a b", Err(NameError::BlankOrControl { at: 1 }));
        check("a\0", Err(NameError::BlankOrControl { at: 1 }));
        check(&"x".repeat(129), Err(NameError::TooLong { bytes: 129 }));
    }

    #[test]
    fn only_what_a_topic_can_have_as_a_token_is_one() {
        let check = |text: &str, expected: bool| {
            let name: UserName = text.parse().unwrap();
            assert_eq!(name.as_token().is_some(), expected, "{text:?}");
        };
        for text in ["alice", "auth0|42", "a*", "{user}"] {
            check(text, true);
        }
        for text in ["*", ">", "a.b", ".", "a.", ".>"] {
            check(text, false);
        }
    }
}
