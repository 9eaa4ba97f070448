//! The control channel between a coordinator and its workers: two calls, both made by the worker.
//!
//! Carried as Arrow Flight actions with JSON bodies: Flight is on every node anyway, and an operator can read the messages.
//! A worker registers once, then sends a heartbeat every second. The coordinator never calls a worker on this channel, so a
//! worker behind address translation needs no second open port for it.

pub mod client;
pub mod gate;
pub mod packed;
pub mod server;

use crate::config::StorageConfig;
use crate::residency::policy::Policy;
use crate::worker::published::PartId;
use futures::future::BoxFuture;
use packed::PackedInventory;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tonic::Status;
use uuid::Uuid;

/// Action type of [`Register`].
pub const REGISTER: &str = "bowshot.register";
/// Action type of [`Heartbeat`].
pub const HEARTBEAT: &str = "bowshot.heartbeat";
/// Action type of [`Register`] of a node that only asks whether it would be taken in; answered by [`Looked`].
pub const LOOK: &str = "bowshot.look";
/// Action type of [`ClientCall`] for a login.
pub const CLIENT_LOGIN: &str = "bowshot.client_login";
/// Action type of [`ClientTicket`].
pub const CLIENT_TICKET: &str = "bowshot.client_ticket";
/// Action type of [`ClientQuery`].
pub const CLIENT_QUERY: &str = "bowshot.client_query";
/// Version of this protocol. New fields have defaults, so that nodes of neighbouring releases understand each other while a cluster is
/// upgraded node by node.
pub const PROTOCOL_VERSION: u32 = 4;
/// Oldest version that a coordinator takes in.
pub const PROTOCOL_VERSION_MIN: u32 = 2;
/// First version whose coordinators take packed inventories.
pub const PROTOCOL_VERSION_PACKED: u32 = 4;
/// Metadata key of the shared secret on every call between nodes.
pub const TOKEN_HEADER: &str = "x-bowshot-cluster-token";

/// A worker introduces itself. Trusted by the coordinator because the call carries the cluster token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Register {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub protocol_version: u32,
    /// Release of the worker, for people.
    pub version: String,
    /// Node id: unique, stable for the life of the node.
    pub node_id: String,
    /// Region label of the node's data.
    pub region: String,
    /// URL that the coordinator and other workers reach the worker on.
    pub address: String,
    /// Process id on its machine.
    pub pid: u32,
    /// Cores the worker runs fragments on.
    pub cpu_threads: usize,
    /// Card the kernels found, or why none.
    pub device: String,
    /// Distinguishes two lives of one node: a new process has a new one.
    pub incarnation: String,
    /// Names of its volumes; empty for a worker that is there for inner fragments alone.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Regions of volumes that do not lie in the node's.
    #[serde(default)]
    pub volume_regions: BTreeMap<String, String>,
    /// Whether it keeps parts of results for clients when a plan asks for it: releases before do not.
    #[serde(default)]
    pub keeps_parts: bool,
    /// URL that clients fetch such parts from, if they can.
    #[serde(default)]
    pub client_url: Option<String>,
    /// What the folder of each volume says of itself; nothing from releases before.
    #[serde(default)]
    pub found_volumes: BTreeMap<String, FoundVolume>,
}

/// The folder of a volume, as its worker finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVolume {
    /// Whether there is a folder.
    pub is_there: bool,
    /// The id in its marker.
    pub id: Option<String>,
    /// An id for a new one.
    pub proposed: String,
}

/// What the coordinator knows of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedVolume {
    /// The id that its marker must have.
    pub id: String,
    /// Whether a folder without a marker may be it: the catalog knows of no managed file there.
    pub may_be_new: bool,
}

/// A client that called a worker, as the worker saw it. Only the coordinator knows who clients are.
#[derive(Clone, Serialize, Deserialize)]
pub struct ClientCall {
    /// The worker.
    pub node_id: String,
    /// Where the client connected from.
    pub address: SocketAddr,
    /// Its `authorization` header.
    pub authorization: Option<String>,
    /// Whom its certificate names, and until when, in milliseconds of Unix time.
    pub certificate: Option<(String, u64)>,
}

