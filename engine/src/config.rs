//! Settings of the two roles. Every field has a default except the names and secrets only the operator knows.

use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a coordinator needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorConfig {
    /// Folder of the catalog database. Created when missing.
    pub data_dir: PathBuf,
    /// Address of the control service where workers register. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Secret that every node of the cluster shares; at least 16 characters.
    pub cluster_token: String,
    /// Certificates for the traffic with workers. Required where `listen` is not on loopback.
    pub cluster_tls: ClusterTlsConfig,
    /// Goes without `cluster_tls` there: rows and the token travel unencrypted. Default false.
    pub insecure_cluster: bool,
    /// Region of the coordinator itself: where final results are merged.
    pub region: String,
    /// Schema of unqualified table names in new sessions.
    pub default_schema: String,
    /// Buckets that tables may lie in; handed to every worker at registration.
    pub storage: Vec<StorageConfig>,
    /// Limits on queries.
    pub query: QueryConfig,
    /// Memory of the coordinator's own part of queries, in bytes: merges, sorts and joins of what workers send. Beyond it operators spill. 0 takes
    /// a quarter of the machine's memory.
    pub memory_bytes: u64,
    /// Folder for spilled data; the system's temporary folder when unset.
    pub spill_dir: Option<PathBuf>,
    /// Most bytes of spilled data at once; 0 takes 100 GB.
    pub spill_bytes_max: u64,
    /// How long a silent node is waited for, in milliseconds, before its files are copied elsewhere; also after the coordinator's own start.
    /// Default 30000.
    pub replication_grace_ms: u64,
    /// Volume that new managed tables lie in: those of CREATE TABLE without EXTERNAL. The one that most workers have when unset.
    pub tables_volume: Option<String>,
}

impl CoordinatorConfig {
    /// Memory of the coordinator's own part of queries, in bytes.
    pub fn operator_bytes(&self) -> u64 {
        if self.memory_bytes > 0 { self.memory_bytes } else { machine_memory_bytes() / 4 }
    }

    /// Most bytes of spilled data at once.
    pub fn spill_limit_bytes(&self) -> u64 {
        if self.spill_bytes_max > 0 { self.spill_bytes_max } else { limits::SPILL_BYTES_MAX }
    }
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from(".bowshot/coordinator"),
            listen: SocketAddr::from(([127, 0, 0, 1], 47472)),
            cluster_token: String::new(),
            cluster_tls: ClusterTlsConfig::default(),
            insecure_cluster: false,
            region: "local".into(),
            default_schema: "public".into(),
            storage: vec![],
            query: QueryConfig::default(),
            memory_bytes: 0,
            spill_dir: None,
            spill_bytes_max: 0,
            replication_grace_ms: 30_000,
            tables_volume: None,
        }
    }
}

/// Limits on queries of one coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Deadline of a query, in milliseconds, from its arrival to its last row. A session may lower or raise it (`bowshot.query_timeout_ms`).
    pub timeout_ms: u64,
    /// Queries over stored tables that run at once; more wait, and are let in by user in turn. Default 32.
    pub max_concurrent: usize,
    /// Of these, how many one user may have; 0 (the default) for no limit.
    pub max_concurrent_per_user: usize,
    /// Queries that may wait, of one user at most three quarters; one more is refused. Default 256.
    pub max_waiting: usize,
    /// How long a client may take no row of a result, in milliseconds, while other queries wait for its places: then its query is ended. 0 for as
    /// long as the query may run. Default 60000.
    pub unread_ms: u64,
    /// Partitions of a fragment on each worker; 0 takes the largest core count that a worker reports, at most 16.
    pub target_partitions: usize,
    /// Compression of the rows that move between nodes: `none`, `lz4`, `zstd` or `auto`, which is `none` for queries whose nodes are all on
    /// one machine and `lz4` for others. Default `auto`.
    pub compression: String,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            timeout_ms: crate::limits::QUERY_TIMEOUT_MS,
            max_concurrent: crate::limits::QUERIES_RUNNING_MAX,
            max_concurrent_per_user: 0,
            max_waiting: crate::limits::QUERIES_WAITING_MAX,
            unread_ms: crate::limits::UNREAD_MS,
            target_partitions: 0,
            compression: "auto".into(),
        }
    }
}

