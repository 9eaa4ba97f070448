//! The server's certificate and key, and the authorities of its clients: read, checked against each other, and made into what rustls wants.

use super::certificate::Contents;
use crate::config::{ClientAuth, TlsConfig};
use crate::error::{Error, Result};
use bowshot_engine::port::certificate_files::{self, Content};
use bowshot_engine::port::followed::Source;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The one protocol above TLS: HTTP/2.
const ALPN: &[u8] = b"h2";

/// Where the files are.
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_auth: ClientAuth,
}

impl Files {
    /// The files of the settings, or nothing when none is set.
    pub fn of(config: &TlsConfig) -> Result<Option<Self>> {
        let client_auth = config.client_auth()?;
        match (&config.certificate, &config.key) {
            (None, None) if config.client_ca.is_some() => Err(Error::config("tls.client_ca needs tls.certificate and tls.key too")),
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                certificate_files::warn_of_open_key(key);
                Ok(Some(Self { certificate: certificate.clone(), key: key.clone(), client_ca: config.client_ca.clone(), client_auth }))
            }
            _ => Err(Error::config("tls.certificate and tls.key must be set together")),
        }
    }

    /// Files that cannot be read.
    pub fn unreadable(&self) -> Vec<Error> {
        let mut named = vec![("certificate", &self.certificate), ("key", &self.key)];
        named.extend(self.client_ca.as_ref().map(|path| ("client_ca", path)));
        named.into_iter().filter_map(|(setting, path)| read(setting, path).err()).collect()
    }
}

impl Source for Files {
    type Made = ServerConfig;
    type Error = Error;
    const CALLED: &'static str = "the certificates for clients";

    fn certificate(&self) -> &Path {
        &self.certificate
    }

    fn read(&self) -> Result<Content> {
        Ok(Content {
            certificate: read("certificate", &self.certificate)?,
            key: read("key", &self.key)?,
            authorities: self.client_ca.as_deref().map_or(Ok(vec![]), |path| read("client_ca", path))?,
        })
    }

    fn make(&self, content: &Content) -> Result<(ServerConfig, u64)> {
        let wrong = |problem: String| wrong("certificate", &self.certificate, &problem);
        let (leaf, intermediates) = content.chain().map_err(wrong)?;
        let contents = Contents::of(&leaf).map_err(wrong)?;
        contents.check_time(SystemTime::now()).map_err(wrong)?;
        let key = content.key().map_err(|problem| self::wrong("key", &self.key, &problem))?;
        let unusable = |error: rustls::Error| wrong(certificate_files::unusable_with(&self.key, &error, ToString::to_string));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = match clients(content, self, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(std::iter::once(leaf).chain(intermediates).collect(), key).map_err(unusable)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would keep an identity that nobody checked again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok((server, contents.valid_until().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()))
    }
}

/// What checks the certificates of clients, if they are asked for any.
fn clients(content: &Content, files: &Files, provider: Arc<rustls::crypto::CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let (Some(path), true) = (&files.client_ca, files.client_auth != ClientAuth::Off) else { return Ok(None) };
    let wrong = |problem: String| wrong("client_ca", path, &problem);
    let roots = content.roots(ToString::to_string).map_err(wrong)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if files.client_auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map(Some).map_err(|error| wrong(format!("cannot be used: {error}")))
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>> {
    certificate_files::read(path).map_err(|problem| wrong(setting, path, &problem))
}

fn wrong(setting: &str, path: &Path, problem: &str) -> Error {
    Error::config(format!("tls.{setting}: {} {problem}", path.display()))
}
