//! Who is calling.
//!
//! # Life of a caller's credentials
//! 1. [`credentials`] reads what a call shows: a user and password, a bearer token, or nothing. Who shows nothing may have shown a
//!    certificate of its own when it connected ([`crate::connection::ClientPeer`]).
//! 2. A password is checked against its hash ([`password`]). A bearer token is a fixed one of the settings, that of a login ([`logins`]), or
//!    one of an identity provider ([`jwt`]).
//! 3. With Handshake any of these is exchanged for the token of a login, which is quicker to check than a password, and names a session.
//! 4. What is not good is refused with one text, whichever part was wrong, and later the more often it happens ([`failures`]).

mod credentials;
mod failures;
mod jwt;
mod logins;
mod password;
mod user_name;

pub use logins::LoginId;
pub use password::hash_password;
pub use user_name::is_user_name;

use crate::config::{AuthMode, ClientAuth, Config, JwtConfig};
use crate::connection::ClientPeer;
use crate::error::{Error, Result};
use crate::limits;
use credentials::Credentials;
use failures::{Failures, Refusal, Turn};
use jwt::JwtVerifier;
use logins::{Login, Logins, Standing};
use password::Passwords;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// The user of everyone while authentication is off.
pub const ANONYMOUS: &str = "anonymous";
/// Shortest fixed token: 16 characters of a random text are beyond guessing.
const FIXED_TOKEN_LENGTH_MIN: usize = 16;
/// Stands for the address of a call that came in without a connection; only tests do.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A caller whose identity was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub user: String,
    /// Set when the caller used a token of a login: the session belongs to that login then.
    pub login: Option<LoginId>,
    /// What proved it.
    proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Proof {
    way: Way,
    /// When it ends, if it does.
    until: Option<SystemTime>,
    login: Option<Login>,
}

/// How a caller, or the login that it uses, was proven. The numbers are in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    Password = 1,
    FixedToken = 2,
    Jwt = 3,
    Certificate = 4,
    /// Authentication is off.
    Anonymous = 5,
}

impl Way {
    fn of(number: u8) -> Option<Self> {
        [Self::Password, Self::FixedToken, Self::Jwt, Self::Certificate, Self::Anonymous].into_iter().find(|way| *way as u8 == number)
    }
}

/// Checks credentials and hands out tokens.
pub struct Authenticator {
    mode: AuthMode,
    passwords: Passwords,
    /// By the digest of the token: looking one up tells nothing of how much of it was right.
    fixed_tokens: BTreeMap<[u8; 32], String>,
    logins: Logins,
    jwt: Option<JwtVerifier>,
    client_auth: ClientAuth,
    failures: Failures,
    summary: String,
}

impl Authenticator {
    /// Builds the authenticator and checks its settings.
    ///
    /// # Errors
    /// [`Error::Config`] when `auth = off` would leave the server open to other machines, when nobody could get in, or when a hash, a
    /// token or a file is not usable.
    pub fn new(config: &Config) -> Result<Self> {
        let auth = &config.auth;
        let client_auth = config.tls.client_auth()?;
        if let Some(problem) = settings_problems(config).into_iter().next() {
            return Err(problem);
        }
        let fixed_tokens = auth.tokens.iter().map(|(user, token)| (digest(token), user.clone())).collect();
        let life = Duration::from_secs(auth.token_ttl_s);
        Ok(Self {
            mode: auth.mode,
            passwords: Passwords::new(&auth.users)?,
            fixed_tokens,
            logins: Logins::new(auth.token_key_file.as_deref(), life)?,
            jwt: auth.jwt.as_ref().map(JwtVerifier::new).transpose()?,
            client_auth,
            failures: Failures::default(),
            summary: summary(config, client_auth),
        })
    }

    /// Who may connect, in a line for people; no secrets.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Keeps the keys of an identity provider fresh. Needs a runtime.
    pub fn follow_keys(&self) {
        if let Some(jwt) = &self.jwt {
            jwt.follow_keys();
        }
    }

