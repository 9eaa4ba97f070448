//! Keeps as many copies of every file as its table asks for.
//!
//! Once a second what there is (the nodes' own reports) is compared with what there should be (the catalog), and every node gets its orders with the
//! answer to its next heartbeat: copies to make, copies to delete. Orders are derived anew each time, so nothing is lost when a node or the
//! coordinator ends in between.
//!
//! ```text
//!   lineitem/part-1, replicas = 2     node-1 original   node-2 dead for 30 s   node-3 -     ──►   node-3: fetch from node-1
//!   lineitem/part-2, replicas = 2     node-2 original   node-3 replica         node-1 -     ──►   node-1: fetch from node-3
//!   region/part-1,   replicas = 1     node-1 original   node-3 replica                      ──►   node-3: discard, after a minute
//! ```
//!
//! Copies never go to a region that their table is not allowed in, and originals are never deleted.

use super::CoordinatorInner;
use super::clock::Clock;
use super::damaged_copies::DamagedCopies;
use super::membership::{Inventory, NodeState};
use super::node_log::NodeLog;
use super::{drains, unknown_files};
use crate::catalog::store::CatalogStore;
use crate::catalog::{CatalogFile, Snapshot, Table};
use crate::control::{FetchReplica, Orders, now_ms};
use crate::error::Result;
use crate::limits;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A copy: node, volume, checksum.
type CopyKey = (String, String, String);

/// What is to be done now.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// Orders by node id.
    pub orders: HashMap<String, Orders>,
    /// Files (`volume/path`) whose content is to be hashed.
    pub want_checksums: Vec<String>,
    /// Hashes that nodes reported and the catalog lacks, as (table id, file id, checksum).
    pub learned: Vec<(i64, i64, String)>,
    /// Copies that are missing and cannot be made now, as (file, reason); for people.
    pub stuck: Vec<(String, String)>,
}

/// Decides, and remembers what must not be decided anew each second.
pub struct Replicator {
    clock: Clock,
    /// How long a silent node is waited for before its copies count as lost.
    grace: Duration,
    started: Instant,
    /// Whether those who were here before the coordinator's last start have had the time to tell it what they hold.
    settled: bool,
    /// What each node held when it was last there.
    seen: BTreeMap<String, (Instant, Inventory)>,
    /// Copies on the way: a node that was chosen stays chosen.
    chosen: HashSet<CopyKey>,
    /// Copies that failed, and when.
    failed: HashMap<CopyKey, Instant>,
    /// Copies that nobody needs, and since when.
    surplus: HashMap<CopyKey, Instant>,
}

/// Where a file's copies are.
#[derive(Default)]
struct Copies<'a> {
    /// Present on nodes that stay.
    whole: Vec<&'a str>,
    /// Present on nodes that are to be emptied.
    draining: Vec<&'a str>,
    /// On nodes that are silent, but not for long.
    expected: usize,
    /// Of the present ones, those that the cluster made.
    made: Vec<&'a str>,
}

/// One step's view.
struct Step<'a> {
    now: Instant,
    snapshot: &'a Snapshot,
    there: &'a BTreeMap<String, Inventory>,
    /// Bytes of copies that each node has made or was chosen for.
    made_bytes: BTreeMap<&'a str, u64>,
    /// Copies that are as they should be.
    wanted: HashSet<CopyKey>,
    decision: Decision,
    ordered: usize,
}

impl Replicator {
    /// Waits for `grace` before a silent node's copies are made elsewhere.
    pub fn new(grace: Duration, clock: Clock) -> Self {
        Self {
            grace,
            started: clock.now(),
            clock,
            settled: false,
            seen: BTreeMap::new(),
            chosen: HashSet::new(),
            failed: HashMap::new(),
            surplus: HashMap::new(),
        }
    }

    /// A node could not make a copy.
    pub fn failed(&mut self, node: &str, volume: &str, checksum: &str) {
        let key = (node.to_string(), volume.to_string(), checksum.to_string());
        self.chosen.remove(&key);
        self.failed.insert(key, self.clock.now());
    }

