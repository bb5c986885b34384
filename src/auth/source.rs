//! The auth file on its disk, and the files that it names.
//!
//! Whoever watches it asks now and then whether it has changed. A file that is just being written looks
//! like a shorter one, which may have lost what it denies; so a change counts once it has been seen
//! twice in the same form, or at once if an operator has just asked. Each state of the files is parsed once,
//! however often it is seen: a look at what is known already costs reading and hashing it.

use std::{
    cell::RefCell,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use ring::digest::{SHA256, digest};

use super::{file::AuthError, policy::Policy};

/// The largest auth file, and the largest file that one names.
pub const AUTH_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// After so many looks in a row that each find something else, an operator is told that nothing counts.
const CHANGES_MAX: u32 = 4;

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
    #[error("{}: {reason}", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: AuthError,
    },
    /// It, or one that it names, is another whenever it is looked at.
    #[error(
        "{}: at {CHANGES_MAX} looks in a row the files have differed from the look before: write a new file \
         beside the old one and rename it over that",
        .path.display()
    )]
    Restless {
        /// The file.
        path: PathBuf,
    },
}

/// An auth file that was read in full at least once.
#[derive(Debug)]
pub struct AuthFile {
    path: PathBuf,
    in_force: Seen,
    /// What was seen last, if it is not in force.
    pending: Option<Pending>,
    /// How many looks in a row have each found something else than the one before.
    changes: u32,
}

/// What stands in the files instead of what is in force.
#[derive(Debug)]
struct Pending {
    seen: Seen,
    /// What it says, until that has counted or was told.
    judged: Option<Result<Policy, AuthFileError>>,
}

/// What was in the file, and in those that it named.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    main: Fingerprint,
    named: Vec<(PathBuf, Fingerprint)>,
}

/// Stands for a file's content, or says why there is none.
#[derive(Debug, PartialEq, Eq)]
enum Fingerprint {
    Content([u8; 32]),
    Unreadable(String),
}