/// A client wants a part of a result from a worker.
#[derive(Clone, Serialize, Deserialize)]
pub struct ClientTicket {
    /// The client.
    pub call: ClientCall,
    /// What it showed.
    pub ticket: Vec<u8>,
}

/// The coordinator's answer to [`ClientTicket`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Redeemed {
    /// The part, which is on that worker.
    pub part: PartId,
    /// The query as its client knows it.
    #[serde(with = "crate::uuid_text")]
    pub query_id: Uuid,
}

/// A part of this query's result was cut off on a worker; answered by [`WhyEnded`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ClientQuery {
    /// The query as its client knows it.
    #[serde(with = "crate::uuid_text")]
    pub query_id: Uuid,
}

/// What ended a query, if it did not end well: gRPC code and text.
pub type WhyEnded = Option<(i32, String)>;

/// Knows the clients: answers what workers ask about them.
pub trait ClientDesk: Send + Sync + 'static {
    /// The token of a login for the client's credentials.
    ///
    /// # Errors
    /// The status for the client.
    fn log_in(self: Arc<Self>, call: ClientCall) -> BoxFuture<'static, Result<String, Status>>;

    /// What a client may fetch from the worker with its ticket, once.
    ///
    /// # Errors
    /// The status for the client.
    fn redeem(self: Arc<Self>, asked: ClientTicket) -> BoxFuture<'static, Result<Redeemed, Status>>;

    /// What ended a query whose part was cut off. Waits a little for it.
    fn why_ended(self: Arc<Self>, query: ClientQuery) -> BoxFuture<'static, WhyEnded>;
}

/// The coordinator's answer to [`Register`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registered {
    /// [`PROTOCOL_VERSION`] of the coordinator; releases that do not say have an older one.
    #[serde(default)]
    pub protocol_version: u32,
    /// Buckets the worker must be able to read.
    pub storage: Vec<StorageConfig>,
    /// Rules of residency, before anything can be read.
    #[serde(default)]
    pub policy: Policy,
    /// What it knows of the worker's volumes.
    #[serde(default)]
    pub volumes: BTreeMap<String, ExpectedVolume>,
}

/// The coordinator's answer to [`LOOK`]: the node would be taken in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Looked {
    /// Release of the coordinator, for people.
    pub version: String,
    /// [`PROTOCOL_VERSION`] of the coordinator.
    pub protocol_version: u32,
    /// Unix milliseconds of its clock.
    pub clock_ms: u64,
}

/// What a node may use and what it did with it, for metrics. All are 0 from releases that do not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budgets {
    /// Bytes of memory that operators may hold.
    pub memory_bytes: u64,
    /// Bytes that the column cache may take.
    pub cache_bytes: u64,
    /// Bytes of spilled data at once.
    pub spill_bytes: u64,
    /// Chunks that scans found in the column cache, since the node's start.
    pub cache_hits: u64,
    /// Chunks that they did not find there.
    pub cache_misses: u64,
}

