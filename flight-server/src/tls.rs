//! Encryption of client connections: the server's certificate and what it accepts of clients; both follow their files.
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
use crate::error::{Error, Result};
use bowshot_engine::port::followed::{Followed, date};
use certificate::Contents;
use credentials::Files;
use rustls::ServerConfig;
use std::sync::Arc;

/// What the server shows to clients and what it accepts from them; follows its files.
pub struct ClientTls {
    followed: Arc<Followed<Files>>,
    user_name: CertificateName,
}

impl ClientTls {
    /// Reads and checks the files of the settings; nothing when no certificate is set.
    ///
    /// # Errors
    /// When only one of certificate and key is set, a file cannot be read, or they do not fit together.
    pub fn load(config: &TlsConfig) -> Result<Option<Arc<Self>>> {
        let Some(files) = Files::of(config)? else { return Ok(None) };
        Ok(Some(Arc::new(Self { followed: Arc::new(Followed::open(files)?), user_name: config.client_user })))
    }

    /// Everything that is wrong with the files of the settings: each that cannot be read, or else why they do not serve together.
    pub fn problems(config: &TlsConfig) -> Vec<Error> {
        let files = match Files::of(config) {
            Ok(Some(files)) => files,
            Ok(None) => return vec![],
            Err(error) => return vec![error],
        };
        let unreadable = files.unreadable();
        if unreadable.is_empty() { Followed::open(files).err().into_iter().collect() } else { unreadable }
    }

    /// When the certificate in use ends, in seconds since the epoch.
    pub fn valid_until_s(&self) -> u64 {
        self.followed.valid_until()
    }

    /// For a connection that begins now.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.followed.made()
    }

    /// When the certificate in use ends, for people.
    pub fn valid_until(&self) -> String {
        date(self.followed.valid_until())
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
    pub fn follow_files(&self) {
        self.followed.follow();
    }
}
