//! Ways in and refusals, without a network.

use super::*;
use crate::config::AuthConfig;
use crate::connection::{ClientCertificate, ConnectionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

// "ana:secret" in Base64, without its padding.
const ANA: &str = "Basic YW5hOnNlY3JldA";
const TOKEN: &str = "0123456789abcdef";

fn config() -> Config {
    Config {
        auth: AuthConfig {
            mode: AuthMode::Required,
            users: BTreeMap::from([("ana".to_string(), hash_password("secret").unwrap())]),
            tokens: BTreeMap::from([("robot".to_string(), TOKEN.to_string())]),
            ..AuthConfig::default()
        },
        ..Config::default()
    }
}

fn authenticator() -> Authenticator {
    Authenticator::new(&config()).unwrap()
}

fn header(value: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", value.parse().unwrap());
    metadata
}

fn peer(user: &str, valid_until: SystemTime) -> ClientPeer {
    let certificate = ClientCertificate { user: user.into(), valid_until };
    ClientPeer { id: ConnectionId(1), address: NO_ADDRESS, certificate: Some(Arc::new(certificate)), visit: None }
}

/// A caller from an address of its own, so that no refusal delays another.
fn elsewhere() -> ClientPeer {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let address = SocketAddr::from(([192, 0, 2, NEXT.fetch_add(1, Ordering::Relaxed)], 1));
    ClientPeer { id: ConnectionId(2), address, certificate: None, visit: None }
}

#[tokio::test]
async fn a_password_buys_a_token_that_names_the_user_until_it_is_closed() {
    let authenticator = authenticator();
    let token = authenticator.log_in(&header(ANA), None).await.unwrap();
    let bearer = header(&format!("bearer {token}"));
    let principal = authenticator.authenticate(&bearer, None).await.unwrap();
    assert!(principal.user == "ana" && principal.login.is_some());
    // A login cannot prolong itself.
    assert_eq!(authenticator.log_in(&bearer, None).await.unwrap(), token);
    let other = authenticator.log_in(&header(ANA), None).await.unwrap();
    authenticator.log_out(&principal);
    assert!(authenticator.authenticate(&bearer, None).await.is_err());
    assert!(authenticator.authenticate(&header(&format!("Bearer {other}")), None).await.is_ok());
}

#[tokio::test]
async fn every_wrong_credential_gets_the_same_answer() {
    let authenticator = authenticator();
    for wrong in
        ["Basic YW5hOndyb25n", "Basic Ym9iOnNlY3JldA==", "Bearer nothing", "Bearer a.b.c", "Bearer bowshot_AAAA", "Basic %%", "Negotiate x"]
    {
        let status = authenticator.authenticate(&header(wrong), Some(&elsewhere())).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, failures::REFUSED), "{wrong}");
    }
    let nothing = authenticator.authenticate(&MetadataMap::new(), None).await.unwrap_err();
    assert!(nothing.message().contains("asks for a user and password"));
}

#[tokio::test]
async fn a_fixed_token_is_a_user() {
    let principal = authenticator().authenticate(&header(&format!("Bearer {TOKEN}")), None).await.unwrap();
    assert_eq!((principal.user.as_str(), principal.login), ("robot", None));
}

#[tokio::test]
async fn a_certificate_speaks_for_who_shows_nothing_else() {
    let authenticator = authenticator();
    let end = SystemTime::now() + Duration::from_secs(60);
    let eve = peer("eve", end);
    assert_eq!(authenticator.authenticate(&MetadataMap::new(), Some(&eve)).await.unwrap().user, "eve");
    assert_eq!(authenticator.authenticate(&header(ANA), Some(&eve)).await.unwrap().user, "ana");
    assert!(authenticator.authenticate(&header("Bearer nothing"), Some(&eve)).await.is_err());
}

#[tokio::test]
async fn a_login_ends_with_what_it_was_bought_with() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("token.key");
    std::fs::write(&key, [1; 32]).unwrap();
    let mut config = config();
    config.auth.token_key_file = Some(key);
    let opened = |config: &Config| Authenticator::new(config).unwrap();
    let first = opened(&config);
    let by_password = header(&format!("Bearer {}", first.log_in(&header(ANA), None).await.unwrap()));
    let by_token = header(&format!("Bearer {}", first.log_in(&header(&format!("Bearer {TOKEN}")), None).await.unwrap()));
    // The server starts again.
    let second = opened(&config);
    assert_eq!(second.authenticate(&by_password, None).await.unwrap().user, "ana");
    assert_eq!(second.authenticate(&by_token, None).await.unwrap().user, "robot");
    // With another password of ana, and without the robot.
    config.auth.users.insert("ana".into(), hash_password("another").unwrap());
    config.auth.tokens.clear();
    let third = opened(&config);
    assert!(third.authenticate(&by_password, None).await.is_err());
    assert!(third.authenticate(&by_token, None).await.is_err());
    // Authentication was off, and is on now.
    let off = Config { auth: AuthConfig { mode: AuthMode::Off, ..config.auth.clone() }, ..Config::default() };
    let anonymous = header(&format!("Bearer {}", opened(&off).log_in(&MetadataMap::new(), None).await.unwrap()));
    assert!(third.authenticate(&anonymous, None).await.is_err());
    let principal = opened(&off).authenticate(&anonymous, None).await.unwrap();
    assert!(principal.user == ANONYMOUS && principal.login.is_some());
    // And a token of a user is nobody's session while it is off.
    let principal = opened(&off).authenticate(&by_password, None).await.unwrap();
    assert_eq!(principal.user, ANONYMOUS);
}

#[test]
fn settings_that_let_in_all_or_nobody_are_refused() {
    let refused = |change: &dyn Fn(&mut Config), words: &str| {
        let mut config = config();
        change(&mut config);
        let error = Authenticator::new(&config).err().unwrap().to_string();
        assert!(error.contains(words), "'{words}' is not in: {error}");
    };
    assert!(Authenticator::new(&Config::default()).is_ok());
    refused(
        &|config| {
            config.auth.mode = AuthMode::Off;
            config.server.listen = SocketAddr::from(([0, 0, 0, 0], 47470));
        },
        "auth.mode is 'off'",
    );
    refused(
        &|config| {
            config.auth.users.clear();
            config.auth.tokens.clear();
        },
        "nobody could get in",
    );
    refused(&|config| config.auth.token_ttl_s = 0, "auth.token_ttl_s is 0");
    refused(&|config| config.auth.token_ttl_s = 1 << 40, "set it to 1 to 2592000");
    refused(&|config| drop(config.auth.tokens.insert("short".into(), "x".into())), "auth.tokens.short is shorter");
    refused(&|config| drop(config.auth.tokens.insert("twin".into(), TOKEN.into())), "are the same");
    refused(&|config| config.tls.client_auth = Some(ClientAuth::Required), "tls.client_ca does not say whose");
}

#[test]
fn the_summary_says_who_may_connect_and_no_secret() {
    let mut config = config();
    config.tls.client_ca = Some("ca.pem".into());
    let said = summary(&config, config.tls.client_auth().unwrap());
    assert_eq!(
        said,
        "1 user with a password, 1 fixed token, client certificates, which everyone must have; logins last 43200 s, until this process ends"
    );
}
