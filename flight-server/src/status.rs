//! Health and metrics over HTTP, for load balancers and Prometheus.

use crate::limits;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use bowshot_engine::port::accept::{self, Accepted, Greeter};
use bowshot_engine::port::door::{Door, DoorLimits, Visitor};
use futures::{Stream, StreamExt};
use metrics_exporter_prometheus::PrometheusHandle;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Whether the server takes queries; false again once it was told to stop.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says that queries are taken, or are no longer.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `shutdown` completes.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: PrometheusHandle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(Shared { readiness, metrics });
    let address = listener.local_addr()?;
    let limits = DoorLimits {
        connections: limits::HTTP_CONNECTIONS_MAX,
        per_address: limits::HTTP_CONNECTIONS_MAX,
        strangers: limits::HTTP_CONNECTIONS_MAX,
        first_call: limits::HTTP_CONNECTION_TIME,
        admission: limits::HTTP_CONNECTION_TIME,
        idle: limits::HTTP_CONNECTION_TIME,
    };
    let connections = accept::incoming(listener, Arc::new(Anyone(Arc::new(Door::new(limits)))));
    axum::serve(Port { address, connections: Box::pin(connections) }, routes).with_graceful_shutdown(shutdown).await
}

/// Greets whoever asks for health: nobody has credentials here, so that the newest connections are served, however many are silent.
struct Anyone(Arc<Door>);

impl Greeter for Anyone {
    const HANDSHAKE_TIMEOUT: Duration = limits::HANDSHAKE_TIMEOUT;
    type Peer = ();
    type Held = ();

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        None
    }

    fn door(&self) -> Option<&Arc<Door>> {
        Some(&self.0)
    }

    fn greet(&self, _: SocketAddr, _: Option<&CertificateDer<'_>>, _: Option<&Visitor>) -> Result<((), ()), String> {
        Ok(((), ()))
    }

    async fn refuse_plain(&self, _: TcpStream) -> String {
        "there is no TLS here".into()
    }

    fn why(&self, error: &rustls::Error) -> String {
        error.to_string()
    }
}

/// The port as axum takes it.
struct Port<S> {
    address: SocketAddr,
    connections: Pin<Box<S>>,
}

impl<S: Stream<Item = std::io::Result<Accepted<(), ()>>> + Send + 'static> axum::serve::Listener for Port<S> {
    type Io = Accepted<(), ()>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.connections.next().await {
                Some(Ok(connection)) => return (connection, self.address),
                Some(Err(error)) => tracing::debug!(%error, "a connection for health was lost"),
                // Nobody listens any more: the process ends.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    match shared.readiness.get() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

async fn render(State(shared): State<Shared>) -> String {
    shared.metrics.render()
}