/// What a worker needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Name of the node, unique in the cluster and kept for its life: placements refer to it.
    pub node_id: String,
    /// Jurisdiction of the node's data.
    pub region: String,
    /// Address that other nodes reach the worker on. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// `host:port` to tell others when it differs from `listen` (address translation, containers).
    pub advertise: Option<String>,
    /// Address where clients fetch parts of large results from this node. Unset (the default), they get all rows from the server.
    pub flight_listen: Option<SocketAddr>,
    /// `host:port` to tell clients when it differs from `flight_listen`.
    pub flight_advertise: Option<String>,
    /// Control address of the coordinator, `https://host:port`; `http://` without `cluster_tls`.
    pub coordinator: String,
    /// Secret that every node of the cluster shares.
    pub cluster_token: String,
    /// Certificates for the traffic with other nodes. Required where `listen` or `coordinator` is not on loopback.
    pub cluster_tls: ClusterTlsConfig,
    /// Goes without `cluster_tls` there: rows and the token travel unencrypted. Default false.
    pub insecure_cluster: bool,
    /// Named folders that hold this node's Parquet files.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Regions of volumes that do not lie where the node does (network storage), by the volume's name.
    pub volume_regions: BTreeMap<String, String>,
    /// Extra buckets of this node; those of the coordinator arrive at registration.
    pub storage: Vec<StorageConfig>,
    /// Memory of query operators, in bytes; beyond it they take what the column cache does not use or pin, then spill. 0 takes half of the
    /// machine's memory.
    pub memory_bytes: u64,
    /// Most bytes of that for the operators of one query; beyond it they spill. A session may lower it (`bowshot.memory_limit_bytes`). 0 (the
    /// default) for all of it.
    pub query_memory_bytes: u64,
    /// Budget of the column cache, in bytes. 0 takes a quarter of the machine's memory.
    pub cache_bytes: u64,
    /// Which card may be used: `off`, `hardware`, or `software` (also a software rasteriser; for tests).
    pub kernel_device: String,
    /// Bytes of columns kept in the memory of each card, whose drivers do not say how much there is. 0 takes 1 GiB.
    pub device_cache_bytes: u64,
    /// Folder that keeps the kernels compiled for a card until the next start; `.cache/bowshot/kernels` of the user when unset.
    pub kernel_dir: Option<PathBuf>,
    /// Threads that run fragments; 0 takes the machine's cores.
    pub cpu_threads: usize,
    /// Folder for spilled data; the system's temporary folder when unset.
    pub spill_dir: Option<PathBuf>,
    /// Most bytes of spilled data at once; 0 takes 100 GB.
    pub spill_bytes_max: u64,
    /// Tasks that run at once. A query whose tasks find no places waits on the coordinator, with none of them started. 0 takes one for every
    /// 16 MiB of `memory_bytes`: at least four a core, at most 512.
    pub max_tasks: u64,
    /// Bytes a second at which this node makes copies of other nodes' files; 0 for no limit. Default 100 MB.
    pub replication_bytes_per_second: u64,
    /// Bytes a second at which this node reads its managed files and copies again once a day, to find changed bytes; 0 for only when
    /// `ALTER NODE … SCRUB` asks for it. Default 10 MB.
    pub scrub_bytes_per_second: u64,
    /// Test hooks by name; empty outside tests. See `worker::fault`.
    pub faults: Vec<String>,
}

impl WorkerConfig {
    /// Memory of query operators, in bytes.
    pub fn operator_bytes(&self) -> u64 {
        if self.memory_bytes > 0 { self.memory_bytes } else { machine_memory_bytes() / 2 }
    }

    /// Memory of the column cache, in bytes.
    pub fn column_cache_bytes(&self) -> u64 {
        if self.cache_bytes > 0 { self.cache_bytes } else { machine_memory_bytes() / 4 }
    }

    /// Most bytes of spilled data at once.
    pub fn spill_limit_bytes(&self) -> u64 {
        if self.spill_bytes_max > 0 { self.spill_bytes_max } else { limits::SPILL_BYTES_MAX }
    }

