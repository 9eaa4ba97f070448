//! Which nodes are there, how long ago each was heard, and what their volumes hold.

use crate::control::{CachedColumn, Heartbeat, HeartbeatAnswer, Register, UnreadableFile, VolumeFile};
use crate::error::{Error, Result};
use crate::limits;
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// Life of a node as the coordinator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Heard within the last three seconds.
    Live,
    /// Silent for more than three seconds, or its data path just failed: takes no new fragments.
    Suspect,
    /// Silent for more than ten seconds: its inventory has expired.
    Dead,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        })
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
    /// URL for other nodes.
    pub address: String,
    /// Address its control calls come from.
    pub observed_address: Option<String>,
    /// Process id on its machine.
    pub pid: u32,
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
}

struct Node {
    register: Register,
    url: Url,
    observed: Option<SocketAddr>,
    heard: Instant,
    tripped_until: Option<Instant>,
    device: String,
    cached_bytes: u64,
    cached_columns: Arc<Vec<CachedColumn>>,
    epoch: u64,
    listed_at_ms: u64,
    files: Arc<BTreeMap<String, VolumeFile>>,
    unreadable: Vec<UnreadableFile>,
}

impl Node {
    fn state(&self, now: Instant) -> NodeState {
        let silent = now.duration_since(self.heard);
        if silent > limits::NODE_DEAD_AFTER {
            NodeState::Dead
        } else if silent > limits::NODE_SUSPECT_AFTER || self.tripped_until.is_some_and(|until| now < until) {
            NodeState::Suspect
        } else {
            NodeState::Live
        }
    }
}

/// All nodes that ever registered in this coordinator's life.
#[derive(Default)]
pub struct Membership {
    nodes: RwLock<HashMap<String, Node>>,
    wanted_checksums: RwLock<HashSet<String>>,
}

impl Membership {
    /// Takes a worker in, or a new life of one.
    pub fn register(&self, register: Register, observed: Option<SocketAddr>) -> Result<()> {
        let url = Url::parse(&register.address).map_err(|error| {
            Error::user(format!("node {} advertises '{}', which is no URL: {error}", register.node_id, register.address))
        })?;
        let mut nodes = self.nodes.write();
        if let Some(known) = nodes.get(&register.node_id) {
            let another_life = known.register.incarnation != register.incarnation;
            // Two processes with one id would serve each other's placements. A restarted node takes over its id at once when it comes
            // from the same address, because its predecessor cannot hold that port any more.
            if another_life && known.state(Instant::now()) == NodeState::Live && known.register.address != register.address {
                return Err(Error::user(format!(
                    "node id '{}' is already in use by the live worker at {} (pid {}): give each worker its own node_id",
                    register.node_id, known.register.address, known.register.pid
                )));
            }
        }
        tracing::info!(node = register.node_id, region = register.region, address = register.address, "worker registered");
        let node = Node {
            url,
            observed,
            heard: Instant::now(),
            tripped_until: None,
            device: register.device.clone(),
            cached_bytes: 0,
            cached_columns: Arc::default(),
            epoch: 0,
            listed_at_ms: 0,
            files: Arc::default(),
            unreadable: vec![],
            register,
        };
        nodes.insert(node.register.node_id.clone(), node);
        Ok(())
    }

    /// Notes a sign of life.
    pub fn heartbeat(&self, beat: Heartbeat) -> HeartbeatAnswer {
        let mut nodes = self.nodes.write();
        let Some(node) = nodes.get_mut(&beat.node_id).filter(|node| node.register.incarnation == beat.incarnation) else {
            return HeartbeatAnswer { register_again: true, ..Default::default() };
        };
        node.heard = Instant::now();
        node.cached_bytes = beat.cached_bytes;
        if let Some(columns) = beat.cached_columns {
            node.cached_columns = Arc::new(columns);
        }
        node.device = beat.device;
        if let Some(files) = beat.inventory {
            node.files = Arc::new(files.into_iter().map(|file| (format!("{}/{}", file.volume, file.path), file)).collect());
            node.unreadable = beat.unreadable;
            node.epoch = beat.inventory_epoch;
        }
        if node.epoch == beat.inventory_epoch {
            node.listed_at_ms = beat.listed_at_ms;
        }
        HeartbeatAnswer {
            register_again: false,
            acknowledged_epoch: node.epoch,
            wanted_checksums: self.wanted_checksums.read().iter().filter(|key| node.files.contains_key(*key)).cloned().collect(),
        }
    }

