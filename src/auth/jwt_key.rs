//! The keys that JWTs are checked with: a public key in PEM, a secret, or a set of public keys (JWKS).

use std::ops::RangeInclusive;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, Jwk},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The most keys of a set.
const KEYS_MAX: usize = 100;
/// As long as the shortest hash: a secret that is shorter is weaker than it.
const SECRET_BYTES_MIN: usize = 32;
/// How long RSA keys may be for ring, which checks signatures.
const RSA_BITS: RangeInclusive<usize> = 2_048..=8_192;

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
        let PublicKey {
            key,
            algorithms,
            modulus,
        } = public_key(&der).ok_or(unknown)?;
        modulus.map_or(Ok(()), check_modulus)?;
        Ok(Self {
            id: None,
            key,
            algorithms,
        })
    }

    /// A set of public keys, each with its id unless there is but one. Keys of other kinds and for other purposes
    /// may be among them: an issuer that begins to use one must not take those away that work.
    pub(super) fn set(content: &[u8]) -> Result<Vec<Self>, String> {
        let set: Set = serde_json::from_slice(content).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("it is no JWKS: line {line}, column {column}")
        })?;
        let usable = set.keys.into_iter().filter_map(|jwk| {
            let algorithms = algorithms(&jwk);
            (!algorithms.is_empty()).then(|| Self::of_set(jwk, algorithms))
        });
        let keys: Vec<Self> = usable.collect::<Result<_, _>>()?;
        let ids: Vec<_> = keys.iter().filter_map(|key| key.id.as_ref()).collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        match keys.len() {
            0 => Err("it has no key for signatures of a kind that is supported".into()),
            1 => Ok(keys),
            count if count > KEYS_MAX => {
                Err(format!("{count} keys exceed the limit of {KEYS_MAX}"))
            }
            count if distinct.len() < count => Err("not every key has a `kid` of its own".into()),
            _ => Ok(keys),
        }
    }

    fn of_set(jwk: Map<String, Value>, algorithms: Vec<Algorithm>) -> Result<Self, String> {
        let id = jwk.get("kid").and_then(Value::as_str);
        let whose = id.unwrap_or("without kid").to_owned();
        let malformed = || format!("its key {whose} is malformed");
        let jwk: Jwk = serde_json::from_value(Value::Object(jwk)).map_err(|_| malformed())?;
        if let AlgorithmParameters::RSA(key) = &jwk.algorithm {
            let modulus = BASE64_URL_SAFE_NO_PAD.decode(&key.n);
            let modulus = modulus.map_err(|_| malformed())?;
            check_modulus(&modulus).map_err(|reason| format!("its key {whose}: {reason}"))?;
        }
        Ok(Self {
            key: DecodingKey::from_jwk(&jwk).map_err(|_| malformed())?,
            id: jwk.common.key_id,
            algorithms,
        })
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Map<String, Value>>,
}

/// What a key of a set may be used with (RFC 7517, section 4): nothing, if it is of a kind that is not supported, or
/// not for checking signatures. A secret does not belong into a set that is handed around.
fn algorithms(jwk: &Map<String, Value>) -> Vec<Algorithm> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let family = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => AlgorithmFamily::Rsa.algorithms(),
        (Some("EC"), Some("P-256")) => &[Algorithm::ES256],
        (Some("EC"), Some("P-384")) => &[Algorithm::ES384],
        (Some("OKP"), Some("Ed25519")) => &[Algorithm::EdDSA],
        _ => &[],
    };
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    let is_for_signatures = matches!(text("use"), None | Some("sig"))
        && operations.is_none_or(|operations| operations.iter().any(|name| name == "verify"));
    let named = text("alg").map(str::parse::<Algorithm>);
    let is_meant = |algorithm: &Algorithm| match &named {
        None => is_for_signatures,
        Some(named) => is_for_signatures && named.as_ref().ok() == Some(algorithm),
    };
    family.iter().copied().filter(is_meant).collect()
}

/// Signatures by RSA keys of other lengths are not taken.
fn check_modulus(modulus: &[u8]) -> Result<(), String> {
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = &modulus[leading..];
    let bits = modulus.first().map_or(0, |first| {
        8 * modulus.len() - first.leading_zeros() as usize
    });
    if RSA_BITS.contains(&bits) {
        return Ok(());
    }
    let (min, max) = RSA_BITS.into_inner();
    Err(format!(
        "an RSA key of {bits} bits is outside of the {min} to {max} that are taken"
    ))
}

/// What a file in PEM holds.
struct PublicKey<'d> {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
    /// Of an RSA key.
    modulus: Option<&'d [u8]>,
}

/// The key in a `SubjectPublicKeyInfo` (RFC 5280, section 4.1). For each kind of key, all before the key
/// itself is always the same, but for lengths.
fn public_key(der: &[u8]) -> Option<PublicKey<'_>> {
    const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    const P384: &[u8] = b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
    const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
    let after = |prefix: &[u8], bytes: usize| {
        let key = der.strip_prefix(prefix)?;
        (key.len() == bytes).then_some(key)
    };
    let (key, algorithms, modulus) = if let Some(point) = after(P256, 65) {
        let key = DecodingKey::from_ec_der(point);
        (key, vec![Algorithm::ES256], None)
    } else if let Some(point) = after(P384, 97) {
        let key = DecodingKey::from_ec_der(point);
        (key, vec![Algorithm::ES384], None)
    } else if let Some(key) = after(ED25519, 32) {
        let key = DecodingKey::from_ed_der(key);
        (key, vec![Algorithm::EdDSA], None)
    } else {
        let bits = contents(0x30, der)?.strip_prefix(RSA)?;
        let key = contents(0x03, bits)?.strip_prefix(&[0])?;
        let (modulus, _) = value(0x02, contents(0x30, key)?)?;
        let algorithms = AlgorithmFamily::Rsa.algorithms().to_vec();
        (DecodingKey::from_rsa_der(key), algorithms, Some(modulus))
    };
    Some(PublicKey {
        key,
        algorithms,
        modulus,
    })
}

/// What one DER value of this tag holds, if it is all there is.
fn contents(tag: u8, der: &[u8]) -> Option<&[u8]> {
    value(tag, der).and_then(|(held, rest)| rest.is_empty().then_some(held))
}

/// What one DER value of this tag holds, and what follows.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
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
    (head[0] == tag).then_some(())?;
    rest.split_at_checked(bytes)
}
