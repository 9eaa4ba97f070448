//! The accepting side: handshakes beside each other, none of which can hold up the others for long.

use super::identity::{Identity, Peer};
use super::{ClusterTls, reason};
use crate::limits;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
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
/// What a caller without TLS is told.
pub(super) const PLAIN_REFUSED: &str = "this port of the cluster wants TLS: set cluster_tls (certificate, key, ca) on the node that calls";

/// The connections that arrive at a listener: plain, or with `tls` those whose handshake succeeded.
pub fn incoming(listener: TcpListener, tls: Option<Arc<ClusterTls>>) -> impl Stream<Item = io::Result<NodeConnection>> + use<> {
    let (ready, connections) = mpsc::channel(limits::CONNECTIONS_READY_MAX);
    tokio::spawn(accept(listener, tls, ready));
    ReceiverStream::new(connections)
}

async fn accept(listener: TcpListener, tls: Option<Arc<ClusterTls>>, ready: mpsc::Sender<io::Result<NodeConnection>>) {
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
        let Some(tls) = &tls else {
            let peer = Peer { address, identity: None };
            if ready.send(Ok(NodeConnection { stream: NodeStream::Plain(stream), peer })).await.is_err() {
                return;
            }
            continue;
        };
        let Some(share) = Share::take(&shares, address.ip()) else {
            complaints.tell(address, "too many of its handshakes are under way");
            continue;
        };
        let (config, ready, complaints) = (tls.current().server.clone(), ready.clone(), complaints.clone());
        tokio::spawn(async move {
            let result = match tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, handshake(stream, address, config)).await {
                Ok(result) => result,
                Err(_) => Err(format!("no handshake within {} s", limits::HANDSHAKE_TIMEOUT.as_secs())),
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

async fn handshake(stream: TcpStream, address: SocketAddr, config: Arc<ServerConfig>) -> Result<NodeConnection, String> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err("it was closed before a handshake".into()),
        Ok(_) if first[0] != TLS_HANDSHAKE => {
            refuse_plain(stream).await;
            return Err("it does not speak TLS: set cluster_tls there".into());
        }
        Ok(_) => {}
        Err(error) => return Err(error.to_string()),
    }
    let stream = TlsAcceptor::from(config).accept(stream).await.map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls) => reason::of(rustls),
            None => error.to_string(),
        }
    })?;
    let identity = match stream.get_ref().1.peer_certificates() {
        Some([leaf, ..]) => Identity::of(leaf).map_err(|error| format!("its certificate cannot be read: {error}"))?,
        // The verifier refuses these before: a second lock on the same door.
        _ => return Err("it showed no certificate".into()),
    };
    let peer = Peer { address, identity: Some(Arc::new(identity)) };
    Ok(NodeConnection { stream: NodeStream::Tls(Box::new(stream)), peer })
}

/// Answers the calls of a caller without TLS with the reason why it gets nowhere. Nothing that it sent is looked at. The answer is one
/// to a call, not a farewell (GOAWAY) ahead of it: a client drops the reason of a farewell that overtakes its own first call.
async fn refuse_plain(stream: TcpStream) {
    let connection = h2::server::Builder::new()
        .max_concurrent_streams(1)
        .max_header_list_size(limits::REFUSED_HEADER_BYTES_MAX)
        .handshake::<_, bytes::Bytes>(stream)
        .await;
    // Whoever speaks something else, or is gone, can be told nothing.
    let Ok(mut connection) = connection else { return };
    while let Some(Ok((_, mut answer))) = connection.accept().await {
        if answer.send_response(Status::permission_denied(PLAIN_REFUSED).into_http(), true).is_err() {
            return;
        }
        connection.graceful_shutdown();
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
pub struct NodeConnection {
    stream: NodeStream,
    peer: Peer,
}

enum NodeStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for NodeConnection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The same call on whichever stream it is.
macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            NodeStream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            NodeStream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for NodeConnection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for NodeConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            NodeStream::Plain(stream) => stream.is_write_vectored(),
            NodeStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(context))
    }
}
