//! Files that fit, files that do not, and whom a certificate speaks for.

use super::*;
use crate::config::ClientAuth;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, valid for so many seconds from now.
    fn issue(&self, name: &str, seconds: i64) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        params.not_before = now - Duration::from_secs(3600);
        params.not_after = if seconds < 0 { now - Duration::from_secs(60) } else { now + Duration::from_secs(seconds as u64) };
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

struct ServerFiles(TempDir);

impl ServerFiles {
    fn new(authority: &Authority, seconds: i64) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(authority.issue("server", seconds));
        std::fs::write(files.0.path().join("ca.pem"), authority.0.pem()).unwrap();
        files
    }

    fn write(&self, (certificate, key): (String, String)) {
        std::fs::write(self.0.path().join("server.pem"), certificate).unwrap();
        std::fs::write(self.0.path().join("server.key"), key).unwrap();
    }

    fn config(&self) -> TlsConfig {
        let path = |name: &str| Some(self.0.path().join(name));
        TlsConfig { certificate: path("server.pem"), key: path("server.key"), client_ca: path("ca.pem"), ..TlsConfig::default() }
    }
}

fn assert_refused(config: &TlsConfig, words: &[&str]) {
    let error = ClientTls::load(config).err().unwrap().to_string();
    for word in words {
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
}

#[test]
fn files_that_do_not_fit_are_refused_by_the_name_of_the_setting() {
    let authority = Authority::new();
    let files = ServerFiles::new(&authority, 3600);
    let config = files.config();
    assert!(ClientTls::load(&TlsConfig::default()).unwrap().is_none());
    assert!(ClientTls::load(&config).unwrap().is_some());
    assert_refused(&TlsConfig { key: None, ..config.clone() }, &["tls.certificate and tls.key must be set together"]);
    assert_refused(&TlsConfig { certificate: None, key: None, ..config.clone() }, &["tls.client_ca needs"]);
    assert_refused(&TlsConfig { client_auth: Some(ClientAuth::Off), ..config.clone() }, &["tls.client_auth is 'off'", "client_ca"]);
    assert_refused(
        &TlsConfig { client_auth: Some(ClientAuth::Required), client_ca: None, ..config.clone() },
        &["tls.client_ca does not say"],
    );
    assert_refused(&TlsConfig { client_ca: Some("nowhere.pem".into()), ..config.clone() }, &["tls.client_ca: nowhere.pem cannot be read"]);
    assert_refused(&TlsConfig { client_ca: config.key.clone(), ..config.clone() }, &["tls.client_ca", "no authority in PEM form"]);

    files.write((authority.issue("server", 3600).0, authority.issue("server", 3600).1));
    assert_refused(&config, &["tls.certificate", "server.pem is not of the key"]);
    files.write(authority.issue("server", -1));
    assert_refused(&config, &["tls.certificate", "server.pem expired on 20"]);
    let (certificate, key) = authority.issue("server", 3600);
    let secret = key.lines().nth(1).unwrap().to_string();
    files.write((certificate, key.replace("BEGIN", "BEGUN")));
    let error = ClientTls::load(&config).err().unwrap().to_string();
    assert!(error.contains("server.key holds no private key") && !error.contains(&secret), "{error}");
}

#[test]
fn a_certificate_speaks_for_the_user_that_it_names() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let authority = Authority::new();
    let files = ServerFiles::new(&authority, 3600);
    let holder = |name: &str, kind| {
        let tls = ClientTls::load(&TlsConfig { client_user: kind, ..files.config() }).unwrap().unwrap();
        let certificate = CertificateDer::from_pem_slice(authority.issue(name, 3600).0.as_bytes()).unwrap();
        tls.holder(&certificate).map(|holder| holder.user)
    };
    assert_eq!(holder("ana", CertificateName::Cn).as_deref(), Ok("ana"));
    assert_eq!(holder("ana", CertificateName::Dns).as_deref(), Ok("localhost"));
    assert!(holder("ana", CertificateName::Email).unwrap_err().contains("no name of the kind Email"));
    assert!(holder("a\nb", CertificateName::Cn).unwrap_err().contains("control characters"));
}
