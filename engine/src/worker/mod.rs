//! The worker role: serves the files of its volumes, runs fragments over them, and reports to its coordinator.

pub mod clients;
pub mod fault;
pub mod files;
pub mod inventory;
pub mod load;
pub mod look;
pub mod memory;
pub mod plan_check;
pub mod published;
pub mod queries;
pub mod registration;
pub mod replicas;
pub mod scrub;
pub mod service;
pub mod settings_check;
pub mod store;
pub mod table_files;
pub mod task_request;
pub mod time_zone;
pub mod volumes;

use crate::cluster_tls::ClusterTls;
use crate::config::{StorageConfig, WorkerConfig};
use crate::control::Budgets;
use crate::error::{Error, Result};
use crate::fragment::transport::ClusterChannels;
use crate::operators::row_group_reader::KernelRuntime;
use crate::port::panics;
use crate::query_memory::MemoryPlace;
use crate::residency::ledger::Ledger;
use bowshot_kernels::{CostModel, DevicePolicy, DeviceReport, Kernels, KernelsConfig, Rates};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use futures::future::BoxFuture;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;

/// Bytes of columns on each card where nothing else is configured: what any card has that is worth using.
const DEVICE_CACHE_BYTES: u64 = 1 << 30;

/// Starts the text of an error that was a panic: our own defect, never a wrong answer.
pub const PANIC_TEXT: &str = "an operator panicked on a worker";
/// Part of the text of an error about a catalogued file that is gone.
pub const GONE_TEXT: &str = "is catalogued but cannot be read";
/// Part of the text of an error about a file whose version is not the catalogued one.
pub const VERSION_TEXT: &str = "is not the version that was catalogued";

/// A worker that is ready to serve.
pub struct WorkerNode {
    config: WorkerConfig,
    runtime: Arc<RuntimeEnv>,
    memory: Arc<memory::NodeMemory>,
    queries: queries::Queries,
    stores: Arc<store::RestrictedStores>,
    kernels: KernelRuntime,
    channels: ClusterChannels,
    replicas: replicas::Replicas,
    scrubber: Arc<scrub::Scrubber>,
    volumes: Arc<volumes::Volumes>,
    load: load::Load,
    ledger: Arc<Ledger>,
    published: Arc<published::Published>,
    /// Where clients fetch parts of results, if they can.
    client_url: OnceLock<String>,
}

