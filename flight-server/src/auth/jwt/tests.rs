//! Tokens signed here with ring, checked by the code that serves.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;
use tempfile::TempDir;

const ISSUER: &str = "https://login.example/realm";
const KEY_ID: &str = "key-1";

/// An issuer with an Ed25519 key, and one of P-256 that its key set does not name an algorithm for.
struct Issuer {
    folder: TempDir,
    edwards: Ed25519KeyPair,
    curve: EcdsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let edwards = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let curve = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point = curve.public_key().as_ref();
        let set = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": KEY_ID, "alg": "EdDSA", "use": "sig", "x": encoded(edwards.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-256", "kid": "key-2", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
        ]});
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.json"), set.to_string()).unwrap();
        Self { folder, edwards, curve }
    }

    fn config(&self) -> JwtConfig {
        JwtConfig {
            issuer: ISSUER.into(),
            audience: vec!["bowshot".into(), "other".into()],
            jwks_file: Some(self.folder.path().join("keys.json")),
            ..JwtConfig::default()
        }
    }

    fn verifier(&self) -> JwtVerifier {
        JwtVerifier::new(&self.config()).unwrap()
    }

    fn sign(&self, header: Value, claims: Value) -> String {
        let signed = unsigned(&header, &claims);
        let signature = match header["alg"].as_str() {
            Some("ES256") => self.curve.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.edwards.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encoded(&signature))
    }

    fn token(&self, changes: Value) -> String {
        self.sign(json!({ "alg": "EdDSA", "typ": "JWT", "kid": KEY_ID }), claims(changes))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()))
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Good claims, changed; null takes one away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": "bowshot", "sub": "ana", "exp": now() + 600, "iat": now() });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

async fn user(verifier: &JwtVerifier, token: &str) -> Result<String, String> {
    verifier.verify(token).await.map(|identified| identified.user).map_err(|refusal| refusal.reason)
}

#[tokio::test]
async fn a_good_token_names_its_user() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    let identified = verifier.verify(&issuer.token(json!({}))).await.unwrap();
    assert_eq!(identified.user, "ana");
    let left = identified.until.duration_since(SystemTime::now()).unwrap().as_secs();
    assert!((500..=600).contains(&left), "{left}");
    for good in [json!({ "aud": ["x", "other"] }), json!({ "nbf": now() - 1 }), json!({ "exp": now() - 20 }), json!({ "nbf": now() + 20 })]
    {
        assert_eq!(user(&verifier, &issuer.token(good.clone())).await.as_deref(), Ok("ana"), "{good}");
    }
    let curve = issuer.sign(json!({ "alg": "ES256", "kid": "key-2" }), claims(json!({})));
    assert_eq!(user(&verifier, &curve).await.as_deref(), Ok("ana"));
    // Without a key id, every key that fits is tried.
    let nameless = issuer.sign(json!({ "alg": "EdDSA" }), claims(json!({})));
    assert_eq!(user(&verifier, &nameless).await.as_deref(), Ok("ana"));
    let by_mail = JwtVerifier::new(&JwtConfig { user_claim: "email".into(), ..issuer.config() }).unwrap();
    assert_eq!(user(&by_mail, &issuer.token(json!({ "email": "ana@example" }))).await.as_deref(), Ok("ana@example"));
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused_with_the_reason_for_the_log() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    let cases = [
        (json!({ "exp": now() - 60 }), "it has expired"),
        (json!({ "exp": null }), "'exp' is missing"),
        (json!({ "exp": "tomorrow" }), "'exp' is missing"),
        (json!({ "nbf": now() + 60 }), "not valid yet"),
        (json!({ "nbf": "soon" }), "nbf"),
        (json!({ "aud": "elsewhere" }), "another audience"),
        (json!({ "aud": [] }), "another audience"),
        (json!({ "aud": null }), "'aud' is missing"),
        (json!({ "iss": "https://login.example" }), "of the issuer 'https://login.example'"),
        (json!({ "iss": [ISSUER] }), "of the issuer ''"),
        (json!({ "iss": null }), "of the issuer ''"),
        (json!({ "sub": null }), "'sub' names no user"),
        (json!({ "sub": "" }), "'sub' names no user"),
        (json!({ "sub": 7 }), "'sub' names no user"),
        (json!({ "sub": "a\nb" }), "'sub' names no user"),
    ];
    for (changes, expected) in cases {
        let reason = user(&verifier, &issuer.token(changes.clone())).await.unwrap_err();
        assert!(reason.contains(expected), "{changes}: {reason}");
    }
    let refusal = verifier.verify(&issuer.token(json!({ "exp": 1 }))).await.err().unwrap();
    assert_eq!((refusal.way, refusal.user.as_deref()), ("jwt", Some("ana")));
}

