//! What JWTs are believed. Tokens are made by hand, right and wrong ones.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::super::{Credentials, Identity, Policy, Unproven};

const SECRET: &[u8] = b"thirty-two bytes are long enough";

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "sub": "alice", "iss": "https://issuer.example", "aud": "fanfare", "exp": now() + 60 })
}

fn encode(part: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part)
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode(signature))
}

fn hs256(header: &Value, claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    token(header, claims, |message| {
        hmac::sign(&key, message).as_ref().to_vec()
    })
}

fn policy(settings: &str, named: Vec<u8>) -> Result<Policy, String> {
    let text = format!(
        "[roles.reader]\n[roles.writer]\n[jwt]\nissuer = \"https://issuer.example\"\n\
         audience = \"fanfare\"\nroles_claim = \"groups\"\n{settings}"
    );
    let parsed = Policy::parse(&text, &|_| Ok(named.clone()));
    parsed.map_err(|error| error.to_string())
}

fn with_secret() -> Policy {
    let settings = "algorithms = [\"HS256\"]\nsecret_file = \"f\"";
    policy(settings, SECRET.to_vec()).unwrap()
}

fn identify(policy: &Policy, token: &str) -> Result<Identity, Unproven> {
    policy.identify(Credentials {
        token: Some(&token.into()),
        certificate_names: &[],
    })
}

#[track_caller]
fn check_refused(policy: &Policy, token: &str, expected: &str) {
    let reason = match identify(policy, token).unwrap_err() {
        Unproven::Invalid { reason } => reason.to_owned(),
        other => other.to_string(),
    };
    assert_eq!(reason, expected, "{token}");
}

#[test]
fn a_sound_jwt_says_who_calls_with_which_roles_and_for_how_long() {
    let mut claims = claims();
    claims["groups"] = json!(["reader", "writer"]);
    claims["nbf"] = json!(now());
    let token = hs256(&json!({"alg": "HS256", "kid": "whatever"}), &claims);
    let identity = identify(&with_secret(), &token).unwrap();
    assert_eq!(identity.user.as_str(), "alice");
    let roles: Vec<_> = identity.roles.iter().map(|role| role.as_str()).collect();
    assert_eq!(roles, ["reader", "writer"]);
    let expires_at = identity.expires_at.unwrap().duration_since(UNIX_EPOCH);
    assert_eq!(
        expires_at.unwrap().as_secs(),
        claims["exp"].as_u64().unwrap()
    );
}

#[test]
fn of_all_roles_that_a_jwt_names_those_of_the_auth_file_count() {
    let policy = with_secret();
    let many = |count: usize| (0..count).map(|at| format!("r{at}"));
    let late: Vec<String> = many(200).chain(["writer".to_owned()]).collect();
    for (groups, expected) in [
        (json!(late), &["writer"][..]),
        (json!(late.join(" ")), &["writer"]),
        (
            json!(["writer", "reader", "writer", "no role", ""]),
            &["reader", "writer"],
        ),
        (json!("  writer\treader "), &["reader", "writer"]),
        (json!("x"), &[]),
        (json!(""), &[]),
        (json!([]), &[]),
        (Value::Null, &[]),
    ] {
        let mut claims = claims();
        claims["groups"] = groups;
        let identity = identify(&policy, &hs256(&json!({"alg": "HS256"}), &claims)).unwrap();
        let roles: Vec<_> = identity.roles.iter().map(|role| role.as_str()).collect();
        assert_eq!(roles, expected, "{claims}");
    }
    for groups in [
        json!({"writer": true}),
        json!(7),
        json!(true),
        json!(["reader", 7]),
        json!([["writer"]]),
        json!([null]),
    ] {
        let mut claims = claims();
        claims["groups"] = groups;
        let token = hs256(&json!({"alg": "HS256"}), &claims);
        check_refused(&policy, &token, "the JWT's roles are no list of names");
    }
}

#[test]
fn every_claim_is_checked() {
    let policy = with_secret();
    let check = |name: &str, value: Value, expected: &str| {
        let mut claims = claims();
        claims[name] = value;
        let token = hs256(&json!({"alg": "HS256"}), &claims);
        check_refused(&policy, &token, expected);
    };
    let lacks = "the JWT lacks exp, aud, iss or sub";
    for name in ["exp", "aud", "iss", "sub"] {
        check(name, Value::Null, lacks);
    }
    check("exp", json!(now() - 2), "the token has expired");
    check("exp", json!(now()), "the token has expired");
    check("exp", json!("soon"), lacks);
    check("exp", json!(1e300), lacks);
    check("nbf", json!(now() + 60), "the JWT is not valid yet");
    check("nbf", json!("soon"), "the JWT is malformed");
    check(
        "iss",
        json!("https://other.example"),
        "the JWT is of another issuer",
    );
    check(
        "iss",
        json!(["https://issuer.example"]),
        "the JWT is of another issuer",
    );
    check("aud", json!("other"), "the JWT is for another audience");
    check("aud", json!([]), "the JWT is for another audience");
    check(
        "sub",
        json!(""),
        "the JWT's sub or exp is nothing that can be used",
    );
    check(
        "sub",
        json!("a b"),
        "the JWT's sub or exp is nothing that can be used",
    );
    check(
        "exp",
        json!(u64::MAX),
        "the JWT's sub or exp is nothing that can be used",
    );
}

