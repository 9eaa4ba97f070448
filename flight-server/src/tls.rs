//! Encryption of client connections.

use crate::config::TlsConfig;
use crate::error::{Error, Result};
use std::path::Path;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// What the server needs for TLS, or nothing when no certificate is set.
///
/// # Errors
/// When only one of certificate and key is set, or a file cannot be read.
pub fn server_tls(config: &TlsConfig) -> Result<Option<ServerTlsConfig>> {
    let (certificate, key) = match (&config.certificate, &config.key) {
        (None, None) if config.client_ca.is_some() => {
            return Err(Error::config("tls.client_ca needs tls.certificate and tls.key too"));
        }
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (read(certificate)?, read(key)?),
        _ => {
            return Err(Error::config("tls.certificate and tls.key must be set together"));
        }
    };
    let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    if let Some(authorities) = &config.client_ca {
        tls = tls.client_ca_root(Certificate::from_pem(read(authorities)?));
    }
    Ok(Some(tls))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::file("read", path, source))
}