impl WorkerNode {
    /// Checks the configuration and opens volumes, memory pool, kernels and stores. Nothing listens yet.
    pub fn open(config: WorkerConfig) -> Result<Self> {
        if let Some(problem) = settings_check::problems(&config).into_iter().next() {
            return Err(problem);
        }
        let volumes = Arc::new(volumes::Volumes::open(&config.node_id, &config.volumes)?);
        // The locks are held: nobody else is writing there.
        table_files::remove_torn(&config.volumes);
        let tls = ClusterTls::of_worker(&config)?.inspect(|tls| tls.follow_files());
        let stores = Arc::new(store::RestrictedStores::default());
        for (volume, folder) in &config.volumes {
            stores.add_volume(volume, folder)?;
        }
        for storage in &config.storage {
            stores.add_bucket(storage)?;
        }
        let memory_bytes = config.operator_bytes();
        let cache_bytes = config.column_cache_bytes();
        let memory = Arc::new(memory::NodeMemory::new(memory_bytes, cache_bytes));
        let mut builder = RuntimeEnvBuilder::new()
            .with_memory_pool(memory.clone())
            .with_object_store_registry(stores.clone())
            .with_max_temp_directory_size(config.spill_limit_bytes());
        if let Some(folder) = &config.spill_dir {
            builder = builder.with_temp_file_path(folder);
        }
        let runtime = builder.build_arc().map_err(|error| Error::user(format!("the worker's runtime cannot be built: {error}")))?;
        let device = device_policy(&config.kernel_device)?;
        let host_memory = memory.cache_account();
        let device_faults = fault::of_device(&config.faults)?;
        let kernels = Kernels::open(KernelsConfig {
            host_cache_bytes: cache_bytes,
            host_memory,
            device,
            device_cache_bytes: if config.device_cache_bytes > 0 { config.device_cache_bytes } else { DEVICE_CACHE_BYTES },
            device_faults,
            // Not below the system's temporary folder: who else may write there could hand the driver what they like.
            pipelines: config.kernel_dir.clone().or_else(|| Some(std::env::home_dir()?.join(".cache/bowshot/kernels"))),
            ..Default::default()
        });
        memory.share_with(kernels.clone());
        // The first queries run on what is known without it.
        let measured = kernels.clone();
        tokio::task::spawn_blocking(move || match measured.measure() {
            Ok(model) => tell_rates(&model),
            Err(error) => tracing::warn!(%error, "kernels cannot be measured: nothing is foreseen"),
        });
        let channels = ClusterChannels::new(&config.cluster_token, &config.region, tokio::runtime::Handle::current(), tls)?;
        let replicas =
            replicas::Replicas::new(volumes.clone(), config.volumes.clone(), channels.clone(), config.replication_bytes_per_second);
        let scrubber = Arc::new(scrub::Scrubber::new(volumes.clone(), config.volumes.clone(), config.scrub_bytes_per_second));
        let kernels = KernelRuntime::new(kernels);
        let queries = queries::Queries::new(MemoryPlace {
            name: format!("node {}", config.node_id),
            shared_setting: "worker.memory_bytes",
            query_bytes: config.query_memory_bytes,
            query_setting: "worker.query_memory_bytes",
        });
        let ledger = Arc::new(Ledger::new(&config.node_id, &config.region, &config.volume_regions));
        let (load, published, client_url) = Default::default();
        Ok(Self {
            config,
            runtime,
            memory,
            queries,
            stores,
            kernels,
            channels,
            replicas,
            scrubber,
            volumes,
            load,
            ledger,
            published,
            client_url,
        })
    }

    /// What the node calls its card, or why it has none.
    fn device_text(&self) -> String {
        let reports = self.kernels.kernels.device_reports();
        let cards: Vec<&DeviceReport> = reports.iter().filter(|report| report.available).collect();
        match cards[..] {
            [] => {
                let reason = reports.into_iter().find_map(|report| report.reason);
                format!("none: {}", reason.unwrap_or_else(|| "not probed yet".into()))
            }
            [card] if card.software => format!("{} (software)", card.name),
            [card] => card.name.clone(),
            // Machines have cards of one kind, as a rule.
            [card, ..] => format!("{} x {}", cards.len(), card.name),
        }
    }

    /// What it may use, and what it did with it.
    fn budgets(&self) -> Budgets {
        let (cache_hits, cache_misses) = self.kernels.cache_uses();
        Budgets {
            memory_bytes: self.config.operator_bytes(),
            cache_bytes: self.config.column_cache_bytes(),
            spill_bytes: self.config.spill_limit_bytes(),
            cache_hits,
            cache_misses,
        }
    }

    fn add_storage(&self, storage: &[StorageConfig]) {
        for bucket in storage {
            if let Err(error) = self.stores.add_bucket(bucket) {
                tracing::error!(bucket = bucket.url, %error, "the coordinator's bucket cannot be used on this node");
            }
        }
    }
}

fn device_policy(word: &str) -> Result<DevicePolicy> {
    match word {
        "off" => Ok(DevicePolicy::Off),
        "hardware" => Ok(DevicePolicy::Hardware),
        "software" => Ok(DevicePolicy::AllowSoftware),
        other => Err(Error::user(format!("worker.kernel_device cannot be '{other}': use off, hardware or software"))),
    }
}

