//! PEM files, as both ends of TLS need them: read in full within a limit, and with something of the
//! wanted kind in them.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use tokio::io::AsyncReadExt;

/// Several times the bundle of all public authorities.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Why a file does not hold what it should. Whoever owns the file must change it.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file is not there, or may not be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than any that can be meant.
    #[error("{} exceeds the limit of {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not PEM, or has nothing of the kind in it.
    #[error("no {wanted} in {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong with it.
        source: NoPem,
    },
}

/// What is wrong with a PEM file, without what it holds, which may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPem {
    /// Nothing of the kind is in it.
    #[error("nothing of the kind is in it")]
    Nothing,
    /// A section begins and does not end, as in a file that is written in part.
    #[error("a section has no `-----END` line")]
    NoEnd,
    /// A line that is meant to begin a section does not.
    #[error("a `-----BEGIN` line is malformed")]
    Begin,
    /// What stands between the two lines is no base64.
    #[error("a section is no base64")]
    Base64,
    /// It cannot be read as PEM in another way.
    #[error("it cannot be read as PEM")]
    Other,
}

impl From<pem::Error> for NoPem {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::NoItemsFound => Self::Nothing,
            pem::Error::MissingSectionEnd { .. } => Self::NoEnd,
            pem::Error::IllegalSectionStart { .. } => Self::Begin,
            pem::Error::Base64Decode(_) => Self::Base64,
            _ => Self::Other,
        }
    }
}

/// The content of a file.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let mut content = Vec::new();
    let reading = async {
        let file = tokio::fs::File::open(path).await?;
        let mut bounded = file.take(FILE_BYTES_MAX as u64 + 1);
        bounded.read_to_end(&mut content).await
    };
    let path = path.to_owned();
    match reading.await {
        Ok(bytes) if bytes > FILE_BYTES_MAX => Err(PemError::TooLarge { path }),
        Ok(_) => Ok(content),
        Err(source) => Err(PemError::Unreadable { path, source }),
    }
}

/// The certificates in what was read from `path`, one at least.
pub(crate) fn certificates(
    content: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let missing = |error: pem::Error| PemError::Missing {
        path: path.to_owned(),
        wanted: "certificate",
        source: error.into(),
    };
    let certificates = CertificateDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(missing)?;
    if certificates.is_empty() {
        return Err(missing(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

/// The first private key in what was read from `path`.
pub(crate) fn key(content: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(content).map_err(|error| PemError::Missing {
        path: path.to_owned(),
        wanted: "private key",
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_too_large_is_not_read_in_full() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX as u64).unwrap();
        assert_eq!(read(file.path()).await.unwrap().len(), FILE_BYTES_MAX);
        file.as_file().set_len(1 << 40).unwrap();
        let error = read(file.path()).await.unwrap_err().to_string();
        assert!(
            error.ends_with("exceeds the limit of 1048576 bytes"),
            "{error}"
        );
    }

    #[test]
    fn a_file_without_what_it_should_hold_is_named() {
        let path = Path::new("a.pem");
        let error = certificates(b"nothing", path).unwrap_err();
        assert_eq!(error.to_string(), "no certificate in a.pem");
        let error = key(b"", path).unwrap_err();
        assert_eq!(error.to_string(), "no private key in a.pem");
        let source_of = |content: &[u8]| match certificates(content, path).unwrap_err() {
            PemError::Missing { source, .. } => source,
            error => panic!("{error:?}"),
        };
        assert_eq!(source_of(b"nothing"), NoPem::Nothing);
        let torn = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert_eq!(source_of(torn), NoPem::NoEnd);
        assert_eq!(source_of(b"-----BEGIN CERTIFICATE\nAAAA\n"), NoPem::Begin);
        let no_base64 = b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
        assert_eq!(source_of(no_base64), NoPem::Base64);
    }
}
