//! Settings of the encryption between clients and the server.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Files in PEM form. They are looked at every two seconds, and new ones that fit together serve the connections after that.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// File of the certificate chain, the server's own first. Together with `key`, or not at all.
    pub certificate: Option<PathBuf>,
    /// File of the private key.
    pub key: Option<PathBuf>,
    /// File of the authorities whose client certificates are accepted; none by default.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show a certificate: `off`, `optional` or `required`. Default required where `client_ca` is set, off where it is not.
    pub client_auth: Option<ClientAuth>,
    /// The name in a client's certificate that is the user: `cn`, `dns`, `email` or `uri`. Default cn, the subject's common name.
    pub client_user: CertificateName,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// None is asked for.
    Off,
    /// One that is shown must be good; others prove who they are in another way.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

/// Where a certificate names its holder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateName {
    /// Common name of the subject.
    #[default]
    Cn,
    /// DNS name among the subject's alternative names.
    Dns,
    /// E-mail address among them.
    Email,
    /// URI among them.
    Uri,
}

impl TlsConfig {
    /// Whether clients are asked for a certificate.
    ///
    /// # Errors
    /// When `client_auth` and `client_ca` do not go together.
    pub fn client_auth(&self) -> Result<ClientAuth> {
        match (self.client_auth, &self.client_ca) {
            (None | Some(ClientAuth::Off), None) => Ok(ClientAuth::Off),
            (None, Some(_)) => Ok(ClientAuth::Required),
            (Some(ClientAuth::Off), Some(_)) => Err(Error::config(
                "tls.client_auth is 'off', so nobody would look at tls.client_ca: set it to optional or required, or leave client_ca out",
            )),
            (Some(_), None) => Err(Error::config(
                "tls.client_auth asks for certificates, but tls.client_ca does not say whose: set it to a file of authorities",
            )),
            (Some(asked), Some(_)) => Ok(asked),
        }
    }
}