#[test]
fn what_a_token_says_of_its_algorithm_is_not_believed() {
    let policy = with_secret();
    let check = |header: Value, expected: &str| {
        check_refused(&policy, &hs256(&header, &claims()), expected);
    };
    let pinned = "the JWT's algorithm is not one of those pinned";
    check(json!({"alg": "HS512"}), pinned);
    check(json!({"alg": "RS256"}), pinned);
    check(json!({"alg": "none"}), "the token is no JWT");
    check(json!({}), "the token is no JWT");
    check(
        json!({"alg": "HS256", "crit": ["exp"]}),
        "the JWT has an extension that is critical and unknown",
    );
    let unsigned = token(&json!({"alg": "HS256"}), &claims(), |_| Vec::new());
    check_refused(&policy, &unsigned, "the JWT's signature is wrong");
    let mut other = hs256(&json!({"alg": "HS256"}), &claims());
    other.replace_range(other.rfind('.').unwrap().., ".AAAA");
    check_refused(&policy, &other, "the JWT's signature is wrong");
    for odd in [".", "..", "a.b", "a.b.c.d", "é.é.é", &"a.".repeat(10_000)] {
        assert!(identify(&policy, odd).is_err());
    }
}

/// A public key is no secret: whoever knows it must not be able to sign with it.
#[test]
fn a_public_key_is_no_secret_for_a_token_that_says_so() {
    let pem = include_bytes!("data/rsa.pub.pem");
    let key = hmac::Key::new(hmac::HMAC_SHA256, pem);
    let sign = |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
    let token = token(&json!({"alg": "HS256"}), &claims(), sign);
    let rsa = "algorithms = [\"RS256\"]\npublic_key_file = \"f\"";
    let pinned = "the JWT's algorithm is not one of those pinned";
    check_refused(&policy(rsa, pem.to_vec()).unwrap(), &token, pinned);
    let both = "algorithms = [\"RS256\", \"HS256\"]\npublic_key_file = \"f\"";
    let error = policy(both, pem.to_vec()).unwrap_err();
    assert_eq!(error, "jwt: no key is one for HS256");
}

/// Made by OpenSSL, and valid until the year 9999.
#[test]
fn a_token_signed_by_openssl_is_believed() {
    let pem = include_bytes!("data/rsa.pub.pem").to_vec();
    let token = include_str!("data/rs256.jwt").trim_end();
    let pinned = |algorithm: &str| {
        let settings = format!("algorithms = [\"{algorithm}\"]\npublic_key_file = \"f\"");
        policy(&settings, pem.clone()).unwrap()
    };
    let identity = identify(&pinned("RS256"), token).unwrap();
    assert_eq!(identity.user.as_str(), "alice");
    let expected = "the JWT's algorithm is not one of those pinned";
    check_refused(&pinned("PS256"), token, expected);
}

#[test]
fn keys_of_a_set_are_chosen_by_their_id() {
    let random = SystemRandom::new();
    let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap();
    let (x, y) = ec.public_key().as_ref()[1..].split_at(32);
    let jwks = |ids: [Option<&str>; 2]| {
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": ids[0], "use": "sig", "x": encode(ed.public_key())},
            {"kty": "EC", "crv": "P-256", "kid": ids[1], "alg": "ES256", "x": encode(x), "y": encode(y)},
            {"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"},
            // What the issuer may need for others, or one day.
            {"kty": "RSA", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "key_ops": ["encrypt"], "n": "AQAB", "e": "AQAB"},
            {"kty": "AKP", "alg": "ML-DSA-44", "kid": "ed", "pub": "AQAB"},
            {"kty": "EC", "crv": "secp256k1", "x": "AQAB", "y": "AQAB"},
            {"kty": "OKP", "crv": "Ed448", "x": "AQAB"},
            {"kty": "oct", "k": "AQAB"},
            {"kty": 7},
            {},
        ]})
    };
    let settings = "algorithms = [\"EdDSA\", \"ES256\"]\njwks_file = \"f\"";
    let set = jwks([Some("ed"), Some("ec")]).to_string().into_bytes();
    let policy_of = |set| policy(settings, set);
    let policy = policy_of(set).unwrap();
    let by_ed = |header| token(&header, &claims(), |m| ed.sign(m).as_ref().to_vec());
    let by_ec = |header| {
        let sign = |m: &[u8]| ec.sign(&random, m).unwrap().as_ref().to_vec();
        token(&header, &claims(), sign)
    };
    let good = [
        by_ed(json!({"alg": "EdDSA", "kid": "ed"})),
        by_ec(json!({"alg": "ES256", "kid": "ec"})),
    ];
    for token in good {
        assert_eq!(identify(&policy, &token).unwrap().user.as_str(), "alice");
    }
    let unknown = "the JWT names no key that is known for its algorithm";
    for header in [
        json!({"alg": "EdDSA"}),
        json!({"alg": "EdDSA", "kid": "ec"}),
        json!({"alg": "EdDSA", "kid": "other"}),
    ] {
        check_refused(&policy, &by_ed(header), unknown);
    }
    let wrong = "the JWT's signature is wrong";
    check_refused(&policy, &by_ec(json!({"alg": "EdDSA", "kid": "ed"})), wrong);
    for ids in [[None, None], [Some("ed"), None], [Some("x"), Some("x")]] {
        let error = policy_of(jwks(ids).to_string().into_bytes()).unwrap_err();
        assert_eq!(
            error,
            "jwt.jwks_file: f: not every key has a `kid` of its own"
        );
    }
}

