//! What stands before the calls of nodes: their connections are counted and timed, and who does not have the cluster's token sends no more than a
//! small message.

use super::{TOKEN_HEADER, secrets_equal};
use crate::cluster_tls::Peer;
use crate::coordinator::client_memory::ClientMemory;
use crate::port::calls::{Check, Gate};
use crate::port::door::Visit;
use std::sync::Arc;
use tonic::Status;
use tonic::codegen::http::{Extensions, HeaderMap};

/// Makes the refusal of a caller without the token.
pub type Refusal = Arc<dyn Fn(Option<&Peer>) -> Status + Send + Sync>;

/// Before the services of a port that only nodes call.
#[derive(Clone)]
pub struct NodeGate {
    token: Arc<str>,
    message_bytes_max: usize,
    refusal: Refusal,
}

impl NodeGate {
    /// A gate for callers that know `token`, who may send messages of so many bytes.
    pub fn new(token: &str, message_bytes_max: usize, refusal: Refusal) -> Self {
        Self { token: token.into(), message_bytes_max, refusal }
    }
}

impl Gate for NodeGate {
    fn visit(&self, extensions: &Extensions) -> Option<Arc<Visit>> {
        Peer::of(extensions).ok()?.visit.clone()
    }

    fn message_bytes_max(&self, _: &str) -> usize {
        self.message_bytes_max
    }

    fn check(&self, headers: HeaderMap, extensions: &Extensions) -> Check {
        let given = headers.get(TOKEN_HEADER).map(|value| value.as_bytes()).unwrap_or_default();
        let peer = Peer::of(extensions).ok().cloned();
        if secrets_equal(given, self.token.as_bytes()) {
            if let Some(visit) = peer.as_ref().and_then(|peer| peer.visit.as_ref()) {
                visit.admit();
            }
            return Box::new(|| Box::pin(std::future::ready(Ok(()))));
        }
        let refusal = self.refusal.clone();
        Box::new(move || Box::pin(std::future::ready(Err(refusal(peer.as_ref())))))
    }

    fn memory(&self) -> Option<ClientMemory> {
        None
    }
}
