//! Who a certificate speaks for, and what that entitles its holder to.
//!
//! Identities are DNS names in the subject alternative names, because every tool that issues certificates can write them and every
//! verifier can check them: `<node id>.node.bowshot`, `<region>.region.bowshot` and `coordinator.role.bowshot`. Nobody resolves them.

use crate::control::Register;
use crate::error::{Error, Result};
use crate::fragment::transport::node_of;
use crate::port::door::Visit;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use url::Url;
use webpki::EndEntityCert;

const NODE_DOMAIN: &str = ".node.bowshot";
const REGION_DOMAIN: &str = ".region.bowshot";
/// The name in a coordinator's certificate.
pub const COORDINATOR_NAME: &str = "coordinator.role.bowshot";
/// Call that hands a plan to a worker.
const PLAN_CALL: &str = "/CoordinatorChannel";
/// Call that hands rows of a table to a worker, to be stored.
const WRITE_CALL: &str = "/DoPut";
/// Call that takes a part of a result, for the client that it is for.
const PART_CALL: &str = "/DoGet";

/// The name in the certificate of a node.
pub fn node_name(node_id: &str) -> String {
    format!("{node_id}{NODE_DOMAIN}")
}

/// The name in the certificates of a region's nodes.
pub fn region_name(region: &str) -> String {
    format!("{region}{REGION_DOMAIN}")
}

/// Whether a node id or a region can be a part of a name in a certificate, and is written in one way only.
pub fn is_label(text: &str) -> bool {
    let plain = text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-' || letter == '_');
    plain && !text.is_empty() && text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-')
}

/// Whose certificate a node configures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The coordinator.
    Coordinator,
    /// A worker.
    Worker {
        /// Its node id.
        node_id: String,
        /// Its region.
        region: String,
    },
}

impl Owner {
    /// Section of the settings.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker { .. } => "worker",
        }
    }

    /// The name that its certificate must carry.
    pub fn name(&self) -> String {
        match self {
            Self::Coordinator => COORDINATOR_NAME.into(),
            Self::Worker { node_id, .. } => node_name(node_id),
        }
    }

    pub(super) fn check_names(&self) -> Result<()> {
        let Self::Worker { node_id, region } = self else { return Ok(()) };
        for (setting, value) in [("node_id", node_id), ("region", region)] {
            if !is_label(value) {
                return Err(Error::user(format!(
                    "worker.{setting} '{value}' cannot stand in a certificate: with worker.cluster_tls use 1 to 63 lower-case letters, digits, '-' and '_', with no '-' at either end"
                )));
            }
        }
        Ok(())
    }

    /// Whether `identity`, already known to carry [`Self::name`], is right in all else.
    pub(super) fn check(&self, identity: &Identity) -> Result<(), String> {
        match self {
            Self::Worker { region, .. } if !identity.regions.contains(region) => {
                Err(format!("it is for {identity}, not for region '{region}' (worker.region)"))
            }
            _ => Ok(()),
        }
    }
}

/// The name to check a peer's certificate against.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_string()).map_err(|_| Error::user(format!("'{name}' cannot stand in a certificate")))
}

/// What a certificate of the cluster's authority says about its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Node ids it speaks for.
    pub nodes: Vec<String>,
    /// Regions it may be in.
    pub regions: Vec<String>,
    /// Whether it may act as the coordinator.
    pub coordinator: bool,
}

impl Identity {
    /// Reads a certificate whose signature was checked before.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        let mut identity = Self::default();
        for name in EndEntityCert::try_from(certificate)?.valid_dns_names() {
            let name = name.to_ascii_lowercase();
            if name == COORDINATOR_NAME {
                identity.coordinator = true;
            } else if let Some(node) = name.strip_suffix(NODE_DOMAIN) {
                identity.nodes.push(node.into());
            } else if let Some(region) = name.strip_suffix(REGION_DOMAIN) {
                identity.regions.push(region.into());
            }
        }
        Ok(identity)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut said = vec![];
        if self.coordinator {
            said.push("the coordinator".to_string());
        }
        for (word, names) in [("node", &self.nodes), ("region", &self.regions)] {
            said.extend(names.iter().map(|name| format!("{word} '{name}'")));
        }
        f.write_str(if said.is_empty() { "no node and no region".into() } else { said.join(", ") }.as_str())
    }
}

/// Who is on the other end of an accepted connection; in the extensions of every request that came over it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it connected from.
    pub address: SocketAddr,
    /// What its certificate says; nothing on ports without TLS.
    pub identity: Option<Arc<Identity>>,
    /// The connection as the door sees it.
    pub visit: Option<Arc<Visit>>,
}

impl Peer {
    /// The peer of a request.
    ///
    /// # Errors
    /// When the request came in some other way: nothing is known of its sender then, so it is refused.
    pub fn of(extensions: &http::Extensions) -> Result<&Self, Status> {
        extensions.get().ok_or_else(|| Status::internal("a call arrived without its connection: it is refused"))
    }

