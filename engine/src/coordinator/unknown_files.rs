//! Files of managed tables that the catalog does not know, looked for once when a node has told what it holds. A server that was started in the
//! wrong folder, or with an old backup, finds its tables gone and their files there: the log says so.

use super::CoordinatorInner;
use super::membership::{Inventory, NodeState};
use crate::catalog::store::CatalogStore;
use crate::control::is_table_file;
use crate::error::Result;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Looks at nodes that are live for the first time; `seen` are those that were looked at.
pub(crate) async fn look(inner: &Arc<CoordinatorInner>, seen: &mut HashSet<String>) -> Result<()> {
    let mut inventories = inner.membership.inventories();
    inventories.retain(|node, held| held.state == NodeState::Live && seen.insert(node.clone()));
    if inventories.is_empty() {
        return Ok(());
    }
    let looked = inner.clone();
    let unknown = super::blocking(move || {
        // In this order: what is committed in between is in the snapshot.
        let noted: HashSet<String> = looked.with_store(CatalogStore::uncommitted_paths)?.into_iter().collect();
        let snapshot = looked.snapshot();
        let files = snapshot.tables().filter(|table| table.managed).flat_map(|table| &table.files);
        let known: HashSet<&str> = files.map(|file| file.path.as_str()).collect();
        Ok(count(&inventories, |path| noted.contains(path) || known.contains(path)))
    });
    for ((node, volume), files) in unknown.await? {
        tracing::warn!(
            node,
            volume,
            files,
            data_dir = %inner.config.data_dir.display(),
            "a volume holds files of managed tables that the catalog does not know, and that nothing deletes: look whether coordinator.data_dir is the right folder, or whether they came after the backup that was restored"
        );
    }
    Ok(())
}

/// How many files of managed tables are not `known`, by node and volume. Their names are used once in a cluster.
fn count(inventories: &BTreeMap<String, Inventory>, known: impl Fn(&str) -> bool) -> BTreeMap<(String, String), usize> {
    let mut unknown = BTreeMap::new();
    for (node, held) in inventories {
        for (volume, path) in held.files.keys().filter_map(|key| key.split_once('/')) {
            if is_table_file(path) && !known(path) {
                *unknown.entry((node.clone(), volume.to_string())).or_default() += 1;
            }
        }
    }
    unknown
}
