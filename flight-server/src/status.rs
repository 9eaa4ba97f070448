//! Health and metrics over HTTP, for load balancers and Prometheus.

mod exposition;

use crate::connection;
use crate::limits;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use bowshot_engine::Coordinator;
use bowshot_engine::coordinator::figures::{Figure, Kind};
use bowshot_engine::coordinator::refused_nodes::RefusedFor;
use bowshot_engine::port::accept::{self, Accepted, Greeter};
use bowshot_engine::port::door::{Door, DoorLimits, Visitor};
use futures::{Stream, StreamExt};
use metrics_exporter_prometheus::PrometheusHandle;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
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

/// What is told to whoever asks. Clones share it.
#[derive(Clone)]
pub struct Status {
    readiness: Readiness,
    metrics: PrometheusHandle,
    /// What clients come through.
    door: Arc<Door>,
    /// Once there is one.
    coordinator: Arc<OnceLock<Coordinator>>,
}

impl Status {
    /// Of a server that is starting.
    pub fn new(readiness: Readiness, metrics: PrometheusHandle, door: Arc<Door>) -> Self {
        Self { readiness, metrics, door, coordinator: Arc::default() }
    }

    /// Tells of this coordinator from now on. There is one.
    pub fn tell_of(&self, coordinator: Coordinator) {
        let _ = self.coordinator.set(coordinator);
    }

    /// Everything for Prometheus. Blocking.
    fn exposition(&self) -> String {
        let mut figures = self.coordinator.get().map(Coordinator::figures).unwrap_or_default();
        let gauge = |name, help, value: usize| Figure { name, kind: Kind::Gauge, help, series: vec![(vec![], value as f64)] };
        figures.push(gauge("bowshot_connections", "Connections of clients that are open.", self.door.open()));
        figures.push(gauge(
            "bowshot_connections_limit",
            "Connections of clients that this server takes at once.",
            connection::connections_max(),
        ));
        figures.extend(exposition::of_process());
        self.metrics.render() + &exposition::text(&figures)
    }
}

/// Says what the counters of this process mean.
pub fn describe() {
    for (name, help) in exposition::COUNTERS {
        metrics::describe_counter!(name, help);
    }
    for (name, help) in exposition::GAUGES {
        metrics::describe_gauge!(name, help);
    }
    for (name, help) in exposition::SUMMARIES {
        metrics::describe_histogram!(name, help);
    }
    // A counter that is not there yet cannot be told from one that nobody scrapes.
    for reason in RefusedFor::ALL {
        metrics::counter!("bowshot_nodes_refused_total", "reason" => reason.word()).increment(0);
    }
    for state in ["finished", "failed", "cancelled"] {
        metrics::counter!("bowshot_queries_total", "state" => state).increment(0);
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `shutdown` completes.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, status: Status, shutdown: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .with_state(status);
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

async fn ready(State(shared): State<Status>) -> (StatusCode, &'static str) {
    match shared.readiness.get() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

async fn render(State(status): State<Status>) -> String {
    // It may look at every file of the catalog.
    tokio::task::spawn_blocking(move || status.exposition()).await.unwrap_or_default()
}
