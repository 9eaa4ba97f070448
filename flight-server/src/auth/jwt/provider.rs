//! Where an issuer's keys come from: a file, or the identity provider itself (OpenID Connect Discovery 1.0).

use super::key_set::KeySet;
use crate::config::JwtConfig;
use crate::error::{Error, Result};
use crate::limits;
use bowshot_engine::cluster_tls::is_loopback;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use url::Url;

const DESCRIPTION: &str = ".well-known/openid-configuration";

/// A place to read keys from.
pub enum KeySource {
    File(PathBuf),
    Provider { issuer: String, client: Client },
}

/// What matters of a provider's description of itself.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

impl KeySource {
    /// The source of the settings.
    ///
    /// # Errors
    /// When the issuer is no URL that can be trusted, or the authorities cannot be read.
    pub fn new(config: &JwtConfig) -> Result<Self> {
        if let Some(path) = &config.jwks_file {
            return Ok(Self::File(path.clone()));
        }
        trusted(&config.issuer).map_err(|problem| {
            Error::config(format!(
                "auth.jwt.issuer '{}' {problem}: keys are found below the issuer, unless auth.jwt.jwks_file holds them",
                config.issuer
            ))
        })?;
        let mut client = Client::builder()
            .timeout(limits::JWT_PROVIDER_TIMEOUT)
            // A redirect could lead from the provider to anywhere.
            .redirect(Policy::none())
            .user_agent(concat!("bowshot/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &config.ca {
            let authorities = authorities(path).map_err(|problem| Error::config(format!("auth.jwt.ca: {} {problem}", path.display())))?;
            client = authorities
                .into_iter()
                .fold(client.tls_built_in_root_certs(false), |client, authority| client.add_root_certificate(authority));
        }
        let client =
            client.build().map_err(|error| Error::config(format!("auth.jwt: no client for the identity provider: {}", chain(&error))))?;
        Ok(Self::Provider { issuer: config.issuer.clone(), client })
    }

    /// The keys at this moment.
    ///
    /// # Errors
    /// A text for the operator.
    pub async fn keys(&self) -> Result<KeySet, String> {
        match self {
            Self::File(path) => Self::keys_of_file(path),
            Self::Provider { issuer, client } => keys_of_provider(issuer, client).await,
        }
    }

    /// The keys in a file.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn keys_of_file(path: &Path) -> Result<KeySet, String> {
        read(path).and_then(|text| KeySet::parse(&text)).map_err(|problem| format!("{} {problem}", path.display()))
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Provider { issuer, .. } => write!(f, "{issuer}"),
        }
    }
}

async fn keys_of_provider(issuer: &str, client: &Client) -> Result<KeySet, String> {
    let description = format!("{}/{DESCRIPTION}", issuer.trim_end_matches('/'));
    let answer = get(client, &description).await?;
    let described: Description =
        serde_json::from_slice(&answer).map_err(|error| format!("{description} is no description of a provider: {error}"))?;
    if described.issuer != issuer {
        return Err(format!(
            "{description} is about the issuer '{}', and auth.jwt.issuer is '{issuer}': the two must be equal",
            described.issuer
        ));
    }
    trusted(&described.jwks_uri)
        .map_err(|problem| format!("the keys' place '{}', which {description} names, {problem}", described.jwks_uri))?;
    let keys = get(client, &described.jwks_uri).await?;
    KeySet::parse(&keys).map_err(|problem| format!("{} {problem}", described.jwks_uri))
}

/// A small answer within a short time.
async fn get(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| format!("{url} does not answer: {}", chain(&error.without_url()));
    let mut response = client.get(url).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("{url} answers {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&part);
        if body.len() as u64 > limits::JWT_KEYS_BYTES_MAX {
            return Err(format!("{url} answers more than {} bytes", limits::JWT_KEYS_BYTES_MAX));
        }
    }
    Ok(body)
}

/// Keys that came in the clear over a network would be anybody's.
fn trusted(url: &str) -> Result<(), &'static str> {
    match Url::parse(url) {
        Ok(url) if url.scheme() == "https" && url.has_host() => Ok(()),
        Ok(url) if url.scheme() == "http" && is_loopback(&url) => Ok(()),
        Ok(url) if url.scheme() == "http" => Err("is not encrypted, and only on loopback need not be (https://)"),
        _ => Err("is no URL that begins with https://"),
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    let authorities = Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
    match authorities.is_empty() {
        true => Err("holds no certificate in PEM form".into()),
        false => Ok(authorities),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(limits::JWT_KEYS_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    match bytes.len() as u64 > limits::JWT_KEYS_BYTES_MAX {
        true => Err(format!("is larger than {} bytes", limits::JWT_KEYS_BYTES_MAX)),
        false => Ok(bytes),
    }
}

/// An error with all that is behind it: reqwest's own text does not say what failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_encrypted_or_from_this_machine() {
        for url in ["https://login.example/realm", "http://127.0.0.1:8080", "http://localhost/realm", "http://[::1]:1/"] {
            assert!(trusted(url).is_ok(), "{url}");
        }
        for url in ["http://login.example", "http://127.0.0.1.example", "file:///etc/passwd", "login.example", ""] {
            assert!(trusted(url).is_err(), "{url}");
        }
    }
}
