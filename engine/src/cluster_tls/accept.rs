//! The accepting side: who the nodes are that connect.

use super::identity::{Identity, Peer};
use super::{ClusterTls, reason};
use crate::limits;
use crate::port::accept::{self, Accepted, Greeter};
use crate::port::door::Visitor;
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
    accept::incoming(listener, Arc::new(Nodes(tls)))
}

/// Greets nodes.
struct Nodes(Option<Arc<ClusterTls>>);

impl Greeter for Nodes {
    const HANDSHAKE_TIMEOUT: Duration = limits::HANDSHAKE_TIMEOUT;
    type Peer = Peer;
    type Held = ();

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.0.as_ref().map(|tls| tls.current().server.clone())
    }

    fn greet(&self, address: SocketAddr, certificate: Option<&CertificateDer<'_>>, _: Option<&Visitor>) -> Result<(Peer, ()), String> {
        let identity = match certificate {
            Some(leaf) => Some(Arc::new(Identity::of(leaf).map_err(|error| format!("its certificate cannot be read: {error}"))?)),
            // The verifier refuses these before: a second lock on the same door.
            None if self.0.is_some() => return Err("it showed no certificate".into()),
            None => None,
        };
        Ok((Peer { address, identity }, ()))
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
