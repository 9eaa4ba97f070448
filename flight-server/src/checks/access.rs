//! Who may call: users, tokens, administrators, and the certificate that clients see.

use super::{Finding, Subject, problem};
use crate::auth;
use crate::config::{AuthMode, ClientAuth, Role};
use crate::tls::ClientTls;

/// Everything that is wrong with `[auth]`.
pub fn authentication(subject: &Subject) -> Vec<Finding> {
    match subject.role {
        Role::Server => auth::problems(&subject.config).into_iter().map(problem).collect(),
        Role::Worker => vec![],
    }
}

/// Administrators whom no credentials of the settings name. A provider of JWTs, or an authority of certificates, may name anybody.
pub fn administrators(subject: &Subject) -> Vec<Finding> {
    let auth = &subject.config.auth;
    let others_name = auth.jwt.is_some() || subject.config.tls.client_auth().is_ok_and(|asked| asked != ClientAuth::Off);
    if subject.role == Role::Worker || auth.mode == AuthMode::Off || others_name {
        return vec![];
    }
    let unknown = auth.administrators.iter().filter(|user| !auth.users.contains_key(*user) && !auth.tokens.contains_key(*user));
    let told = |user: &String| {
        problem(format!("auth.administrators names '{user}', who is no user: add them to auth.users or auth.tokens, or mend the name"))
    };
    unknown.map(told).collect()
}

/// What is wrong with `[tls]`, where a port of this process uses it.
pub fn client_certificates(subject: &Subject) -> Vec<Finding> {
    let serves_clients = subject.role == Role::Server || subject.worker().is_some_and(|worker| worker.flight_listen.is_some());
    match serves_clients {
        true => ClientTls::problems(&subject.config.tls).into_iter().map(problem).collect(),
        false => vec![],
    }
}

/// Who listens to the network would have passwords and tokens with every login; and who set some means them to be asked for.
pub fn open_credentials(subject: &Subject) -> Vec<Finding> {
    let config = &subject.config;
    let auth = &config.auth;
    let mut notes = vec![];
    let plain = config.tls.certificate.is_none();
    if subject.role == Role::Server {
        if auth.mode == AuthMode::Off && !(auth.users.is_empty() && auth.tokens.is_empty() && auth.jwt.is_none()) {
            notes.push(
                "auth.mode is 'off': users, tokens and JWTs of the settings are not asked for; set auth.mode = \"required\" for that"
                    .into(),
            );
        }
        if auth.mode == AuthMode::Required && plain && !config.server.listen.ip().is_loopback() {
            notes.push(format!(
                "passwords and tokens of clients travel unencrypted to server.listen {}: set tls.certificate and tls.key, or see to it that something in front encrypts",
                config.server.listen
            ));
        }
    }
    if let Some(listen) = subject.worker().and_then(|worker| worker.flight_listen)
        && plain
        && !listen.ip().is_loopback()
    {
        notes.push(format!(
            "what clients fetch from this worker at worker.flight_listen {listen}, and what they log in with, travels unencrypted: set tls.certificate and tls.key, or see to it that something in front encrypts"
        ));
    }
    notes.into_iter().map(Finding::Note).collect()
}
