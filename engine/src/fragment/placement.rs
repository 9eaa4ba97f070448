//! Placement at one moment: the live nodes, and for each file the nodes that can serve the catalogued version of it.

use crate::catalog::{CatalogFile, Snapshot, Table};
use crate::coordinator::membership::{LiveNode, Membership, NodeState};
use crate::error::{Error, ErrorClass, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Frozen when a query is planned: the leaf handler runs at planning, the route handler at execution, and both must see the same nodes.
#[derive(Debug)]
pub struct Placement {
    /// Slot i of every fragment over stored files runs on node i; a single node stands here twice.
    pub nodes: Vec<LiveNode>,
    files: HashMap<i64, FilePlacement>,
}

#[derive(Debug)]
struct FilePlacement {
    table: Arc<Table>,
    file: Arc<CatalogFile>,
    /// Slot and version of each usable copy.
    copies: Vec<(usize, i64)>,
    /// Why there is none, when there is none.
    lost: Option<String>,
}

impl Placement {
    /// Looks at all files of `snapshot` against the nodes that live now, leaving out the nodes in `avoid`.
    pub fn freeze(snapshot: &Snapshot, membership: &Membership, avoid: &HashSet<String>) -> Self {
        let mut nodes: Vec<LiveNode> = membership.live().into_iter().filter(|node| !avoid.contains(&node.node_id)).collect();
        // A fragment of one task is not cut off the coordinator's own plan, and the coordinator reads no file: a single node takes two slots.
        if let [only] = nodes.as_slice() {
            nodes.push(only.clone());
        }
        let mut slots: HashMap<&str, Vec<usize>> = HashMap::new();
        for (slot, node) in nodes.iter().enumerate() {
            slots.entry(&node.node_id).or_default().push(slot);
        }
        let inventories = membership.inventories();
        let mut files = HashMap::new();
        for table in snapshot.schemas.values().flat_map(|tables| tables.values()) {
            for file in &table.files {
                let mut copies = vec![];
                let mut reasons = vec![];
                let Some(volume) = file.store_url.strip_prefix("node://") else {
                    // Every node reads the bucket.
                    copies.extend((0..nodes.len()).map(|slot| (slot, file.facts.version)));
                    files.insert(file.file_id, FilePlacement { table: table.clone(), file: file.clone(), copies, lost: None });
                    continue;
                };
                let key = format!("{}/{}", volume.trim_end_matches('/'), file.path);
                for (node, version) in &file.homes {
                    let Some((state, inventory)) = inventories.get(node) else {
                        reasons.push(format!("node {node} is not there"));
                        continue;
                    };
                    match (slots.get(node.as_str()), inventory.get(&key)) {
                        (None, _) if *state == NodeState::Live => reasons.push(format!("node {node} failed during this query")),
                        (None, _) => reasons.push(format!("node {node} is silent")),
                        (Some(_), None) => reasons.push(format!("node {node} is live but the file is gone from its volume")),
                        (Some(slots), Some(present))
                            if present.facts.version == *version && present.facts.size_bytes == file.facts.size_bytes =>
                        {
                            copies.extend(slots.iter().map(|&slot| (slot, *version)))
                        }
                        (Some(_), Some(_)) => reasons.push(format!(
                            "the file on node {node} was replaced since it was catalogued; REFRESH TABLE {} takes the new one",
                            table.qualified_name()
                        )),
                    }
                }
                let lost = copies.is_empty().then(|| reasons.join("; "));
                files.insert(file.file_id, FilePlacement { table: table.clone(), file: file.clone(), copies, lost });
            }
        }
        Self { nodes, files }
    }

    /// A file of a scan: its catalog entry and its usable copies as `(slot, version)`.
    pub fn copies(&self, file_id: i64) -> Result<(&CatalogFile, &[(usize, i64)])> {
        let placed = self.files.get(&file_id).ok_or_else(|| Error::bug(format!("file {file_id} of the plan is not in the placement")))?;
        if let Some(reason) = &placed.lost {
            return Err(Error::new(
                ErrorClass::Retry,
                format!(
                    "no live replica of {} (table {}): {reason}. Bring the node or file back, or run REFRESH TABLE {} to go on without it",
                    placed.file.display_name(),
                    placed.table.qualified_name(),
                    placed.table.qualified_name()
                ),
            ));
        }
        Ok((&placed.file, &placed.copies))
    }

    /// Largest core count among the nodes, within 2 and 16: how many partitions a fragment has on each.
    pub fn partitions(&self) -> usize {
        self.nodes.iter().map(|node| node.cpu_threads).max().unwrap_or(2).clamp(2, 16)
    }
}
