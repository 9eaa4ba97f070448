//! Which nodes are there, how long ago each was heard, and what their volumes hold.
//!
//! [`Membership`] is what planning needs to know; [`Heartbeats`] knows it from the workers' own reports.

use super::clock::Clock;
use super::held_files::HeldFiles;
use crate::catalog::{BadFile, Table};
use crate::control::packed::PackedInventory;
use crate::control::{
    Budgets, CachedColumn, FailedCopy, HashedFile, Heartbeat, HeartbeatAnswer, Orders, Register, Replica, UnreadableFile, now_ms,
};
use crate::error::{Error, Result};
use crate::limits;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// Which nodes there are and what they hold. Workers report to the coordinator ([`Heartbeats`]); whoever watches a cluster manager or a gossip
/// ring instead implements this.
pub trait Membership: Send + Sync {
    /// Workers that may take fragments now, by node id.
    fn live(&self) -> Vec<LiveNode>;
    /// What every node that is not dead holds, by node id.
    fn inventories(&self) -> BTreeMap<String, Inventory>;
    /// Every node, for people.
    fn nodes(&self) -> Vec<NodeInfo>;
    /// A query's data path to this node failed: it takes no fragments for a while, each time longer, and then only if it was heard.
    fn trip(&self, node_id: &str);
    /// Asks every holder of these files (`volume/path`) to hash their content.
    fn want_checksums(&self, keys: &[String]);
    /// What the nodes are to do about their replicas, from now on.
    fn give_orders(&self, orders: HashMap<String, Orders>);
    /// Copies that nodes could not make, each told once, as (node, failure).
    fn failed_copies(&self) -> Vec<(String, FailedCopy)>;
    /// What scrubbers have read, each told once, as (node, file).
    fn hashed(&self) -> Vec<(String, HashedFile)>;
    /// Asks a node to read all that it keeps for the cluster again at once.
    fn ask_scrub(&self, node_id: &str);
    /// What is in the column cache of every node that is not dead, as of its last report, by node id.
    fn cached_columns(&self) -> BTreeMap<String, Arc<Vec<CachedColumn>>>;
    /// Unreadable files of one volume on nodes that are not dead.
    ///
    /// # Errors
    /// When a node has too many of them to name, or too many files to list.
    fn unreadable(&self, volume: &str) -> Result<Vec<BadFile>>;
    /// A node has written a file of a managed table: it holds it from now on, although its next listing is yet to come.
    fn wrote(&self, node_id: &str, file: WrittenFile);
    /// Waits until every live node knows this version of the rules of residency, or a later one; at most `wait`. Returns whether they do.
    fn await_policy(&self, version: i64, wait: Duration) -> BoxFuture<'_, bool>;
    /// Waits until every live node has listed its volumes again after this call began, at most `wait`.
    fn await_fresh_inventories(&self, wait: Duration) -> BoxFuture<'_, Result<()>>;
}

/// Life of a node as the coordinator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Heard within the last three seconds.
    Live,
    /// Registered, but has not said yet what it holds.
    Joining,
    /// Silent for more than three seconds, or its data path just failed: takes no new fragments.
    Suspect,
    /// It said that it is about to end: takes no new fragments, those it has run on.
    Leaving,
    /// Silent for more than ten seconds: its inventory has expired.
    Dead,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Joining => "joining",
            Self::Suspect => "suspect",
            Self::Leaving => "leaving",
            Self::Dead => "dead",
        })
    }
}

/// What a node holds.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Life of the node.
    pub state: NodeState,
    /// Whether it is suspect because nothing was heard of it, and not because of calls that failed.
    pub silent: bool,
    /// Region label.
    pub region: String,
    /// URL of its worker service.
    pub url: Url,
    /// Names of its volumes.
    pub volumes: Arc<[String]>,
    /// Regions of those that do not lie in the node's.
    pub volume_regions: Arc<BTreeMap<String, String>>,
    /// Its files, as of its last listing.
    pub files: Arc<HeldFiles>,
    /// Files that it has written since, by `volume/path`.
    pub written: Arc<HashMap<String, WrittenFile>>,
    /// Copies that the cluster made, by volume and checksum.
    pub replicas: Arc<HashMap<(String, String), Replica>>,
    /// Bytes that are free on the disk of each volume.
    pub free_bytes: BTreeMap<String, u64>,
    /// Volumes whose folders are not those that are expected, with the reason and the way out.
    pub missing_volumes: Arc<BTreeMap<String, String>>,
    /// Files of managed tables whose bytes have changed, by `volume/path`, with what is known of it.
    pub damaged: Arc<HashMap<String, String>>,
}

