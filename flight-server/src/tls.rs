//! Encryption of client connections: the server's certificate, what it accepts of clients, and both following their files.
//!
//! The nodes of a cluster have `engine::cluster_tls` for what passes between them. There every peer is a node with a role and both ends
//! are ours; here a client checks the server by its host name, and may, must or need not show a certificate that names a user.

mod certificate;
mod credentials;
#[cfg(test)]
mod tests;

use crate::auth::is_user_name;
use crate::config::{CertificateName, TlsConfig};
use crate::connection::ClientCertificate;
use crate::error::Result;
use bowshot_engine::cluster_tls::date;
use bowshot_engine::limits::{CERTIFICATE_END_NOTICE, CERTIFICATE_END_REPEAT, CERTIFICATE_LOOK_INTERVAL};
use certificate::Contents;
use credentials::{Credentials, Files};
use parking_lot::RwLock;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What the server shows to clients and what it accepts from them; follows its files.
pub struct ClientTls {
    files: Files,
    user_name: CertificateName,
    current: RwLock<Arc<Credentials>>,
}

/// What the last look at the files left behind.
#[derive(Default)]
struct Watch {
    /// Content that was new at the last look: taken when the next look finds the same, so that half-written files are not.
    settling: Option<[u8; 32]>,
    /// What was complained about last, so that it is said once.
    complaint: Option<String>,
    /// When the end of the certificate was announced last.
    announced: Option<Instant>,
}

impl ClientTls {
    /// Reads and checks the files of the settings; nothing when no certificate is set.
    ///
    /// # Errors
    /// When only one of certificate and key is set, a file cannot be read, or they do not fit together.
    pub fn load(config: &TlsConfig) -> Result<Option<Arc<Self>>> {
        let Some(files) = Files::of(config)? else { return Ok(None) };
        credentials::warn_of_open_key(&files.key);
        let credentials = Credentials::new(&files.read()?, &files)?;
        Ok(Some(Arc::new(Self { files, user_name: config.client_user, current: RwLock::new(Arc::new(credentials)) })))
    }

    /// For a connection that begins now.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.current.read().server.clone()
    }

    /// When the certificate in use ends, for people.
    pub fn valid_until(&self) -> String {
        date(self.current.read().valid_until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// Whom a client's certificate, already checked, speaks for.
    ///
    /// # Errors
    /// A text for the operator when it names nobody.
    pub fn holder(&self, certificate: &[u8]) -> Result<ClientCertificate, String> {
        let contents = Contents::of(certificate)?;
        let user = contents.name(self.user_name)?;
        match is_user_name(user) {
            true => Ok(ClientCertificate { user: user.to_string(), valid_until: contents.valid_until() }),
            false => Err("its name is empty, too long, or has control characters".into()),
        }
    }

    /// Looks at the files every few seconds for as long as somebody uses the state. Needs a runtime.
    pub fn follow_files(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut watch = Watch::default();
            loop {
                tokio::time::sleep(CERTIFICATE_LOOK_INTERVAL).await;
                let Some(tls) = weak.upgrade() else { return };
                let looking = tokio::task::spawn_blocking(move || {
                    tls.look(&mut watch);
                    watch
                });
                match looking.await {
                    Ok(looked) => watch = looked,
                    // Only at the end of the runtime.
                    Err(_) => return,
                }
            }
        });
    }

    fn look(&self, watch: &mut Watch) {
        match self.take_new(watch) {
            Ok(taken) => {
                watch.complaint = None;
                if taken {
                    tracing::info!(
                        certificate = %self.files.certificate.display(),
                        valid_until = self.valid_until(),
                        "the certificates for clients were replaced: new connections use them"
                    );
                    watch.announced = None;
                }
            }
            Err(error) => {
                let complaint = error.to_string();
                if watch.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(%error, "the certificates for clients cannot be replaced: those before stay in use");
                    watch.complaint = Some(complaint);
                }
            }
        }
        self.announce_end(watch);
    }

    /// Takes files that differ from those in use and did not change since the last look. Returns whether it did.
    fn take_new(&self, watch: &mut Watch) -> Result<bool> {
        let content = self.files.read()?;
        let digest = content.digest();
        if digest == self.current.read().digest {
            watch.settling = None;
            return Ok(false);
        }
        if watch.settling.replace(digest) != Some(digest) {
            return Ok(false);
        }
        *self.current.write() = Arc::new(Credentials::new(&content, &self.files)?);
        watch.settling = None;
        Ok(true)
    }

    /// Says daily that the certificate is about to end: after that clients would not connect.
    fn announce_end(&self, watch: &mut Watch) {
        let left = self.current.read().valid_until.duration_since(SystemTime::now()).unwrap_or_default();
        if left > CERTIFICATE_END_NOTICE || watch.announced.is_some_and(|announced| announced.elapsed() < CERTIFICATE_END_REPEAT) {
            return;
        }
        watch.announced = Some(Instant::now());
        tracing::warn!(
            certificate = %self.files.certificate.display(),
            valid_until = self.valid_until(),
            "the certificate for clients ends soon: replace the file, no restart is needed"
        );
    }
}
