//! The keys that JWTs are checked with: a public key in PEM, a secret, or a set of public keys (JWKS).

use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};

/// The most keys of a set.
const KEYS_MAX: usize = 100;
/// As long as the shortest hash: a secret that is shorter is weaker than it.
const SECRET_BYTES_MIN: usize = 32;

/// A key, its id if it has one, and what it may be used with.
#[derive(Debug)]
pub(super) struct JwtKey {
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl JwtKey {
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// The content of a secret's file; a line break at its end is not a part of it.
    pub(super) fn secret(content: &[u8]) -> Result<Self, String> {
        let secret = content.trim_ascii_end();
        if secret.len() < SECRET_BYTES_MIN {
            let bytes = secret.len();
            return Err(format!(
                "a secret of {bytes} bytes is below the {SECRET_BYTES_MIN} that it needs"
            ));
        }
        Ok(Self {
            id: None,
            key: DecodingKey::from_secret(secret),
            algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
        })
    }

    /// A public key as OpenSSL writes it: `-----BEGIN PUBLIC KEY-----`.
    pub(super) fn pem(content: &[u8]) -> Result<Self, String> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        const END: &str = "-----END PUBLIC KEY-----";
        let text = str::from_utf8(content).map_err(|_| "it is no PEM file")?;
        let (_, rest) = text
            .split_once(BEGIN)
            .ok_or_else(|| format!("it has no `{BEGIN}`"))?;
        let (body, _) = rest
            .split_once(END)
            .ok_or_else(|| format!("it has no `{END}`"))?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD.decode(body);
        let der = der.map_err(|_| "what it holds is no base64")?;
        let unknown = "its key is none of RSA, P-256, P-384 and Ed25519";
        let (key, algorithms) = public_key(&der).ok_or(unknown)?;
        Ok(Self {
            id: None,
            key,
            algorithms,
        })
    }

    /// A set of public keys, each with its id unless there is but one.
    pub(super) fn set(content: &[u8]) -> Result<Vec<Self>, String> {
        let set: JwkSet = serde_json::from_slice(content).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("it is no JWKS: line {line}, column {column}")
        })?;
        let is_for_signatures = |jwk: &&Jwk| {
            let usage = &jwk.common.public_key_use;
            matches!(usage, None | Some(PublicKeyUse::Signature))
        };
        let keys: Vec<Self> = set
            .keys
            .iter()
            .filter(is_for_signatures)
            .map(Self::of_set)
            .collect::<Result<_, _>>()?;
        let ids: Vec<_> = keys.iter().filter_map(|key| key.id.as_ref()).collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        match keys.len() {
            0 => Err("it has no key for signatures".into()),
            1 => Ok(keys),
            count if count > KEYS_MAX => {
                Err(format!("{count} keys exceed the limit of {KEYS_MAX}"))
            }
            count if distinct.len() < count => Err("not every key has a `kid` of its own".into()),
            _ => Ok(keys),
        }
    }

    fn of_set(jwk: &Jwk) -> Result<Self, String> {
        let id = jwk.common.key_id.clone();
        let whose = || id.clone().unwrap_or_else(|| "without kid".into());
        let family = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => &[Algorithm::ES256][..],
                EllipticCurve::P384 => &[Algorithm::ES384][..],
                _ => &[],
            },
            AlgorithmParameters::OctetKeyPair(key) => match key.curve {
                EllipticCurve::Ed25519 => &[Algorithm::EdDSA][..],
                _ => &[],
            },
            // A secret does not belong into a set that is handed around.
            _ => &[],
        };
        let named = jwk.common.key_algorithm;
        let named: Option<Algorithm> = named.and_then(|name| name.to_string().parse().ok());
        let algorithms: Vec<Algorithm> = match jwk.common.key_algorithm {
            None => family.to_vec(),
            Some(_) => family
                .iter()
                .copied()
                .filter(|a| Some(*a) == named)
                .collect(),
        };
        if algorithms.is_empty() {
            return Err(format!(
                "its key {} is of no kind that is supported",
                whose()
            ));
        }
        let key = DecodingKey::from_jwk(jwk);
        let key = key.map_err(|_| format!("its key {} is malformed", whose()))?;
        Ok(Self {
            id,
            key,
            algorithms,
        })
    }
}

/// The key in a `SubjectPublicKeyInfo` (RFC 5280, section 4.1). For each kind of key, all before the key
/// itself is always the same, but for lengths.
fn public_key(der: &[u8]) -> Option<(DecodingKey, Vec<Algorithm>)> {
    const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    const P384: &[u8] = b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
    const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
    let ec = |prefix: &[u8], bytes: usize, algorithm| {
        let point = der.strip_prefix(prefix).filter(|key| key.len() == bytes)?;
        Some((DecodingKey::from_ec_der(point), vec![algorithm]))
    };
    ec(P256, 65, Algorithm::ES256)
        .or_else(|| ec(P384, 97, Algorithm::ES384))
        .or_else(|| {
            let key = der.strip_prefix(ED25519).filter(|key| key.len() == 32)?;
            Some((DecodingKey::from_ed_der(key), vec![Algorithm::EdDSA]))
        })
        .or_else(|| {
            let bits = contents(0x30, der)?.strip_prefix(RSA)?;
            let key = contents(0x03, bits)?.strip_prefix(&[0])?;
            let algorithms = AlgorithmFamily::Rsa.algorithms().to_vec();
            Some((DecodingKey::from_rsa_der(key), algorithms))
        })
}

/// What one DER value of this tag holds, if it is all there is.
fn contents(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let (head, rest) = der.split_at_checked(2)?;
    let (bytes, rest) = match head[1] {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (long, rest) = rest.split_at_checked(2)?;
            (usize::from(u16::from_be_bytes([long[0], long[1]])), rest)
        }
        _ => return None,
    };
    (head[0] == tag && rest.len() == bytes).then_some(rest)
}
