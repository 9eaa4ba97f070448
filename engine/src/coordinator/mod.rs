//! The coordinator role: keeps the catalog and the membership, plans queries, watches them, and merges their results.

pub mod admission;
pub mod client_memory;
pub mod clock;
mod damaged_copies;
pub mod data_folder;
pub(crate) mod drains;
pub mod explain;
pub mod fair_queue;
pub mod figures;
pub mod held_files;
pub mod membership;
mod node_log;
pub mod observer;
mod outlet;
pub mod parts;
pub mod planner;
pub mod quarantine;
pub mod query;
pub mod refused_nodes;
pub mod registry;
pub mod replication;
pub mod settings_check;
pub(crate) mod table_places;
pub mod table_writes;
pub mod task_places;
mod unknown_files;
mod unread;
pub mod volume_ids;

use crate::catalog::Snapshot;
use crate::catalog::store::{CatalogStore, NewFile};
use crate::cluster_tls::{ClusterTls, incoming};
use crate::config::CoordinatorConfig;
use crate::control::server::{ControlService, SharedDesk, SharedPolicy};
use crate::control::{Budgets, ClientDesk};
use crate::cpu_runtime::CpuRuntime;
use crate::error::{Error, Result};
use crate::fragment::transport::ClusterChannels;
use crate::limits;
use crate::port::calls::Gated;
use crate::port::panics;
use crate::residency::policy::Policy;
use crate::session::Session;
use crate::statement::substrait::SubstraitReader;
use crate::worker::bind;
use admission::Admission;
use data_folder::DataFolder;
use membership::{Heartbeats, Membership, NodeInfo};
use observer::QuerySummary;
use parking_lot::{Mutex, RwLock};
use quarantine::Quarantine;
use registry::QueryRegistry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use task_places::TaskPlaces;
use tokio::sync::watch;
use uuid::Uuid;
use volume_ids::VolumeIds;

/// A running coordinator. Clones share it.
#[derive(Clone)]
pub struct Coordinator {
    pub(crate) inner: Arc<CoordinatorInner>,
}

pub(crate) struct CoordinatorInner {
    pub config: CoordinatorConfig,
    pub membership: Arc<dyn Membership>,
    pub channels: ClusterChannels,
    pub queries: QueryRegistry,
    pub admission: Admission,
    pub task_places: TaskPlaces,
    /// Who sees the statements of others; everybody until somebody is named.
    pub administrators: OnceLock<BTreeSet<String>>,
    pub quarantine: Quarantine,
    pub base: planner::BaseState,
    pub cpu: CpuRuntime,
    /// Counts statements that store rows: each begins on the next node.
    pub write_turn: AtomicUsize,
    store: Arc<Mutex<CatalogStore>>,
    /// Held for as long as anything of this coordinator may write the catalog.
    _data_folder: DataFolder,
    snapshot: Arc<RwLock<Arc<Snapshot>>>,
    policy: SharedPolicy,
    desk: SharedDesk,
    /// Reads Substrait plans, if the program can.
    pub substrait: OnceLock<Arc<dyn SubstraitReader>>,
    stop: watch::Sender<bool>,
    control_address: SocketAddr,
    pub started: std::time::Instant,
    /// Files by state as they were counted last, for metrics.
    files_counted: Mutex<Option<figures::FilesCounted>>,
}

