//! The auth file on its disk, and the files that it names.
//!
//! Whoever watches it asks now and then whether it has changed. A file that is just being written looks
//! like a shorter one, which may have lost what it denies; so a change counts once it has been seen
//! twice in the same form.

use std::{
    cell::RefCell,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};

use super::{file::AuthError, policy::Policy};

/// The largest auth file, and the largest file that one names.
pub const AUTH_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// The file itself could not be read.
    #[error("cannot read {}: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// What it says is wrong.
    #[error("{}: {source}", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: AuthError,
    },
}

/// An auth file that was read in full at least once.
#[derive(Debug)]
pub struct AuthFile {
    path: PathBuf,
    in_force: Fingerprint,
    /// What was seen last, if it is not in force.
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    fingerprint: Fingerprint,
    is_refused: bool,
}

/// Stands for the contents of all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint([u8; 32]);

/// What a look at the files gave.
type Seen = (Fingerprint, Result<Policy, AuthFileError>);

impl AuthFile {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// A file that cannot be read, or that is wrong.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Policy), AuthFileError> {
        let path = path.into();
        let (in_force, policy) = look(&path);
        let file = Self {
            path,
            in_force,
            pending: None,
        };
        Ok((file, policy?))
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the files say, if that has changed and is the same as at the call before. A change that is
    /// wrong is told once, and what was in force stays so.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn poll(&mut self) -> Result<Option<Policy>, AuthFileError> {
        let (seen, policy) = look(&self.path);
        if seen == self.in_force {
            self.pending = None;
            return Ok(None);
        }
        match &mut self.pending {
            Some(pending) if pending.fingerprint == seen => {
                if pending.is_refused {
                    return Ok(None);
                }
                pending.is_refused = true;
            }
            _ => {
                self.pending = Some(Pending {
                    fingerprint: seen,
                    is_refused: false,
                });
                return Ok(None);
            }
        }
        let policy = policy?;
        self.in_force = seen;
        self.pending = None;
        Ok(Some(policy))
    }
}

fn look(path: &Path) -> Seen {
    let contents = RefCell::new(Context::new(&SHA256));
    // Each with its length: what moves from one file to the next is a change.
    let add = |bytes: &[u8]| {
        let mut contents = contents.borrow_mut();
        contents.update(&(bytes.len() as u64).to_be_bytes());
        contents.update(bytes);
    };
    let read = |path: &Path| {
        let read = read_bounded(path);
        match &read {
            Ok(bytes) => add(bytes),
            Err(reason) => add(reason.as_bytes()),
        }
        read
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let policy = read(path)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
        .map_err(|reason| AuthFileError::Unreadable {
            path: path.to_owned(),
            reason,
        })
        .and_then(|text| {
            let parsed = Policy::parse(&text, &|named| read(&folder.join(named)));
            parsed.map_err(|source| AuthFileError::Wrong {
                path: path.to_owned(),
                source,
            })
        });
    let digest = contents.into_inner().finish();
    let digest = digest.as_ref().try_into();
    (Fingerprint(digest.expect("SHA-256 has 32 bytes")), policy)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(path)?;
        file.take(AUTH_FILE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| error.to_string())?;
    if bytes.len() > AUTH_FILE_BYTES_MAX {
        return Err(format!(
            "it exceeds the limit of {AUTH_FILE_BYTES_MAX} bytes"
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_is_seen_twice_and_a_wrong_one_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("[users.a]");
        let (mut file, _) = AuthFile::open(&path).unwrap();
        let mut polls = |expected: [&str; 3]| {
            for expected in expected {
                let polled = match file.poll() {
                    Ok(None) => "same",
                    Ok(Some(_)) => "new",
                    Err(_) => "wrong",
                };
                assert_eq!(polled, expected);
            }
        };
        polls(["same"; 3]);
        write("[users.a]\n[users.b]");
        polls(["same", "new", "same"]);
        write("[users");
        polls(["same", "wrong", "same"]);
        write("[users.b]");
        polls(["same", "new", "same"]);
        fs::remove_file(&path).unwrap();
        polls(["same", "wrong", "same"]);
        // What is back is what has been in force all the time.
        write("[users.b]");
        polls(["same"; 3]);
    }
}
