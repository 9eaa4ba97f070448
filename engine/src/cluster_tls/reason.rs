//! Why a handshake failed, in words that say what to mend.

use crate::port::followed::date;
use rustls::{AlertDescription, CertificateError, Error};

/// What is behind an error of rustls.
pub(super) fn of(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => certificate(problem),
        Error::NoCertificatesPresented => "no certificate was shown: set cluster_tls there".into(),
        Error::InvalidMessage(_) => "what came back is not TLS: set cluster_tls there too".into(),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                "the other side refused our certificate: its cluster_tls.ca does not hold the authority that signed it".into()
            }
            AlertDescription::CertificateExpired => "the other side refused our certificate: it expired".into(),
            AlertDescription::CertificateRequired => "the other side wants a certificate and got none".into(),
            AlertDescription::BadCertificate | AlertDescription::UnsupportedCertificate | AlertDescription::CertificateUnknown => {
                format!("the other side refused our certificate ({alert:?})")
            }
            other => format!("the other side ended the handshake ({other:?})"),
        },
        other => other.to_string(),
    }
}

fn certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "it is not signed by an authority in our cluster_tls.ca".into(),
        CertificateError::ExpiredContext { not_after, .. } => format!("it expired on {}", date(not_after.as_secs())),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}: compare the clocks of the nodes", date(not_before.as_secs()))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            // Names come as debug texts of the library: DnsName("…").
            let names: Vec<_> = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
            format!("it is not for {}, but for {}", expected.to_str(), if names.is_empty() { "nobody".into() } else { names.join(", ") })
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage must hold both server and client authentication".into()
        }
        other => other.to_string(),
    }
}
