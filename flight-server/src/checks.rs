//! What would keep a server or a worker from starting, or its first query from an answer: one list, which a start, `bowshot config check` and
//! `bowshot doctor` run.
//!
//! [`SETTINGS`] looks at settings, files and folders. [`SURROUNDINGS`] looks at who else is there: holders of locks and ports, certificates that end
//! soon, the coordinator. A start has no need of these, because it takes locks and ports itself and is refused in the same words.

mod access;
mod addresses;
mod cluster;
mod folders;
mod machine;
mod mounts;

pub use addresses::listens;
pub use folders::{Written, spill_folder};
pub use machine::{open_files_advised, usable_memory_bytes};
pub use mounts::mount_of;

use crate::config::{Config, Role};
use crate::error::{Error, Result};
use bowshot_engine::WorkerConfig;
use std::net::SocketAddr;
use tracing::subscriber::NoSubscriber;

/// Something about the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A start, or the first query, fails.
    Problem(String),
    /// Worth a look.
    Note(String),
}

/// Settings as a process of this role uses them.
pub struct Subject {
    pub role: Role,
    pub config: Config,
    /// No worker of another process can join.
    token_is_missing: bool,
}

type Check = fn(&Subject) -> Vec<Finding>;

/// Run by a start too.
const SETTINGS: [Check; 8] = [
    access::authentication,
    access::administrators,
    access::client_certificates,
    access::open_credentials,
    cluster::nodes,
    cluster::certificates,
    addresses::shared_ports,
    folders::written,
];
/// Run by a start too, and cheap to be wrong about: what a machine has is not said by every system.
const MACHINE: [Check; 1] = [machine::memory];
/// Run by those who only look.
const SURROUNDINGS: [Check; 5] =
    [folders::in_use, folders::volumes_as_they_are, addresses::taken_ports, cluster::ends_of_certificates, machine::open_files];

impl Subject {
    /// Completes settings as a start does.
    pub fn new(mut config: Config, role: Role) -> Self {
        let mut token_is_missing = false;
        match role {
            Role::Server => {
                let token = &mut config.coordinator.cluster_token;
                if token.is_empty() {
                    // Without a token only the worker in this process can join: it gets a random one.
                    token_is_missing = config.worker.is_none();
                    *token = uuid::Uuid::new_v4().to_string();
                }
                let coordinator = &config.coordinator;
                if let Some(worker) = &mut config.worker {
                    complete_worker(worker, &coordinator.cluster_token, coordinator.listen);
                }
            }
            Role::Worker => {
                config.worker.get_or_insert_default();
            }
        }
        Self { role, config, token_is_missing }
    }

    /// The worker of this process, if it has one.
    pub fn worker(&self) -> Option<&WorkerConfig> {
        self.config.worker.as_ref()
    }

    /// The whole list, for who only looks. What the checked parts warn of goes to the log.
    pub fn look(&self) -> Vec<Finding> {
        let checks = SETTINGS.into_iter().chain(MACHINE).chain(SURROUNDINGS);
        let mut findings: Vec<Finding> = checks.flat_map(|check| check(self)).collect();
        let mut known = std::collections::HashSet::new();
        findings.retain(|finding| known.insert(finding.text().to_string()));
        findings
    }

    /// Whether the coordinator would take this worker in; nothing where that is no question. Needs a runtime.
    pub async fn ask_coordinator(&self) -> Option<Result<bowshot_engine::worker::look::Sight, bowshot_engine::Error>> {
        let worker = self.worker().filter(|_| self.role == Role::Worker)?;
        Some(bowshot_engine::worker::look::look(worker).await)
    }

    /// What the list says before a start.
    ///
    /// # Errors
    /// [`Error::Settings`] with every problem.
    pub fn check_before_start(&self) -> Result<()> {
        // The parts that start say by themselves what they warn of.
        let findings: Vec<Finding> = tracing::subscriber::with_default(NoSubscriber::default(), || {
            SETTINGS.into_iter().chain(MACHINE).flat_map(|check| check(self)).collect()
        });
        let mut problems = vec![];
        for finding in findings {
            match finding {
                Finding::Note(text) => tracing::warn!("{text}"),
                Finding::Problem(text) if !problems.contains(&text) => problems.push(text),
                Finding::Problem(_) => {}
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Settings { problems }) }
    }
}

/// Completes the settings of a worker in the server's process from those of the coordinator.
fn complete_worker(worker: &mut WorkerConfig, token: &str, control: SocketAddr) {
    if worker.node_id.is_empty() {
        worker.node_id = "local".to_string();
    }
    if worker.cluster_token.is_empty() {
        worker.cluster_token = token.to_string();
    }
    let reachable = match control.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], control.port())),
        false => control,
    };
    let scheme = if worker.cluster_tls.certificate.is_some() { "https" } else { "http" };
    worker.coordinator = format!("{scheme}://{reachable}");
}

impl Finding {
    /// What it says.
    pub fn text(&self) -> &str {
        match self {
            Self::Problem(text) | Self::Note(text) => text,
        }
    }

    /// Whether it is a problem.
    pub fn is_problem(&self) -> bool {
        matches!(self, Self::Problem(_))
    }
}

fn problem(error: impl std::fmt::Display) -> Finding {
    Finding::Problem(error.to_string())
}
