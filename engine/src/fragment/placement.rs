//! Placement at one moment: which live node reads which file of a query, frozen for the life of one try.
//!
//! ```text
//!   part-1  node-1*  node-2          node-1: part-1, part-4
//!   part-2  node-2*  node-3    ──►   node-2: part-2
//!   part-3  node-3*  node-1          node-3: part-3, part-5
//!   part-4  node-2   node-1*         a node gets bytes in proportion to its cores; one that drains, or is busy, gets less
//! ```

use super::route::no_workers;
use crate::catalog::{CatalogFile, Snapshot, Table};
use crate::coordinator::membership::{Inventory, LiveNode, Membership, NodeState};
use crate::error::{Error, ErrorClass, Result};
use crate::residency::Reach;
use crate::residency::plan::Borders;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// Frozen when a query is planned: the leaf handler runs at planning, the route handler at execution, and both must see the same nodes.
#[derive(Debug)]
pub struct Placement {
    /// Slot i of every fragment over stored files runs on node i; a single node stands here twice.
    pub nodes: Vec<LiveNode>,
    tables: HashMap<i64, PlacedTable>,
    /// What the check of residency found, once the plan is there.
    pub borders: OnceLock<Borders>,
}

/// A table of a query.
#[derive(Debug)]
pub struct PlacedTable {
    /// The catalog's entry.
    pub table: Arc<Table>,
    /// Its files, in the catalog's order.
    pub files: Vec<PlacedFile>,
}

/// A file of a query and the copy of it that is read.
#[derive(Debug)]
pub struct PlacedFile {
    /// The catalog's entry.
    pub file: Arc<CatalogFile>,
    /// Slot that reads it.
    pub slot: usize,
    /// Version of the copy.
    pub version: i64,
    /// Path of the copy, where it is not the file's own.
    pub path: Option<String>,
}

/// A usable copy of a file.
struct Copy {
    node: usize,
    version: i64,
    path: Option<String>,
}

/// A table, and the copy that is read of each of its files.
type Chosen<'a> = (&'a Arc<Table>, Vec<Copy>);

/// What is known of the nodes while copies are looked for.
struct View<'a> {
    live: Vec<LiveNode>,
    /// Index in `live` by node id.
    by_id: HashMap<String, usize>,
    inventories: BTreeMap<String, Inventory>,
    draining: &'a BTreeSet<String>,
    avoid: &'a HashSet<String>,
}

impl Placement {
    /// Chooses a copy of every file of `tables` among the nodes that live now, leaving out those in `avoid`.
    ///
    /// # Errors
    /// [`ErrorClass::Retry`] when a file has no usable copy, with the reason for each copy that it should have.
    pub fn freeze(snapshot: &Snapshot, tables: &[Arc<Table>], membership: &dyn Membership, avoid: &HashSet<String>) -> Result<Self> {
        let live: Vec<LiveNode> = membership.live().into_iter().filter(|node| !avoid.contains(&node.node_id)).collect();
        if live.is_empty() && !tables.is_empty() {
            return Err(no_workers());
        }
        let by_id = live.iter().enumerate().map(|(at, node)| (node.node_id.clone(), at)).collect();
        let view = View { by_id, live, inventories: membership.inventories(), draining: &snapshot.draining, avoid };
        let mut read_bytes: Vec<u64> = view.live.iter().map(|node| node.busy_bytes()).collect();
        // Rows of pinned tables may meet those of others only where all of them may be: the others are read there too, if they can be.
        let home = tables.iter().fold(Reach::anywhere(), |all, table| all.and(&Reach::within(&table.regions)));
        let mut chosen: Vec<Chosen> = vec![];
        for table in tables {
            let copies = table.files.iter().map(|file| view.choose(table, file, &home, &mut read_bytes));
            chosen.push((table, copies.collect::<Result<_>>()?));
        }
        Ok(Self::over(view.live, &home, chosen))
    }

    /// Slots for the nodes that read something, and for those that hold no volume and are there for what lies above.
    fn over(live: Vec<LiveNode>, home: &Reach, chosen: Vec<Chosen>) -> Self {
        let mut used: BTreeSet<usize> = chosen.iter().flat_map(|(_, copies)| copies).map(|copy| copy.node).collect();
        let spare = (0..live.len()).filter(|node| !live[*node].has_volumes && home.allows(Some(&live[*node].region)));
        match used.is_empty() {
            // Without a file to read any node will do for what the plan spreads nevertheless.
            true => used.extend(0..live.len()),
            false => used.extend(spare),
        }
        let slot_of: HashMap<usize, usize> = used.iter().enumerate().map(|(slot, node)| (*node, slot)).collect();
        let mut nodes: Vec<LiveNode> = used.iter().map(|node| live[*node].clone()).collect();
        // A fragment of one task is not cut off the coordinator's own plan, and the coordinator reads no file: a single node takes two slots.
        let both = nodes.len() == 1;
        if both {
            nodes.push(nodes[0].clone());
        }
        let mut at = 0;
        let place = |(table, copies): Chosen| {
            let files = table.files.iter().zip(copies).map(|(file, copy)| {
                at += 1;
                let slot = if both { at % 2 } else { slot_of[&copy.node] };
                PlacedFile { file: file.clone(), slot, version: copy.version, path: copy.path }
            });
            (table.table_id, PlacedTable { table: table.clone(), files: files.collect() })
        };
        let tables = chosen.into_iter().map(place).collect();
        Self { nodes, tables, borders: OnceLock::new() }
    }

