//! When credentials on disk are news.
//!
//! Certificate and key are two files, and most tools write one after the other, and each in steps: a look in
//! between finds a pair that does not fit, or a list of authorities that lacks the last of them. So nothing
//! counts, for good or bad, before it is seen for a second time, or at once if an operator has just asked. What
//! does not work is told once for each state of the files, and tried again at every look, since a certificate
//! may become valid without a change.

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

/// What is in force, and what was seen last if it is something else.
#[derive(Debug)]
pub(in crate::server) struct Watch {
    in_force: Files,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    /// None if they cannot be read.
    files: Option<Files>,
    /// None if they work.
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    error: String,
    is_told: bool,
}

impl Watch {
    pub(super) fn new(in_force: Files) -> Self {
        Self {
            in_force,
            pending: None,
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
            self.pending = None;
            return Change::None;
        }
        let loaded = match load(&files) {
            Ok(credentials) => credentials,
            Err(error) => return self.doubt(Some(files), error, is_asked),
        };
        let known = self.pending.take();
        if is_asked || known.is_some_and(|known| known.files.as_ref() == Some(&files)) {
            self.in_force = files;
            return Change::Renewed(loaded);
        }
        self.pending = Some(Pending {
            files: Some(files),
            trouble: None,
        });
        Change::None
    }

    fn doubt(&mut self, files: Option<Files>, error: TlsError, is_asked: bool) -> Change {
        let said = super::error_chain(&error);
        let known = self.pending.take().filter(|known| known.files == files);
        let known = known.and_then(|known| known.trouble);
        let known = known.filter(|trouble| trouble.error == said);
        let was_told = known.as_ref().is_some_and(|trouble| trouble.is_told);
        let tell = !was_told && (is_asked || known.is_some());
        let trouble = Some(Trouble {
            error: said,
            is_told: was_told || tell,
        });
        self.pending = Some(Pending { files, trouble });
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
    fn what_is_half_written_is_neither_told_nor_taken() {
        let mut watch = Watch::new(Files::of("old"));
        check(&mut watch, "old", false, false, "none");
        check(&mut watch, "half", false, false, "none");
        // One block of two works as well as both do.
        check(&mut watch, "one", true, false, "none");
        check(&mut watch, "both", true, false, "none");
        check(&mut watch, "both", true, false, "renewed");
        check(&mut watch, "both", false, false, "none");
        check(&mut watch, "one", true, false, "none");
        check(&mut watch, "both", true, false, "none");
        check(&mut watch, "one", true, false, "none");
    }

    #[test]
    fn what_works_is_taken_at_once_by_an_operator_who_asks() {
        let mut watch = Watch::new(Files::of("old"));
        check(&mut watch, "new", true, true, "renewed");
        check(&mut watch, "newer", true, false, "none");
        check(&mut watch, "newer", true, true, "renewed");
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
        check(&mut watch, "late", true, false, "none");
        check(&mut watch, "late", false, false, "none");
        check(&mut watch, "late", false, false, "bad");
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
