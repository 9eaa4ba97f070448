//! A set of public keys (RFC 7517): those in it that can check a token's signature.

use crate::limits;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use std::str::FromStr;
use std::sync::Arc;

/// What an RSA key may be used for unless it says so itself.
const RSA: [Algorithm; 6] = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// The keys of an issuer.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
}

struct Key {
    id: Option<String>,
    /// What its curve or kind allows, narrowed to the one that it names itself.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a set. Keys of other kinds or for other ends are left out, as RFC 7517 wants it.
    ///
    /// # Errors
    /// A text for the operator when it is no set, has too many keys, or none that could check a signature.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(text).map_err(|error| format!("holds no JWK set: {error}"))?;
        if document.keys.len() > limits::JWT_KEYS_MAX {
            return Err(format!("holds more than {} keys", limits::JWT_KEYS_MAX));
        }
        let keys: Vec<_> = document.keys.into_iter().filter_map(Key::of).map(Arc::new).collect();
        match keys.is_empty() {
            true => Err("holds no public key that signatures can be checked with".into()),
            false => Ok(Self { keys }),
        }
    }

    /// The keys that may have signed a token with this key id and algorithm.
    pub fn fitting(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        let fits = |key: &&Arc<Key>| (id.is_none() || key.id.as_deref() == id) && key.algorithms.contains(&algorithm);
        self.keys.iter().filter(fits).take(limits::JWT_KEYS_TRIED_MAX).map(|key| key.key.clone()).collect()
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }
}

impl Key {
    fn of(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        if matches!(common.public_key_use, Some(PublicKeyUse::Encryption)) {
            return None;
        }
        if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            // A shared secret has no business here.
            _ => return None,
        };
        if let Some(named) = common.key_algorithm {
            let named = Algorithm::from_str(&named.to_string()).ok()?;
            algorithms.retain(|algorithm| *algorithm == named);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: common.key_id.clone(), algorithms, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(keys: serde_json::Value) -> Result<KeySet, String> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let rsa = json!({ "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" });
        let of = |more: serde_json::Value| {
            let mut key = rsa.clone();
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key
        };
        let set = parse(json!([
            rsa,
            of(json!({ "kid": "narrow", "alg": "RS512" })),
            of(json!({ "kid": "encryption", "use": "enc" })),
            of(json!({ "kid": "oaep", "alg": "RSA-OAEP" })),
            of(json!({ "kid": "signs", "key_ops": ["sign"] })),
            { "kty": "oct", "kid": "secret", "k": "c2VjcmV0" },
            { "kty": "AKP", "kid": "of another time", "alg": "ML-DSA-44", "pub": "AA" },
            { "kty": "EC", "kid": "e", "crv": "P-256", "x": "AA", "y": "AA" },
            { "kty": "EC", "kid": "other curve", "crv": "secp256k1", "x": "AA", "y": "AA" },
        ]))
        .unwrap();
        assert_eq!(set.len(), 3);
        let found = |id: Option<&str>, algorithm| set.fitting(id, algorithm).len();
        assert_eq!(found(Some("r"), Algorithm::PS384), 1);
        assert_eq!((found(Some("narrow"), Algorithm::RS256), found(Some("narrow"), Algorithm::RS512)), (0, 1));
        assert_eq!((found(Some("e"), Algorithm::ES256), found(Some("e"), Algorithm::ES384)), (1, 0));
        assert_eq!((found(None, Algorithm::RS512), found(Some("unknown"), Algorithm::RS512)), (2, 0));
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert_eq!(found(None, algorithm), 0);
        }
    }

    #[test]
    fn what_is_no_set_of_keys_is_refused() {
        assert!(KeySet::parse(b"<html>").err().unwrap().contains("no JWK set"));
        assert!(parse(json!([])).err().unwrap().contains("no public key"));
        assert!(parse(json!(vec![1; limits::JWT_KEYS_MAX + 1])).err().unwrap().contains("more than"));
    }

    #[test]
    fn whatever_a_provider_answers_is_a_set_or_refused() {
        let set = br#"{"keys":[{"kty":"RSA","kid":"r","use":"sig","alg":"RS256","n":"AQAB","e":"AQAB","key_ops":["verify"]},{"kty":"EC","kid":"e","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}"#;
        bowshot_mutations::near_bytes(&[set.to_vec()], |case| {
            if let Ok(set) = KeySet::parse(case) {
                drop(set.fitting(Some("r"), Algorithm::RS256));
            }
        });
    }
}
