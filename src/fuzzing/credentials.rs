//! Tokens and JWTs: whoever is believed has earned it by the letter of RFC 7519, read plainly.

use std::{
    collections::BTreeSet,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Map, Value};

use super::input::Input;
use crate::auth::{Credentials, Identity, Policy, RoleName, Secret, TokenHash};

const TOKEN: &str = "hunter2";
const TOKENS_USER: &str = "bob";
const SECRET: &[u8] = b"thirty-two bytes are long enough";
const ISSUER: &str = "i";
const AUDIENCE: &str = "fanfare";
const ROLES_CLAIM: &str = "groups";
/// All that the auth file names.
const ROLES: [&str; 2] = ["r", "s"];
/// Times so near are not asked about, since time goes on.
const NEAR_SECONDS: f64 = 60.0;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let hash = TokenHash::of(&TOKEN.into());
    let text = format!(
        "[users.{TOKENS_USER}]\ntokens = [\"{hash}\"]\n[roles]\nr = {{}}\ns = {{}}\n\
         [jwt]\nalgorithms = [\"HS256\"]\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\n\
         roles_claim = \"{ROLES_CLAIM}\"\nsecret_file = \"f\""
    );
    let policy = Policy::parse(&text, &|_| Ok(SECRET.to_vec()));
    policy.expect("the auth file is well-formed")
});

/// A token, or the header and the claims of one, which is signed here, with the right key or another.
pub(super) fn credentials(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let rest = String::from_utf8_lossy(input.rest());
    let signed = |secret: &[u8]| {
        let (header, claims) = rest.split_once('\n').unwrap_or((&rest, ""));
        let encode = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
        let message = format!("{}.{}", encode(header), encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    };
    let token = match kind % 4 {
        0 => rest.into_owned(),
        1 => signed(b"another secret of the same length"),
        _ => signed(SECRET),
    };
    let identified = POLICY.identify(Credentials {
        token: Some(&Secret::from(token.as_str())),
        certificate_names: &[],
    });
    if token == TOKEN {
        let identity = Identity::of(TOKENS_USER.parse().expect("it is a name"));
        assert_eq!(identified, Ok(identity));
        return;
    }
    match Jwt::of(&token) {
        Some(jwt) if jwt.is_near() => {}
        Some(jwt) => {
            let believed = jwt.identity();
            if let Ok(identity) = &identified {
                assert_eq!(Some(identity), believed.as_ref());
            } else {
                assert!(
                    believed.is_none() || !jwt.is_usual(),
                    "{identified:?} {jwt:?}"
                );
            }
        }
        None => assert!(identified.is_err(), "{identified:?}"),
    }
}

/// A token whose signature is right.
#[derive(Debug)]
struct Jwt {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    /// Of both, as they came.
    bytes: usize,
}

impl Jwt {
    fn of(token: &str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        hmac::verify(&key, message.as_bytes(), &decode(signature)?).ok()?;
        let (header, claims) = (decode(header)?, decode(claims)?);
        let jwt = Self {
            bytes: header.len() + claims.len(),
            header: serde_json::from_slice(&header).ok()?,
            claims: serde_json::from_slice(&claims).ok()?,
        };
        (jwt.header.get("alg")? == "HS256").then_some(jwt)
    }

    fn time(&self, claim: &str) -> Option<f64> {
        self.claims.get(claim)?.as_f64()
    }

    fn now() -> f64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("this is after 1970").as_secs_f64()
    }

    fn is_near(&self) -> bool {
        let times = ["exp", "nbf"].map(|claim| self.time(claim));
        let mut times = times.into_iter().flatten();
        times.any(|time| (time - Self::now()).abs() < NEAR_SECONDS)
    }

    /// Nothing about it could be understood in two ways, or not at all.
    fn is_usual(&self) -> bool {
        let known = |map: &Map<String, Value>, keys: &[&str]| {
            map.keys().all(|key| keys.contains(&key.as_str()))
        };
        let is_text = |claim: &str| self.claims.get(claim).is_some_and(Value::is_string);
        let is_count = |value: &Value| value.as_u64().is_some_and(|count| count < 1 << 40);
        let is_roles = |value: &Value| match value {
            Value::Array(many) => many.iter().all(Value::is_string),
            one => one.is_string(),
        };
        // A claim that is made twice counts once, if it counts at all.
        let written = [&self.header, &self.claims].map(|map| serde_json::to_string(map).ok());
        let bytes = written.iter().flatten().map(String::len).sum::<usize>();
        bytes == self.bytes
            && known(&self.header, &["alg"])
            && known(
                &self.claims,
                &["sub", "iss", "aud", "exp", "nbf", ROLES_CLAIM],
            )
            && ["sub", "iss", "aud"].into_iter().all(is_text)
            && self.claims.get("exp").is_some_and(is_count)
            && self.claims.get("nbf").is_none_or(is_count)
            && self.claims.get(ROLES_CLAIM).is_none_or(is_roles)
    }

    /// Who it is that shows it, if the claims say that it is still and already to be believed here.
    fn identity(&self) -> Option<Identity> {
        let names = |claim: &str| -> Vec<&str> {
            match self.claims.get(claim) {
                Some(Value::String(one)) => vec![one],
                Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            }
        };
        let expires_at = self.time("exp").filter(|at| *at > Self::now())?;
        let is_early = match self.claims.get("nbf") {
            None | Some(Value::Null) => false,
            Some(nbf) => nbf.as_f64().is_none_or(|at| at > Self::now()),
        };
        let is_ours = names("iss").contains(&ISSUER) && names("aud").contains(&AUDIENCE);
        let has_unknown_extension = self.header.get("crit").is_some_and(|crit| !crit.is_null());
        if is_early || !is_ours || has_unknown_extension {
            return None;
        }
        let since = Duration::try_from_secs_f64(expires_at.floor()).ok()?;
        let mut identity = Identity::of(self.claims.get("sub")?.as_str()?.parse().ok()?);
        identity.expires_at = Some(UNIX_EPOCH.checked_add(since)?);
        let named: Vec<&str> = match self.claims.get(ROLES_CLAIM) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.split_whitespace().collect(),
            Some(Value::Array(many)) => many.iter().map(Value::as_str).collect::<Option<_>>()?,
            Some(_) => return None,
        };
        let roles: BTreeSet<&str> = named.into_iter().filter(|r| ROLES.contains(r)).collect();
        let role = |role: &str| role.parse::<RoleName>().expect("it is a name");
        identity.roles = roles.into_iter().map(role).collect();
        Some(identity)
    }
}
