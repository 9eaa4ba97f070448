//! Who is calling: password to token at login, token on every call after it.
//!
//! A refused login says the same whichever part was wrong, and always takes the same least time.

use crate::config::{AuthConfig, AuthMode};
use crate::error::{Error, Result};
use crate::limits;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use moka::sync::Cache;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// The one text of every refused login.
const REFUSED: &str = "the credentials were not accepted";
/// The user of everyone while authentication is off.
pub const ANONYMOUS: &str = "anonymous";
/// Shortest fixed token: 16 characters of a random text are beyond guessing.
const FIXED_TOKEN_LENGTH_MIN: usize = 16;

/// Some clients leave the padding of Basic credentials out.
const BASE64_LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A caller whose identity was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub user: String,
    /// Set when the caller used a token of a login: the session belongs to that token then.
    pub login: Option<TokenDigest>,
}

/// What is kept of a token: enough to recognise it, not to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

/// Checks credentials and hands out tokens.
pub struct Authenticator {
    mode: AuthMode,
    users: BTreeMap<String, String>,
    fixed_tokens: BTreeMap<TokenDigestKey, String>,
    logins: Cache<TokenDigest, Arc<str>>,
    /// Verified when the user is unknown, so that an unknown user takes as long as a wrong password.
    decoy_hash: String,
    password_checks: Arc<Semaphore>,
}

type TokenDigestKey = [u8; 32];

impl Authenticator {
    /// Builds the authenticator and checks its settings.
    ///
    /// # Errors
    /// [`Error::Config`] when `auth = off` would leave the server open to other machines, when no user or token is
    /// set, or when a hash or token is not usable.
    pub fn new(config: &AuthConfig, listen: SocketAddr) -> Result<Self> {
        if config.mode == AuthMode::Off && !listen.ip().is_loopback() {
            return Err(Error::config(format!(
                "auth.mode is 'off', but server.listen is {listen}, which other machines may reach. Set auth.mode = \"password\" with [auth.users], or listen on 127.0.0.1"
            )));
        }
        if config.mode == AuthMode::Password && config.users.is_empty() && config.tokens.is_empty() {
            return Err(Error::config(
                "auth.mode is 'password', but neither auth.users nor auth.tokens names anyone. Make a hash with 'bowshot hash-password'",
            ));
        }
        for (user, hash) in &config.users {
            PasswordHash::new(hash).map_err(|error| {
                Error::config(format!("auth.users.{user} is not a password hash ({error}). Make one with 'bowshot hash-password'"))
            })?;
        }
        let mut fixed_tokens = BTreeMap::new();
        for (user, token) in &config.tokens {
            if token.len() < FIXED_TOKEN_LENGTH_MIN {
                return Err(Error::config(format!("auth.tokens.{user} is shorter than {FIXED_TOKEN_LENGTH_MIN} characters")));
            }
            fixed_tokens.insert(TokenDigest::of(token).0, user.clone());
        }
        Ok(Self {
            mode: config.mode,
            users: config.users.clone(),
            fixed_tokens,
            logins: Cache::builder().max_capacity(limits::TOKENS_MAX).time_to_live(Duration::from_secs(config.token_ttl_s)).build(),
            decoy_hash: hash_password("a password of nobody")?,
            password_checks: Arc::new(Semaphore::new(limits::PASSWORD_CHECKS_MAX)),
        })
    }

    /// The caller of a request, from its `authorization` header.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, after a delay when credentials were given and wrong.
    pub async fn authenticate(&self, metadata: &MetadataMap) -> Result<Principal, Status> {
        let header = authorization(metadata);
        if self.mode == AuthMode::Off {
            // A login happens here too (one driver logs in even when it has a token), and its token names the session.
            let login =
                header.and_then(|header| scheme(header, "bearer")).map(TokenDigest::of).filter(|digest| self.logins.contains_key(digest));
            return Ok(Principal { user: ANONYMOUS.to_string(), login });
        }
        let Some(header) = header else {
            return Err(Status::unauthenticated("this server asks for a user and password, or a token"));
        };
        if let Some(token) = scheme(header, "bearer") {
            let digest = TokenDigest::of(token);
            if let Some(user) = self.logins.get(&digest) {
                return Ok(Principal { user: user.to_string(), login: Some(digest) });
            }
            if let Some(user) = self.fixed_tokens.get(&digest.0) {
                return Ok(Principal { user: user.clone(), login: None });
            }
        } else if let Some(encoded) = scheme(header, "basic")
            && let Some(user) = self.check_password(encoded).await
        {
            return Ok(Principal { user, login: None });
        }
        tokio::time::sleep(limits::LOGIN_FAILURE_DELAY).await;
        Err(Status::unauthenticated(REFUSED))
    }