    /// Tasks that run at once. What a task reads and sends is in no operator's account: a node with little memory runs fewer.
    pub fn tasks_at_once(&self) -> u64 {
        if self.max_tasks > 0 {
            return self.max_tasks;
        }
        let threads = if self.cpu_threads > 0 { self.cpu_threads } else { crate::worker::service::default_threads() };
        let least = limits::TASKS_A_CORE_MIN * threads as u64;
        (self.operator_bytes() / limits::TASK_BUFFER_BYTES).clamp(least.min(limits::TASKS_RUNNING_MAX), limits::TASKS_RUNNING_MAX)
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            node_id: String::new(),
            region: "local".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 47480)),
            advertise: None,
            flight_listen: None,
            flight_advertise: None,
            coordinator: "http://127.0.0.1:47472".into(),
            cluster_token: String::new(),
            cluster_tls: ClusterTlsConfig::default(),
            insecure_cluster: false,
            volumes: BTreeMap::new(),
            volume_regions: BTreeMap::new(),
            storage: vec![],
            memory_bytes: 0,
            query_memory_bytes: 0,
            cache_bytes: 0,
            kernel_device: "hardware".into(),
            device_cache_bytes: 0,
            kernel_dir: None,
            cpu_threads: 0,
            spill_dir: None,
            spill_bytes_max: 0,
            max_tasks: 0,
            replication_bytes_per_second: 100_000_000,
            scrub_bytes_per_second: 10_000_000,
            faults: vec![],
        }
    }
}

/// A node's identity in the cluster, as files in PEM form; all three or none. They are looked at again every few seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterTlsConfig {
    /// The node's certificate, intermediate ones after it. Its DNS names must hold `<node id>.node.bowshot` and `<region>.region.bowshot`
    /// of a worker, `coordinator.role.bowshot` of the coordinator; its extended key usage, if any, both server and client.
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate.
    pub key: Option<PathBuf>,
    /// The authorities, one of which must have signed every other node's certificate. Two while one replaces the other.
    pub ca: Option<PathBuf>,
}

/// A bucket and how to reach it. Secrets never appear in plans, logs or results.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// `s3://bucket`.
    pub url: String,
    /// Region of the bucket; `us-east-1` when unset.
    #[serde(default)]
    pub region: Option<String>,
    /// Region label of the bucket's data, as nodes have one; `region` is the provider's word. Tables over the bucket can be pinned only with it.
    #[serde(default)]
    pub residency: Option<String>,
    /// Endpoint of an S3-compatible server; the provider's own when unset.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Access key; anonymous requests when unset.
    #[serde(default)]
    pub access_key_id: Option<String>,
    /// Secret of the access key.
    #[serde(default)]
    pub secret_access_key: Option<String>,
    /// Allow plain HTTP to the endpoint.
    #[serde(default)]
    pub allow_http: bool,
}

impl std::fmt::Debug for StorageConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageConfig").field("url", &self.url).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Region label of a bucket's data, by the URL of its store, if it has one.
pub fn residency_of(buckets: &[StorageConfig], store_url: &str) -> Option<String> {
    let same = |bucket: &&StorageConfig| bucket.url.trim_end_matches('/') == store_url.trim_end_matches('/');
    buckets.iter().find(same)?.residency.clone()
}

/// Memory of the machine in bytes, from the kernel; 8 GiB where it cannot be read.
pub fn machine_memory_bytes() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        })
        .map_or(8 << 30, |kib| kib * 1024)
}

datafusion::common::extensions_options! {
    /// Settings of a session that reach every worker: `SET bowshot.<name> = <value>`.
    pub struct BowshotOptions {
        /// Which executor runs hot aggregations: auto, device, host or off.
        pub kernel: KernelChoice, default = KernelChoice::Auto
        /// Deadline of a query in milliseconds; 0 takes the coordinator's setting.
        pub query_timeout_ms: u64, default = 0
        /// Share of places while queries wait for one: low, normal or high.
        pub priority: Priority, default = Priority::Normal
        /// Most bytes that operators of a query may hold on each node before they spill; 0 takes the node's setting, which it cannot exceed.
        pub memory_limit_bytes: u64, default = 0
        /// Bytes of a result that are held back, so that the query can be repeated unseen when a worker is lost meanwhile; a smaller result is
        /// held to its end. 0 gives rows away as they come.
        pub result_buffer: u64, default = 0
        /// Compression of the Arrow messages of results: none, lz4 or zstd. Not every driver reads compressed ones; JDBC's does not.
        pub result_compression: ResultCompression, default = ResultCompression::None
        /// Where clients fetch results: from the workers that hold the rows, in one stream a worker, or from the coordinator. auto leaves large
        /// results to workers that clients can reach. Results that the coordinator merges come from it in any case.
        pub result_endpoints: ResultEndpoints, default = ResultEndpoints::Auto
        /// Largest side of a join, in estimated bytes, that is sent to all nodes of the other side where that costs less than dealing both
        /// sides by key; 0 leaves the choice to DataFusion's own limits.
        pub broadcast_join_bytes: usize, default = 64 << 20
        /// Counts the tasks of inner fragments while the query runs, from samples of the rows that come: fewer where there are few. Not for
        /// tables that are pinned to regions.
        pub adaptive_tasks: bool, default = false
        /// Runs statements that cost workers too, which are refused for a while otherwise.
        pub ignore_quarantine: bool, default = false
        /// What scans do with the column cache: CACHE TABLE and UNCACHE TABLE set it for themselves.
        pub cache_action: CacheAction, default = CacheAction::None
        /// Rows of a batch on every node, where the planner wants fewer than usual; 0 where it does not.
        pub batch_rows: usize, default = 0
    }
}

