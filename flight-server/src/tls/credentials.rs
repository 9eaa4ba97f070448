//! The server's certificate and key, and the authorities of its clients: read, checked against each other, and made into what rustls wants.

use super::certificate::Contents;
use crate::config::{ClientAuth, TlsConfig};
use crate::error::{Error, Result};
use bowshot_engine::limits::CERTIFICATE_BYTES_MAX;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The one protocol above TLS: HTTP/2.
const ALPN: &[u8] = b"h2";

/// Where the files are.
pub(super) struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    client_auth: ClientAuth,
}

/// Their bytes at one moment.
pub(super) struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// What the server shows and accepts, made of one content of its files.
pub(super) struct Credentials {
    pub server: Arc<ServerConfig>,
    pub valid_until: SystemTime,
    /// Tells one content of the files from another.
    pub digest: [u8; 32],
}

impl Files {
    /// The files of the settings, or nothing when none is set.
    pub fn of(config: &TlsConfig) -> Result<Option<Self>> {
        let client_auth = config.client_auth()?;
        match (&config.certificate, &config.key) {
            (None, None) if config.client_ca.is_some() => Err(Error::config("tls.client_ca needs tls.certificate and tls.key too")),
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Ok(Some(Self { certificate: certificate.clone(), key: key.clone(), client_ca: config.client_ca.clone(), client_auth }))
            }
            _ => Err(Error::config("tls.certificate and tls.key must be set together")),
        }
    }

    pub fn read(&self) -> Result<Content> {
        Ok(Content {
            certificate: read("certificate", &self.certificate)?,
            key: read("key", &self.key)?,
            client_ca: self.client_ca.as_deref().map_or(Ok(vec![]), |path| read("client_ca", path))?,
        })
    }
}

impl Content {
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in [&self.certificate, &self.key, &self.client_ca] {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }
}

impl Credentials {
    /// Checks that the content fits together and that the certificate is valid now.
    pub fn new(content: &Content, files: &Files) -> Result<Self> {
        let wrong = |problem: String| wrong("certificate", &files.certificate, &problem);
        let chain = certificates(&content.certificate).map_err(wrong)?;
        let leaf = chain.first().ok_or_else(|| wrong("holds no certificate in PEM form".into()))?;
        let contents = Contents::of(leaf).map_err(wrong)?;
        contents.check_time(SystemTime::now()).map_err(wrong)?;
        // The reader's own text could quote the file.
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| self::wrong("key", &files.key, "holds no private key in PEM form that is not encrypted"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => {
                wrong(format!("is not of the key {}: the two must be issued together", files.key.display()))
            }
            other => wrong(format!("cannot be used with the key {}: {other}", files.key.display())),
        };
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = match clients(content, files, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(unusable)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would keep an identity that nobody checked again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { server: Arc::new(server), valid_until: contents.valid_until(), digest: content.digest() })
    }
}

/// What checks the certificates of clients, if they are asked for any.
fn clients(content: &Content, files: &Files, provider: Arc<rustls::crypto::CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let (Some(path), true) = (&files.client_ca, files.client_auth != ClientAuth::Off) else { return Ok(None) };
    let wrong = |problem: String| wrong("client_ca", path, &problem);
    let mut roots = RootCertStore::empty();
    for authority in certificates(&content.client_ca).map_err(wrong)? {
        roots.add(authority).map_err(|error| wrong(format!("holds an authority that cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no authority in PEM form".into()));
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if files.client_auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map(Some).map_err(|error| wrong(format!("cannot be used: {error}")))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| "holds a certificate that is not in PEM form".into())
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>> {
    let failed = |problem: String| wrong(setting, path, &problem);
    let metadata = std::fs::metadata(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    // A pipe would hold the reader for as long as nobody writes.
    if !metadata.is_file() {
        return Err(failed("is no file".into()));
    }
    let mut bytes = vec![];
    std::fs::File::open(path)
        .and_then(|file| file.take(CERTIFICATE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(format!("cannot be read: {error}")))?;
    match bytes.len() as u64 > CERTIFICATE_BYTES_MAX {
        true => Err(failed(format!("is larger than {CERTIFICATE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

fn wrong(setting: &str, path: &Path, problem: &str) -> Error {
    Error::config(format!("tls.{setting}: {} {problem}", path.display()))
}

/// A key that everyone may read is nobody's identity. A warning, because mounted secrets often look like that inside a container.
pub(super) fn warn_of_open_key(key: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(key)
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o004 != 0
    {
        tracing::warn!(key = %key.display(), "every user of this machine can read the private key: chmod 600");
    }
}
