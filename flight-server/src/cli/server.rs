//! `bowshot server`: the coordinator, the Flight SQL service, and a worker too if wanted.

use super::{signals, worker};
use crate::Extensions;
use crate::auth::Authenticator;
use crate::checks::Subject;
use crate::config::Role;
use crate::config::{AuthMode, Config, Flags};
use crate::connection;
use crate::error::{Error, Result};
use crate::flight_sql::FlightSql;
use crate::freed_memory;
use crate::gate::ServerGate;
use crate::limits;
use crate::listen::{self, CONTROL, FLIGHT_SQL, HTTP, WORKER};
use crate::status::{self, Readiness};
use crate::tls::ClientTls;
use bowshot_engine::Coordinator;
use bowshot_engine::port::calls::Gated;
use bowshot_engine::port::door::Door;
use clap::Args;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Server;

/// Dead clients are noticed after the interval and the timeout together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Shares of durations that summaries answer.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

#[derive(Args)]
pub struct ServerArguments {
    /// Address of Flight SQL.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address of health and metrics.
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Option<String>,
    /// Address where workers register.
    #[arg(long, value_name = "HOST:PORT")]
    control_listen: Option<String>,
    /// Folder of the catalog.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Jurisdiction of the coordinator, where results are merged.
    #[arg(long)]
    region: Option<String>,
    /// Schema of unqualified table names.
    #[arg(long)]
    default_schema: Option<String>,
    /// Host a worker in this process, with the settings of the section worker.
    #[arg(long)]
    with_worker: bool,
    /// Address of that worker.
    #[arg(long, value_name = "HOST:PORT")]
    worker_listen: Option<String>,
    /// A named folder of Parquet files for that worker, which is hosted then; may be given several times.
    #[arg(long = "volume", value_name = "NAME=PATH")]
    volumes: Vec<String>,
    /// End when standard input ends: for a server started by another process.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

impl ServerArguments {
    /// The flags as settings.
    ///
    /// # Errors
    /// When a volume is not `NAME=PATH`.
    pub fn flags(&self) -> Result<Flags> {
        let mut flags = Flags::default();
        flags.set("server.listen", self.listen.as_deref());
        flags.set("server.http_listen", self.http_listen.as_deref());
        flags.set("coordinator.listen", self.control_listen.as_deref());
        flags.set("coordinator.data_dir", self.data_dir.as_deref());
        flags.set("coordinator.region", self.region.as_deref());
        flags.set("coordinator.default_schema", self.default_schema.as_deref());
        flags.set("worker.listen", self.worker_listen.as_deref());
        flags.set("worker.volumes", super::worker::volumes(&self.volumes)?);
        Ok(flags)
    }
}

/// Runs the server until it is told to stop, then lets running calls finish for a while.
///
/// # Errors
/// When a setting cannot be used, an address is taken, or a part of the server fails.
pub async fn run(arguments: ServerArguments, mut config: Config, extensions: Extensions) -> Result<()> {
    if arguments.with_worker || !arguments.volumes.is_empty() {
        config.worker.get_or_insert_default();
    }
    let subject = Subject::new(config, Role::Server);
    subject.check_before_start()?;
    let mut config = subject.config;
    let authenticator = Authenticator::new(&config)?;
    let tls = ClientTls::load(&config.tls)?;
    let flight_listener = listen::bind(config.server.listen, FLIGHT_SQL).await?;
    let http_listener = listen::bind(config.server.http_listen, HTTP).await?;
    listen::check_free(config.coordinator.listen, CONTROL).await?;
    let worker = config.worker.take();
    if let Some(worker) = &worker {
        listen::check_free(worker.listen, WORKER).await?;
    }

    let of_worker = worker.as_ref().map_or(0, |worker| worker.operator_bytes() + worker.column_cache_bytes());
    freed_memory::set_budget(config.coordinator.operator_bytes() + of_worker);
    let metrics = PrometheusBuilder::new()
        .set_quantiles(&QUANTILES)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Error::config(format!("metrics cannot be recorded: {error}")))?;
    status::describe();
    let (stop, stopped) = watch::channel(false);
    let (readiness, door) = (Readiness::default(), connection::door());
    let status = status::Status::new(readiness.clone(), metrics, door.clone());
    let http = tokio::spawn(status::serve(http_listener, status.clone(), told_to_stop(stopped.clone())));