/// Every second: I am alive, and this is what changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Sender.
    pub node_id: String,
    /// Must be the one of the last [`Register`], else the answer asks for a new one.
    pub incarnation: String,
    /// Counts inventories; the coordinator echoes the one it holds.
    pub inventory_epoch: u64,
    /// The whole inventory, only when its epoch is not the one the coordinator acknowledged.
    #[serde(default)]
    pub packed_inventory: Option<PackedInventory>,
    /// The same, for coordinators before [`PROTOCOL_VERSION_PACKED`].
    pub inventory: Option<Vec<VolumeFile>>,
    /// Bytes in the column cache.
    pub cached_bytes: u64,
    /// What is in it, only when it is not what the last heartbeat said.
    pub cached_columns: Option<Vec<CachedColumn>>,
    /// Card the kernels found, or why none (probing ends after registration).
    pub device: String,
    /// Unix milliseconds when the volumes were last listed.
    pub listed_at_ms: u64,
    /// What the coordinator's [`HeartbeatAnswer::clock_ms`] was at least when that listing began; unknown before the first answer.
    #[serde(default)]
    pub listed_after_ms: Option<u64>,
    /// Files in the volumes that could not be read as Parquet, with the reason; at most one more than
    /// [`limits::UNREADABLE_FILES_MAX`](crate::limits::UNREADABLE_FILES_MAX). Travels with the inventory.
    pub unreadable: Vec<UnreadableFile>,
    /// Copies of other nodes' files that it keeps; travels with the inventory.
    #[serde(default)]
    pub replicas: Vec<Replica>,
    /// Copies that could not be made since the last heartbeat.
    #[serde(default)]
    pub failed_copies: Vec<FailedCopy>,
    /// Files of managed tables that the scrubber has read since the last heartbeat.
    #[serde(default)]
    pub hashed: Vec<HashedFile>,
    /// Files of managed tables that were set aside because their bytes have changed; travels with the inventory.
    #[serde(default)]
    pub damaged: Vec<UnreadableFile>,
    /// Bytes that are free on the disk of each volume.
    #[serde(default)]
    pub free_bytes: BTreeMap<String, u64>,
    /// Volumes whose folders are not those that are expected, with the reason and the way out.
    #[serde(default)]
    pub missing_volumes: BTreeMap<String, String>,
    /// Tasks that run now.
    #[serde(default)]
    pub running_tasks: u64,
    /// Tasks that it runs at once; 0 when it does not say.
    #[serde(default)]
    pub max_tasks: u64,
    /// Bytes of memory that operators hold now.
    #[serde(default)]
    pub memory_reserved_bytes: u64,
    /// Bytes of spilled data on its disk now.
    #[serde(default)]
    pub spilled_bytes: u64,
    /// What the node may use, and what it did with it.
    #[serde(default)]
    pub budgets: Budgets,
    /// The worker is about to end and wants no new tasks.
    #[serde(default)]
    pub leaving: bool,
    /// Version of the rules of residency that the worker knows.
    #[serde(default)]
    pub policy_version: Option<i64>,
    /// Unix milliseconds of the worker's clock.
    #[serde(default)]
    pub sent_at_ms: Option<u64>,
}

/// The coordinator's answer to [`Heartbeat`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The coordinator does not know this incarnation: register again.
    pub register_again: bool,
    /// Epoch of the inventory the coordinator holds.
    pub acknowledged_epoch: u64,
    /// Milliseconds since the coordinator's start. A worker adds what has passed since: it knows how late it is there at least.
    #[serde(default)]
    pub clock_ms: Option<u64>,
    /// Files (`volume/path`) whose content checksum is wanted, because another node reports a file of the same name.
    pub wanted_checksums: Vec<String>,
    /// What to do about replicas, all of it: what is no longer named is no longer wanted.
    #[serde(default)]
    pub orders: Orders,
    /// Rules of residency, when they are not those that the worker knows.
    #[serde(default)]
    pub policy: Option<Policy>,
}

/// A copy of another node's file: `<volume>/.bowshot/replicas/<checksum>.parquet`. Named by its content, so that it can be told from a torn one,
/// and found again after any restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Volume it lies in.
    pub volume: String,
    /// SHA-256 of its content, in hexadecimal.
    pub checksum: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time of the copy in nanoseconds.
    pub version: i64,
}

impl Replica {
    /// Path below its volume.
    pub fn path(&self) -> String {
        replica_path(&self.checksum)
    }
}

/// What the cluster keeps in a volume for itself lies below it.
pub const HIDDEN_FOLDER: &str = ".bowshot";

/// Folder of replicas below a volume.
pub const REPLICA_FOLDER: &str = ".bowshot/replicas";

/// Folder of managed tables below a volume, with a folder for each table.
pub const TABLE_FOLDER: &str = ".bowshot/tables";

/// Whether a path below a volume is that of a managed table's file: `.bowshot/tables/<table>/<file>.parquet`, both names being UUIDs.
pub fn is_table_file(path: &str) -> bool {
    let Some(rest) = path.strip_prefix(TABLE_FOLDER).and_then(|rest| rest.strip_prefix('/')) else { return false };
    let Some((table, file)) = rest.split_once('/') else { return false };
    let is_uuid = |text: &str| text.len() == 36 && Uuid::try_parse(text).is_ok_and(|id| id.to_string() == text);
    is_uuid(table) && file.strip_suffix(".parquet").is_some_and(is_uuid)
}

