//! `bowshot worker`: a node that holds volumes and runs fragments.

use super::server::client_server;
use super::signals;
use crate::checks::Subject;
use crate::config::Role;
use crate::config::{Config, Flags, TlsConfig};
use crate::connection;
use crate::error::{Error, Result};
use crate::flight_sql::WorkerEndpoint;
use crate::freed_memory;
use crate::gate::WorkerGate;
use crate::limits;
use crate::listen::{self, WORKER, WORKER_CLIENTS};
use crate::shell;
use crate::tls::ClientTls;
use bowshot_datasets::{Options, tpch};
use bowshot_engine::port::calls::Gated;
use bowshot_engine::{Worker, WorkerConfig};
use clap::Args;
use figment::value::{Dict, Value};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::net::TcpListener;

#[derive(Args)]
pub struct WorkerArguments {
    /// Name of the node, unique in the cluster and kept for its life.
    #[arg(long)]
    node_id: Option<String>,
    /// Jurisdiction of the node's data.
    #[arg(long)]
    region: Option<String>,
    /// Address that other nodes reach the worker on.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address to tell others when it differs from --listen.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Address where clients fetch parts of large results; without it they get them from the server.
    #[arg(long, value_name = "HOST:PORT")]
    flight_listen: Option<String>,
    /// Address to tell clients when it differs from --flight-listen.
    #[arg(long, value_name = "HOST:PORT")]
    flight_advertise: Option<String>,
    /// Control address of the coordinator.
    #[arg(long, value_name = "http[s]://HOST:PORT")]
    coordinator: Option<String>,
    /// A named folder of Parquet files; may be given several times.
    #[arg(long = "volume", value_name = "NAME=PATH")]
    volumes: Vec<String>,
    /// Which card may be used: off, hardware or software.
    #[arg(long, value_parser = ["off", "hardware", "software"])]
    kernel_device: Option<String>,
    /// Before serving, write part PART of PARTS of TPC-H at SCALE into the first volume.
    #[arg(long, value_name = "SCALE,PART,PARTS")]
    generate_tpch: Option<String>,
    /// End when standard input ends: for a worker started by another process.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

#[derive(Args)]
pub struct GenerateArguments {
    #[arg(long)]
    scale: f64,
    #[arg(long)]
    part: usize,
    #[arg(long)]
    parts: usize,
    #[arg(long)]
    out: PathBuf,
}

impl WorkerArguments {
    /// The flags as settings.
    ///
    /// # Errors
    /// When a volume is not `NAME=PATH`.
    pub fn flags(&self) -> Result<Flags> {
        let mut flags = Flags::default();
        flags.set("worker.node_id", self.node_id.as_deref());
        flags.set("worker.region", self.region.as_deref());
        flags.set("worker.listen", self.listen.as_deref());
        flags.set("worker.advertise", self.advertise.as_deref());
        flags.set("worker.flight_listen", self.flight_listen.as_deref());
        flags.set("worker.flight_advertise", self.flight_advertise.as_deref());
        flags.set("worker.coordinator", self.coordinator.as_deref());
        flags.set("worker.kernel_device", self.kernel_device.as_deref());
        flags.set("worker.volumes", volumes(&self.volumes)?);
        Ok(flags)
    }
}

/// What `--volume` names, as a setting; nothing where it is not given.
///
/// # Errors
/// When one is not `NAME=PATH`.
pub(super) fn volumes(given: &[String]) -> Result<Option<Dict>> {
    let mut volumes = Dict::new();
    for volume in given {
        let (name, path) = volume.split_once('=').ok_or_else(|| Error::config(format!("--volume '{volume}' must be NAME=PATH")))?;
        volumes.insert(name.to_string(), Value::from(path));
    }
    Ok((!volumes.is_empty()).then_some(volumes))
}

/// Runs the worker until it is told to stop.
///
/// # Errors
/// When the settings cannot be used, or the worker fails.
pub async fn run(arguments: WorkerArguments, config: Config) -> Result<()> {
    let subject = Subject::new(config, Role::Worker);
    if let (Some(_), Some(folder)) = (&arguments.generate_tpch, subject.worker().and_then(|worker| worker.volumes.values().next())) {
        std::fs::create_dir_all(folder).map_err(|source| Error::file("create", folder, source))?;
    }
    subject.check_before_start()?;
    let (worker, tls) = (subject.config.worker.unwrap_or_default(), subject.config.tls);
    listen::check_free(worker.listen, WORKER).await?;
    let stopped = signals::stop(arguments.exit_with_parent);
    tokio::pin!(stopped);
    if let Some(wanted) = &arguments.generate_tpch {
        tokio::select! {
            generated = generate_apart(wanted, &worker) => generated?,
            () = &mut stopped => return Ok(()),
        }
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = worker.node_id,
        listen = %worker.listen,
        coordinator = worker.coordinator,
        volumes = worker.volumes.len(),
        "bowshot worker starts"
    );
    freed_memory::set_budget(worker.operator_bytes() + worker.column_cache_bytes());
    // The engine wants a future of its own; the pinned one stays with this frame.
    let (stop, told_to_stop) = tokio::sync::oneshot::channel::<()>();
    let running = serve(worker, &tls, async {
        // An error means the sender is gone: stop as well.
        let _ = told_to_stop.await;
    });
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return ended,
        () = stopped => {}
    }
    // The worker may have ended by itself meanwhile; then nobody listens, and nothing is left to do.
    let _ = stop.send(());
    let ended = running.await;
    tracing::info!("bowshot worker has ended");
    ended
}