/// A file of a managed table that a node has just written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// `volume/path`.
    pub key: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time in nanoseconds.
    pub version: i64,
    /// When it was there, in Unix milliseconds of the node's clock: a listing that began later shows it.
    pub at_ms: u64,
}

impl Inventory {
    /// Size and version of the file at `volume/path`.
    pub fn file(&self, key: &str) -> Option<(u64, i64)> {
        let listed = self.files.get(key).map(|held| (held.size_bytes, held.version));
        listed.or_else(|| self.written.get(key).map(|written| (written.size_bytes, written.version)))
    }

    /// Where what lies in a volume is.
    pub fn region_of(&self, volume: &str) -> &str {
        self.volume_regions.get(volume).unwrap_or(&self.region)
    }

    /// Whether files of a table may lie in this volume, and be read from it here.
    pub fn may_hold(&self, table: &Table, volume: &str) -> bool {
        table.allows_region(&self.region) && table.allows_region(self.region_of(volume))
    }

    /// The replica of this content in this volume.
    pub fn replica(&self, volume: &str, checksum: &str) -> Option<&Replica> {
        self.replicas.get(&(volume.to_string(), checksum.to_string()))
    }
}

/// A node, for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct NodeInfo {
    /// Node id.
    pub node_id: String,
    /// `worker` or `coordinator`.
    pub role: String,
    /// Region label.
    pub region: String,
    /// Regions of volumes that do not lie in it.
    pub volume_regions: BTreeMap<String, String>,
    /// URL for other nodes.
    pub address: String,
    /// Address its control calls come from.
    pub observed_address: Option<String>,
    /// Process id on its machine.
    pub pid: u32,
    /// The process among all that ever had the node's id. Process ids do not tell: in a container each is 1.
    #[serde(skip)]
    pub incarnation: String,
    /// Life.
    pub state: NodeState,
    /// Release.
    pub version: String,
    /// Card, or why none.
    pub device: String,
    /// Bytes in its column cache.
    pub cached_bytes: u64,
    /// Cores for fragments.
    pub cpu_threads: usize,
    /// Milliseconds since it was last heard.
    pub heartbeat_age_ms: u64,
    /// Readable files in its volumes.
    pub file_count: usize,
    /// Copies of other nodes' files that it keeps.
    pub replica_count: usize,
    /// Tasks that it ran when it was last heard.
    pub running_tasks: u64,
    /// Tasks that it runs at once; 0 when it does not say.
    pub max_tasks: u64,
    /// Bytes of memory that operators held when it was last heard.
    pub memory_reserved_bytes: u64,
    /// Bytes of spilled data on its disk when it was last heard.
    pub spilled_bytes: u64,
    /// What it may use.
    #[serde(skip)]
    pub budgets: Budgets,
    /// How far its clock is ahead of the coordinator's, in milliseconds; behind when negative. The way of the message is part of it.
    pub clock_ahead_ms: i64,
}

impl NodeInfo {
    /// Where what lies in a volume of the node is.
    pub fn region_of(&self, volume: &str) -> &str {
        self.volume_regions.get(volume).unwrap_or(&self.region)
    }
}

/// A live worker, as a query's placement sees it.
#[derive(Debug, Clone)]
pub struct LiveNode {
    /// Node id.
    pub node_id: String,
    /// Region label.
    pub region: String,
    /// URL of its worker service.
    pub url: Url,
    /// Cores for fragments.
    pub cpu_threads: usize,
    /// Whether it serves files; one that does not is there for what lies above scans.
    pub has_volumes: bool,
    /// Tasks that it ran when it was last heard.
    pub running_tasks: u64,
    /// Tasks that it runs at once; 0 when it does not say.
    pub max_tasks: u64,
    /// Whether it keeps parts of results for clients.
    pub keeps_parts: bool,
    /// URL that clients fetch them from.
    pub client_url: Option<Arc<str>>,
}

impl LiveNode {
    /// Its share of the bytes to read, in proportion to others'.
    pub fn weight(&self) -> u128 {
        self.cpu_threads.max(1) as u128
    }

