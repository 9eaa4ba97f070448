//! Client connections, each with a number of its own.
//!
//! A caller without a login of its own is told from others by its connection: settings and views that it makes belong
//! to that connection and end with it. An address would not do, since ports are used again.

use crate::limits;
use crate::tls::ClientTls;
use bowshot_engine::port::accept::{self, Accepted, Greeter};
use bowshot_engine::port::door::{Door, DoorLimits, Visit, Visitor, open_files_max};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, ServerConfig};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::Stream;

/// The number of a connection, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// Stands for one to another process; numbers here start at 1.
    pub const ELSEWHERE: Self = Self(0);
}

/// Who is on the other end of a connection; in the extensions of every request that came over it.
#[derive(Debug, Clone)]
pub struct ClientPeer {
    pub id: ConnectionId,
    /// Where it connected from.
    pub address: SocketAddr,
    /// The certificate that it showed, was asked for, and whose authority is trusted.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The connection as the door sees it; nothing where it is another process's.
    pub visit: Option<Arc<Visit>>,
}

/// What a client's certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub user: String,
    pub valid_until: SystemTime,
}

impl ClientPeer {
    /// The peer that sent a request.
    pub fn of(extensions: &tonic::Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// A call of it had good credentials: the connection may stay.
    pub fn admit(&self) {
        if let Some(visit) = &self.visit {
            visit.admit();
        }
    }
}

/// Called with the number of each connection that ends.
pub type OnClose = Arc<dyn Fn(ConnectionId) + Send + Sync>;

/// An accepted connection that knows its peer and reports its end.
pub type Connection = Accepted<ClientPeer, ReportsEnd>;

/// Reports the end of the connection that holds it.
pub struct ReportsEnd {
    id: ConnectionId,
    on_close: OnClose,
}

impl Drop for ReportsEnd {
    fn drop(&mut self) {
        (self.on_close)(self.id);
    }
}

/// The connections that arrive at a listener.
pub fn incoming(
    listener: TcpListener,
    tls: Option<Arc<ClientTls>>,
    door: Arc<Door>,
    on_close: OnClose,
) -> impl Stream<Item = io::Result<Connection>> {
    accept::incoming(listener, Arc::new(Clients { tls, on_close, door }))
}

/// What the connections of clients come through.
pub fn door() -> Arc<Door> {
    Arc::new(Door::new(door_limits()))
}

/// Greets clients.
struct Clients {
    tls: Option<Arc<ClientTls>>,
    on_close: OnClose,
    door: Arc<Door>,
}

/// Connections of clients that this process takes at once.
pub fn connections_max() -> usize {
    (open_files_max() / 4 * 3).clamp(limits::CONNECTIONS_MIN, limits::CONNECTIONS_MAX)
}

/// A share of the files that this process may open: the rest is for the catalog, spilled data, the traffic of the cluster and health.
fn door_limits() -> DoorLimits {
    let connections = connections_max();
    DoorLimits {
        connections,
        per_address: connections / 4 * 3,
        strangers: (connections / 4).min(limits::STRANGERS_MAX),
        first_call: limits::FIRST_CALL_TIMEOUT,
        admission: limits::ADMISSION_TIMEOUT,
        idle: limits::CONNECTION_IDLE,
    }
}

impl Greeter for Clients {
    const HANDSHAKE_TIMEOUT: Duration = limits::HANDSHAKE_TIMEOUT;
    type Peer = ClientPeer;
    type Held = ReportsEnd;

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| tls.server_config())
    }

    fn door(&self) -> Option<&Arc<Door>> {
        Some(&self.door)
    }

    fn greet(
        &self,
        address: SocketAddr,
        certificate: Option<&CertificateDer<'_>>,
        visitor: Option<&Visitor>,
    ) -> Result<(ClientPeer, ReportsEnd), String> {
        let holder = match (certificate, &self.tls) {
            (Some(leaf), Some(tls)) => tls.holder(leaf).map_or_else(
                |problem| {
                    // It is good for the connection all the same; calls over it need other credentials.
                    tracing::warn!(%address, problem, "a client certificate names no user");
                    None
                },
                Some,
            ),
            _ => None,
        };
        // Numbers start at 1: a session without a connection has 0.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let visit = visitor.map(|visitor| Arc::clone(visitor.visit()));
        let peer = ClientPeer { id, address, certificate: holder.map(Arc::new), visit };
        Ok((peer, ReportsEnd { id, on_close: Arc::clone(&self.on_close) }))
    }

    async fn refuse_plain(&self, _stream: TcpStream) -> String {
        "it does not speak TLS: clients connect with grpc+tls:// here".into()
    }

    fn why(&self, error: &rustls::Error) -> String {
        match error {
            rustls::Error::NoCertificatesPresented => "it showed no certificate, which tls.client_auth requires".into(),
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                "its certificate is not signed by an authority in tls.client_ca".into()
            }
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                "its certificate has expired".into()
            }
            rustls::Error::InvalidCertificate(CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }) => {
                "its certificate is not for clients: an extended key usage must hold client authentication".into()
            }
            rustls::Error::AlertReceived(
                AlertDescription::UnknownCA | AlertDescription::CertificateUnknown | AlertDescription::BadCertificate,
            ) => "it does not trust tls.certificate: give it the authority that signed it".into(),
            other => other.to_string(),
        }
    }
}