impl Fingerprint {
    fn of(read: &Result<Vec<u8>, String>) -> Self {
        match read {
            Ok(bytes) => {
                let hash = digest(&SHA256, bytes);
                Self::Content(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
            }
            Err(reason) => Self::Unreadable(reason.clone()),
        }
    }
}

impl Seen {
    /// Whether the files are still the same, of which the first has this content now.
    fn is_still(&self, main: &Fingerprint) -> bool {
        let is_same =
            |(path, known): &(PathBuf, Fingerprint)| Fingerprint::of(&read_bounded(path)) == *known;
        self.main == *main && self.named.iter().all(is_same)
    }
}

impl AuthFile {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// A file that cannot be read, or that is wrong.
    pub fn open(path: impl Into<PathBuf>) -> Result<(Self, Policy), AuthFileError> {
        let path = path.into();
        let (in_force, policy) = judge(&path, read_bounded(&path));
        let file = Self {
            path,
            in_force,
            pending: None,
            changes: 0,
        };
        Ok((file, policy?))
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the files say, if that has changed and is the same as at the call before, or if an operator
    /// has just asked. A change that is wrong is told once, and what was in force stays so.
    ///
    /// # Errors
    /// As [`open`](Self::open); and once, if the files do not come to rest.
    pub fn poll(&mut self, is_asked: bool) -> Result<Option<Policy>, AuthFileError> {
        self.poll_by(is_asked, judge)
    }

    fn poll_by(
        &mut self,
        is_asked: bool,
        judge: impl FnOnce(&Path, Result<Vec<u8>, String>) -> Judged,
    ) -> Result<Option<Policy>, AuthFileError> {
        let read = read_bounded(&self.path);
        let main = Fingerprint::of(&read);
        if self.in_force.is_still(&main) {
            let has_changed = self.pending.take().is_some();
            return self.settle(has_changed);
        }
        let known = self.pending.take();
        let known = known.filter(|pending| pending.seen.is_still(&main));
        let has_changed = known.is_none();
        let mut pending = known.unwrap_or_else(|| {
            let (seen, policy) = judge(&self.path, read);
            let judged = Some(policy);
            Pending { seen, judged }
        });
        if has_changed && !is_asked {
            self.pending = Some(pending);
            return self.settle(true);
        }
        self.changes = 0;
        match pending.judged.take() {
            Some(Ok(policy)) => {
                self.in_force = pending.seen;
                Ok(Some(policy))
            }
            wrong => {
                self.pending = Some(pending);
                wrong.map_or(Ok(None), |told| told.map(Some))
            }
        }
    }

    /// Nothing counts yet, which is told if it goes on like this.
    fn settle(&mut self, has_changed: bool) -> Result<Option<Policy>, AuthFileError> {
        self.changes = if has_changed {
            self.changes.saturating_add(1)
        } else {
            0
        };
        if self.changes == CHANGES_MAX {
            let path = self.path.clone();
            return Err(AuthFileError::Restless { path });
        }
        Ok(None)
    }
}

/// What was seen, and what it says.
type Judged = (Seen, Result<Policy, AuthFileError>);

/// Understands what was read of the main file, and reads those that it names.
fn judge(path: &Path, read: Result<Vec<u8>, String>) -> Judged {
    let main = Fingerprint::of(&read);
    let named = RefCell::new(Vec::new());
    let folder = path.parent().unwrap_or(Path::new(""));
    let read_named = |name: &Path| {
        let path = folder.join(name);
        let read = read_bounded(&path);
        named.borrow_mut().push((path, Fingerprint::of(&read)));
        read
    };
    let policy = read
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
        .map_err(|reason| AuthFileError::Unreadable {
            path: path.to_owned(),
            reason,
        })
        .and_then(|text| {
            Policy::parse(&text, &read_named).map_err(|reason| AuthFileError::Wrong {
                path: path.to_owned(),
                reason,
            })
        });
    let named = named.into_inner();
    (Seen { main, named }, policy)
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
    use tempfile::TempDir;

    use super::*;

    fn written(text: &str) -> (TempDir, PathBuf, AuthFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        fs::write(&path, text).unwrap();
        let (file, _) = AuthFile::open(&path).unwrap();
        (folder, path, file)
    }

    #[track_caller]
    fn check(file: &mut AuthFile, is_asked: bool, expected: &str) {
        let polled = match file.poll(is_asked) {
            Ok(None) => "same",
            Ok(Some(_)) => "new",
            Err(AuthFileError::Restless { .. }) => "restless",
            Err(_) => "wrong",
        };
        assert_eq!(polled, expected);
    }

    #[test]
    fn a_change_counts_once_it_is_seen_twice_and_a_wrong_one_is_told_once() {
        let (_folder, path, mut file) = written("[users.a]");
        let write = |text: &str| fs::write(&path, text).unwrap();
        let mut polls = |expected: [&str; 3]| {
            for expected in expected {
                check(&mut file, false, expected);
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

    #[test]
    fn an_operator_who_asks_is_answered_at_once() {
        let (_folder, path, mut file) = written("[users.a]");
        check(&mut file, true, "same");
        for (text, expected) in [("[users.b]", "new"), ("[users", "wrong")] {
            fs::write(&path, text).unwrap();
            check(&mut file, true, expected);
            check(&mut file, true, "same");
            check(&mut file, false, "same");
        }
        fs::write(&path, "[users.c]").unwrap();
        check(&mut file, false, "same");
        check(&mut file, true, "new");
    }

    #[test]
    fn what_never_comes_to_rest_is_told_once() {
        let (_folder, path, mut file) = written("[users.a]");
        let mut look = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            check(&mut file, false, expected);
        };
        for round in 0..2 {
            // Now and then it is even what is in force.
            look(&format!("[users.b{round}]"), "same");
            look("[users.a]", "same");
            look(&format!("[users.c{round}]"), "same");
            look(&format!("[users.d{round}]"), "restless");
            look(&format!("[users.e{round}]"), "same");
            look("[users.a]", "same");
            look("[users.a]", "same");
        }
        look("[users.f]", "same");
        look("[users.f]", "new");
    }

    #[cfg(feature = "jwt")]
    #[test]
    fn each_state_of_the_files_is_parsed_once() {
        let (folder, path, _) = written("");
        let write_secret = |text: &str| fs::write(folder.path().join("secret"), text).unwrap();
        let text = "[jwt]\nalgorithms = [\"HS256\"]\nissuer = \"i\"\naudience = \"a\"\nsecret_file = \"secret\"";
        write_secret(&"x".repeat(32));
        fs::write(&path, text).unwrap();
        let (mut file, _) = AuthFile::open(&path).unwrap();
        let parsed = std::cell::Cell::new(0);
        let mut looks = |expected: u32| {
            parsed.set(0);
            for _ in 0..3 {
                let polled = file.poll_by(false, |path, read| {
                    parsed.set(parsed.get() + 1);
                    judge(path, read)
                });
                drop(polled);
            }
            assert_eq!(parsed.get(), expected);
        };
        looks(0);
        // The file itself and one that it names, right and wrong.
        fs::write(&path, format!("{text}\n[users.a]")).unwrap();
        looks(1);
        write_secret(&"y".repeat(32));
        looks(1);
        write_secret("short");
        looks(1);
        fs::write(&path, "[users").unwrap();
        looks(1);
        fs::remove_file(&path).unwrap();
        looks(1);
        looks(0);
    }
}