    /// What its work in flight counts as, in bytes to read. Nothing while each task has a core: a choice that changes with every small load
    /// would leave the same columns in the caches of all replicas.
    pub fn busy_bytes(&self) -> u64 {
        self.running_tasks.saturating_sub(2 * self.cpu_threads as u64) * limits::BUSY_TASK_BYTES
    }
}

struct Node {
    register: Register,
    url: Url,
    client_url: Option<Arc<str>>,
    volumes: Arc<[String]>,
    volume_regions: Arc<BTreeMap<String, String>>,
    observed: Option<SocketAddr>,
    heard: Instant,
    tripped: Option<Trip>,
    leaving: bool,
    policy_version: Option<i64>,
    running_tasks: u64,
    max_tasks: u64,
    memory_reserved_bytes: u64,
    spilled_bytes: u64,
    budgets: Budgets,
    clock_ahead_ms: i64,
    device: String,
    cached_bytes: u64,
    cached_columns: Arc<Vec<CachedColumn>>,
    epoch: u64,
    listed_at_ms: u64,
    /// That began after this moment of the coordinator's clock.
    listed_after_ms: Option<u64>,
    files: Arc<HeldFiles>,
    /// Files of managed tables that it has written since it listed them, by `volume/path`.
    written: Arc<HashMap<String, WrittenFile>>,
    replicas: Arc<HashMap<(String, String), Replica>>,
    free_bytes: BTreeMap<String, u64>,
    missing_volumes: Arc<BTreeMap<String, String>>,
    damaged: Arc<HashMap<String, String>>,
    scrub_asked: u64,
    unreadable: Vec<UnreadableFile>,
}

/// A breaker that is open.
#[derive(Clone, Copy)]
struct Trip {
    at: Instant,
    wait: Duration,
}

impl Node {
    fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.heard) > limits::NODE_SUSPECT_AFTER
    }

    fn state(&self, now: Instant) -> NodeState {
        if now.duration_since(self.heard) > limits::NODE_DEAD_AFTER {
            NodeState::Dead
        } else if self.is_silent(now) || self.tripped.is_some_and(|trip| now < trip.at + trip.wait) {
            NodeState::Suspect
        } else if self.leaving {
            NodeState::Leaving
        } else if self.epoch == 0 {
            NodeState::Joining
        } else {
            NodeState::Live
        }
    }
}

/// All nodes that ever registered in this coordinator's life.
pub struct Heartbeats {
    clock: Clock,
    began: Instant,
    nodes: RwLock<HashMap<String, Node>>,
    wanted_checksums: RwLock<HashSet<String>>,
    orders: RwLock<HashMap<String, Orders>>,
    failed_copies: RwLock<Vec<(String, FailedCopy)>>,
    hashed: RwLock<Vec<(String, HashedFile)>>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self::new(Clock::default())
    }
}

impl Heartbeats {
    /// Nobody yet, by this clock.
    pub fn new(clock: Clock) -> Self {
        let began = clock.now();
        Self {
            clock,
            began,
            nodes: RwLock::default(),
            wanted_checksums: RwLock::default(),
            orders: RwLock::default(),
            failed_copies: RwLock::default(),
            hashed: RwLock::default(),
        }
    }

    /// Takes a worker in, or a new life of one.
    pub fn register(&self, register: Register, observed: Option<SocketAddr>) -> Result<()> {
        let url = Url::parse(&register.address).map_err(|error| {
            Error::user(format!("node {} advertises '{}', which is no URL: {error}", register.node_id, register.address))
        })?;
        let mut nodes = self.nodes.write();
        self.check_name(&nodes, &register)?;
        tracing::info!(node = register.node_id, region = register.region, address = register.address, "worker registered");
        let node = Node {
            url,
            client_url: register.client_url.as_deref().map(Arc::from),
            volumes: register.volumes.as_slice().into(),
            volume_regions: Arc::new(register.volume_regions.clone()),
            observed,
            heard: self.clock.now(),
            tripped: None,
            leaving: false,
            policy_version: None,
            running_tasks: 0,
            max_tasks: 0,
            memory_reserved_bytes: 0,
            spilled_bytes: 0,
            budgets: Budgets::default(),
            clock_ahead_ms: 0,
            device: register.device.clone(),
            cached_bytes: 0,
            cached_columns: Arc::default(),
            epoch: 0,
            listed_at_ms: 0,
            listed_after_ms: None,
            files: Arc::default(),
            written: Arc::default(),
            replicas: Arc::default(),
            free_bytes: BTreeMap::new(),
            missing_volumes: Arc::default(),
            damaged: Arc::default(),
            scrub_asked: 0,
            unreadable: vec![],
            register,
        };
        nodes.insert(node.register.node_id.clone(), node);
        Ok(())
    }

