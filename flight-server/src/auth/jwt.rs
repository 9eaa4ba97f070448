//! Tokens of an identity provider (JWT, RFC 7519), as OpenID Connect and OAuth 2.0 hand them out.
//!
//! # Life of a token's check
//! 1. Its header names algorithm and key. Only algorithms with a public key exist here ([`signature`]), so that neither `none` nor an HMAC
//!    "with the public key as its secret" can be asked for.
//! 2. Its issuer is compared before anything else is done for it: a stranger's token must not have us ask for keys.
//! 3. The key is among those known, or those are read again ([`keys`]) from the provider or a file ([`provider`]).
//! 4. With a good signature, `exp`, `nbf`, `aud` and `iss` are checked, and one claim names the user.

mod key_set;
mod keys;
mod provider;
mod signature;

use super::failures::Refusal;
use super::user_name::is_user_name;
use crate::config::JwtConfig;
use crate::error::{Error, Result};
use crate::limits;
use jsonwebtoken::errors::{Error as JwtError, ErrorKind};
use jsonwebtoken::{Algorithm, Validation, dangerous, decode, decode_header};
use key_set::KeySet;
use keys::Keys;
use provider::KeySource;
use serde_json::{Map, Value};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

type Claims = Map<String, Value>;

/// Name of this way to sign in, in logs and metrics.
const WAY: &str = "jwt";

/// Checks tokens of one issuer.
pub struct JwtVerifier {
    issuer: String,
    user_claim: String,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    keys: Arc<Keys>,
}

/// Whom a token names, and until when.
pub struct Identified {
    pub user: String,
    pub until: SystemTime,
}

impl JwtVerifier {
    /// Checks the settings; keys in a file are read, a provider is not asked yet.
    ///
    /// # Errors
    /// [`Error::Config`] with the setting that is wrong.
    pub fn new(config: &JwtConfig) -> Result<Self> {
        let missing = |setting: &str, what: &str| Err(Error::config(format!("auth.jwt.{setting} is not set: {what}")));
        if config.issuer.is_empty() {
            return missing("issuer", "set it to the 'iss' of the provider's tokens");
        }
        if config.audience.is_empty() || config.audience.iter().any(String::is_empty) {
            return missing(
                "audience",
                "set it to the 'aud' of tokens for this server; without one, tokens for other services would be taken too",
            );
        }
        if config.user_claim.is_empty() {
            return missing("user_claim", "set it to the claim that names the user, such as sub, email or preferred_username");
        }
        if config.leeway_s > limits::JWT_LEEWAY_MAX.as_secs() {
            return Err(Error::config(format!(
                "auth.jwt.leeway_s is {}: at most {} seconds are allowed; set the clocks instead",
                config.leeway_s,
                limits::JWT_LEEWAY_MAX.as_secs()
            )));
        }
        let algorithms = match config.algorithms.as_slice() {
            [] => signature::ALGORITHMS.to_vec(),
            named => named.iter().map(|name| algorithm(name)).collect::<Result<_>>()?,
        };
        let source = KeySource::new(config)?;
        let first = match &source {
            KeySource::File(path) => {
                KeySource::keys_of_file(path).map_err(|problem| Error::config(format!("auth.jwt.jwks_file: {problem}")))?
            }
            KeySource::Provider { .. } => KeySet::default(),
        };
        signature::install();
        let mut validation = Validation::default();
        validation.leeway = config.leeway_s;
        validation.validate_nbf = true;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let (issuer, user_claim) = (config.issuer.clone(), config.user_claim.clone());
        Ok(Self { issuer, user_claim, algorithms, validation, keys: Arc::new(Keys::new(source, first)) })
    }

    /// Keeps the keys fresh. Needs a runtime.
    pub fn follow_keys(&self) {
        self.keys.follow();
    }

    /// Whose tokens are taken.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether a text has the form of a JWT.
    pub fn is_token(text: &str) -> bool {
        text.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Whom a token names.
    ///
    /// # Errors
    /// Why it is not taken.
    pub async fn verify(&self, token: &str) -> Result<Identified, Refusal> {
        let refused = |user: Option<String>, reason: String| Refusal::new(WAY, user, reason);
        let header = decode_header(token).map_err(|error| refused(None, format!("its header cannot be read: {error}")))?;
        // Nothing of this is proven yet: it is for the log, and to send strangers away early.
        let claimed =
            dangerous::insecure_decode::<Claims>(token).map_err(|error| refused(None, format!("it cannot be read: {error}")))?.claims;
        let user = text(&claimed, &self.user_claim).map(ToString::to_string);
        let refused = |reason: String| Refusal::new(WAY, user.clone(), reason);
        if text(&claimed, "iss") != Some(&self.issuer) {
            return Err(refused(format!("it is of the issuer '{}'", text(&claimed, "iss").unwrap_or_default())));
        }
        if !self.algorithms.contains(&header.alg) {
            return Err(refused(format!("its algorithm {:?} is not among auth.jwt.algorithms", header.alg)));
        }
        // Its issuer says that whoever does not understand these must not take it.
        if let Some(critical) = &header.crit {
            return Err(refused(format!("its header wants {} understood", critical.join(", "))));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut reason = format!("no key of the issuer fits: kid '{}', {:?}", header.kid.as_deref().unwrap_or_default(), header.alg);
        for key in self.keys.fitting(header.kid.as_deref(), header.alg).await {
            match decode::<Claims>(token, &key, &validation) {
                Ok(decoded) => {
                    return self
                        .identified(&decoded.claims)
                        .ok_or_else(|| refused(format!("its claim '{}' names no user", self.user_claim)));
                }
                Err(error) => reason = why(&error),
            }
        }
        Err(refused(reason))
    }

    fn identified(&self, claims: &Claims) -> Option<Identified> {
        let user = text(claims, &self.user_claim).filter(|user| is_user_name(user))?.to_string();
        let expires = claims.get("exp").and_then(Value::as_f64).filter(|seconds| *seconds >= 0.0)?;
        let until = Duration::try_from_secs_f64(expires).ok().and_then(|since| UNIX_EPOCH.checked_add(since))?;
        Some(Identified { user, until })
    }
}

fn algorithm(name: &str) -> Result<Algorithm> {
    let known = Algorithm::from_str(name).ok().filter(|algorithm| signature::ALGORITHMS.contains(algorithm));
    known.ok_or_else(|| {
        let offered: Vec<_> = signature::ALGORITHMS.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        Error::config(format!(
            "auth.jwt.algorithms names '{name}', which is not taken here: only algorithms with a public key are ({})",
            offered.join(", ")
        ))
    })
}

fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

fn why(error: &JwtError) -> String {
    match error.kind() {
        ErrorKind::InvalidSignature => "its signature is wrong".into(),
        ErrorKind::ExpiredSignature => "it has expired".into(),
        ErrorKind::ImmatureSignature => "it is not valid yet".into(),
        ErrorKind::InvalidAudience => "it is for another audience".into(),
        ErrorKind::InvalidIssuer => "it is of another issuer".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("its claim '{claim}' is missing"),
        other => format!("it cannot be checked: {other:?}"),
    }
}

#[cfg(test)]
mod tests;