    /// Compares what there is with what there should be.
    pub fn decide(&mut self, snapshot: &Snapshot, there: &BTreeMap<String, Inventory>) -> Decision {
        let now = self.clock.now();
        for (node, inventory) in there {
            self.seen.insert(node.clone(), (now, inventory.clone()));
        }
        let grace = self.grace;
        self.seen.retain(|_, (last, _)| now < *last + grace);
        self.failed.retain(|_, at| now < *at + limits::REPLICA_RETRY_WAIT);
        self.chosen.retain(|(node, volume, checksum)| {
            there.get(node).is_some_and(|inventory| inventory.state != NodeState::Dead && inventory.replica(volume, checksum).is_none())
        });
        self.settled |=
            now >= self.started + grace || (now >= self.started + limits::REPLICATION_SETTLE && all_homes_there(snapshot, there));
        let settled = self.settled;
        let made_bytes = there.iter().map(|(node, held)| (node.as_str(), held.replicas.values().map(|replica| replica.size_bytes).sum()));
        let mut step = Step {
            now,
            snapshot,
            there,
            made_bytes: made_bytes.collect(),
            wanted: HashSet::new(),
            decision: Decision::default(),
            ordered: 0,
        };
        let made: HashSet<&str> = there.values().flat_map(|held| held.replicas.keys().map(|(_, checksum)| checksum.as_str())).collect();
        let has_copies = |file: &CatalogFile| file.checksum.as_deref().is_some_and(|checksum| made.contains(checksum));
        for table in snapshot.tables() {
            // Most tables of a large catalog ask for nothing and need no look at their files.
            let asks = table.replicas > 1 || !snapshot.draining.is_empty();
            if !asks && made.is_empty() {
                continue;
            }
            for file in table.files.iter().filter(|file| asks || has_copies(file)) {
                self.decide_file(&mut step, table, file, settled);
            }
        }
        if settled {
            self.discard(&mut step);
        }
        step.decision
    }

    fn decide_file(&mut self, step: &mut Step, table: &Table, file: &CatalogFile, settled: bool) {
        let Some(volume) = file.volume() else { return };
        let copies = self.copies(step, table, file, volume);
        let desired = table.replicas as usize;
        let short = desired.saturating_sub(copies.whole.len() + copies.expected);
        if table.replicas <= 1 && copies.draining.is_empty() && copies.made.is_empty() {
            return;
        }
        let Some(checksum) = file.checksum.clone().or_else(|| step.learn(table, file, volume)) else { return };
        let key = |node: &str| (node.to_string(), volume.to_string(), checksum.clone());
        // Copies of the cluster's own beyond the number asked for are given up, those on nodes that are to be emptied first.
        let originals = copies.whole.iter().filter(|node| !copies.made.contains(node)).count();
        let kept: Vec<CopyKey> = {
            let mut made: Vec<&str> = copies.whole.iter().copied().filter(|node| copies.made.contains(node)).collect();
            made.sort_unstable();
            // While nodes are missing nothing is surplus: who returns may have lost its disk.
            let room = if copies.expected == 0 { desired.saturating_sub(originals) } else { made.len() };
            let leaving = copies.draining.iter().filter(|node| short > 0 && copies.made.contains(node));
            made.into_iter().take(room).chain(leaving.copied()).map(key).collect()
        };
        step.wanted.extend(kept);
        if short == 0 || !settled {
            return;
        }
        let mut sources: Vec<&str> = copies.whole.iter().chain(&copies.draining).copied().collect();
        if sources.is_empty() {
            return;
        }
        // Givers take turns.
        let first = file.file_id as usize % sources.len();
        sources.rotate_left(first);
        for _ in 0..short {
            if step.ordered >= limits::REPLICA_ORDERS_MAX {
                return;
            }
            let Some(target) = self.target(step, table, file, volume, &checksum) else {
                if step.decision.stuck.len() < 100 {
                    let reason = format!("no live node in {} has a volume '{volume}' with room and no copy yet", regions_text(table));
                    step.decision.stuck.push((file.display_name(), reason));
                }
                return;
            };
            self.chosen.insert(key(&target));
            step.wanted.insert(key(&target));
            step.ordered += 1;
            let source = |node: &&str| {
                let held = &step.there[*node];
                let path = held.replica(volume, &checksum).map_or_else(|| file.path.clone(), |replica| replica.path());
                (held.url.to_string(), path)
            };
            let order = FetchReplica {
                volume: volume.to_string(),
                checksum: checksum.clone(),
                size_bytes: file.size_bytes,
                sources: sources.iter().map(source).collect(),
            };
            *step.made_bytes.entry(step.there.get_key_value(&target).map_or("", |(node, _)| node)).or_default() += file.size_bytes;
            step.decision.orders.entry(target).or_default().fetch.push(order);
        }
    }

