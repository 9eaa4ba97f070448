//! Client connections, each with a number of its own.
//!
//! A caller without a login of its own is told from others by its connection: settings and views that it makes belong
//! to that connection and end with it. An address would not do, since ports are used again.

mod accept;

pub use accept::incoming;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

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
}

/// Called with the number of each connection that ends.
pub type OnClose = Arc<dyn Fn(ConnectionId) + Send + Sync>;

/// An accepted connection that knows its peer and reports its end.
pub struct Connection {
    stream: ClientStream,
    peer: ClientPeer,
    on_close: OnClose,
}

enum ClientStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        (self.on_close)(self.peer.id);
    }
}

impl Connected for Connection {
    type ConnectInfo = ClientPeer;

    fn connect_info(&self) -> ClientPeer {
        self.peer.clone()
    }
}

/// The same call on whichever stream it is.
macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            ClientStream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            ClientStream::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            ClientStream::Plain(stream) => stream.is_write_vectored(),
            ClientStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(context))
    }
}
