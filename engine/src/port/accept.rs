//! Connections that arrive: plain ones as they are, those with TLS once their handshake succeeded. Handshakes run beside each other, and none can
//! hold up the others for long.

use super::door::{Door, Visitor};
use super::farewell;
use crate::limits;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::server::Connected;

/// First byte of a TLS connection: a record with a handshake message.
const TLS_HANDSHAKE: u8 = 0x16;

/// Says whom the connections of a port come from, and to whom they are refused.
pub trait Greeter: Send + Sync + 'static {
    /// How long a handshake may take.
    const HANDSHAKE_TIMEOUT: Duration;

    /// Who is on the other end; in the extensions of every request.
    type Peer: Clone + Send + Sync + 'static;
    /// What lives as long as the connection.
    type Held: Send + Unpin + 'static;

    /// The TLS of a connection that begins now; nothing if connections are taken as they are.
    fn tls(&self) -> Option<Arc<ServerConfig>>;

    /// Bounds how many connections there are; nothing where all are taken.
    fn door(&self) -> Option<&Arc<Door>> {
        None
    }

    /// Whom a connection comes from, by the certificate that it showed, if it did; rustls has checked it. `visitor` is its place at the door.
    ///
    /// # Errors
    /// Why the connection is refused, for the log.
    fn greet(
        &self,
        address: SocketAddr,
        certificate: Option<&CertificateDer<'_>>,
        visitor: Option<&Visitor>,
    ) -> Result<(Self::Peer, Self::Held), String>;

    /// Ends a connection that does not speak TLS where it is wanted. Returns what is wrong, for the log.
    fn refuse_plain(&self, stream: TcpStream) -> impl Future<Output = String> + Send;

    /// Why a handshake failed, in words that say what to mend.
    fn why(&self, error: &rustls::Error) -> String;
}

/// The connections that arrive at a listener, until nobody takes them any more.
pub fn incoming<G: Greeter>(listener: TcpListener, greeter: Arc<G>) -> impl Stream<Item = io::Result<Accepted<G::Peer, G::Held>>> + use<G> {
    let (ready, connections) = mpsc::channel(limits::CONNECTIONS_READY_MAX);
    tokio::spawn(accept(listener, greeter, ready));
    ReceiverStream::new(connections)
}

async fn accept<G: Greeter>(listener: TcpListener, greeter: Arc<G>, ready: mpsc::Sender<io::Result<Accepted<G::Peer, G::Held>>>) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
    let shares = Arc::new(Shares::default());
    let complaints = Arc::new(Complaints::default());
    let turned_away = Arc::new(Semaphore::new(limits::TURNED_AWAY_AT_ONCE));
    loop {
        // The service is gone: so is its port, at once.
        let next = tokio::select! {
            next = accept_one(&listener, &handshakes) => next,
            () = ready.closed() => return,
        };
        let (stream, address, permit) = match next {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most often too many open files: others must end first, and asking again at once would only burn the core.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(limits::ACCEPT_RETRY_WAIT).await;
                continue;
            }
        };
        // With Nagle's algorithm on, every small answer waits for a delayed acknowledgement (40 ms).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay could not be set on a connection");
        }
        let visitor = match greeter.door().map(|door| door.enter(address.ip())).transpose() {
            Ok(visitor) => visitor,
            Err(problem) => {
                complaints.tell(address, &problem);
                if let Ok(permit) = turned_away.clone().try_acquire_owned() {
                    tokio::spawn(turn_away(stream, greeter.tls(), problem, permit));
                }
                continue;
            }
        };
        let Some(tls) = greeter.tls() else {
            match accepted(PortStream::Plain(stream), address, None, visitor, &*greeter) {
                Ok(connection) => {
                    if ready.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Err(problem) => complaints.tell(address, &problem),
            }
            continue;
        };
        let Some(share) = Share::take(&shares, address.ip()) else {
            complaints.tell(address, "too many of its handshakes are under way");
            continue;
        };
        let (greeter, ready, complaints) = (greeter.clone(), ready.clone(), complaints.clone());
        tokio::spawn(async move {
            let result = match tokio::time::timeout(G::HANDSHAKE_TIMEOUT, handshake(stream, address, tls, visitor, &*greeter)).await {
                Ok(result) => result,
                Err(_) => Err(format!("no handshake within {} s", G::HANDSHAKE_TIMEOUT.as_secs())),
            };
            match result {
                // An error means that the service has ended meanwhile.
                Ok(connection) => drop(ready.send(Ok(connection)).await),
                Err(problem) => complaints.tell(address, &problem),
            }
            drop((permit, share));
        });
    }
}

/// The next connection, once there is room for its handshake. Until then the system keeps what arrives, and refuses what is too much.
async fn accept_one(listener: &TcpListener, handshakes: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = handshakes.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
}

async fn handshake<G: Greeter>(
    stream: TcpStream,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    visitor: Option<Visitor>,
    greeter: &G,
) -> Result<Accepted<G::Peer, G::Held>, String> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err("it was closed before a handshake".into()),
        Ok(_) if first[0] != TLS_HANDSHAKE => return Err(greeter.refuse_plain(stream).await),
        Ok(_) => {}
        Err(error) => return Err(error.to_string()),
    }
    let stream = TlsAcceptor::from(tls).accept(stream).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls) => greeter.why(rustls),
            None => error.to_string(),
        }
    })?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
    accepted(PortStream::Tls(Box::new(stream)), address, leaf.as_ref(), visitor, greeter)
}

fn accepted<G: Greeter>(
    stream: PortStream,
    address: SocketAddr,
    certificate: Option<&CertificateDer<'_>>,
    visitor: Option<Visitor>,
    greeter: &G,
) -> Result<Accepted<G::Peer, G::Held>, String> {
    let (peer, held) = greeter.greet(address, certificate, visitor.as_ref())?;
    Ok(Accepted { stream, peer, visitor, _held: held })
}

/// Tells a caller, if it asks in time, why there is no place for it.
async fn turn_away(stream: TcpStream, tls: Option<Arc<ServerConfig>>, problem: String, permit: OwnedSemaphorePermit) {
    let told = async {
        let status = Status::unavailable(problem);
        match tls {
            None => farewell::say(stream, &status).await,
            Some(tls) => {
                // Who fails in the handshake can be told nothing.
                if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                    farewell::say(stream, &status).await;
                }
            }
        }
    };
    // Whoever takes longer is cut off.
    let _ = tokio::time::timeout(limits::TURNED_AWAY_GRACE, told).await;
    drop(permit);
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

/// Refused connections go to the log one a second: who may connect at all could fill the disk otherwise.
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

/// An accepted connection that knows its peer.
pub struct Accepted<P, H> {
    stream: PortStream,
    peer: P,
    visitor: Option<Visitor>,
    _held: H,
}

enum PortStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl<P: Clone + Send + Sync + 'static, H> Connected for Accepted<P, H> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

/// The same call on whichever stream it is.
macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            PortStream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            PortStream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl<P: Unpin, H: Unpin> AsyncRead for Accepted<P, H> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A connection that is read from no more is at its end already.
        if let Some(Poll::Ready(end)) = self.visitor.as_mut().map(|visitor| visitor.poll_end(context)) {
            return Poll::Ready(Err(end));
        }
        on_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl<P: Unpin, H: Unpin> AsyncWrite for Accepted<P, H> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            PortStream::Plain(stream) => stream.is_write_vectored(),
            PortStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(context))
    }
}