    /// Whether a worker would be taken in under its name.
    ///
    /// # Errors
    /// When another live one has it.
    pub fn may_register(&self, register: &Register) -> Result<()> {
        self.check_name(&self.nodes.read(), register)
    }

    fn check_name(&self, nodes: &HashMap<String, Node>, register: &Register) -> Result<()> {
        let Some(known) = nodes.get(&register.node_id) else { return Ok(()) };
        let another_life = known.register.incarnation != register.incarnation;
        // Two processes with one id would serve each other's placements. A restarted node takes over its id at once when it comes
        // from the same address, because its predecessor cannot hold that port any more.
        if another_life && known.state(self.clock.now()) == NodeState::Live && known.register.address != register.address {
            return Err(Error::user(format!(
                "node id '{}' is already in use by the live worker at {} (pid {}): give each worker its own node_id",
                register.node_id, known.register.address, known.register.pid
            )));
        }
        Ok(())
    }

    /// Notes a sign of life.
    pub fn heartbeat(&self, mut beat: Heartbeat) -> HeartbeatAnswer {
        // Before the lock: a large inventory takes a while. A damaged one is not acknowledged, and comes again.
        let packed = beat.packed_inventory.take().map(Ok).or_else(|| beat.inventory.take().map(|files| PackedInventory::pack(&files)));
        let held = packed.map(|packed| packed.and_then(HeldFiles::new));
        let held = held.and_then(|held| held.inspect_err(|error| tracing::error!(node = beat.node_id, %error, "inventory")).ok());
        let mut nodes = self.nodes.write();
        let Some(node) = nodes.get_mut(&beat.node_id).filter(|node| node.register.incarnation == beat.incarnation) else {
            return HeartbeatAnswer { register_again: true, ..Default::default() };
        };
        let mut failed = self.failed_copies.write();
        let room = limits::REPLICA_ORDERS_MAX.saturating_sub(failed.len());
        failed.extend(beat.failed_copies.into_iter().take(room).map(|failure| (beat.node_id.clone(), failure)));
        drop(failed);
        let mut hashed = self.hashed.write();
        let room = limits::SCRUBBED_WAITING_MAX.saturating_sub(hashed.len());
        // What finds no room is read again with the next round.
        hashed.extend(beat.hashed.into_iter().take(room).map(|file| (beat.node_id.clone(), file)));
        drop(hashed);
        node.heard = self.clock.now();
        node.leaving = beat.leaving;
        node.policy_version = beat.policy_version;
        node.running_tasks = beat.running_tasks;
        node.max_tasks = beat.max_tasks;
        (node.memory_reserved_bytes, node.spilled_bytes, node.budgets) = (beat.memory_reserved_bytes, beat.spilled_bytes, beat.budgets);
        node.clock_ahead_ms = beat.sent_at_ms.map_or(0, |sent| sent as i64 - now_ms() as i64);
        node.free_bytes = beat.free_bytes;
        if *node.missing_volumes != beat.missing_volumes {
            node.missing_volumes = Arc::new(beat.missing_volumes);
        }
        node.cached_bytes = beat.cached_bytes;
        if let Some(columns) = beat.cached_columns {
            node.cached_columns = Arc::new(columns);
        }
        node.device = beat.device;
        if let Some(held) = held {
            node.files = Arc::new(held);
            let key = |replica: &Replica| (replica.volume.clone(), replica.checksum.clone());
            node.replicas = Arc::new(beat.replicas.into_iter().map(|replica| (key(&replica), replica)).collect());
            node.unreadable = beat.unreadable;
            let damaged = beat.damaged.into_iter().map(|file| (format!("{}/{}", file.volume, file.path), file.reason));
            node.damaged = Arc::new(damaged.collect());
            node.epoch = beat.inventory_epoch;
        }
        if node.epoch == beat.inventory_epoch {
            (node.listed_at_ms, node.listed_after_ms) = (beat.listed_at_ms, beat.listed_after_ms);
            if !node.written.is_empty() {
                Arc::make_mut(&mut node.written).retain(|_, file| file.at_ms >= beat.listed_at_ms);
            }
        }
        HeartbeatAnswer {
            register_again: false,
            acknowledged_epoch: node.epoch,
            clock_ms: Some(self.clock_ms()),
            wanted_checksums: self.wanted_checksums.read().iter().filter(|key| node.files.contains(key)).cloned().collect(),
            orders: Orders { scrub: node.scrub_asked, ..self.orders.read().get(&beat.node_id).cloned().unwrap_or_default() },
            policy: None,
        }
    }
}