    /// A query's data path to this node failed: it takes no fragments for a short while, and then only if it was heard.
    pub fn trip(&self, node_id: &str) {
        if let Some(node) = self.nodes.write().get_mut(node_id) {
            tracing::warn!(node = node_id, "data path failed; the node is suspect");
            node.tripped_until = Some(Instant::now() + limits::NODE_SUSPECT_AFTER);
        }
    }

    /// Workers that may take fragments now, by node id.
    pub fn live(&self) -> Vec<LiveNode> {
        let now = Instant::now();
        let nodes = self.nodes.read();
        let mut live: Vec<_> = nodes.values().filter(|node| node.state(now) == NodeState::Live).map(live_node).collect();
        live.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        live
    }

    /// Every node that is not dead, with its files by `volume/path`.
    pub fn inventories(&self) -> BTreeMap<String, (NodeState, Arc<BTreeMap<String, VolumeFile>>)> {
        let now = Instant::now();
        let nodes = self.nodes.read();
        nodes
            .values()
            .filter(|node| node.state(now) != NodeState::Dead)
            .map(|node| (node.register.node_id.clone(), (node.state(now), node.files.clone())))
            .collect()
    }

    /// What is in the column cache of every node that is not dead, as of its last heartbeat, by node id.
    pub fn cached_columns(&self) -> BTreeMap<String, Arc<Vec<CachedColumn>>> {
        let now = Instant::now();
        let nodes = self.nodes.read();
        let alive = nodes.values().filter(|node| node.state(now) != NodeState::Dead);
        alive.map(|node| (node.register.node_id.clone(), node.cached_columns.clone())).collect()
    }

    /// Unreadable files of one volume below a prefix, as `(node, path, reason)`.
    pub fn unreadable(&self, volume: &str, prefix: &str) -> Vec<(String, String, String)> {
        let nodes = self.nodes.read();
        nodes
            .values()
            .flat_map(|node| node.unreadable.iter().map(|file| (node.register.node_id.clone(), file)))
            .filter(|(_, file)| file.volume == volume && file.path.starts_with(prefix))
            .map(|(node, file)| (node, file.path.clone(), file.reason.clone()))
            .collect()
    }

    /// Waits until every live node has listed its volumes again after this call began, at most `wait`. A node's own clock is only
    /// compared with itself.
    pub async fn await_fresh_inventories(&self, wait: Duration) -> Result<()> {
        let before: HashMap<String, u64> = self.nodes.read().iter().map(|(id, node)| (id.clone(), node.listed_at_ms)).collect();
        let deadline = Instant::now() + wait;
        loop {
            let behind: Vec<String> = {
                let now = Instant::now();
                let nodes = self.nodes.read();
                nodes
                    .iter()
                    .filter(|(_, node)| node.state(now) == NodeState::Live)
                    .filter(|(id, node)| before.get(*id).is_some_and(|&listed| node.listed_at_ms <= listed))
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

    /// Asks every holder of these files (`volume/path`) to hash their content.
    pub fn want_checksums(&self, keys: impl IntoIterator<Item = String>) {
        self.wanted_checksums.write().extend(keys);
    }

    /// Every node, for people.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let now = Instant::now();
        let nodes = self.nodes.read();
        let mut all: Vec<_> = nodes
            .values()
            .map(|node| NodeInfo {
                node_id: node.register.node_id.clone(),
                role: "worker".into(),
                region: node.register.region.clone(),
                address: node.register.address.clone(),
                observed_address: node.observed.map(|address| address.to_string()),
                pid: node.register.pid,
                state: node.state(now),
                version: node.register.version.clone(),
                device: node.device.clone(),
                cached_bytes: node.cached_bytes,
                cpu_threads: node.register.cpu_threads,
                heartbeat_age_ms: now.duration_since(node.heard).as_millis() as u64,
                file_count: node.files.len(),
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
    }
}