/// Path of a replica below its volume.
pub fn replica_path(checksum: &str) -> String {
    format!("{REPLICA_FOLDER}/{checksum}.parquet")
}

/// A copy that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCopy {
    /// Volume it was for.
    pub volume: String,
    /// SHA-256 of the content.
    pub checksum: String,
    /// Why.
    pub reason: String,
}

/// What a worker is to do about replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// Copies to make.
    pub fetch: Vec<FetchReplica>,
    /// Copies to delete, as (volume, checksum).
    pub discard: Vec<(String, String)>,
    /// Files of managed tables to delete, as (volume, path): no table has them any more, and no query that began before can still be running.
    #[serde(default)]
    pub delete: Vec<(String, String)>,
    /// Files of managed tables whose bytes have changed: they are to be read no more.
    #[serde(default)]
    pub set_aside: Vec<SetAside>,
    /// A wish to read all files of managed tables and all copies again at once: 0 for none, another number for another wish.
    #[serde(default)]
    pub scrub: u64,
}

/// A file of a managed table as it was read from a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedFile {
    /// Volume name.
    pub volume: String,
    /// Path below the volume.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time in nanoseconds.
    pub version: i64,
    /// SHA-256 of what was read, in hexadecimal.
    pub checksum: String,
}

/// A file whose bytes are not those that were stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Volume name.
    pub volume: String,
    /// Path below the volume.
    pub path: String,
    /// Modification time in nanoseconds.
    pub version: i64,
    /// SHA-256 of what was stored.
    pub checksum: String,
}

/// A copy to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReplica {
    /// Volume that it goes to.
    pub volume: String,
    /// SHA-256 of the content.
    pub checksum: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Where it can be had: URL of a worker and path below the same volume there.
    pub sources: Vec<(String, String)>,
}

/// A column of a file in a worker's column cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedColumn {
    /// URL of the file: `node://volume/path` or `s3://bucket/path`.
    pub file: String,
    /// Name of the column, or the expression.
    pub column: String,
    /// Whether it is an expression over columns.
    pub computed: bool,
    /// Row groups that are there.
    pub row_groups: u64,
    /// Those of them that stay until UNCACHE TABLE.
    pub pinned_row_groups: u64,
    /// Bytes of memory.
    pub bytes: u64,
}

/// A Parquet file of a volume, with the facts of its footer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// Volume name.
    pub volume: String,
    /// Path below the volume, `/`-separated.
    pub path: String,
    /// Facts of the file.
    pub facts: FileFacts,
}

/// What a catalog must know of a Parquet file to plan over it without opening it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Version: modification time in nanoseconds for disks, a hash of the entity tag for buckets. With the size, it identifies the content.
    pub version: i64,
    /// Rows in all.
    pub row_count: u64,
    /// Row groups: where each starts in the file and how many rows it has.
    pub row_groups: Vec<RowGroupFacts>,
    /// Arrow schema as an IPC message, base64.
    pub schema_ipc: String,
    /// Hash of the footer's bytes.
    pub footer_hash: String,
    /// Hash of the whole content, when it was asked for.
    pub checksum: Option<String>,
    /// Statistics a column, in schema order.
    pub columns: Vec<ColumnFacts>,
}

/// Place and size of a row group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RowGroupFacts {
    /// Byte offset of its first page: what range-limited readers compare with.
    pub offset: u64,
    /// Rows.
    pub rows: u64,
    /// Compressed bytes.
    pub bytes: u64,
}

/// Footer statistics of a column. Bounds, not exact values: writers may truncate strings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// Smallest value as an encoded scalar, base64.
    pub min: Option<String>,
    /// Largest value, likewise.
    pub max: Option<String>,
    /// Nulls.
    pub null_count: Option<u64>,
}

/// A file that is no readable Parquet file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnreadableFile {
    /// Volume name.
    pub volume: String,
    /// Path below the volume; empty for the files of an overfull volume that were not listed.
    pub path: String,
    /// What the reader said.
    pub reason: String,
}

/// Compares secrets without a data-dependent early exit.
pub fn secrets_equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0u8, |acc, (a, b)| acc | (a ^ b)) == 0
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