    /// The caller of a request, from its `authorization` header or the certificate of its connection.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, after a delay when credentials were given and wrong; `RESOURCE_EXHAUSTED` when too many of one address wait.
    pub async fn authenticate(&self, metadata: &MetadataMap, peer: Option<&ClientPeer>) -> Result<Principal, Status> {
        let credentials = Credentials::of(metadata);
        if self.mode == AuthMode::Off {
            // A login happens here too (one driver logs in even when it has a token), and its token names the session.
            let login = match credentials {
                Credentials::Bearer(token) => self.login(token).ok(),
                _ => None,
            };
            return Ok(login.unwrap_or_else(|| Principal::new(ANONYMOUS, Way::Anonymous, None)));
        }
        let address = peer.map_or(NO_ADDRESS, |peer| peer.address);
        let (refusal, turn) = match credentials {
            Credentials::None => {
                return match peer.and_then(|peer| peer.certificate.as_deref()) {
                    Some(holder) => Ok(Principal::new(&holder.user, Way::Certificate, Some(holder.valid_until))),
                    None => Err(Status::unauthenticated("this server asks for a user and password, or a token")),
                };
            }
            Credentials::Password { user, password } => match self.by_password(user, password, address).await? {
                Ok(principal) => return Ok(principal),
                Err(refused) => refused,
            },
            Credentials::Bearer(token) => match self.by_token(token).await {
                Ok(principal) => return Ok(principal),
                Err(refusal) => (refusal, None),
            },
            Credentials::Unreadable => (Refusal::new("unreadable", None, "the authorization header cannot be read"), None),
        };
        Err(self.failures.refuse(refusal, address, turn).await)
    }

    /// Exchanges the credentials of a request for the token of a login. A login cannot prolong itself: its own token gets it that token.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn log_in(&self, metadata: &MetadataMap, peer: Option<&ClientPeer>) -> Result<String, Status> {
        let principal = self.authenticate(metadata, peer).await?;
        if let (Some(_), Credentials::Bearer(token)) = (principal.login, Credentials::of(metadata)) {
            return Ok(token.to_string());
        }
        let Proof { way, until, .. } = principal.proof;
        let standing = self.standing(way, &principal.user).ok_or_else(|| Status::unauthenticated(failures::REFUSED))?;
        let token = self.logins.issue(&principal.user, way, standing, until, SystemTime::now());
        token.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Ends the login of a caller, if it used one: its token is refused from now on.
    pub fn log_out(&self, principal: &Principal) {
        if let Some(login) = &principal.proof.login {
            self.logins.close(login, SystemTime::now());
        }
    }

    /// The outer error is for callers whose password was not looked at.
    async fn by_password(
        &self,
        user: String,
        password: String,
        address: SocketAddr,
    ) -> Result<Result<Principal, (Refusal, Option<Turn>)>, Status> {
        let ending = || Status::unavailable("the server is about to end");
        let mut turn = None;
        let permit = loop {
            let permit = self.passwords.permit().await.ok_or_else(ending)?;
            // Asked again with the permit in hand: of many that came at once, the first ones may have been wrong meanwhile.
            if turn.is_some() || !self.failures.takes_turns(address) {
                break permit;
            }
            drop(permit);
            turn = Some(self.failures.turn(address).await?);
        };
        if self.passwords.check(&user, password, permit).await {
            return Ok(Ok(Principal::new(&user, Way::Password, None)));
        }
        let reason = if self.passwords.hash(&user).is_some() { "wrong password" } else { "unknown user" };
        Ok(Err((Refusal::new("password", Some(user), reason), turn)))
    }

    async fn by_token(&self, token: &str) -> Result<Principal, Refusal> {
        if token.len() > limits::BEARER_BYTES_MAX {
            return Err(Refusal::new("token", None, format!("longer than {} bytes", limits::BEARER_BYTES_MAX)));
        }
        if let Some(user) = self.fixed_tokens.get(&digest(token)) {
            return Ok(Principal::new(user, Way::FixedToken, None));
        }
        if Logins::is_token(token) {
            return self.login(token);
        }
        match &self.jwt {
            Some(jwt) if JwtVerifier::is_token(token) => {
                jwt.verify(token).await.map(|identified| Principal::new(&identified.user, Way::Jwt, Some(identified.until)))
            }
            _ => Err(Refusal::new("token", None, "unknown token")),
        }
    }

    fn login(&self, token: &str) -> Result<Principal, Refusal> {
        let login = self.logins.check(token, SystemTime::now()).map_err(|(error, user)| Refusal::new("login", user, error.to_string()))?;
        if self.standing(login.way, &login.user) != Some(login.standing) {
            return Err(Refusal::new("login", Some(login.user), "what the login was bought with is not valid any more"));
        }
        let (user, id, way) = (login.user.clone(), login.id, login.way);
        Ok(Principal { user, login: Some(id), proof: Proof { way, until: None, login: Some(login) } })
    }