    /// Whether the peer is the node it says it is.
    ///
    /// # Errors
    /// A text for the operator of that node.
    pub fn check_node(&self, node_id: &str) -> Result<(), Status> {
        match &self.identity {
            Some(identity) if !identity.nodes.iter().any(|node| node == node_id) => Err(Status::failed_precondition(format!(
                "a worker at {} calls itself node '{node_id}', but its certificate is for {identity}: give it the certificate of that node",
                self.address
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the peer may join as the node, in the region and under the address that it says.
    ///
    /// # Errors
    /// A text for the operator of that node.
    pub fn check_register(&self, register: &Register) -> Result<(), Status> {
        self.check_node(&register.node_id)?;
        let Some(identity) = &self.identity else { return Ok(()) };
        if !identity.regions.contains(&register.region) {
            return Err(Status::failed_precondition(format!(
                "node '{}' calls its region '{}', but its certificate is for {identity}: mend worker.region, or give it a certificate for that region",
                register.node_id, register.region
            )));
        }
        // Others check the node's certificate against the id in its address.
        let named = Url::parse(&register.address).map(|url| node_of(&url));
        if named.as_deref() != Ok(register.node_id.as_str()) {
            return Err(Status::failed_precondition(format!(
                "node '{}' gives the address {}, which is another node's",
                register.node_id, register.address
            )));
        }
        Ok(())
    }

    /// Whether the peer may make a call to a worker: plans and rows to store come from the coordinator, parts of results go to it, everything else is for
    /// any member of the cluster.
    fn check_call(&self, path: &str) -> Result<(), Status> {
        let Some(identity) = &self.identity else { return Ok(()) };
        if path.ends_with(WRITE_CALL) && !identity.coordinator {
            return Err(Status::permission_denied(format!("rows to store come from the coordinator; this certificate is for {identity}")));
        }
        if path.ends_with(PART_CALL) && !identity.coordinator {
            return Err(Status::permission_denied(format!("parts of results go to the coordinator; this certificate is for {identity}")));
        }
        if path.ends_with(PLAN_CALL) && !identity.coordinator {
            return Err(Status::permission_denied(format!("plans come from the coordinator; this certificate is for {identity}")));
        }
        if !identity.coordinator && identity.nodes.is_empty() {
            return Err(Status::permission_denied(
                "the certificate is of the cluster's authority, but names neither a node nor the coordinator",
            ));
        }
        Ok(())
    }
}

/// A tower layer over a worker's calls: refuses those that the caller's certificate does not entitle it to.
#[derive(Clone)]
pub struct CheckedCalls<S> {
    inner: S,
}

impl<S> CheckedCalls<S> {
    /// Checks before `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> tower::Service<http::Request<B>> for CheckedCalls<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<tonic::body::Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures::future::Either<S::Future, std::future::Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match Peer::of(request.extensions()).and_then(|peer| peer.check_call(request.uri().path())) {
            Ok(()) => futures::future::Either::Left(self.inner.call(request)),
            Err(status) => futures::future::Either::Right(std::future::ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(identity: Identity) -> Peer {
        Peer { address: SocketAddr::from(([127, 0, 0, 1], 1)), identity: Some(Arc::new(identity)), visit: None }
    }

    #[test]
    fn plans_come_from_the_coordinator_and_rows_go_to_members() {
        let coordinator = peer(Identity { coordinator: true, ..Identity::default() });
        let node = peer(Identity { nodes: vec!["node-1".into()], ..Identity::default() });
        let nobody = peer(Identity { regions: vec!["eu".into()], ..Identity::default() });
        let (plan, rows) = ("/worker.WorkerService/CoordinatorChannel", "/worker.WorkerService/ExecuteTask");
        let part = "/arrow.flight.protocol.FlightService/DoGet";
        assert!([plan, rows, part].into_iter().all(|call| coordinator.check_call(call).is_ok()));
        assert!(node.check_call(rows).is_ok());
        for refused in [node.check_call(plan), node.check_call(part), nobody.check_call(plan), nobody.check_call(rows)] {
            assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);
        }
        let unknown = Peer::of(&http::Extensions::new()).unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::Internal);
    }

    #[test]
    fn whatever_a_certificate_says_is_read_or_refused() {
        let names = ["node-1.node.bowshot", "eu.region.bowshot", COORDINATOR_NAME, "*.node.bowshot"].map(str::to_string);
        let certificate = rcgen::generate_simple_self_signed(names).unwrap().cert.der().to_vec();
        bowshot_mutations::near_bytes(&[certificate], |case| {
            if let Ok(identity) = Identity::of(&CertificateDer::from(case)) {
                let _ = identity.to_string();
            }
        });
    }
}