/// Says how fast this machine runs kernels, in figures that people know.
fn tell_rates(model: &CostModel) {
    let told =
        |rates: &Rates| format!("reads {:.1} GB/s, {:.1} billion steps/s", rates.read_bytes_per_second / 1e9, rates.steps_per_second / 1e9);
    let device = model.device.as_ref().map_or_else(|| "none".to_string(), &told);
    tracing::info!(core = told(&model.host), device, "kernels are measured");
}

/// Refuses clusters that a guess could join.
pub fn check_token(token: &str, role: &str) -> Result<()> {
    if token.len() < 16 {
        return Err(Error::user(format!(
            "{role}.cluster_token is {}: set the same secret of at least 16 characters on every node",
            if token.is_empty() { "not set" } else { "shorter than 16 characters" }
        )));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::user(format!("{role}.cluster_token has characters that cannot travel in a header: use letters and digits")));
    }
    Ok(())
}

/// Binds a port, or says which port, for what, and the way out.
pub async fn bind(address: SocketAddr, what: &str, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::user(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "port {} for the {what} is taken by another process: stop it, or choose another port with {setting}",
                    address.port()
                )
            }
            _ => format!("the {what} cannot listen on {address}: {error}; choose another address with {setting}"),
        })
    })
}

/// A worker that listens, and serves once it runs.
pub struct Worker {
    node: Arc<WorkerNode>,
    listener: TcpListener,
    local: SocketAddr,
}

impl Worker {
    /// Takes the worker's port and opens what it needs.
    ///
    /// # Errors
    /// When a setting cannot be used or the port is taken.
    pub async fn open(config: WorkerConfig) -> Result<Self> {
        let listener = bind(config.listen, "worker", "worker.listen").await?;
        let local = listener.local_addr().map_err(|error| Error::bug(error.to_string()))?;
        Ok(Self { node: Arc::new(WorkerNode::open(config)?), listener, local })
    }

    /// The parts of results for clients, who find them at this URL.
    ///
    /// # Errors
    /// When the coordinator's address is no URL.
    pub fn offer_parts_at(&self, client_url: String) -> Result<clients::PartsForClients> {
        // A worker has one such URL.
        let _ = self.node.client_url.set(client_url);
        clients::PartsForClients::new(&self.node)
    }

    /// Runs until `shutdown` resolves. Returns early only with an error that no waiting would cure.
    ///
    /// # Errors
    /// When the coordinator refuses this worker for good, or its service fails.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let Self { node, listener, local } = self;
        scrub::start(&node);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let registration = tokio::spawn({
            let (node, stopped) = (node.clone(), stopped.clone());
            panics::again_after_panics("registration", move || registration::keep_registered(node.clone(), local, stopped.clone()))
        });
        let served = service::serve(node.clone(), listener, stopped);
        tokio::pin!(served);
        tokio::select! {
            result = &mut served => result,
            result = registration => match result {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => Ok(()),
                Err(error) => Err(Error::bug(format!("the registration task ended: {error}"))),
            },
            () = shutdown => {
                // The coordinator is told first, so that no query is placed here any more; what runs here ends in peace.
                tokio::select! {
                    () = node.load.leave() => {}
                    result = &mut served => return result,
                }
                // Receivers gone means that both tasks have ended already.
                let _ = stop.send(true);
                match tokio::time::timeout(std::time::Duration::from_secs(5), served).await {
                    Ok(result) => result,
                    // Open streams may outlast the grace period; the process ends all the same.
                    Err(_) => Ok(()),
                }
            }
        }
    }
}

/// Runs a worker that clients do not call until `shutdown` resolves.
///
/// # Errors
/// Those of [`Worker::open`] and [`Worker::run`].
pub async fn run_worker(config: WorkerConfig, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let worker = Worker::open(config).await?;
    // Without its type: compilers of other crates need not look into all that runs in it.
    let running: BoxFuture<'static, Result<()>> = Box::pin(worker.run(shutdown));
    running.await
}
