//! The cryptography under `jsonwebtoken`: ring's, as everywhere in the broker.
//!
//! The library takes its cryptography from one place for the whole process. A program that embeds the
//! broker and has put another one there keeps it. Signs nothing.

use std::sync::OnceLock;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, new_error},
    signature,
};
use ring::{hmac, signature as sig};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Puts ring there, unless something is there already.
pub(super) fn install() {
    static IS_OURS: OnceLock<bool> = OnceLock::new();
    IS_OURS.get_or_init(|| PROVIDER.install_default().is_ok());
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(Verifier {
        algorithm: *algorithm,
        key: key.clone(),
    }))
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match self.key.kind() {
            DecodingKeyKind::SecretOrDer(key) => {
                verify_with_bytes(self.algorithm, key, message, signature)
            }
            DecodingKeyKind::RsaModulusExponent { n, e } => rsa(self.algorithm).and_then(|rsa| {
                let key = sig::RsaPublicKeyComponents { n, e };
                key.verify(rsa, message, signature)
            }),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

fn verify_with_bytes(
    algorithm: Algorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), ring::error::Unspecified> {
    let secret = |algorithm| {
        let key = hmac::Key::new(algorithm, key);
        hmac::verify(&key, message, signature)
    };
    let public = |algorithm: &'static dyn sig::VerificationAlgorithm| {
        sig::UnparsedPublicKey::new(algorithm, key).verify(message, signature)
    };
    match algorithm {
        Algorithm::HS256 => secret(hmac::HMAC_SHA256),
        Algorithm::HS384 => secret(hmac::HMAC_SHA384),
        Algorithm::HS512 => secret(hmac::HMAC_SHA512),
        Algorithm::ES256 => public(&sig::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => public(&sig::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => public(&sig::ED25519),
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => public(rsa(algorithm)?),
        // What the library may learn later is not pinned by anybody.
        _ => Err(ring::error::Unspecified),
    }
}

/// Keys below 2,048 bits are refused.
fn rsa(algorithm: Algorithm) -> Result<&'static sig::RsaParameters, ring::error::Unspecified> {
    Ok(match algorithm {
        Algorithm::RS256 => &sig::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &sig::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &sig::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &sig::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &sig::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &sig::RSA_PSS_2048_8192_SHA512,
        _ => return Err(ring::error::Unspecified),
    })
}