impl Heartbeats {
    async fn policy_known(&self, version: i64, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            let known = {
                let now = self.clock.now();
                let nodes = self.nodes.read();
                // Releases without rules of residency say nothing; their nodes are told apart by their protocol.
                let knows = |node: &Node| node.register.protocol_version < 3 || node.policy_version.is_some_and(|known| known >= version);
                nodes.values().filter(|node| node.state(now) == NodeState::Live).all(knows)
            };
            if known || Instant::now() >= deadline {
                return known;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Milliseconds since the start.
    fn clock_ms(&self) -> u64 {
        self.clock.now().saturating_duration_since(self.began).as_millis() as u64
    }

    /// Waits until each live node has listed its volumes anew. A listing that was under way already may have passed by what is asked for.
    async fn all_listed_again(&self, wait: Duration) -> Result<()> {
        let asked_ms = self.clock_ms();
        // Of releases that do not know this clock: a node's own is only compared with itself.
        let before: HashMap<String, u64> = self.nodes.read().iter().map(|(id, node)| (id.clone(), node.listed_at_ms)).collect();
        let deadline = Instant::now() + wait;
        loop {
            let behind: Vec<String> = {
                let now = self.clock.now();
                let nodes = self.nodes.read();
                nodes
                    .iter()
                    .filter(|(_, node)| node.state(now) == NodeState::Live)
                    .filter(|(id, node)| {
                        let known = before.get(*id);
                        known.is_some_and(|&listed| match node.listed_after_ms {
                            Some(after) => after <= asked_ms,
                            None => node.listed_at_ms <= listed,
                        })
                    })
                    .map(|(id, _)| id.clone())
                    .collect()
            };
            if behind.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::retry(format!(
                    "node {} is live but did not report its volumes within {} s: try again, or stop the node",
                    behind.join(", "),
                    wait.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Membership for Heartbeats {
    fn trip(&self, node_id: &str) {
        if let Some(node) = self.nodes.write().get_mut(node_id) {
            let now = self.clock.now();
            // Several queries that fail at once are one failure.
            if node.tripped.is_some_and(|trip| now < trip.at + trip.wait) {
                return;
            }
            let again = node.tripped.filter(|trip| now < trip.at + limits::BREAKER_FORGETS_AFTER);
            let wait = again.map_or(limits::NODE_SUSPECT_AFTER, |trip| (trip.wait * 2).min(limits::BREAKER_WAIT_MAX));
            tracing::warn!(node = node_id, wait_s = wait.as_secs(), "a call to the node failed: it gets no new tasks for a while");
            node.tripped = Some(Trip { at: now, wait });
        }
    }

    fn live(&self) -> Vec<LiveNode> {
        let now = self.clock.now();
        let nodes = self.nodes.read();
        let mut live: Vec<_> = nodes.values().filter(|node| node.state(now) == NodeState::Live).map(live_node).collect();
        live.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        live
    }

    fn inventories(&self) -> BTreeMap<String, Inventory> {
        let now = self.clock.now();
        let nodes = self.nodes.read();
        let inventory = |node: &Node| Inventory {
            state: node.state(now),
            silent: node.is_silent(now),
            region: node.register.region.clone(),
            url: node.url.clone(),
            volumes: node.volumes.clone(),
            volume_regions: node.volume_regions.clone(),
            files: node.files.clone(),
            written: node.written.clone(),
            replicas: node.replicas.clone(),
            free_bytes: node.free_bytes.clone(),
            missing_volumes: node.missing_volumes.clone(),
            damaged: node.damaged.clone(),
        };
        let alive = nodes.values().filter(|node| node.state(now) != NodeState::Dead);
        alive.map(|node| (node.register.node_id.clone(), inventory(node))).collect()
    }

    fn wrote(&self, node_id: &str, file: WrittenFile) {
        if let Some(node) = self.nodes.write().get_mut(node_id).filter(|node| file.at_ms >= node.listed_at_ms) {
            Arc::make_mut(&mut node.written).insert(file.key.clone(), file);
        }
    }

    fn give_orders(&self, orders: HashMap<String, Orders>) {
        *self.orders.write() = orders;
    }

    fn failed_copies(&self) -> Vec<(String, FailedCopy)> {
        std::mem::take(&mut *self.failed_copies.write())
    }

    fn hashed(&self) -> Vec<(String, HashedFile)> {
        std::mem::take(&mut *self.hashed.write())
    }

    fn ask_scrub(&self, node_id: &str) {
        if let Some(node) = self.nodes.write().get_mut(node_id) {
            // Another number than the last, also of a coordinator before this one.
            node.scrub_asked = now_ms().max(node.scrub_asked + 1);
        }
    }

    fn cached_columns(&self) -> BTreeMap<String, Arc<Vec<CachedColumn>>> {
        let now = self.clock.now();
        let nodes = self.nodes.read();
        let alive = nodes.values().filter(|node| node.state(now) != NodeState::Dead);
        alive.map(|node| (node.register.node_id.clone(), node.cached_columns.clone())).collect()
    }

    fn unreadable(&self, volume: &str) -> Result<Vec<BadFile>> {
        let now = self.clock.now();
        let nodes = self.nodes.read();
        let mut found = vec![];
        for node in nodes.values().filter(|node| node.state(now) != NodeState::Dead) {
            let (id, most) = (&node.register.node_id, limits::UNREADABLE_FILES_MAX);
            if node.unreadable.len() > most && node.volumes.iter().any(|served| served == volume) {
                return Err(Error::user(format!(
                    "node {id} has more than {most} files in its volumes that cannot be read as Parquet, the last is {}: mend them, or move them out",
                    node.unreadable[most].path
                )));
            }
            let of_volume = node.unreadable.iter().filter(|file| file.volume == volume);
            if let Some(overfull) = of_volume.clone().find(|file| file.path.is_empty()) {
                return Err(Error::user(format!("volume '{volume}' of node {id}: {}; put some into another volume", overfull.reason)));
            }
            found.extend(of_volume.map(|file| BadFile { node: Some(id.clone()), path: file.path.clone(), reason: file.reason.clone() }));
        }
        Ok(found)
    }

    fn await_policy(&self, version: i64, wait: Duration) -> BoxFuture<'_, bool> {
        Box::pin(self.policy_known(version, wait))
    }

    fn await_fresh_inventories(&self, wait: Duration) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.all_listed_again(wait))
    }

    fn want_checksums(&self, keys: &[String]) {
        self.wanted_checksums.write().extend(keys.iter().cloned());
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        let now = self.clock.now();
        let nodes = self.nodes.read();
        let mut all: Vec<_> = nodes
            .values()
            .map(|node| NodeInfo {
                node_id: node.register.node_id.clone(),
                role: "worker".into(),
                region: node.register.region.clone(),
                volume_regions: node.register.volume_regions.clone(),
                address: node.register.address.clone(),
                observed_address: node.observed.map(|address| address.to_string()),
                pid: node.register.pid,
                incarnation: node.register.incarnation.clone(),
                state: node.state(now),
                version: node.register.version.clone(),
                device: node.device.clone(),
                cached_bytes: node.cached_bytes,
                cpu_threads: node.register.cpu_threads,
                heartbeat_age_ms: now.duration_since(node.heard).as_millis() as u64,
                file_count: node.files.len(),
                replica_count: node.replicas.len(),
                running_tasks: node.running_tasks,
                max_tasks: node.max_tasks,
                memory_reserved_bytes: node.memory_reserved_bytes,
                spilled_bytes: node.spilled_bytes,
                budgets: node.budgets,
                clock_ahead_ms: node.clock_ahead_ms,
            })
            .collect();
        all.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        all
    }
}

fn live_node(node: &Node) -> LiveNode {
    LiveNode {
        node_id: node.register.node_id.clone(),
        region: node.register.region.clone(),
        url: node.url.clone(),
        cpu_threads: node.register.cpu_threads,
        has_volumes: !node.volumes.is_empty(),
        running_tasks: node.running_tasks,
        max_tasks: node.max_tasks,
        keeps_parts: node.register.keeps_parts,
        client_url: node.client_url.clone(),
    }
}