/// Runs a worker until `stopped`, with what it has for clients if they may call it.
///
/// # Errors
/// When a setting cannot be used, an address is taken, or a part of the worker fails.
pub async fn serve(worker: WorkerConfig, tls: &TlsConfig, stopped: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let Some(listen) = worker.flight_listen else { return Ok(bowshot_engine::run_worker(worker, stopped).await?) };
    let tls = ClientTls::load(tls)?;
    let listener = listen::bind(listen, WORKER_CLIENTS).await?;
    let url = client_url(&worker, &listener, tls.is_some())?;
    if let Some(tls) = &tls {
        tls.follow_files();
    }
    let worker = Worker::open(worker).await?;
    let endpoint = WorkerEndpoint::new(worker.offer_parts_at(url.clone())?);
    tracing::info!(%url, "clients fetch parts of large results here");
    let (worker_ended, told) = tokio::sync::oneshot::channel::<()>();
    let gated = tower::layer::layer_fn(|inner| Gated::new(inner, WorkerGate));
    let server = client_server().layer(gated).add_service(endpoint.into_server()).serve_with_incoming_shutdown(
        connection::incoming(listener, tls, connection::door(), Arc::new(|_| ())),
        async {
            // An error means the sender is gone: stop as well.
            let _ = told.await;
        },
    );
    tokio::pin!(server);
    let ended = tokio::select! {
        ended = worker.run(stopped) => ended,
        ended = &mut server => return ended.map_err(|source| Error::Transport { source }),
    };
    // What a client took last may still be on its way to it.
    drop(worker_ended);
    if tokio::time::timeout(limits::SHUTDOWN_GRACE, server).await.is_err() {
        tracing::warn!("a client that still fetched from this worker was cut off");
    }
    Ok(ended?)
}

/// Where clients reach this worker.
fn client_url(worker: &WorkerConfig, listener: &TcpListener, encrypted: bool) -> Result<String> {
    let scheme = if encrypted { "grpc+tls" } else { "grpc" };
    if let Some(advertised) = &worker.flight_advertise {
        return Ok(format!("{scheme}://{advertised}"));
    }
    let local = listener.local_addr().map_err(|source| Error::file("find the address of", Path::new("worker.flight_listen"), source))?;
    if local.ip().is_unspecified() {
        return Err(Error::config(format!(
            "worker.flight_listen is {local}, which clients cannot connect to: set worker.flight_advertise to the host:port they reach this node on"
        )));
    }
    Ok(format!("{scheme}://{local}"))
}

/// Generates in a process of its own: the generator keeps 300 MB of text in memory for as long as its process lives.
async fn generate_apart(wanted: &str, worker: &WorkerConfig) -> Result<()> {
    let parts: Vec<&str> = wanted.split(',').map(str::trim).collect();
    let [scale, part, parts] = parts[..] else {
        return Err(Error::config(format!("--generate-tpch '{wanted}' must be SCALE,PART,PARTS, such as 0.1,1,3")));
    };
    let folder =
        worker.volumes.values().next().ok_or_else(|| Error::config("--generate-tpch needs a volume to write to: --volume NAME=PATH"))?;
    tracing::info!(scale, part, parts, folder = %folder.display(), "generating TPC-H");
    let own = std::env::current_exe().map_err(|source| Error::file("find", Path::new("this program"), source))?;
    let status = tokio::process::Command::new(&own)
        .args(["generate-tpch", "--scale", scale, "--part", part, "--parts", parts, "--out"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|source| Error::file("start", &own, source))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Child {
            name: "the generator of TPC-H".to_string(),
            problem: format!("failed ({status}); its message stands above"),
            last_lines: String::new(),
        }),
    }
}

/// Writes one part of TPC-H in this process.
///
/// # Errors
/// When a parameter is out of range or the disk refuses.
pub fn generate(arguments: &GenerateArguments) -> Result<()> {
    let options = Options::default();
    let files = tpch::write_tables(arguments.scale, arguments.part, arguments.parts, &arguments.out, &options)?;
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    let kept = files.iter().filter(|file| file.kept).count();
    shell::line(format_args!("{} files ({kept} kept), {rows} rows", files.len()))
}
