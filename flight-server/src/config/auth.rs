//! Settings of who may use the server.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Whether callers prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Everyone is the user `anonymous`; only while listening on loopback.
    Off,
    /// Every caller does, in one of the ways that are set: password, fixed token, JWT or client certificate.
    #[serde(alias = "password")]
    Required,
}

/// Who may use the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// `off` or `required` (`password` says the same). Default off.
    pub mode: AuthMode,
    /// Password hash of each user, as `bowshot hash-password` prints it.
    pub users: BTreeMap<String, String>,
    /// A fixed token of a user, for programs; at least 16 characters.
    pub tokens: BTreeMap<String, String>,
    /// Life of a token handed out at login, in seconds; at most 30 days. Default 43200 (12 hours). A login never outlives the JWT or the
    /// client certificate that it was bought with.
    pub token_ttl_s: u64,
    /// File whose bytes (32 to 4096) sign the tokens of logins, so that these survive a restart and serve several servers. Without one the key
    /// is random and ends with the process.
    pub token_key_file: Option<PathBuf>,
    /// Users who see the statements of all others in `system.queries` and `system.tasks`; others see their own. While `mode` is off everybody does.
    pub administrators: Vec<String>,
    /// Tokens of an identity provider; none are taken by default.
    pub jwt: Option<JwtConfig>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            mode: AuthMode::Off,
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            administrators: vec![],
            token_ttl_s: 43_200,
            token_key_file: None,
            jwt: None,
        }
    }
}

/// Which JWTs are taken, and who they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// The claim `iss`, letter by letter. Unless `jwks_file` is set, also the URL below which the provider describes itself
    /// (`<issuer>/.well-known/openid-configuration`): https, or http on loopback.
    pub issuer: String,
    /// What the claim `aud` must hold one of; a text or a list. Required, so that tokens for other services are of no use here.
    #[serde(deserialize_with = "one_or_several")]
    pub audience: Vec<String>,
    /// File with the provider's public keys as a JWK set, in the place of discovery; read again when a token names a key that is not in it.
    pub jwks_file: Option<PathBuf>,
    /// File of the authorities (PEM) that sign the certificate of the provider; those of the machine by default.
    pub ca: Option<PathBuf>,
    /// Algorithms that are taken; a text or a list. By default all that there are here: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA.
    #[serde(deserialize_with = "one_or_several")]
    pub algorithms: Vec<String>,
    /// The claim whose text is the user's name. Default sub.
    pub user_claim: String,
    /// How far clocks may differ when `exp` and `nbf` are looked at, in seconds; at most 300. Default 30.
    pub leeway_s: u64,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            jwks_file: None,
            ca: None,
            algorithms: Vec::new(),
            user_claim: "sub".to_string(),
            leeway_s: 30,
        }
    }
}

/// A variable of the environment holds one text more easily than a list.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts")]
    enum OneOrSeveral {
        One(String),
        Several(Vec<String>),
    }
    Ok(match OneOrSeveral::deserialize(deserializer)? {
        OneOrSeveral::One(text) => vec![text],
        OneOrSeveral::Several(texts) => texts,
    })
}