#[tokio::test]
async fn what_the_issuer_did_not_sign_is_refused() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let verifier = issuer.verifier();
    let good = issuer.token(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let altered = unsigned(&json!({ "alg": "EdDSA", "kid": KEY_ID }), &claims(json!({ "sub": "bob" })));
    // A public key taken for the secret of an HMAC.
    let as_hmac = |algorithm: &str| {
        use hmac::{Hmac, KeyInit, Mac};
        let signed = unsigned(&json!({ "alg": algorithm, "kid": KEY_ID }), &claims(json!({})));
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(issuer.edwards.public_key().as_ref()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", encoded(&mac.finalize().into_bytes()))
    };
    let none = unsigned(&json!({ "alg": "none" }), &claims(json!({})));
    let cases = [
        (other.token(json!({})), "signature is wrong"),
        (format!("{altered}.{signature}"), "signature is wrong"),
        (format!("{signed}."), "signature is wrong"),
        (format!("{signed}.{}", encoded(&[0; 64])), "signature is wrong"),
        (format!("{none}."), "header cannot be read"),
        (format!("{none}.{signature}"), "header cannot be read"),
        (as_hmac("HS256"), "algorithm HS256 is not among"),
        // A key of one kind under the name of another.
        (issuer.sign(json!({ "alg": "ES256", "kid": KEY_ID }), claims(json!({}))), "no key of the issuer fits"),
        (issuer.sign(json!({ "alg": "EdDSA", "kid": "key-2" }), claims(json!({}))), "no key of the issuer fits"),
        (issuer.sign(json!({ "alg": "EdDSA", "kid": "unknown" }), claims(json!({}))), "kid 'unknown'"),
        (issuer.sign(json!({ "alg": "EdDSA", "kid": KEY_ID, "crit": ["b64"] }), claims(json!({}))), "wants b64 understood"),
        ("a.b.c".into(), "header cannot be read"),
        ("..".into(), "header cannot be read"),
    ];
    for (token, expected) in cases {
        let reason = user(&verifier, &token).await.unwrap_err();
        assert!(reason.contains(expected), "{token}: {reason}");
    }
    let narrow = JwtVerifier::new(&JwtConfig { algorithms: vec!["ES256".into()], ..issuer.config() }).unwrap();
    assert!(user(&narrow, &good).await.unwrap_err().contains("EdDSA is not among"));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let issuer = Issuer::new();
    let refused = |config: JwtConfig, words: &[&str]| {
        let error = JwtVerifier::new(&config).err().unwrap().to_string();
        for word in words {
            assert!(error.contains(word), "'{word}' is not in: {error}");
        }
    };
    let config = || issuer.config();
    refused(JwtConfig { issuer: String::new(), ..config() }, &["auth.jwt.issuer is not set"]);
    refused(JwtConfig { audience: vec![], ..config() }, &["auth.jwt.audience is not set"]);
    refused(JwtConfig { user_claim: String::new(), ..config() }, &["auth.jwt.user_claim is not set"]);
    refused(JwtConfig { leeway_s: 301, ..config() }, &["auth.jwt.leeway_s is 301", "at most 300"]);
    for name in ["HS256", "none", "ES512", "rs256"] {
        refused(JwtConfig { algorithms: vec![name.into()], ..config() }, &["auth.jwt.algorithms", name, "RS256"]);
    }
    refused(JwtConfig { issuer: "http://login.example".into(), jwks_file: None, ..config() }, &["auth.jwt.issuer", "not encrypted"]);
    refused(JwtConfig { jwks_file: Some("nowhere.json".into()), ..config() }, &["auth.jwt.jwks_file", "nowhere.json cannot be read"]);
    let unreadable = issuer.folder.path().join("ca.pem");
    std::fs::write(&unreadable, "").unwrap();
    let empty = JwtConfig { ca: Some(unreadable), jwks_file: None, ..config() };
    refused(empty, &["auth.jwt.ca", "no certificate"]);
}

#[test]
fn a_token_that_is_nearly_right_names_nobody_else() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    let tokens = [issuer.token(json!({})), issuer.sign(json!({ "alg": "ES256", "kid": "key-2" }), claims(json!({})))];
    let whom = |token: &str| futures::executor::block_on(verifier.verify(token)).ok().map(|identified| identified.user);
    let known = whom(&tokens[0]);
    assert!(known.is_some());
    bowshot_mutations::near_texts(&[&tokens[0], &tokens[1]], |case| {
        let _ = JwtVerifier::is_token(case);
        // Padding bits of its text may differ: its content does not.
        if let Some(user) = whom(case) {
            assert_eq!(Some(user), known, "{case}");
        }
    });
}
