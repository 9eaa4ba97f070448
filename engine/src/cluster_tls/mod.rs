//! Transport security between the nodes of a cluster: TLS 1.3 on both ends, each end showing a certificate of the cluster's authority.
//!
//! # Life of a connection
//! 1. A node opens its [`ClusterTls`]: certificate, key and authorities are read and checked against each other ([`credentials`]), so
//!    that a mistake is found at start and not by the first query.
//! 2. The accepting side ([`accept`], over [`crate::port::accept`]) takes the state of that moment, runs the handshake beside others, reads
//!    from the peer's certificate who that is ([`identity::Identity`]), and hands the connection with its [`Peer`] to tonic.
//! 3. The connecting side ([`connect`]) checks the other's certificate against a *role* (this node id, the coordinator), not against a
//!    host name: addresses behind translation work, and a node cannot pass for another by taking its address.
//! 4. Every call is checked too: the cluster token, then whether the caller's certificate entitles it to what it asks ([`identity`]).
//! 5. [`ClusterTls`] follows its files ([`crate::port::followed`]).
//!
//! Sessions are never resumed: a resumed one would keep an identity that nobody checked again.

pub mod accept;
pub mod connect;
mod credentials;
pub mod identity;
mod reason;
#[cfg(test)]
mod tests;

pub use accept::{NodeConnection, incoming};
pub use connect::{connect, connect_lazy, refusal};
pub use identity::{COORDINATOR_NAME, Owner, Peer, is_label, node_name, region_name};

use crate::config::{ClusterTlsConfig, CoordinatorConfig, WorkerConfig};
use crate::error::{Error, Result};
use crate::port::followed::Followed;
use credentials::{Credentials, Files};
use std::net::SocketAddr;
use std::sync::Arc;
use url::{Host, Url};

/// What a node shows to others and what it accepts from them; follows its files.
pub struct ClusterTls {
    followed: Arc<Followed<Files>>,
}

impl ClusterTls {
    /// Reads and checks the files of `config`; nothing when none is set.
    ///
    /// # Errors
    /// When only some of the files are set, one cannot be read, they do not fit together, or the certificate is not `owner`'s.
    pub fn load(config: &ClusterTlsConfig, owner: Owner) -> Result<Option<Arc<Self>>> {
        let Some(files) = Files::of(config, owner)? else { return Ok(None) };
        Ok(Some(Arc::new(Self { followed: Arc::new(Followed::open(files)?) })))
    }

    /// The certificate of a coordinator.
    ///
    /// # Errors
    /// As [`Self::load`], and when there is none although other machines reach the coordinator.
    pub fn of_coordinator(config: &CoordinatorConfig) -> Result<Option<Arc<Self>>> {
        let tls = Self::load(&config.cluster_tls, Owner::Coordinator)?;
        if tls.is_none() && !config.listen.ip().is_loopback() {
            admit_plain("coordinator", config.insecure_cluster, &format!("coordinator.listen is {}", config.listen))?;
        }
        Ok(tls)
    }

    /// The certificate of a worker.
    ///
    /// # Errors
    /// As [`Self::load`], and when there is none although other machines reach the worker, or it them.
    pub fn of_worker(config: &WorkerConfig) -> Result<Option<Arc<Self>>> {
        let owner = Owner::Worker { node_id: config.node_id.clone(), region: config.region.clone() };
        let tls = Self::load(&config.cluster_tls, owner)?;
        if tls.is_none() {
            if config.coordinator.starts_with("https:") {
                return Err(Error::user(format!(
                    "worker.coordinator is {}, but worker.cluster_tls is not set: set its certificate, key and ca (`bowshot certs` makes them), or write http://",
                    config.coordinator
                )));
            }
            if let Some(exposed) = exposed(config.listen, &config.coordinator) {
                admit_plain("worker", config.insecure_cluster, &exposed)?;
            }
        }
        Ok(tls)
    }

    /// When the certificate in use ends, in seconds since the epoch.
    pub fn valid_until(&self) -> u64 {
        self.followed.valid_until()
    }

    fn current(&self) -> Arc<Credentials> {
        self.followed.made()
    }

    /// Looks at the files every few seconds for as long as somebody uses the state. Needs a runtime.
    pub fn follow_files(&self) {
        self.followed.follow();
    }
}

/// Why other machines are involved with this worker, if they are.
fn exposed(listen: SocketAddr, coordinator: &str) -> Option<String> {
    if !listen.ip().is_loopback() {
        return Some(format!("worker.listen is {listen}"));
    }
    // What is no URL is complained about where it is used.
    let url = Url::parse(coordinator).ok()?;
    url.host()?;
    (!is_loopback(&url)).then(|| format!("worker.coordinator is {coordinator}"))
}

/// Whether what listens at a URL is on this machine, by the address itself.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Lets traffic between machines go unencrypted only where somebody asked for it.
fn admit_plain(role: &str, insecure: bool, exposed: &str) -> Result<()> {
    if insecure {
        tracing::warn!(
            "{exposed} without {role}.cluster_tls, as {role}.insecure_cluster allows: rows and the cluster token travel unencrypted"
        );
        return Ok(());
    }
    Err(Error::user(format!(
        "{exposed}, which leaves this machine, but {role}.cluster_tls is not set: make certificates with `bowshot certs` and set {role}.cluster_tls.certificate, .key and .ca; on a network that nobody else can listen to, {role}.insecure_cluster = true does without"
    )))
}