    /// Exchanges the credentials of a request for a new token.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn log_in(&self, metadata: &MetadataMap) -> Result<String, Status> {
        let principal = self.authenticate(metadata).await?;
        let mut random = [0_u8; 32];
        OsRng.try_fill_bytes(&mut random).map_err(|error| Status::unavailable(format!("no random numbers for a token: {error}")))?;
        let token = URL_SAFE_NO_PAD.encode(random);
        self.logins.insert(TokenDigest::of(&token), Arc::from(principal.user.as_str()));
        Ok(token)
    }

    /// Forgets the token of a login.
    pub fn log_out(&self, login: &TokenDigest) {
        self.logins.invalidate(login);
    }

    async fn check_password(&self, encoded: &str) -> Option<String> {
        let decoded = BASE64_LENIENT.decode(encoded.trim()).ok()?;
        let credentials = String::from_utf8(decoded).ok()?;
        let (user, password) = credentials.split_once(':')?;
        let known = self.users.get(user);
        let hash = known.unwrap_or(&self.decoy_hash).clone();
        let password = password.to_string();
        let _turn = self.password_checks.acquire().await.ok()?;
        let matches = tokio::task::spawn_blocking(move || verify_password(&password, &hash)).await.unwrap_or(false);
        (matches && known.is_some()).then(|| user.to_string())
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization")?.to_str().ok()
}

/// The rest of a header after its scheme, whose case does not matter.
fn scheme<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| rest.trim())
}

fn verify_password(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// The hash of a password with a random salt, as it belongs into `auth.users`.
///
/// # Errors
/// When the machine has no random numbers.
pub fn hash_password(password: &str) -> Result<String> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| Error::config(format!("the password cannot be hashed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn with_password() -> Authenticator {
        let config = AuthConfig {
            mode: AuthMode::Password,
            users: BTreeMap::from([("ana".to_string(), hash_password("secret").unwrap())]),
            tokens: BTreeMap::from([("robot".to_string(), "0123456789abcdef".to_string())]),
            ..AuthConfig::default()
        };
        Authenticator::new(&config, LOOPBACK).unwrap()
    }

    fn header(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().unwrap());
        metadata
    }

    #[tokio::test]
    async fn a_password_buys_a_token_that_names_the_user() {
        let authenticator = with_password();
        // "ana:secret" in Base64, without its padding.
        let token = authenticator.log_in(&header("Basic YW5hOnNlY3JldA")).await.unwrap();
        let principal = authenticator.authenticate(&header(&format!("bearer {token}"))).await.unwrap();
        assert_eq!(principal.user, "ana");
        let login = principal.login.unwrap();
        authenticator.log_out(&login);
        assert!(authenticator.authenticate(&header(&format!("Bearer {token}"))).await.is_err());
    }

    #[tokio::test]
    async fn every_wrong_credential_gets_the_same_answer() {
        let authenticator = with_password();
        for wrong in ["Basic YW5hOndyb25n", "Basic Ym9iOnNlY3JldA==", "Bearer nothing", "Basic %%"] {
            let status = authenticator.authenticate(&header(wrong)).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, REFUSED));
        }
    }

    #[tokio::test]
    async fn a_fixed_token_is_a_user() {
        let principal = with_password().authenticate(&header("Bearer 0123456789abcdef")).await.unwrap();
        assert_eq!((principal.user.as_str(), principal.login), ("robot", None));
    }

    #[test]
    fn no_authentication_only_on_loopback() {
        let config = AuthConfig::default();
        assert!(Authenticator::new(&config, LOOPBACK).is_ok());
        let open = Authenticator::new(&config, SocketAddr::from(([0, 0, 0, 0], 47470)));
        assert!(open.err().unwrap().to_string().contains("auth.mode is 'off'"));
    }
}
