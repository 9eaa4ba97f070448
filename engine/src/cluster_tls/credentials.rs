//! A node's certificate, key and authorities: read, checked against each other, and made into what rustls wants.

use super::identity::{Identity, Owner, server_name};
use super::reason;
use crate::config::ClusterTlsConfig;
use crate::error::{Error, Result};
use crate::port::certificate_files::{self, Content};
use crate::port::followed::Source;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The one protocol above TLS: HTTP/2.
const ALPN: &[u8] = b"h2";
/// A day in the year 9999. No certificate is valid then, and the refusal says when it ended.
const FAR_FUTURE_S: u64 = 253_000_000_000;

/// Where a node's files are.
pub(super) struct Files {
    owner: Owner,
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

/// What a node shows and accepts, made of one content of its files.
pub(super) struct Credentials {
    /// For connections that it accepts.
    pub server: Arc<ServerConfig>,
    /// For connections that it makes.
    pub client: Arc<ClientConfig>,
}

impl Files {
    /// The files of the settings, or nothing when none is set.
    pub fn of(config: &ClusterTlsConfig, owner: Owner) -> Result<Option<Self>> {
        let role = owner.role();
        match (&config.certificate, &config.key, &config.ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(ca)) => {
                owner.check_names()?;
                certificate_files::warn_of_open_key(key);
                Ok(Some(Self { owner, certificate: certificate.clone(), key: key.clone(), ca: ca.clone() }))
            }
            (certificate, key, ca) => {
                let missing: Vec<_> = [("certificate", certificate), ("key", key), ("ca", ca)]
                    .into_iter()
                    .filter(|(_, path)| path.is_none())
                    .map(|(name, _)| format!("{role}.cluster_tls.{name}"))
                    .collect();
                Err(Error::user(format!("certificate, key and ca go together: set {} too", missing.join(" and "))))
            }
        }
    }

    fn read_one(&self, name: &str, path: &Path) -> Result<Vec<u8>> {
        certificate_files::read(path).map_err(|problem| self.error(name, path, &problem))
    }

    fn error(&self, name: &str, path: &Path, problem: &str) -> Error {
        Error::user(format!("{}.cluster_tls.{name}: {} {problem}", self.owner.role(), path.display()))
    }
}

impl Source for Files {
    type Made = Credentials;
    type Error = Error;
    const CALLED: &'static str = "the certificates";

    fn certificate(&self) -> &Path {
        &self.certificate
    }

    fn read(&self) -> Result<Content> {
        Ok(Content {
            certificate: self.read_one("certificate", &self.certificate)?,
            key: self.read_one("key", &self.key)?,
            authorities: self.read_one("ca", &self.ca)?,
        })
    }

    fn make(&self, content: &Content) -> Result<(Credentials, u64)> {
        Credentials::new(content, self)
    }
}

impl Credentials {
    /// Checks that the content fits together, is the node's, and would be accepted by a node with the same authorities. Says too when the
    /// certificate ends, in seconds since the epoch.
    fn new(content: &Content, files: &Files) -> Result<(Self, u64)> {
        let owner = &files.owner;
        let wrong = |problem: String| files.error("certificate", &files.certificate, &problem);
        let (leaf, intermediates) = content.chain().map_err(wrong)?;
        let roots = Arc::new(content.roots(reason::of).map_err(|problem| files.error("ca", &files.ca, &problem))?);
        let key = || content.key().map_err(|problem| files.error("key", &files.key, &problem));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |error: rustls::Error| wrong(certificate_files::unusable_with(&files.key, &error, reason::of));
        let roots_unusable = |error: &dyn std::fmt::Display| files.error("ca", &files.ca, &format!("cannot be used: {error}"));

        let servers =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().map_err(|error| roots_unusable(&error))?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().map_err(|error| roots_unusable(&error))?;
        let now = UnixTime::now();
        let name = server_name(&owner.name())?;
        let refused = |error: rustls::Error| {
            wrong(format!("would be refused by every other node: {} (checked as {})", reason::of(&error), owner.name()))
        };
        servers.verify_server_cert(&leaf, &intermediates, &name, &[], now).map_err(refused)?;
        clients.verify_client_cert(&leaf, &intermediates, now).map_err(refused)?;
        let identity = Identity::of(&leaf).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        owner.check(&identity).map_err(|problem| wrong(format!("is not this node's: {problem}")))?;
        let then = UnixTime::since_unix_epoch(Duration::from_secs(FAR_FUTURE_S));
        let valid_until = match servers.verify_server_cert(&leaf, &intermediates, &name, &[], then) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => not_after.as_secs(),
            _ => FAR_FUTURE_S,
        };

        let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).collect();
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key()?)
            .map_err(unusable)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = client_config(provider)
            .map_err(unusable)?
            .with_webpki_verifier(servers)
            .with_client_auth_cert(chain, key()?)
            .map_err(unusable)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok((Self { server: Arc::new(server), client: Arc::new(client) }, valid_until))
    }
}

fn client_config(provider: Arc<CryptoProvider>) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])
}
