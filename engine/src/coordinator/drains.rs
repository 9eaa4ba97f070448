//! How far nodes that are to be emptied have come.

use super::membership::{Inventory, NodeState};
use crate::catalog::{CatalogFile, Snapshot, Table};
use std::collections::{BTreeMap, HashSet};

/// Files that each draining node holds and that have too few copies on nodes that stay; 0 for one that can be stopped. A node that is not there
/// has not said what it holds.
pub fn files_left(snapshot: &Snapshot, inventories: &BTreeMap<String, Inventory>) -> BTreeMap<String, u64> {
    let there = |node: &&String| inventories.get(*node).is_some_and(|held| held.state != NodeState::Joining);
    let mut left: BTreeMap<String, u64> = snapshot.draining.iter().filter(there).map(|node| (node.clone(), 0)).collect();
    if left.is_empty() {
        return left;
    }
    for table in snapshot.tables() {
        for file in &table.files {
            let holders = holders(table, file, inventories);
            let staying = holders.iter().filter(|node| !snapshot.draining.contains(**node)).count();
            if staying < table.replicas.max(1) as usize {
                for node in holders {
                    left.entry(node.to_string()).and_modify(|files| *files += 1);
                }
            }
        }
    }
    left
}

/// Nodes that can read a copy of the file.
fn holders<'n>(table: &Table, file: &CatalogFile, inventories: &'n BTreeMap<String, Inventory>) -> Vec<&'n str> {
    let Some(volume) = file.volume() else { return vec![] };
    let key = format!("{volume}/{}", file.path);
    let holds = |node: &str, held: &Inventory| {
        let version = file.homes.iter().find(|(home, _)| **home == *node).map(|(_, version)| *version);
        let original = version.is_some_and(|version| held.file(&key) == Some((file.size_bytes, version)));
        original || file.checksum.as_ref().is_some_and(|checksum| held.replica(volume, checksum).is_some())
    };
    let able = inventories.iter().filter(|(node, held)| held.may_hold(table, volume) && holds(node, held));
    able.map(|(node, _)| node.as_str()).collect()
}

/// Tells the log once that a node is empty; `told` are those that it was told of.
pub fn tell(left: &BTreeMap<String, u64>, told: &mut HashSet<String>) {
    told.retain(|node| left.get(node) == Some(&0));
    for (node, _) in left.iter().filter(|(_, files)| **files == 0) {
        if told.insert(node.clone()) {
            tracing::info!(node, "the node is drained: all that it holds lies elsewhere too, and it can be stopped");
        }
    }
}
