//! The accepting side: who the nodes are that connect.

use super::identity::{Identity, Peer};
use super::{ClusterTls, reason};
use crate::limits;
use crate::port::accept::{self, Accepted, Greeter};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

    fn greet(&self, address: SocketAddr, certificate: Option<&CertificateDer<'_>>) -> Result<(Peer, ()), String> {
        let identity = match certificate {
            Some(leaf) => Some(Arc::new(Identity::of(leaf).map_err(|error| format!("its certificate cannot be read: {error}"))?)),
            // The verifier refuses these before: a second lock on the same door.
            None if self.0.is_some() => return Err("it showed no certificate".into()),
            None => None,
        };
        Ok((Peer { address, identity }, ()))
    }

    async fn refuse_plain(&self, mut stream: TcpStream) -> String {
        answer_plain(&mut stream).await;
        // Closed while the caller still sends, the connection would be reset, and the answer lost on its way. The handshake's time bounds this.
        if stream.shutdown().await.is_ok() {
            let _ = tokio::io::copy(&mut stream.take(limits::REFUSED_BYTES_MAX), &mut tokio::io::sink()).await;
        }
        "it does not speak TLS: set cluster_tls there".into()
    }

    fn why(&self, error: &rustls::Error) -> String {
        reason::of(error)
    }
}

/// Answers the calls of a caller without TLS with the reason why it gets nowhere. Nothing that it sent is looked at. The farewell (GOAWAY) comes a
/// while after the answer: a client that finds both at once may take the farewell first, and forget its call.
async fn answer_plain(stream: &mut TcpStream) {
    let connection = h2::server::Builder::new()
        .max_concurrent_streams(1)
        .max_header_list_size(limits::REFUSED_HEADER_BYTES_MAX)
        .handshake::<_, bytes::Bytes>(stream)
        .await;
    // Whoever speaks something else, or is gone, can be told nothing.
    let Ok(mut connection) = connection else { return };
    if answer_next(&mut connection).await.is_some()
        && tokio::time::timeout(limits::REFUSED_GRACE, async { while answer_next(&mut connection).await.is_some() {} }).await.is_err()
    {
        connection.graceful_shutdown();
        while answer_next(&mut connection).await.is_some() {}
    }
}

/// Answers the next call; nothing if there is none any more.
async fn answer_next(connection: &mut h2::server::Connection<&mut TcpStream, bytes::Bytes>) -> Option<()> {
    let (_, mut answer) = connection.accept().await?.ok()?;
    answer.send_response(Status::permission_denied(PLAIN_REFUSED).into_http(), true).ok().map(drop)
}