    fn copies<'a>(&self, step: &Step<'a>, table: &Table, file: &CatalogFile, volume: &str) -> Copies<'a> {
        let mut copies = Copies::default();
        let path = format!("{volume}/{}", file.path);
        let version = |node: &str| file.homes.iter().find(|(home, _)| **home == *node).map(|(_, version)| *version);
        let holds = |node: &str, held: &Inventory| {
            let original = version(node).is_some_and(|version| held.file(&path) == Some((file.size_bytes, version)));
            let made = file.checksum.as_ref().is_some_and(|checksum| held.replica(volume, checksum).is_some());
            (original, made)
        };
        for (node, held) in step.there.iter().filter(|(_, held)| held.state != NodeState::Dead && held.may_hold(table, volume)) {
            let (original, made) = holds(node, held);
            if !original && !made {
                continue;
            }
            if made && !original {
                copies.made.push(node);
            }
            if step.snapshot.draining.contains(node) { copies.draining.push(node) } else { copies.whole.push(node) }
        }
        for (node, (_, held)) in
            self.seen.iter().filter(|(node, _)| !step.there.contains_key(*node) && !step.snapshot.draining.contains(*node))
        {
            if holds(node, held) != (false, false) {
                copies.expected += 1;
            }
        }
        copies
    }

    /// The node that makes the next copy: one that was chosen before, else the one with the fewest bytes of copies.
    fn target(&self, step: &Step, table: &Table, file: &CatalogFile, volume: &str, checksum: &str) -> Option<String> {
        let key = |node: &str| (node.to_string(), volume.to_string(), checksum.to_string());
        let path = format!("{volume}/{}", file.path);
        let ordered = |node: &str| {
            let orders = step.decision.orders.get(node);
            orders.is_some_and(|orders| orders.fetch.iter().any(|order| order.volume == volume && order.checksum == checksum))
        };
        let able = step.there.iter().filter(|(node, held)| {
            let home = file.homes.iter().any(|(home, _)| **home == ***node) && held.file(&path).is_some();
            held.state == NodeState::Live
                && !step.snapshot.draining.contains(*node)
                && held.may_hold(table, volume)
                && held.volumes.iter().any(|own| own == volume)
                && !held.missing_volumes.contains_key(volume)
                && !home
                && held.replica(volume, checksum).is_none()
                && !ordered(node)
                && !self.failed.contains_key(&key(node))
                && held.free_bytes.get(volume).is_none_or(|free| *free > file.size_bytes.saturating_mul(2))
        });
        let rank = |(node, _): &(&String, &Inventory)| {
            (!self.chosen.contains(&key(node)), step.made_bytes.get(node.as_str()).copied().unwrap_or(0), (*node).clone())
        };
        able.min_by_key(rank).map(|(node, _)| node.clone())
    }

    /// Orders the end of copies that nobody has needed for a while.
    fn discard(&mut self, step: &mut Step) {
        let (now, wanted) = (step.now, &step.wanted);
        let held = step
            .there
            .iter()
            .flat_map(|(node, held)| held.replicas.keys().map(|(volume, checksum)| (node.clone(), volume.clone(), checksum.clone())));
        let surplus: HashSet<CopyKey> = held.filter(|key| !wanted.contains(key)).collect();
        self.surplus.retain(|key, _| surplus.contains(key));
        if surplus.is_empty() {
            return;
        }
        let catalogued: HashSet<&str> =
            step.snapshot.tables().flat_map(|table| table.files.iter().filter_map(|file| file.checksum.as_deref())).collect();
        for key in surplus {
            let since = *self.surplus.entry(key.clone()).or_insert(now);
            // A table that was dropped may come back, and its originals may be gone.
            let wait = if catalogued.contains(key.2.as_str()) { limits::REPLICA_DISCARD_AFTER } else { limits::REPLICA_ORPHAN_AFTER };
            if now >= since + wait {
                let (node, volume, checksum) = key;
                step.decision.orders.entry(node).or_default().discard.push((volume, checksum));
            }
        }
    }
}

impl Step<'_> {
    /// The checksum that a holder of the original has found meanwhile; asks for it where none has.
    fn learn(&mut self, table: &Table, file: &CatalogFile, volume: &str) -> Option<String> {
        let key = format!("{volume}/{}", file.path);
        let of = |(node, version): &(Arc<str>, i64)| {
            let found = self.there.get(&**node)?.files.get(&key)?;
            (found.version == *version).then(|| found.checksum.clone())?.map(String::from)
        };
        match file.homes.iter().find_map(of) {
            Some(checksum) => {
                if self.decision.learned.len() < limits::REPLICA_ORDERS_MAX {
                    self.decision.learned.push((table.table_id, file.file_id, checksum));
                }
                // From the next step on it is in the catalog, where a restart of the coordinator finds it.
                None
            }
            None => {
                if self.decision.want_checksums.len() < limits::REPLICA_ORDERS_MAX {
                    self.decision.want_checksums.push(key);
                }
                None
            }
        }
    }
}

