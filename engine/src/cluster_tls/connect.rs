//! The connecting side: tonic channels whose connections show our certificate and check the other's against a role.

use super::accept::PLAIN_REFUSED;
use super::identity::server_name;
use super::{ClusterTls, reason};
use crate::limits;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

type BoxError = Box<dyn StdError + Send + Sync>;
/// A connection of ours, with the first bytes from the other side.
type Connection = TokioIo<BufReader<TlsStream<TcpStream>>>;

/// The two sides do not accept each other. Waiting alone does not cure it, new certificates do.
#[derive(Debug, thiserror::Error)]
#[error("no trusted connection to {authority} as {name}: {reason}")]
struct Refusal {
    authority: String,
    name: String,
    reason: String,
}

/// Why the two sides do not accept each other, when that is what `status` of a call means.
pub fn refusal(status: &Status) -> Option<String> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(status);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(refusal.to_string());
        }
        cause = error.source();
    }
    // What a port with TLS answers to a caller without; see `accept`.
    (status.code() == Code::PermissionDenied && status.message() == PLAIN_REFUSED)
        .then(|| "it wants TLS: set cluster_tls (certificate, key and ca) here too; `bowshot certs` makes them".into())
}

/// `endpoint` of a URL whose scheme may be https: tonic must not put a TLS of its own over ours.
///
/// # Errors
/// When it is no URL.
pub fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    Endpoint::from_shared(match url.strip_prefix("https:") {
        Some(rest) => format!("http:{rest}"),
        None => url.to_string(),
    })
}

/// Connects: with `tls` to whoever can prove to be `name`, plainly without.
///
/// # Errors
/// When nobody answers or the two sides do not accept each other.
pub async fn connect(endpoint: Endpoint, tls: Option<Arc<ClusterTls>>, name: &str) -> Result<Channel, tonic::transport::Error> {
    match tls {
        Some(tls) => patient(endpoint).connect_with_connector(connector(tls, name)).await,
        None => endpoint.connect().await,
    }
}

/// As [`connect`], with the first call.
pub fn connect_lazy(endpoint: Endpoint, tls: Option<Arc<ClusterTls>>, name: &str) -> Channel {
    match tls {
        Some(tls) => patient(endpoint).connect_with_connector_lazy(connector(tls, name)),
        None => endpoint.connect_lazy(),
    }
}

/// The parts of a connection's making have limits of their own.
fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint.connect_timeout(limits::CONNECT_TIMEOUT + limits::HANDSHAKE_TIMEOUT)
}

fn connector(
    tls: Arc<ClusterTls>,
    name: &str,
) -> impl tower::Service<
    Uri,
    Response = Connection,
    Error = BoxError,
    Future = impl Future<Output = Result<Connection, BoxError>> + Send + use<>,
> + Send
+ use<> {
    let name: Arc<str> = name.into();
    tower::service_fn(move |uri: Uri| dial(tls.clone(), name.clone(), uri))
}

async fn dial(tls: Arc<ClusterTls>, name: Arc<str>, uri: Uri) -> Result<Connection, BoxError> {
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
        return Err(format!("the address '{uri}' names no host and port").into());
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = in_time(limits::CONNECT_TIMEOUT, "connecting", TcpStream::connect((host, port))).await?;
    stream.set_nodelay(true)?;
    let role = server_name(&name)?;
    in_time(limits::HANDSHAKE_TIMEOUT, "the TLS handshake", handshake(&tls, role, stream)).await.map(TokioIo::new).map_err(|error| {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls) => Refusal { authority, name: name.to_string(), reason: reason::of(rustls) }.into(),
            None => error.into(),
        }
    })
}

/// In TLS 1.3 the connecting side is done before the other has looked at its certificate. A server of HTTP/2 speaks first: what comes
/// is either that, or the reason why our certificate is refused. Without the wait the first call would fail with a broken connection.
async fn handshake(tls: &ClusterTls, role: ServerName<'static>, stream: TcpStream) -> io::Result<BufReader<TlsStream<TcpStream>>> {
    let stream = TlsConnector::from(tls.current().client.clone()).connect(role, stream).await?;
    // Small: it holds the greeting, and greater reads go past it.
    let mut stream = BufReader::with_capacity(256, stream);
    if stream.fill_buf().await?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed the connection after the handshake"));
    }
    Ok(stream)
}

async fn in_time<T>(limit: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{what} took more than {} s", limit.as_secs()))),
    }
}
