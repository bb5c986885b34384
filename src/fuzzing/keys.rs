//! Files with keys and certificates, and the hashes of tokens.

use std::path::Path;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;

use super::input::Input;
use crate::{
    auth::{Credentials, Policy, Secret, TokenHash},
    pem,
    server::names_of,
};

/// What kind of file it is, and what it holds.
pub(super) fn keys(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let content = input.rest();
    match kind % 8 {
        0 => check_jwt_key("RS256", "public_key_file", content),
        1 => check_jwt_key("ES256", "public_key_file", content),
        2 => check_jwt_key("EdDSA", "public_key_file", content),
        3 => check_jwt_key("RS256", "jwks_file", content),
        4 => check_jwt_key("HS256", "secret_file", content),
        5 => check_pem(content),
        6 => check_names(&CertificateDer::from(content)),
        _ => check_hash(content),
    }
}

/// A key file is one or is refused; and whatever key it holds, a token that nobody signed with it is
/// looked at without harm.
fn check_jwt_key(algorithm: &str, file: &str, content: &[u8]) {
    let text = format!(
        "[jwt]\nalgorithms = [\"{algorithm}\"]\nissuer = \"i\"\naudience = \"a\"\n{file} = \"f\""
    );
    let Ok(policy) = Policy::parse(&text, &|_| Ok(content.to_vec())) else {
        return;
    };
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    let header = format!("{{\"alg\":\"{algorithm}\"}}");
    let claims = br#"{"sub":"x","iss":"i","aud":"a","exp":9999999999}"#;
    for signature in [&[][..], &[0; 64], &[1; 256]] {
        let parts = [encode(header.as_bytes()), encode(claims), encode(signature)];
        let token = Secret::from(parts.join(".").as_str());
        drop(policy.identify(Credentials {
            token: Some(&token),
            certificate_names: &[],
        }));
    }
}

fn check_pem(content: &[u8]) {
    let path = Path::new("f");
    if let Ok(certificates) = pem::certificates(content, path) {
        let begins = content
            .windows(11)
            .filter(|window| *window == b"-----BEGIN ");
        assert!((1..=begins.count()).contains(&certificates.len()));
        certificates.iter().for_each(check_names);
    }
    drop(pem::key(content, path));
}

/// A name's kind is plain from its looks.
fn check_names(certificate: &CertificateDer<'_>) {
    let Ok(names) = names_of(certificate) else {
        return;
    };
    assert!(names.len() <= 64);
    for name in names.iter() {
        assert!(!name.is_empty());
        assert!(
            !name.contains(|c: char| c.is_whitespace() || c.is_control()),
            "{name:?}"
        );
        let is_dns = !name.contains([':', '@']);
        assert!(
            !is_dns || !name.contains(|c: char| c.is_ascii_uppercase()),
            "{name:?}"
        );
    }
}

fn check_hash(content: &[u8]) {
    let text = String::from_utf8_lossy(content);
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    let expected = digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit());
    match text.parse::<TokenHash>() {
        Ok(hash) => assert!(expected && hash.to_string().eq_ignore_ascii_case(&text)),
        Err(_) => assert!(!expected),
    }
}