impl datafusion::config::ConfigExtension for BowshotOptions {
    const PREFIX: &'static str = "bowshot";
}

/// How the Arrow messages of results are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResultCompression {
    /// Not at all: every driver reads that.
    #[default]
    None,
    /// LZ4 frames: little work.
    Lz4,
    /// Zstandard: fewer bytes.
    Zstd,
}

impl std::str::FromStr for ResultCompression {
    type Err = datafusion::common::DataFusionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            other => Err(datafusion::common::DataFusionError::Configuration(format!(
                "bowshot.result_compression cannot be '{other}': use none, lz4 or zstd"
            ))),
        }
    }
}

impl std::fmt::Display for ResultCompression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Where clients fetch results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResultEndpoints {
    /// Large results from the workers, if the client can reach them.
    #[default]
    Auto,
    /// From the workers; through the coordinator for clients that cannot reach them.
    Workers,
    /// From the coordinator.
    Coordinator,
}

impl std::str::FromStr for ResultEndpoints {
    type Err = datafusion::common::DataFusionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "workers" => Ok(Self::Workers),
            "coordinator" => Ok(Self::Coordinator),
            other => Err(datafusion::common::DataFusionError::Configuration(format!(
                "bowshot.result_endpoints cannot be '{other}': use auto, workers or coordinator"
            ))),
        }
    }
}

impl std::fmt::Display for ResultEndpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Workers => "workers",
            Self::Coordinator => "coordinator",
        })
    }
}

/// Which executor runs hot aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelChoice {
    /// The device where a hardware one is present, else the host kernel.
    #[default]
    Auto,
    /// The device, software adapters included where the node allows them.
    Device,
    /// The host kernel.
    Host,
    /// DataFusion's operators.
    Off,
}

impl std::str::FromStr for KernelChoice {
    type Err = datafusion::common::DataFusionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "device" => Ok(Self::Device),
            "host" => Ok(Self::Host),
            "off" => Ok(Self::Off),
            other => Err(datafusion::common::DataFusionError::Configuration(format!(
                "bowshot.kernel cannot be '{other}': use auto, device, host or off"
            ))),
        }
    }
}

impl std::fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Device => "device",
            Self::Host => "host",
            Self::Off => "off",
        })
    }
}

/// How large a query's share of places is while others wait too: 1 : 2 : 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Half of the normal share.
    Low,
    /// What nobody asks for.
    #[default]
    Normal,
    /// Twice the normal share.
    High,
}

impl std::str::FromStr for Priority {
    type Err = datafusion::common::DataFusionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            other => Err(datafusion::common::DataFusionError::Configuration(format!(
                "bowshot.priority cannot be '{other}': use low, normal or high"
            ))),
        }
    }
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

/// What scans do with the column cache. Not a setting of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheAction {
    /// They read.
    #[default]
    None,
    /// They load and pin the columns they read, and return no rows.
    Pin,
    /// They drop the columns they read, and return no rows.
    Drop,
}

impl std::str::FromStr for CacheAction {
    type Err = datafusion::common::DataFusionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "pin" => Ok(Self::Pin),
            "drop" => Ok(Self::Drop),
            other => Err(datafusion::common::DataFusionError::Configuration(format!("there is no cache action '{other}'"))),
        }
    }
}

impl std::fmt::Display for CacheAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Pin => "pin",
            Self::Drop => "drop",
        })
    }
}

/// Settings whose values are words.
macro_rules! word_setting {
    ($name:ty) => {
        impl datafusion::config::ConfigField for $name {
            fn visit<V: datafusion::config::Visit>(&self, v: &mut V, key: &str, description: &'static str) {
                v.some(key, self, description)
            }
            fn set(&mut self, _: &str, value: &str) -> datafusion::common::Result<()> {
                *self = value.parse()?;
                Ok(())
            }
        }
    };
}
word_setting!(KernelChoice);
word_setting!(Priority);
word_setting!(CacheAction);
word_setting!(ResultCompression);
word_setting!(ResultEndpoints);
