//! The connections that arrive: plain ones as they are, those with TLS once their handshake succeeded. Handshakes run beside each other,
//! and none can hold up the others for long.

use super::{ClientCertificate, ClientPeer, ClientStream, Connection, ConnectionId, OnClose};
use crate::limits;
use crate::tls::ClientTls;
use parking_lot::Mutex;
use rustls::{AlertDescription, CertificateError};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// First byte of a TLS connection: a record with a handshake message.
const TLS_HANDSHAKE: u8 = 0x16;

/// The connections that arrive at a listener.
pub fn incoming(listener: TcpListener, tls: Option<Arc<ClientTls>>, on_close: OnClose) -> impl Stream<Item = io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(limits::CONNECTIONS_READY_MAX);
    tokio::spawn(accept(listener, tls, on_close, ready));
    ReceiverStream::new(connections)
}

async fn accept(listener: TcpListener, tls: Option<Arc<ClientTls>>, on_close: OnClose, ready: mpsc::Sender<io::Result<Connection>>) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
    let shares = Arc::new(Shares::default());
    let complaints = Arc::new(Complaints::default());
    loop {
        // The service is gone: so is its port, at once.
        let next = tokio::select! {
            next = accept_one(&listener, &handshakes) => next,
            () = ready.closed() => return,
        };
        let (stream, address, permit) = match next {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(limits::ACCEPT_RETRY_WAIT).await;
                continue;
            }
        };
        // Small answers must not wait for the next packet; without it each would take 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay could not be set on a connection");
        }
        let Some(tls) = &tls else {
            let connection = connection(ClientStream::Plain(stream), address, None, &on_close);
            if ready.send(Ok(connection)).await.is_err() {
                return;
            }
            continue;
        };
        let Some(share) = Share::take(&shares, address.ip()) else {
            complaints.tell(address, "too many of its handshakes are under way");
            continue;
        };
        let (tls, ready, complaints, on_close) = (tls.clone(), ready.clone(), complaints.clone(), on_close.clone());
        tokio::spawn(async move {
            let handshake = handshake(stream, address, &tls);
            let result = match tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, handshake).await {
                Ok(result) => result,
                Err(_) => Err(format!("no handshake within {} s", limits::HANDSHAKE_TIMEOUT.as_secs())),
            };
            match result {
                // An error means that the service has ended meanwhile.
                Ok((stream, holder)) => drop(ready.send(Ok(connection(stream, address, holder, &on_close))).await),
                Err(problem) => complaints.tell(address, &problem),
            }
            drop((permit, share));
        });
    }
}

fn connection(stream: ClientStream, address: SocketAddr, certificate: Option<ClientCertificate>, on_close: &OnClose) -> Connection {
    // Numbers start at 1: a session without a connection has 0.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
    Connection { stream, peer: ClientPeer { id, address, certificate: certificate.map(Arc::new) }, on_close: Arc::clone(on_close) }
}

/// The next connection, once there is room for its handshake. Until then the system keeps what arrives, and refuses what is too much.
async fn accept_one(listener: &TcpListener, handshakes: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = handshakes.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
}

async fn handshake(stream: TcpStream, address: SocketAddr, tls: &ClientTls) -> Result<(ClientStream, Option<ClientCertificate>), String> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err("it was closed before a handshake".into()),
        Ok(_) if first[0] != TLS_HANDSHAKE => return Err("it does not speak TLS: clients connect with grpc+tls:// here".into()),
        Ok(_) => {}
        Err(error) => return Err(error.to_string()),
    }
    let stream = TlsAcceptor::from(tls.server_config()).accept(stream).await.map_err(|error| why(&error))?;
    let holder = match stream.get_ref().1.peer_certificates() {
        Some([leaf, ..]) => match tls.holder(leaf) {
            Ok(holder) => Some(holder),
            // It is good for the connection all the same; calls over it need other credentials.
            Err(problem) => {
                tracing::warn!(%address, problem, "a client certificate names no user");
                None
            }
        },
        _ => None,
    };
    Ok((ClientStream::Tls(Box::new(stream)), holder))
}

/// Why a handshake failed, in words that say what to mend.
fn why(error: &io::Error) -> String {
    let Some(rustls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else { return error.to_string() };
    match rustls {
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

/// Handshakes under way by the address they come from: one machine must not take all of them.
type Shares = Mutex<HashMap<IpAddr, usize>>;

/// A handshake under way.
struct Share {
    shares: Arc<Shares>,
    address: IpAddr,
}

impl Share {
    fn take(shares: &Arc<Shares>, address: IpAddr) -> Option<Self> {
        let mut taken = shares.lock();
        let count = taken.entry(address).or_default();
        if *count >= limits::HANDSHAKES_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Self { shares: shares.clone(), address })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Refused connections go to the log one a second.
#[derive(Default)]
struct Complaints {
    last: Mutex<Option<Instant>>,
}

impl Complaints {
    fn tell(&self, address: SocketAddr, problem: &str) {
        let mut last = self.last.lock();
        if last.is_some_and(|last| last.elapsed() < limits::HANDSHAKE_COMPLAINT_INTERVAL) {
            tracing::debug!(%address, problem, "a connection was refused");
            return;
        }
        *last = Some(Instant::now());
        tracing::warn!(%address, problem, "a connection was refused");
    }
}