impl Coordinator {
    /// Opens the catalog and starts the control service.
    pub async fn open(config: CoordinatorConfig) -> Result<Self> {
        if let Some(problem) = settings_check::problems(&config).into_iter().next() {
            return Err(problem);
        }
        let tls = ClusterTls::of_coordinator(&config)?.inspect(|tls| tls.follow_files());
        let data_folder = DataFolder::open(&config.data_dir)?;
        let mut store = CatalogStore::open(data_folder.path())?;
        if !store.snapshot(None)?.schemas.contains_key(&config.default_schema) {
            store.create_schema(&config.default_schema)?;
        }
        let snapshot = Arc::new(store.snapshot(None)?);
        let policy: SharedPolicy = Arc::new(RwLock::new(Arc::new(Policy::of(&snapshot))));
        let (store, snapshot) = (Arc::new(Mutex::new(store)), Arc::new(RwLock::new(snapshot)));
        let listener = bind(config.listen, "coordinator's control service", "coordinator.listen").await?;
        let control_address = listener.local_addr().map_err(|error| Error::bug(error.to_string()))?;
        let membership = Arc::new(Heartbeats::default());
        let desk = SharedDesk::default();
        let (token, storage) = (config.cluster_token.clone(), config.storage.clone());
        let control = ControlService::new(membership.clone(), token, storage, policy.clone(), desk.clone())
            .with_volumes(VolumeIds::new(store.clone(), snapshot.clone()));
        let (stop, mut stopped) = watch::channel(false);
        let control = Arc::new(control);
        let gate = control.gate();
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
            .layer(tower::layer::layer_fn(move |inner| Gated::new(inner, gate.clone())))
            .add_service(control.into_server())
            .serve_with_incoming_shutdown(incoming(listener, tls.clone()), async move {
                // A closed channel means that the coordinator is gone.
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the control service ended");
            }
        });
        let channels = ClusterChannels::new(&config.cluster_token, &config.region, tokio::runtime::Handle::current(), tls)?;
        let inner = CoordinatorInner {
            membership,
            channels,
            queries: QueryRegistry::default(),
            admission: Admission::new(&config.query),
            task_places: TaskPlaces::default(),
            administrators: OnceLock::new(),
            quarantine: Quarantine::default(),
            base: planner::BaseState::new(&config)?,
            cpu: CpuRuntime::new("bowshot-merge", crate::worker::service::default_threads())?,
            write_turn: AtomicUsize::new(0),
            store,
            _data_folder: data_folder,
            snapshot,
            policy,
            desk,
            substrait: OnceLock::new(),
            stop,
            control_address,
            started: std::time::Instant::now(),
            files_counted: Mutex::default(),
            config,
        };
        let inner = Arc::new(inner);
        let grace = std::time::Duration::from_millis(inner.config.replication_grace_ms);
        let (of, copies) = (Arc::downgrade(&inner), "the orders of copies");
        tokio::spawn(panics::again_after_panics(copies, move || replication::run(of.clone(), grace)));
        Ok(Self { inner })
    }

    /// Lets workers ask about clients that call them. There is one who knows them.
    pub fn answer_workers(&self, desk: Arc<dyn ClientDesk>) {
        let _ = self.inner.desk.set(desk);
    }

    /// Lets clients send Substrait plans, read by `reader`. There is one.
    pub fn read_substrait(&self, reader: Arc<dyn SubstraitReader>) {
        let _ = self.inner.substrait.set(reader);
    }

    /// The release of Substrait whose plans can be sent, as (major, minor, patch); nothing where none can.
    pub fn substrait_version(&self) -> Option<(u32, u32, u32)> {
        self.inner.substrait.get().map(|reader| reader.version())
    }

    /// Says who sees the statements of others; without it everybody does.
    pub fn name_administrators(&self, users: impl IntoIterator<Item = String>) {
        let _ = self.inner.administrators.set(users.into_iter().collect());
    }

    /// Whether `user` sees the statements of others.
    pub fn is_administrator(&self, user: &str) -> bool {
        self.inner.administrators.get().is_none_or(|administrators| administrators.contains(user))
    }

    /// A new session of `user`.
    pub fn open_session(&self, user: &str) -> Session {
        Session::new(self.clone(), user)
    }

    /// Address of the control service.
    pub fn control_address(&self) -> SocketAddr {
        self.inner.control_address
    }

    /// Nodes that ever registered, with the coordinator itself first.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let own = NodeInfo {
            node_id: "coordinator".into(),
            role: "coordinator".into(),
            region: self.inner.config.region.clone(),
            volume_regions: BTreeMap::new(),
            address: format!("{}://{}", self.inner.channels.scheme(), self.inner.control_address),
            observed_address: None,
            pid: std::process::id(),
            incarnation: String::new(),
            state: membership::NodeState::Live,
            version: env!("CARGO_PKG_VERSION").into(),
            device: "-".into(),
            cached_bytes: 0,
            cpu_threads: crate::worker::service::default_threads(),
            heartbeat_age_ms: 0,
            file_count: 0,
            replica_count: 0,
            running_tasks: 0,
            max_tasks: 0,
            memory_reserved_bytes: self.inner.base.runtime().memory_pool.reserved() as u64,
            spilled_bytes: self.inner.base.runtime().disk_manager.used_disk_space(),
            budgets: Budgets {
                memory_bytes: self.inner.config.operator_bytes(),
                spill_bytes: self.inner.config.spill_limit_bytes(),
                ..Budgets::default()
            },
            clock_ahead_ms: 0,
        };
        std::iter::once(own).chain(self.inner.membership.nodes()).collect()
    }

    /// Figures of a running or remembered query.
    pub fn summary(&self, query_id: Uuid) -> Option<QuerySummary> {
        self.inner.queries.summary(query_id)
    }

    /// Ends a query of `user` that waits or runs.
    ///
    /// # Errors
    /// When there is none of this id, it is somebody else's, or it has ended.
    pub fn cancel(&self, query_id: Uuid, user: &str) -> Result<()> {
        self.inner.queries.cancel(query_id, user)
    }

    /// Stops the control service; running queries end with their streams.
    pub async fn shutdown(&self) {
        // Fails only when the service has ended already.
        let _ = self.inner.stop.send(true);
    }
}

