//! Certificates, keys and authorities in files: read with bounds, in words about the file that whoever knows the setting puts its name before.

use crate::limits;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// The bytes of the files at one moment.
pub struct Content {
    /// Chain, the own certificate first.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// The authorities of those who call; empty where nobody has to show a certificate.
    pub authorities: Vec<u8>,
}

impl Content {
    /// Tells one content of the files from another.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for bytes in [&self.certificate, &self.key, &self.authorities] {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }

    /// The chain: the own certificate, and those between it and an authority.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn chain(&self) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), String> {
        let mut chain = certificates(&self.certificate)?.into_iter();
        let leaf = chain.next().ok_or("holds no certificate in PEM form")?;
        Ok((leaf, chain.collect()))
    }

    /// The private key.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        // The reader's own text could quote the file.
        PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| "holds no private key in PEM form that is not encrypted".into())
    }

    /// The authorities; `why` says why one cannot be used.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn roots(&self, why: impl Fn(&rustls::Error) -> String) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authorities)? {
            roots.add(authority).map_err(|error| format!("holds an authority that cannot be used: {}", why(&error)))?;
        }
        if roots.is_empty() {
            return Err("holds no authority in PEM form".into());
        }
        Ok(roots)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| "holds a certificate that is not in PEM form".into())
}

/// Reads one of the files.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    // A pipe would hold the reader for as long as nobody writes.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is no file".into());
    }
    let mut bytes = vec![];
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(limits::CERTIFICATE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits::CERTIFICATE_BYTES_MAX {
        return Err(format!("is larger than {} bytes", limits::CERTIFICATE_BYTES_MAX));
    }
    Ok(bytes)
}

/// A key that everyone may read is nobody's identity. A warning, because mounted secrets often look like that inside a container.
pub fn warn_of_open_key(key: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(key)
        && std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o004 != 0
    {
        tracing::warn!(key = %key.display(), "every user of this machine can read the private key: chmod 600");
    }
}

/// Why a certificate and a key cannot be used together.
pub fn unusable_with(key: &Path, error: &rustls::Error, why: impl Fn(&rustls::Error) -> String) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => format!("is not of the key {}: the two must be issued together", key.display()),
        other => format!("cannot be used with the key {}: {}", key.display(), why(other)),
    }
}
