//! Callers that prove who they are by a JWT (RFC 7519).
//!
//! What a token says of itself is believed only where the auth file says the same: the algorithm is one
//! of those pinned there and one for which the key is made, and a token that names no key when there are
//! several is refused. `exp`, `aud`, `iss` and `sub` have to be there, `nbf` counts if it is; clocks are
//! given no leeway, so that a token that has run out is of no use anywhere.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};

use super::{
    file::{AuthError, JwtText, ReadNamed},
    identity::{Identity, ROLES_MAX, RoleName},
    jwt_key::JwtKey,
    policy::Unproven,
    ring_provider,
    token::Secret,
};

/// Far more than a token takes, and less than all headers of a request together.
const TOKEN_BYTES_MAX: usize = 12 * 1024;

/// Which JWTs are believed.
#[derive(Debug)]
pub(super) struct JwtPolicy {
    algorithms: Vec<Algorithm>,
    issuer: String,
    audience: String,
    keys: Vec<JwtKey>,
    roles_claim: Option<String>,
}

fn wrong(reason: impl Into<String>) -> AuthError {
    AuthError::Jwt {
        reason: reason.into(),
    }
}

impl JwtPolicy {
    pub(super) fn new(text: JwtText, read: ReadNamed<'_>) -> Result<Self, AuthError> {
        ring_provider::install();
        let parse = |name: &String| {
            let algorithm = name.parse::<Algorithm>();
            algorithm.map_err(|_| {
                wrong(format!(
                    "`{name}` is no algorithm: write RS256, ES256 or so"
                ))
            })
        };
        let algorithms: Vec<_> = text
            .algorithms
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()?;
        if text.issuer.is_empty() || text.audience.is_empty() {
            return Err(wrong("issuer and audience must not be empty"));
        }
        let keys = keys(&text, read)?;
        for algorithm in &algorithms {
            if !keys.iter().any(|key| key.is_for(*algorithm)) {
                return Err(wrong(format!("no key is one for {algorithm:?}")));
            }
        }
        if algorithms.is_empty() {
            return Err(wrong("algorithms is empty: pin at least one"));
        }
        Ok(Self {
            algorithms,
            issuer: text.issuer,
            audience: text.audience,
            keys,
            roles_claim: text.roles_claim,
        })
    }

    /// Who shows this token.
    pub(super) fn identify(&self, token: &Secret) -> Result<Identity, Unproven> {
        let invalid = |reason| Unproven::Invalid { reason };
        let token = token.expose();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("the JWT is longer than any that is taken"));
        }
        let header = decode_header(token).map_err(|_| invalid("the token is no JWT"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(invalid("the JWT's algorithm is not one of those pinned"));
        }
        if header.crit.is_some() {
            return Err(invalid(
                "the JWT has an extension that is critical and unknown",
            ));
        }
        let key = self
            .key(header.kid.as_deref())
            .filter(|key| key.is_for(header.alg))
            .ok_or_else(|| invalid("the JWT names no key that is known for its algorithm"))?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        let claims = decode::<Map<String, Value>>(token, &key.key, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => Unproven::Expired,
                ErrorKind::InvalidSignature => invalid("the JWT's signature is wrong"),
                ErrorKind::ImmatureSignature => invalid("the JWT is not valid yet"),
                ErrorKind::InvalidIssuer => invalid("the JWT is of another issuer"),
                ErrorKind::InvalidAudience => invalid("the JWT is for another audience"),
                ErrorKind::MissingRequiredClaim(_) => invalid("the JWT lacks exp, aud, iss or sub"),
                _ => invalid("the JWT is malformed"),
            })?
            .claims;
        // The library takes a list of issuers, too, and a token in the second in which it runs out.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(invalid("the JWT is of another issuer"));
        }
        let identity = self
            .identity(&claims)
            .ok_or_else(|| invalid("the JWT's sub or exp is nothing that can be used"))?;
        if identity.expires_at.is_some_and(|at| at <= SystemTime::now()) {
            return Err(Unproven::Expired);
        }
        Ok(identity)
    }

    fn key(&self, id: Option<&str>) -> Option<&JwtKey> {
        match (&self.keys[..], id) {
            // One key without an id is for whatever a token says of its own.
            ([only], id) if only.id.is_none() || id.is_none() => Some(only),
            (_, None) => None,
            (keys, id) => keys.iter().find(|key| key.id.as_deref() == id),
        }
    }

    fn identity(&self, claims: &Map<String, Value>) -> Option<Identity> {
        let expires_after = claims.get("exp")?.as_f64()?;
        let expires_after = Duration::try_from_secs_f64(expires_after.floor()).ok()?;
        let roles = self.roles_claim.as_ref().and_then(|name| claims.get(name));
        let roles: BTreeSet<RoleName> = match roles {
            Some(Value::String(one)) => one.parse().into_iter().collect(),
            Some(Value::Array(many)) => many
                .iter()
                .take(ROLES_MAX)
                .filter_map(|role| role.as_str()?.parse().ok())
                .collect(),
            _ => BTreeSet::new(),
        };
        Some(Identity {
            user: claims.get("sub")?.as_str()?.parse().ok()?,
            roles: roles.into_iter().collect(),
            expires_at: Some(SystemTime::UNIX_EPOCH.checked_add(expires_after)?),
        })
    }
}

fn keys(text: &JwtText, read: ReadNamed<'_>) -> Result<Vec<JwtKey>, AuthError> {
    let read_key = |path: &Path, parse: fn(&[u8]) -> Result<Vec<JwtKey>, String>| {
        let keys = read(path).and_then(|content| parse(&content));
        keys.map_err(|reason| AuthError::Named {
            path: path.to_owned(),
            reason,
        })
    };
    match (&text.public_key_file, &text.secret_file, &text.jwks_file) {
        (Some(path), None, None) => read_key(path, |pem| Ok(vec![JwtKey::pem(pem)?])),
        (None, Some(path), None) => read_key(path, |secret| Ok(vec![JwtKey::secret(secret)?])),
        (None, None, Some(path)) => read_key(path, JwtKey::set),
        _ => Err(wrong(
            "name one of public_key_file, secret_file and jwks_file",
        )),
    }
}