/// Whether every node that holds an original is there and has listed its volumes.
fn all_homes_there(snapshot: &Snapshot, there: &BTreeMap<String, Inventory>) -> bool {
    let mut homes = snapshot.tables().flat_map(|table| table.files.iter().flat_map(|file| file.homes.iter()));
    homes.all(|(node, _)| there.get(&**node).is_some_and(|held| !held.files.is_empty()))
}

fn regions_text(table: &Table) -> String {
    if table.regions.is_empty() { "any region".into() } else { format!("region {}", table.regions.join(" or ")) }
}

/// Orders the end of managed tables' files that no table has any more, once no query that began while one had them can be running, and forgets
/// those that are gone.
async fn table_garbage(inner: &Arc<CoordinatorInner>, orders: &mut HashMap<String, Orders>, told: &mut usize) -> Result<()> {
    let looked = inner.clone();
    let discarded = super::blocking(move || looked.with_store(CatalogStore::discarded)).await?;
    let more = discarded.len().saturating_sub(std::mem::replace(told, discarded.len()));
    if discarded.is_empty() {
        return Ok(());
    }
    let inventories = inner.membership.inventories();
    let wait = Duration::from_millis(inner.timeout_ms(0)) + limits::TABLE_FILE_DISCARD_AFTER;
    let now = now_ms() as i64;
    if more > 0 {
        tracing::info!(
            files = more,
            after_s = wait.as_secs(),
            "files that no table has any more are deleted when no query can be reading them"
        );
    }
    let mut gone = vec![];
    for (file, _) in discarded.into_iter().filter(|(_, since)| now - since >= wait.as_millis() as i64) {
        let (node, volume, path) = &file;
        let Some(held) = inventories.get(node).filter(|held| held.state == NodeState::Live) else { continue };
        if held.missing_volumes.contains_key(volume) {
            // What is on its disk comes back with it.
            continue;
        }
        let key = format!("{volume}/{path}");
        if held.file(&key).is_none() && !held.damaged.contains_key(&key) {
            gone.push(file);
            continue;
        }
        let delete = &mut orders.entry(node.clone()).or_default().delete;
        if delete.len() < limits::TABLE_FILE_DELETES_MAX {
            delete.push((volume.clone(), path.clone()));
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let inner = inner.clone();
    super::blocking(move || inner.with_store(|store| store.forget_discarded(&gone))).await
}

/// Decides once a second until the coordinator is gone.
pub(crate) async fn run(coordinator: Weak<CoordinatorInner>, grace: Duration) {
    let mut replicator = Replicator::new(grace, Clock::default());
    let mut damaged = DamagedCopies::default();
    let (mut garbage, mut drained) = (0, HashSet::new());
    let mut told = HashSet::new();
    let mut nodes = NodeLog::default();
    let mut seen = HashSet::new();
    loop {
        tokio::time::sleep(limits::REPLICATION_INTERVAL).await;
        let Some(inner) = coordinator.upgrade() else { return };
        nodes.tell(&inner.membership.nodes());
        for (node, failure) in inner.membership.failed_copies() {
            tracing::warn!(node, volume = failure.volume, checksum = failure.checksum, reason = failure.reason, "a copy could not be made");
            replicator.failed(&node, &failure.volume, &failure.checksum);
        }
        if let Err(error) = unknown_files::look(&inner, &mut seen).await {
            tracing::error!(%error, "files of tables on nodes cannot be compared with the catalog");
        }
        let (snapshot, inventories) = (inner.snapshot(), inner.membership.inventories());
        let decision = replicator.decide(&snapshot, &inventories);
        for (file, reason) in &decision.stuck {
            if told.len() < limits::REPLICA_ORDERS_MAX && told.insert(file.clone()) {
                tracing::warn!(file, reason, "a copy is missing and cannot be made");
            }
        }
        inner.membership.want_checksums(&decision.want_checksums);
        let mut orders = decision.orders;
        drains::tell(&drains::files_left(&snapshot, &inventories), &mut drained);
        damaged.compare(&snapshot, &inventories, inner.membership.hashed());
        damaged.order(&mut orders);
        if let Err(error) = table_garbage(&inner, &mut orders, &mut garbage).await {
            tracing::error!(%error, "files that no table has any more cannot be looked up");
        }
        inner.membership.give_orders(orders);
        if !decision.learned.is_empty()
            && let Err(error) = inner.change_catalog(move |store| store.set_checksums(&decision.learned)).await
        {
            tracing::error!(%error, "checksums could not be noted in the catalog");
        }
    }
}
