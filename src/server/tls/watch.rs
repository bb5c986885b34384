//! When credentials on disk are news.
//!
//! Certificate and key are two files, and most tools write one after the other: a look in between finds
//! a pair that does not fit. So what does not work is told when it is seen for a second time, or at once
//! if an operator has just asked. It is told once for each state of the files, and tried again at every
//! look, since a certificate may become valid without a change.

use super::files::{Credentials, Files, TlsError};

/// What was seen, compared to what is in force.
#[derive(Debug)]
pub(super) enum Change {
    None,
    /// These are in force from now on.
    Renewed(Credentials),
    /// What is there does not work, and nobody was told yet.
    Bad(TlsError),
}

/// What is in force, and what is wrong with what is there instead.
#[derive(Debug)]
pub(in crate::server) struct Watch {
    in_force: Files,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    /// None if they cannot be read.
    files: Option<Files>,
    error: String,
    is_told: bool,
}

impl Watch {
    pub(super) fn new(in_force: Files) -> Self {
        Self {
            in_force,
            trouble: None,
        }
    }

    /// Judges what was read.
    pub(super) fn see(
        &mut self,
        read: Result<Files, TlsError>,
        is_asked: bool,
        load: impl FnOnce(&Files) -> Result<Credentials, TlsError>,
    ) -> Change {
        let files = match read {
            Ok(files) => files,
            Err(error) => return self.doubt(None, error, is_asked),
        };
        if files == self.in_force {
            self.trouble = None;
            return Change::None;
        }
        match load(&files) {
            Ok(credentials) => {
                self.in_force = files;
                self.trouble = None;
                Change::Renewed(credentials)
            }
            Err(error) => self.doubt(Some(files), error, is_asked),
        }
    }

    fn doubt(&mut self, files: Option<Files>, error: TlsError, is_asked: bool) -> Change {
        let said = super::error_chain(&error);
        let known = self.trouble.take();
        let known = known.filter(|known| known.files == files && known.error == said);
        let was_told = known.as_ref().is_some_and(|known| known.is_told);
        let tell = !was_told && (is_asked || known.is_some());
        self.trouble = Some(Trouble {
            files,
            error: said,
            is_told: was_told || tell,
        });
        if tell {
            Change::Bad(error)
        } else {
            Change::None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use super::*;
    use crate::pem::PemError;

    fn bad() -> TlsError {
        TlsError::File(PemError::TooLarge { path: "x".into() })
    }

    fn credentials() -> Credentials {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        Credentials {
            server: Arc::new(server),
            expiry: SystemTime::UNIX_EPOCH,
        }
    }

    /// A look at files of which `good` says whether they work.
    #[track_caller]
    fn check(watch: &mut Watch, content: &str, good: bool, is_asked: bool, expected: &str) {
        let load = |_: &Files| good.then(credentials).ok_or_else(bad);
        let change = match watch.see(Ok(Files::of(content)), is_asked, load) {
            Change::None => "none",
            Change::Renewed(_) => "renewed",
            Change::Bad(_) => "bad",
        };
        assert_eq!(change, expected, "{content}");
    }

    #[test]
    fn what_is_half_written_is_not_told() {
        let mut watch = Watch::new(Files::of("old"));
        check(&mut watch, "old", false, false, "none");
        check(&mut watch, "half", false, false, "none");
        check(&mut watch, "new", true, false, "renewed");
        check(&mut watch, "new", false, false, "none");
    }

    #[test]
    fn what_stays_bad_is_told_once_for_each_change() {
        let mut watch = Watch::new(Files::of("old"));
        for content in ["bad", "worse"] {
            check(&mut watch, content, false, false, "none");
            check(&mut watch, content, false, false, "bad");
            check(&mut watch, content, false, false, "none");
            check(&mut watch, content, false, true, "none");
        }
        check(&mut watch, "old", false, false, "none");
        check(&mut watch, "bad", false, true, "bad");
        check(&mut watch, "bad", false, false, "none");
    }

    #[test]
    fn what_becomes_valid_is_taken_without_a_change() {
        let mut watch = Watch::new(Files::of("old"));
        check(&mut watch, "early", false, true, "bad");
        check(&mut watch, "early", true, false, "renewed");
    }

    #[test]
    fn files_that_cannot_be_read_are_trouble_too() {
        let mut watch = Watch::new(Files::of("old"));
        let mut look = || watch.see(Err(bad()), false, |_| unreachable!("nothing was read"));
        assert!(matches!(look(), Change::None));
        assert!(matches!(look(), Change::Bad(_)));
        assert!(matches!(look(), Change::None));
    }
}
