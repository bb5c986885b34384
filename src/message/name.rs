//! Names that are types: tags, keys, groups, ids and attributes, each parsed once, at the edge.

use std::{fmt, str::FromStr};

/// The longest tag, key, group name or attribute name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest message id, in bytes: room for a UUID, a ULID or a trace id with a prefix.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;

/// Why a text is not a valid name. The caller must change it; a retry does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{noun} is empty")]
    Empty {
        /// What the name is for.
        noun: &'static str,
    },
    /// Longer than its limit.
    #[error("{noun} of {bytes} bytes exceeds the limit of {max}")]
    TooLong {
        /// What the name is for.
        noun: &'static str,
        /// The length given, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// A character that this kind of name may not have.
    #[error("{noun} has a forbidden character at byte {at}")]
    Forbidden {
        /// What the name is for.
        noun: &'static str,
        /// The offset of the character, in bytes.
        at: usize,
    },
}

fn check_name(
    noun: &'static str,
    text: &str,
    max: usize,
    forbidden: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    let bytes = text.len();
    if bytes == 0 {
        return Err(NameError::Empty { noun });
    }
    if bytes > max {
        return Err(NameError::TooLong { noun, bytes, max });
    }
    match text.char_indices().find(|(_, c)| forbidden(*c)) {
        Some((at, _)) => Err(NameError::Forbidden { noun, at }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $noun:literal, $max:expr, $forbidden:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Box<str>);

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
                check_name($noun, text, $max, $forbidden)?;
                Ok(Self(text.into()))
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

name!(
    /// By what subscribers may choose messages: 1 to [`NAME_BYTES_MAX`] bytes without blanks, control
    /// characters or `|`, which separates the tags of a tag expression.
    Tag,
    "tag",
    NAME_BYTES_MAX,
    |c: char| c.is_whitespace() || c.is_control() || c == '|'
);
name!(
    /// A message's key, for the application: 1 to [`NAME_BYTES_MAX`] bytes without control characters.
    Key,
    "key",
    NAME_BYTES_MAX,
    char::is_control
);
name!(
    /// The name under which subscribers share the work: 1 to [`NAME_BYTES_MAX`] bytes without blanks
    /// or control characters.
    GroupName,
    "group",
    NAME_BYTES_MAX,
    |c: char| c.is_whitespace() || c.is_control()
);
name!(
    /// A message's id: 1 to [`MESSAGE_ID_BYTES_MAX`] bytes of printable ASCII without blanks.
    MessageId,
    "id",
    MESSAGE_ID_BYTES_MAX,
    |c: char| !c.is_ascii_graphic()
);
name!(
    /// An attribute's name: 1 to [`NAME_BYTES_MAX`] bytes without control characters.
    AttributeName,
    "attribute name",
    NAME_BYTES_MAX,
    char::is_control
);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = NameError>>(text: &str, expected: Result<(), NameError>) {
        assert_eq!(text.parse::<T>().map(|_| ()), expected, "{text:?}");
    }

    #[test]
    fn each_name_has_its_rule() {
        check::<Tag>("orders", Ok(()));
        check::<Tag>("a||b", Err(NameError::Forbidden { noun: "tag", at: 1 }));
        check::<Tag>("a b", Err(NameError::Forbidden { noun: "tag", at: 1 }));
        check::<Key>("order 42|x", Ok(()));
        check::<Key>("a\n", Err(NameError::Forbidden { noun: "key", at: 1 }));
        check::<GroupName>("", Err(NameError::Empty { noun: "group" }));
        check::<MessageId>("01J-x", Ok(()));
        check::<MessageId>("é", Err(NameError::Forbidden { noun: "id", at: 0 }));
        check::<MessageId>(
            &"x".repeat(129),
            Err(NameError::TooLong {
                noun: "id",
                bytes: 129,
                max: 128,
            }),
        );
        check::<MessageId>(&"x".repeat(128), Ok(()));
        check::<Tag>(&"x".repeat(255), Ok(()));
        check::<AttributeName>("ce-id", Ok(()));
    }
}
