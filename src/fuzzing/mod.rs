//! What fuzzers call: one function for each part that reads what strangers or operators wrote.
//!
//! Each takes any bytes and panics if the part breaks its promise, which is held against an oracle that
//! does the same in a plainer way: a wildcard is matched by recursion, a stream is cut once it has come in
//! full, a request is decoded by prost. `fuzz/` has an engine for each of them, which needs the feature
//! `fuzzing`, and a corpus, which the tests here replay. Not an interface: nothing here is kept stable.

mod auth_file;
mod connection;
#[cfg(feature = "jwt")]
mod credentials;
mod frames;
mod input;
mod keys;
mod publish;
mod requests;
mod rules;
mod topics;

/// Takes any bytes; panics if a promise is broken.
pub type Target = fn(&[u8]);

/// The targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("auth_file", auth_file::auth_file),
    ("connection", connection::connection),
    #[cfg(feature = "jwt")]
    ("credentials", credentials::credentials),
    ("frames", frames::frames),
    ("keys", keys::keys),
    ("publish", publish::publish),
    ("publish_stream", publish::publish_stream),
    ("requests", requests::requests),
    ("rules", rules::rules),
    ("topics", topics::topics),
];

/// Runs the target of this name.
///
/// # Panics
/// There is none, or it found a broken promise.
pub fn run(name: &str, data: &[u8]) {
    let mut targets = TARGETS.iter();
    let (_, target) = targets
        .find(|(known, _)| *known == name)
        .expect("a name of `TARGETS`");
    target(data);
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// Replayed by the binary, which it belongs to.
    const OF_THE_BINARY: &str = "settings";

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
    }

    #[test]
    fn what_fuzzers_have_found_stays_mended() {
        let mut failed = Vec::new();
        for (name, target) in TARGETS {
            let files = fs::read_dir(folder().join("corpus").join(name)).unwrap();
            let paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
            assert!(!paths.is_empty(), "{name} has no corpus");
            failed.extend(paths.into_iter().filter(|path| {
                let data = fs::read(path).unwrap();
                std::panic::catch_unwind(|| target(&data)).is_err()
            }));
        }
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn every_target_has_an_engine_and_a_corpus_and_the_other_way_round() {
        let names = |folder: &Path| -> BTreeSet<String> {
            let entries = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
            entries.map(|path| name(&path)).collect()
        };
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        let bins = manifest.lines().filter_map(|line| {
            let path = line.strip_prefix("path = \"fuzz_targets/")?;
            path.strip_suffix(".rs\"").map(str::to_owned)
        });
        let mut known: BTreeSet<String> =
            TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        known.insert(OF_THE_BINARY.to_owned());
        // A build without JWTs lacks the target, and not its corpus.
        known.insert("credentials".to_owned());
        assert_eq!(names(&folder().join("corpus")), known);
        assert_eq!(names(&folder().join("fuzz_targets")), known);
        assert_eq!(bins.collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn corpora_stay_small() {
        const BYTES_MAX: u64 = 300_000;
        let folders = fs::read_dir(folder().join("corpus")).unwrap();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let bytes: u64 = files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= BYTES_MAX, "{bytes} bytes exceed {BYTES_MAX}");
    }
}