#[test]
fn an_rsa_key_of_a_length_that_is_not_taken_is_refused() {
    let jwk = |modulus: &[u8]| {
        let n = encode(modulus);
        let set = json!({"keys": [{"kty": "RSA", "kid": "k", "n": n, "e": "AQAB"}]});
        let settings = "algorithms = [\"RS256\"]\njwks_file = \"f\"";
        policy(settings, set.to_string().into_bytes()).err()
    };
    let refused = |bits: usize| {
        let limits = "is outside of the 2048 to 8192 that are taken";
        Some(format!(
            "jwt.jwks_file: f: its key k: an RSA key of {bits} bits {limits}"
        ))
    };
    assert_eq!(jwk(&[0x80; 256]), None);
    assert_eq!(jwk(&[0x80; 1024]), None);
    assert_eq!(jwk(&[0x80; 128]), refused(1024));
    assert_eq!(jwk(&[0x7f; 256]), refused(2047));
    assert_eq!(jwk(&[&[0], &[0x80; 128][..]].concat()), refused(1024));
    assert_eq!(jwk(&[1; 1025]), refused(8193));
    assert_eq!(jwk(&[]), refused(0));

    let integer = |bytes: &[u8]| [&[0x02, 0x81, bytes.len() as u8][..], bytes].concat();
    let value = |tag: u8, parts: &[&[u8]]| {
        let held = parts.concat();
        [&[tag, 0x82][..], &(held.len() as u16).to_be_bytes(), &held].concat()
    };
    let modulus = integer(&[&[0], &[0x80; 128][..]].concat());
    let key = value(0x30, &[&modulus, &[0x02, 0x03, 1, 0, 1]]);
    let rsa = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let der = value(0x30, &[rsa, &value(0x03, &[&[0], &key])]);
    let body = base64::prelude::BASE64_STANDARD.encode(der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let settings = "algorithms = [\"RS256\"]\npublic_key_file = \"f\"";
    let limits = "is outside of the 2048 to 8192 that are taken";
    let error = policy(settings, pem.into_bytes()).unwrap_err();
    assert_eq!(
        error,
        format!("jwt.public_key_file: f: an RSA key of 1024 bits {limits}")
    );
}

#[test]
fn a_key_file_that_is_none_says_so() {
    let check = |settings: &str, named: &[u8], expected: &str| {
        let error = policy(settings, named.to_vec()).unwrap_err();
        assert_eq!(error, expected);
    };
    let pem = "algorithms = [\"RS256\"]\npublic_key_file = \"f\"";
    let set = "algorithms = [\"RS256\"]\njwks_file = \"f\"";
    let secret = "algorithms = [\"HS256\"]\nsecret_file = \"f\"";
    let no_pem = "jwt.public_key_file: f: it has no `-----BEGIN PUBLIC KEY-----`";
    check(pem, b"hunter2", no_pem);
    check(
        pem,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "jwt.public_key_file: f: its key is none of RSA, P-256, P-384 and Ed25519",
    );
    check(
        set,
        b"hunter2",
        "jwt.jwks_file: f: it is no JWKS: line 1, column 1",
    );
    check(
        set,
        b"{\"keys\": []}",
        "jwt.jwks_file: f: it has no key for signatures of a kind that is supported",
    );
    check(
        set,
        b"{\"keys\": [{\"kty\": \"oct\", \"kid\": \"k\", \"k\": \"AAAA\"}]}",
        "jwt.jwks_file: f: it has no key for signatures of a kind that is supported",
    );
    check(
        set,
        b"{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"kid\": \"k\", \"x\": \"AAAA\"}]}",
        "jwt.jwks_file: f: its key k is malformed",
    );
    check(
        secret,
        b"hunter2\n",
        "jwt.secret_file: a secret of 7 bytes is below the 32 that it needs",
    );
    check(
        "algorithms = [\"RS256\"]",
        b"",
        "jwt: name one of public_key_file, secret_file and jwks_file",
    );
    check(
        "algorithms = [\"none\"]\nsecret_file = \"f\"",
        SECRET,
        "jwt: algorithms[0] is none: write RS256, ES256 or so",
    );
    check(
        "algorithms = []\nsecret_file = \"f\"",
        SECRET,
        "jwt: algorithms is empty: pin at least one",
    );
}
