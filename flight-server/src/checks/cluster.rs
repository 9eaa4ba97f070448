//! The nodes of a cluster: what the engine says of its settings, and their certificates.

use super::{Finding, Subject, problem};
use crate::config::Role;
use crate::tls::ClientTls;
use bowshot_engine::ClusterTlsConfig;
use bowshot_engine::cluster_tls::ClusterTls;
use bowshot_engine::limits::CERTIFICATE_END_NOTICE;
use bowshot_engine::port::certificate_files;
use bowshot_engine::port::followed::date;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything that the coordinator and the worker refuse to start with.
pub fn nodes(subject: &Subject) -> Vec<Finding> {
    let mut found = vec![];
    if subject.role == Role::Server {
        if subject.token_is_missing {
            found.push(Finding::Note(
                "coordinator.cluster_token is not set, so no worker can join: set it here and at the workers (BOWSHOT__COORDINATOR__CLUSTER_TOKEN, BOWSHOT__WORKER__CLUSTER_TOKEN)".into(),
            ));
        }
        found.extend(bowshot_engine::coordinator::settings_check::problems(&subject.config.coordinator).into_iter().map(problem));
        found.extend(subject.config.coordinator.storage.iter().filter(|bucket| bucket.access_key_id.is_none() && bucket.secret_access_key.is_none()).map(|bucket| {
            Finding::Note(format!(
                "storage {} has no access_key_id and secret_access_key: its requests are anonymous, which only public buckets answer",
                bucket.url
            ))
        }));
    }
    if let Some(worker) = subject.worker() {
        found.extend(bowshot_engine::worker::settings_check::problems(worker).into_iter().map(problem));
    }
    found
}

/// Certificates between nodes that cannot be used.
pub fn certificates(subject: &Subject) -> Vec<Finding> {
    let mut found = vec![];
    if subject.role == Role::Server {
        let config = &subject.config.coordinator;
        found.extend(of_files("coordinator", &config.cluster_tls, || ClusterTls::of_coordinator(config).map(drop)));
    }
    if let Some(worker) = subject.worker() {
        found.extend(of_files("worker", &worker.cluster_tls, || ClusterTls::of_worker(worker).map(drop)));
    }
    found
}

/// Each file that cannot be read, or else why they do not serve together.
fn of_files(role: &str, files: &ClusterTlsConfig, load: impl Fn() -> Result<(), bowshot_engine::Error>) -> Vec<Finding> {
    let named = [("certificate", &files.certificate), ("key", &files.key), ("ca", &files.ca)];
    let unreadable: Vec<Finding> = named
        .into_iter()
        .filter_map(|(name, path)| {
            let path = path.as_ref()?;
            let why = certificate_files::read(path).err()?;
            Some(problem(format!("{role}.cluster_tls.{name}: {} {why}", path.display())))
        })
        .collect();
    if unreadable.is_empty() { load().err().map(problem).into_iter().collect() } else { unreadable }
}

/// Certificates that are good and end soon.
pub fn ends_of_certificates(subject: &Subject) -> Vec<Finding> {
    let config = &subject.config;
    let mut ends = vec![];
    if subject.role == Role::Server {
        ends.push((
            "coordinator.cluster_tls.certificate",
            ClusterTls::of_coordinator(&config.coordinator).ok().flatten().map(|tls| tls.valid_until()),
        ));
        ends.push(("tls.certificate", ClientTls::load(&config.tls).ok().flatten().map(|tls| tls.valid_until_s())));
    }
    if let Some(worker) = subject.worker() {
        ends.push(("worker.cluster_tls.certificate", ClusterTls::of_worker(worker).ok().flatten().map(|tls| tls.valid_until())));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let soon = |until: &u64| until.saturating_sub(now) <= CERTIFICATE_END_NOTICE.as_secs();
    let told = |(setting, until): (&str, Option<u64>)| {
        let until = until.filter(soon)?;
        Some(Finding::Note(format!("{setting} ends on {}: replace the files, no restart is needed", date(until))))
    };
    ends.into_iter().filter_map(told).collect()
}
