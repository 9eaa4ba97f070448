//! A node's certificate, key and authorities: read, checked against each other, and made into what rustls wants.

use super::identity::{Identity, Owner, server_name};
use super::reason;
use crate::config::ClusterTlsConfig;
use crate::error::{Error, Result};
use crate::limits;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The one protocol above TLS: HTTP/2.
const ALPN: &[u8] = b"h2";
/// A day in the year 9999. No certificate is valid then, and the refusal says when it ended.
const FAR_FUTURE_S: u64 = 253_000_000_000;

/// Where a node's files are.
pub(super) struct Files {
    /// Section of the settings, for errors.
    role: &'static str,
    pub certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

/// The bytes of a node's files at one moment.
pub(super) struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

/// What a node shows and accepts, made of one content of its files.
pub(super) struct Credentials {
    /// For connections that it accepts.
    pub server: Arc<ServerConfig>,
    /// For connections that it makes.
    pub client: Arc<ClientConfig>,
    /// When its certificate ends, in seconds since the epoch.
    pub valid_until: u64,
    /// Tells one content of the files from another.
    pub digest: [u8; 32],
}

impl Files {
    /// The files of the settings, or nothing when none is set.
    pub fn of(config: &ClusterTlsConfig, role: &'static str) -> Result<Option<Self>> {
        match (&config.certificate, &config.key, &config.ca) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), Some(ca)) => {
                Ok(Some(Self { role, certificate: certificate.clone(), key: key.clone(), ca: ca.clone() }))
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

    pub fn read(&self) -> Result<Content> {
        Ok(Content {
            certificate: self.read_one("certificate", &self.certificate)?,
            key: self.read_one("key", &self.key)?,
            ca: self.read_one("ca", &self.ca)?,
        })
    }

    fn read_one(&self, name: &str, path: &Path) -> Result<Vec<u8>> {
        let failed = |problem: String| self.error(name, path, &problem);
        let metadata = std::fs::metadata(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
        // A pipe would hold the reader for as long as nobody writes.
        if !metadata.is_file() {
            return Err(failed("is no file".into()));
        }
        let mut bytes = vec![];
        std::fs::File::open(path)
            .and_then(|file| file.take(limits::CERTIFICATE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| failed(format!("cannot be read: {error}")))?;
        if bytes.len() as u64 > limits::CERTIFICATE_BYTES_MAX {
            return Err(failed(format!("is larger than {} bytes", limits::CERTIFICATE_BYTES_MAX)));
        }
        Ok(bytes)
    }

    fn error(&self, name: &str, path: &Path, problem: &str) -> Error {
        Error::user(format!("{}.cluster_tls.{name}: {} {problem}", self.role, path.display()))
    }
}

impl Content {
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in [&self.certificate, &self.key, &self.ca] {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }
}

impl Credentials {
    /// Reads and checks the files.
    pub fn read(files: &Files, owner: &Owner) -> Result<Self> {
        warn_of_open_key(&files.key);
        Self::new(&files.read()?, files, owner)
    }

    /// Checks that the content fits together, is `owner`'s, and would be accepted by a node with the same authorities.
    pub fn new(content: &Content, files: &Files, owner: &Owner) -> Result<Self> {
        let wrong = |problem: String| files.error("certificate", &files.certificate, &problem);
        let chain = certificates(&content.certificate).map_err(wrong)?;
        let (leaf, intermediates) = chain.split_first().ok_or_else(|| wrong("holds no certificate in PEM form".into()))?;
        let roots = roots(&content.ca).map_err(|problem| files.error("ca", &files.ca, &problem))?;
        // The reader's own text could quote the file.
        let key = || {
            PrivateKeyDer::from_pem_slice(&content.key)
                .map_err(|_| files.error("key", &files.key, "holds no private key in PEM form that is not encrypted"))
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => {
                wrong(format!("is not of the key {}: the two must be issued together", files.key.display()))
            }
            other => wrong(format!("cannot be used with the key {}: {}", files.key.display(), reason::of(&other))),
        };
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
        servers.verify_server_cert(leaf, intermediates, &name, &[], now).map_err(refused)?;
        clients.verify_client_cert(leaf, intermediates, now).map_err(refused)?;
        let identity = Identity::of(leaf).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        owner.check(&identity).map_err(|problem| wrong(format!("is not this node's: {problem}")))?;
        let then = UnixTime::since_unix_epoch(Duration::from_secs(FAR_FUTURE_S));
        let valid_until = match servers.verify_server_cert(leaf, intermediates, &name, &[], then) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => not_after.as_secs(),
            _ => FAR_FUTURE_S,
        };

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
        Ok(Self { server: Arc::new(server), client: Arc::new(client), valid_until, digest: content.digest() })
    }
}

fn client_config(provider: Arc<CryptoProvider>) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| "holds a certificate that is not in PEM form".into())
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem)? {
        roots.add(authority).map_err(|error| format!("holds an authority that cannot be used: {}", reason::of(&error)))?;
    }
    if roots.is_empty() {
        return Err("holds no authority in PEM form".into());
    }
    Ok(Arc::new(roots))
}

/// A key that everyone may read is nobody's identity. A warning, because mounted secrets often look like that inside a container.
fn warn_of_open_key(key: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(key)
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o004 != 0
    {
        tracing::warn!(key = %key.display(), "every user of this machine can read the private key: chmod 600");
    }
}