    /// What proves a user in this way at present: when it changes or goes, in the settings of a server that starts again with the same
    /// key, logins that were bought with it end.
    fn standing(&self, way: Way, user: &str) -> Option<Standing> {
        let proof = match way {
            Way::Password => digest(self.passwords.hash(user)?),
            Way::FixedToken => *self.fixed_tokens.iter().find(|(_, owner)| *owner == user)?.0,
            Way::Jwt => digest(self.jwt.as_ref()?.issuer()),
            Way::Certificate if self.client_auth != ClientAuth::Off => digest(""),
            Way::Anonymous if self.mode == AuthMode::Off => digest(""),
            Way::Certificate | Way::Anonymous => return None,
        };
        proof.first_chunk().copied()
    }
}

impl Principal {
    fn new(user: &str, way: Way, until: Option<SystemTime>) -> Self {
        Self { user: user.to_string(), login: None, proof: Proof { way, until, login: None } }
    }
}

/// Everything that is wrong with who may use the server.
pub fn problems(config: &Config) -> Vec<Error> {
    let mut problems = settings_problems(config);
    problems.extend(Logins::new(config.auth.token_key_file.as_deref(), Duration::from_secs(config.auth.token_ttl_s)).err());
    problems.extend(config.auth.jwt.as_ref().and_then(|jwt| JwtVerifier::new(jwt).err()));
    problems
}

/// What is wrong by the settings alone.
fn settings_problems(config: &Config) -> Vec<Error> {
    let (auth, listen) = (&config.auth, config.server.listen);
    let mut problems = vec![];
    if auth.mode == AuthMode::Off && !listen.ip().is_loopback() {
        problems.push(Error::config(format!(
            "auth.mode is 'off', but server.listen is {listen}, which other machines may reach. Set auth.mode = \"required\" with [auth.users], or listen on 127.0.0.1"
        )));
    }
    // What is wrong with client_auth is said where certificates are read.
    let shows_none = config.tls.client_auth().is_ok_and(|asked| asked == ClientAuth::Off);
    if auth.mode == AuthMode::Required && auth.users.is_empty() && auth.tokens.is_empty() && auth.jwt.is_none() && shows_none {
        problems.push(Error::config(
            "auth.mode is 'required', but nobody could get in: set auth.users (make a hash with 'bowshot hash-password'), auth.tokens, auth.jwt or tls.client_ca",
        ));
    }
    let life = Duration::from_secs(auth.token_ttl_s);
    if life.is_zero() || life > limits::TOKEN_TTL_MAX {
        problems.push(Error::config(format!(
            "auth.token_ttl_s is {}: set it to 1 to {} seconds",
            auth.token_ttl_s,
            limits::TOKEN_TTL_MAX.as_secs()
        )));
    }
    let mut known: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for (user, token) in &auth.tokens {
        if token.len() < FIXED_TOKEN_LENGTH_MIN {
            problems.push(Error::config(format!("auth.tokens.{user} is shorter than {FIXED_TOKEN_LENGTH_MIN} characters")));
        } else if let Some(other) = known.insert(digest(token), user) {
            problems
                .push(Error::config(format!("auth.tokens.{user} and auth.tokens.{other} are the same: give each user a token of its own")));
        }
    }
    problems.extend(password::problems(&auth.users));
    problems
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn summary(config: &Config, client_auth: ClientAuth) -> String {
    let auth = &config.auth;
    if auth.mode == AuthMode::Off {
        return format!("everyone on this machine, as the user {ANONYMOUS} (auth.mode is off)");
    }
    let counted = |count: usize, one: &str, many: &str| (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }));
    let keys = |jwt: &JwtConfig| match &jwt.jwks_file {
        Some(path) => format!("keys in {}", path.display()),
        None => "keys by discovery".to_string(),
    };
    let ways = [
        counted(auth.users.len(), "user with a password", "users with passwords"),
        counted(auth.tokens.len(), "fixed token", "fixed tokens"),
        auth.jwt.as_ref().map(|jwt| format!("JWTs of {} ({})", jwt.issuer, keys(jwt))),
        match client_auth {
            ClientAuth::Off => None,
            ClientAuth::Optional => Some("client certificates".to_string()),
            ClientAuth::Required => Some("client certificates, which everyone must have".to_string()),
        },
    ];
    let key = match &auth.token_key_file {
        Some(path) => format!("signed with the key in {}", path.display()),
        None => "until this process ends".to_string(),
    };
    let ways: Vec<_> = ways.into_iter().flatten().collect();
    format!("{}; logins last {} s, {key}", ways.join(", "), auth.token_ttl_s)
}

#[cfg(test)]
mod tests;