    authenticator.follow_keys();
    if let Some(tls) = &tls {
        tls.follow_files();
    }
    let coordinator = Coordinator::open(config.coordinator.clone()).await?;
    status.tell_of(coordinator.clone());
    if config.auth.mode == AuthMode::Required {
        coordinator.name_administrators(config.auth.administrators.iter().cloned());
    }
    if let Some(reader) = extensions.substrait {
        coordinator.read_substrait(reader);
    }
    let service = FlightSql::new(coordinator.clone(), authenticator)
        .map_err(|source| Error::file("read", std::path::Path::new("random numbers"), source))?;
    let service = Arc::new(service);
    service.answer_workers();
    let sweeping = tokio::spawn({
        let service = Arc::clone(&service);
        async move { service.sweep().await }
    });
    announce(&config, &flight_listener, tls.is_some());
    let flight = tokio::spawn(serve_flight(service, flight_listener, tls, door, told_to_stop(stopped.clone())));
    let worker = worker.map(|worker| {
        let tls = config.tls.clone();
        tokio::spawn(async move { worker::serve(worker, &tls, told_to_stop(stopped)).await })
    });
    readiness.set(true);

    let outcome = until_stopped(flight, worker, signals::stop(arguments.exit_with_parent), || {
        readiness.set(false);
        stop.send_replace(true);
    })
    .await;
    sweeping.abort();
    coordinator.shutdown().await;
    tracing::info!("bowshot server has ended");
    if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), http).await.unwrap_or(Ok(Ok(()))) {
        tracing::warn!(%error, "the HTTP service ended with an error");
    }
    outcome
}

type Running<E> = JoinHandle<Result<(), E>>;

/// Waits for the signal to stop or for a part to fail; then tells all parts to stop and waits for them.
async fn until_stopped(
    mut flight: Running<Error>,
    mut worker: Option<Running<Error>>,
    signal: impl Future<Output = ()>,
    stop_all: impl FnOnce(),
) -> Result<()> {
    let worker_ended = async {
        match &mut worker {
            Some(worker) => ended(worker.await),
            None => std::future::pending().await,
        }
    };
    let first = tokio::select! {
        () = signal => Ok(()),
        outcome = &mut flight => ended(outcome),
        outcome = worker_ended => outcome,
    };
    stop_all();
    if !flight.is_finished() {
        match tokio::time::timeout(limits::SHUTDOWN_GRACE, &mut flight).await {
            Ok(outcome) => ended(outcome)?,
            // The calls left are cut off, which cancels their queries.
            Err(_) => flight.abort(),
        }
    }
    if let Some(mut worker) = worker.filter(|worker| !worker.is_finished())
        && tokio::time::timeout(limits::SHUTDOWN_GRACE, &mut worker).await.is_err()
    {
        worker.abort();
    }
    first
}

fn ended(outcome: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    outcome.unwrap_or_else(|error| {
        Err(Error::Child {
            name: "a part of the server".to_string(),
            problem: format!("stopped unexpectedly: {error}"),
            last_lines: String::new(),
        })
    })
}

async fn told_to_stop(mut stopped: watch::Receiver<bool>) {
    // An error means the sender is gone, and with it the server: stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// A gRPC server for clients.
pub fn client_server() -> Server {
    Server::builder().http2_keepalive_interval(Some(KEEPALIVE_INTERVAL)).http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

async fn serve_flight(
    service: Arc<FlightSql>,
    listener: TcpListener,
    tls: Option<Arc<ClientTls>>,
    door: Arc<Door>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let on_close: connection::OnClose = {
        let service = Arc::clone(&service);
        Arc::new(move |connection| service.connection_closed(connection))
    };
    let gate = ServerGate(Arc::clone(&service));
    client_server()
        .layer(tower::layer::layer_fn(move |inner| Gated::new(inner, gate.clone())))
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(connection::incoming(listener, tls, door, on_close), shutdown)
        .await
        .map_err(|source| Error::Transport { source })
}

fn announce(config: &Config, listener: &TcpListener, encrypted: bool) {
    let address = listener.local_addr().unwrap_or(config.server.listen);
    let scheme = if encrypted { "grpc+tls" } else { "grpc" };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        flight_sql = %format!("{scheme}://{address}"),
        http = %format!("http://{}", config.server.http_listen),
        control = %config.coordinator.listen,
        data_dir = %bowshot_engine::coordinator::data_folder::absolute(&config.coordinator.data_dir).display(),
        authentication = config.auth.mode == AuthMode::Required,
        "bowshot server is ready"
    );
}
