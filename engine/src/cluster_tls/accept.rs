//! The accepting side: who the nodes are that connect.

use super::identity::{Identity, Peer};
use super::{ClusterTls, reason};
use crate::limits;
use crate::port::accept::{self, Accepted, Greeter};
use crate::port::door::{Door, DoorLimits, Visitor, open_files_max};
use crate::port::farewell;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::Stream;
use tonic::Status;

/// What a caller without TLS is told.
pub(super) const PLAIN_REFUSED: &str = "this port of the cluster wants TLS: set cluster_tls (certificate, key, ca) on the node that calls";

/// An accepted connection that knows its peer.
pub type NodeConnection = Accepted<Peer, ()>;

/// The connections that arrive at a listener: plain, or with `tls` those whose handshake succeeded.
pub fn incoming(listener: TcpListener, tls: Option<Arc<ClusterTls>>) -> impl Stream<Item = io::Result<NodeConnection>> + use<> {
    accept::incoming(listener, Arc::new(Nodes { tls, door: Arc::new(Door::new(door_limits())) }))
}

/// Greets nodes.
struct Nodes {
    tls: Option<Arc<ClusterTls>>,
    door: Arc<Door>,
}

/// A share of the files that this process may open. All nodes may come from one address.
fn door_limits() -> DoorLimits {
    let connections = (open_files_max() / 8).clamp(limits::NODE_CONNECTIONS_MIN, limits::NODE_CONNECTIONS_MAX);
    DoorLimits {
        connections,
        per_address: connections,
        strangers: (connections / 4).min(limits::NODE_STRANGERS_MAX),
        first_call: limits::NODE_FIRST_CALL_TIMEOUT,
        admission: limits::NODE_FIRST_CALL_TIMEOUT,
        idle: limits::NODE_CONNECTION_IDLE,
    }
}

impl Greeter for Nodes {
    const HANDSHAKE_TIMEOUT: Duration = limits::HANDSHAKE_TIMEOUT;
    type Peer = Peer;
    type Held = ();

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| tls.current().server.clone())
    }

    fn door(&self) -> Option<&Arc<Door>> {
        Some(&self.door)
    }

    fn greet(
        &self,
        address: SocketAddr,
        certificate: Option<&CertificateDer<'_>>,
        visitor: Option<&Visitor>,
    ) -> Result<(Peer, ()), String> {
        let identity = match certificate {
            Some(leaf) => Some(Arc::new(Identity::of(leaf).map_err(|error| format!("its certificate cannot be read: {error}"))?)),
            // The verifier refuses these before: a second lock on the same door.
            None if self.tls.is_some() => return Err("it showed no certificate".into()),
            None => None,
        };
        Ok((Peer { address, identity, visit: visitor.map(|visitor| visitor.visit().clone()) }, ()))
    }

    async fn refuse_plain(&self, stream: TcpStream) -> String {
        // The handshake's time bounds this.
        farewell::say(stream, &Status::permission_denied(PLAIN_REFUSED)).await;
        "it does not speak TLS: set cluster_tls there".into()
    }

    fn why(&self, error: &rustls::Error) -> String {
        reason::of(error)
    }
}
