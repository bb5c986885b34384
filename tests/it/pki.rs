//! Authorities and certificates, minted for a test, in a folder of their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fanfare::{
    client::{Identity, TlsOptions},
    server::{ServerConfig, TlsConfig},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// A certificate that has been over for long.
pub(crate) const EXPIRED: (i32, i32) = (2001, 2002);
/// One that outlives this test.
pub(crate) const VALID: (i32, i32) = (2001, 4000);

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n")
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::valid(name, VALID)
    }

    /// An authority from the one year to the other.
    pub(crate) fn valid(name: &str, (from, to): (i32, i32)) -> Self {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: pem("CERTIFICATE", certificate.der()),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate with this name, valid from the one year to the other.
    pub(crate) fn issue(&self, name: &str, (from, to): (i32, i32)) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", &key.serialize_der()),
        }
    }
}

/// Files of both sides: `server.pem`, `server.key`, `client.pem`, `client.key` and `ca.pem`, which vouches
/// for either.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    /// A broker's certificate for `localhost`.
    pub(crate) fn new(authority: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("ca.pem", &authority.pem);
        files.write_pair("server", &authority.issue("localhost", VALID));
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn write_pair(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.pem"), &issued.certificate);
        self.write(&format!("{name}.key"), &issued.key);
    }

    /// What a broker serves with.
    pub(crate) fn server(&self) -> TlsConfig {
        TlsConfig::new(self.path("server.pem"), self.path("server.key"))
    }

    /// What a broker serves with that demands certificates.
    pub(crate) fn mutual(&self) -> TlsConfig {
        TlsConfig {
            client_ca: Some(self.path("ca.pem")),
            ..self.server()
        }
    }

    /// A client without a certificate.
    pub(crate) fn client(&self) -> TlsOptions {
        TlsOptions {
            ca: Some(self.path("ca.pem")),
            identity: None,
            server_name: Some("localhost".to_owned()),
        }
    }

    /// A client that shows this certificate.
    pub(crate) fn client_as(&self, issued: &Issued) -> TlsOptions {
        self.write_pair("client", issued);
        TlsOptions {
            identity: Some(Identity {
                certificate: self.path("client.pem"),
                key: self.path("client.key"),
            }),
            ..self.client()
        }
    }
}

pub(crate) fn over(tls: TlsConfig) -> ServerConfig {
    ServerConfig {
        tls: Some(tls),
        ..ServerConfig::default()
    }
}