    /// Whether a table of the query is pinned to regions.
    pub fn reads_pinned(&self) -> bool {
        self.tables.values().any(|placed| !placed.table.regions.is_empty())
    }

    /// The table of a scan.
    pub fn table(&self, table_id: i64) -> Result<&PlacedTable> {
        self.tables.get(&table_id).ok_or_else(|| Error::bug(format!("table {table_id} of the plan is not in the placement")))
    }

    /// Largest core count among the nodes, within 2 and 16: how many partitions a fragment has on each.
    pub fn partitions(&self) -> usize {
        self.nodes.iter().map(|node| node.cpu_threads).max().unwrap_or(2).clamp(2, 16)
    }
}

impl View<'_> {
    /// The copy whose node would be done first, and its bytes booked there.
    fn choose(&self, table: &Table, file: &CatalogFile, home: &Reach, read_bytes: &mut [u64]) -> Result<Copy> {
        let mut reasons = vec![];
        let copies = match file.volume() {
            Some(volume) => self.copies(table, file, volume, &mut reasons),
            None => {
                // Every node reads the bucket.
                let allowed = (0..self.live.len()).filter(|node| table.allows_region(&self.live[*node].region));
                allowed.map(|node| Copy { node, version: file.version, path: None }).collect()
            }
        };
        let size = file.size_bytes.max(1);
        let done = |copy: &Copy| {
            let node = &self.live[copy.node];
            // Nodes that are to be emptied serve what nobody else has. Bytes a core, in whole numbers: the choice must not hang on rounding.
            let abroad = !home.allows(Some(&node.region));
            (abroad, self.draining.contains(&node.node_id), u128::from(read_bytes[copy.node] + size) * 1024 / node.weight())
        };
        let Some(best) = copies.into_iter().min_by_key(done) else { return Err(lost(table, file, &reasons)) };
        read_bytes[best.node] += size;
        Ok(best)
    }

    fn copies(&self, table: &Table, file: &CatalogFile, volume: &str, reasons: &mut Vec<String>) -> Vec<Copy> {
        let mut copies = vec![];
        let key = format!("{volume}/{}", file.path);
        for (node_id, version) in &file.homes {
            let Some(inventory) = self.inventories.get(&**node_id) else {
                reasons.push(format!("node {node_id} is not there"));
                continue;
            };
            if let Some(missing) = inventory.missing_volumes.get(volume) {
                reasons.push(missing.clone());
                continue;
            }
            let Some(&node) = self.by_id.get(&**node_id) else {
                reasons.push(match inventory.state {
                    _ if self.avoid.contains(&**node_id) => format!("node {node_id} failed during this query"),
                    NodeState::Joining => format!("node {node_id} has just started and is about to report its files"),
                    NodeState::Leaving => format!("node {node_id} is shutting down"),
                    NodeState::Suspect if !inventory.silent => format!("calls to node {node_id} failed a moment ago"),
                    _ => format!("node {node_id} is silent"),
                });
                continue;
            };
            if !table.allows_region(&self.live[node].region) {
                reasons.push(format!(
                    "node {node_id} is in region {}, the table is pinned to {}",
                    self.live[node].region,
                    table.regions.join(", ")
                ));
                continue;
            }
            if !table.allows_region(inventory.region_of(volume)) {
                reasons.push(format!(
                    "volume {volume} of node {node_id} lies in {}, the table is pinned to {}",
                    inventory.region_of(volume),
                    table.regions.join(", ")
                ));
                continue;
            }
            match inventory.file(&key) {
                None => reasons.push(match inventory.damaged.get(&key) {
                    Some(damaged) => format!("node {node_id} has a damaged copy: {damaged}"),
                    None => format!("node {node_id} is live but the file is gone from its volume"),
                }),
                Some(present) if present == (file.size_bytes, *version) => copies.push(Copy { node, version: *version, path: None }),
                Some(_) => reasons.push(format!(
                    "the file on node {node_id} was replaced since it was catalogued; REFRESH TABLE {} takes the new one",
                    table.qualified_name()
                )),
            }
        }
        let Some(checksum) = &file.checksum else { return copies };
        for (node, live) in self.live.iter().enumerate() {
            let inventory = self.inventories.get(&live.node_id).filter(|inventory| inventory.may_hold(table, volume));
            let held = inventory.and_then(|inventory| inventory.replica(volume, checksum));
            if let Some(replica) = held.filter(|replica| replica.size_bytes == file.size_bytes) {
                copies.push(Copy { node, version: replica.version, path: Some(replica.path()) });
            }
        }
        copies
    }
}

fn lost(table: &Table, file: &CatalogFile, reasons: &[String]) -> Error {
    let name = table.qualified_name();
    let reasons = if reasons.is_empty() { "no node may read it".to_string() } else { reasons.join("; ") };
    let way_out = match table.managed {
        true => "Bring the node back, or the file as it was stored".to_string(),
        false => format!("Bring the node or file back, or run REFRESH TABLE {name} to go on without it"),
    };
    Error::new(ErrorClass::Retry, format!("no live replica of {} (table {name}): {reasons}. {way_out}", file.display_name()))
}
