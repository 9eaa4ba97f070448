//! Signatures of JWTs, checked by ring: the same cryptography as that of TLS here, and of jsonwebtoken's own back ends neither.
//!
//! Nothing here signs, and nothing here knows a shared secret: whoever holds only public keys can make no token.

use jsonwebtoken::crypto::{CryptoProvider, JwkUtils, JwtVerifier};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{Error as WrongSignature, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::signature::{self as primitives, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

/// Every algorithm that is taken here: those with a public and a private key, and no others.
pub const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::InvalidAlgorithm)),
    verifier_factory: verifier,
    // Only for making key sets, which nobody does here.
    jwk_utils: JwkUtils::new_unimplemented(),
};

/// Has jsonwebtoken check signatures with ring.
pub fn install() {
    // An error means that it was installed before.
    let _ = PROVIDER.install_default();
}

struct KeyVerifier {
    algorithm: Algorithm,
    method: Method,
    key: DecodingKey,
}

#[derive(Clone, Copy)]
enum Method {
    Rsa(&'static RsaParameters),
    Other(&'static dyn VerificationAlgorithm),
}

/// How an algorithm is checked, and with keys of which family; nothing for those with a shared secret.
fn method(algorithm: Algorithm) -> Option<(AlgorithmFamily, Method)> {
    // ring takes RSA keys of 2048 to 8192 bits with these.
    let method = match algorithm {
        Algorithm::RS256 => Method::Rsa(&primitives::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Method::Rsa(&primitives::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Method::Rsa(&primitives::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Method::Rsa(&primitives::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Method::Rsa(&primitives::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Method::Rsa(&primitives::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => Method::Other(&primitives::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Method::Other(&primitives::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Method::Other(&primitives::ED25519),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return None,
    };
    let family = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        _ => AlgorithmFamily::Rsa,
    };
    Some((family, method))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    match method(*algorithm) {
        // A key of one family is never used as one of another.
        Some((family, method)) if family == key.family() => Ok(Box::new(KeyVerifier { algorithm: *algorithm, method, key: key.clone() })),
        _ => Err(new_error(ErrorKind::InvalidAlgorithm)),
    }
}

impl Verifier<Vec<u8>> for KeyVerifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), WrongSignature> {
        let outcome = match (self.method, self.key.kind()) {
            (Method::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
            (Method::Other(algorithm), DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(algorithm, point).verify(message, signed)
            }
            _ => return Err(WrongSignature::new()),
        };
        outcome.map_err(|_| WrongSignature::new())
    }
}

impl JwtVerifier for KeyVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