/// Runs what takes long, or waits for the disk, where it holds up neither heartbeats nor rows.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::bug(format!("a change of the catalog ended early: {error}"))))
}

impl CoordinatorInner {
    /// The catalog as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().clone()
    }

    /// Runs a change against the catalog and publishes the state after it.
    pub async fn change_catalog<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut CatalogStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.clone();
        blocking(move || inner.change_now(change)).await
    }

    fn change_now<T>(&self, change: impl FnOnce(&mut CatalogStore) -> Result<T>) -> Result<T> {
        let mut store = self.store.lock();
        let value = change(&mut store)?;
        let after = store.snapshot(Some(&self.snapshot()))?;
        let policy = Policy::of(&after);
        let mut known = self.policy.write();
        // Most changes touch no rule: workers need not hear of them.
        if (&known.pins, &known.contents) != (&policy.pins, &policy.contents) {
            *known = Arc::new(policy);
        }
        drop(known);
        *self.snapshot.write() = Arc::new(after);
        Ok(value)
    }

    /// Looks at the catalog's database, or notes there what no snapshot shows. Blocking.
    pub fn with_store<T>(&self, work: impl FnOnce(&CatalogStore) -> Result<T>) -> Result<T> {
        work(&self.store.lock())
    }

    /// Waits until the workers know the rules of residency as they are now. One that does not answer is soon suspect and gets no plans.
    pub async fn rules_known(&self) {
        let version = self.policy.read().version;
        if !self.membership.await_policy(version, limits::POLICY_WAIT).await {
            tracing::warn!(version, "not every live worker has confirmed the rules of residency yet");
        }
    }

    /// All that the catalog knows of a file, from its database.
    pub fn stored_file(&self, file_id: i64) -> Result<NewFile> {
        self.store.lock().file(file_id)
    }

    /// Deadline of a query, in milliseconds.
    pub fn timeout_ms(&self, session_ms: u64) -> u64 {
        match (session_ms, self.config.query.timeout_ms) {
            (0, 0) => limits::QUERY_TIMEOUT_MS,
            (0, own) => own,
            (asked, _) => asked,
        }
    }
}
