//! Client connections, each with a number of its own.
//!
//! A caller without a token of its own is told from others by its connection: settings and views that it makes belong
//! to that connection and end with it. An address would not do, since ports are used again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TlsConnectInfo};

/// The number of a connection, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The connection a request came over, with or without TLS.
    pub fn of(extensions: &tonic::Extensions) -> Option<Self> {
        extensions.get::<Self>().or_else(|| extensions.get::<TlsConnectInfo<Self>>().map(TlsConnectInfo::get_ref)).copied()
    }
}

/// Called with the number of each connection that ends.
pub type OnClose = Arc<dyn Fn(ConnectionId) + Send + Sync>;

/// A TCP connection that knows its number and reports its end.
pub struct Connection {
    stream: TcpStream,
    id: ConnectionId,
    on_close: OnClose,
}

/// The connections that arrive at a listener.
pub fn incoming(listener: TcpListener, on_close: OnClose) -> impl Stream<Item = io::Result<Connection>> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let listener = Arc::new(listener);
    futures::stream::unfold((), move |()| {
        let listener = Arc::clone(&listener);
        let on_close = Arc::clone(&on_close);
        async move {
            let connection = listener.accept().await.map(|(stream, _)| {
                // Small answers must not wait for the next packet; without it each would take 40 ms.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "nodelay could not be set on a connection");
                }
                let id = ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed));
                Connection { stream, id, on_close }
            });
            Some((connection, ()))
        }
    })
}

impl Drop for Connection {
    fn drop(&mut self) {
        (self.on_close)(self.id);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
