//! Which folder is which volume of a node: the catalog remembers the id of each, so that a worker can tell an empty folder from the disk that
//! belongs there.

use crate::catalog::Snapshot;
use crate::catalog::store::CatalogStore;
use crate::control::{ExpectedVolume, FoundVolume};
use crate::error::Result;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Knows the volumes of all nodes. Clones share it.
#[derive(Clone)]
pub struct VolumeIds {
    store: Arc<Mutex<CatalogStore>>,
    snapshot: Arc<RwLock<Arc<Snapshot>>>,
}

impl VolumeIds {
    /// Over the catalog.
    pub fn new(store: Arc<Mutex<CatalogStore>>, snapshot: Arc<RwLock<Arc<Snapshot>>>) -> Self {
        Self { store, snapshot }
    }

    /// What a node's volumes must be, by what it found. What is new is noted. Blocking.
    ///
    /// # Errors
    /// When the catalog cannot be read or written.
    pub fn expected(&self, node: &str, found: &BTreeMap<String, FoundVolume>) -> Result<BTreeMap<String, ExpectedVolume>> {
        let snapshot = self.snapshot.read().clone();
        let store = self.store.lock();
        let mut expected = BTreeMap::new();
        for (volume, found) in found {
            let known = store.volume_id(node, volume)?;
            let answer = decide(known.as_deref(), found, holds_tables(&snapshot, node, volume));
            if known.as_ref() != Some(&answer.id) {
                store.note_volume(node, volume, &answer.id)?;
            }
            expected.insert(volume.clone(), answer);
        }
        Ok(expected)
    }
}

/// Whether the catalog has a file of a managed table there.
fn holds_tables(snapshot: &Snapshot, node: &str, volume: &str) -> bool {
    let mut files = snapshot.tables().filter(|table| table.managed).flat_map(|table| &table.files);
    files.any(|file| file.volume() == Some(volume) && file.homes.iter().any(|(home, _)| **home == *node))
}

/// With files to lose, the folder must be the one that is known. Without, the one that is there is taken.
fn decide(known: Option<&str>, found: &FoundVolume, holds_tables: bool) -> ExpectedVolume {
    let id = match (known, &found.id) {
        (Some(known), _) if holds_tables || !found.is_there => known,
        (_, Some(id)) => id,
        (Some(known), None) => known,
        (None, None) => &found.proposed,
    };
    ExpectedVolume { id: id.to_string(), may_be_new: !holds_tables }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_with_tables_is_the_one_that_is_known() {
        let found = |id: Option<&str>, is_there| FoundVolume { is_there, id: id.map(Into::into), proposed: "new".into() };
        let expected = |id: &str, may_be_new| ExpectedVolume { id: id.into(), may_be_new };
        assert_eq!(decide(None, &found(None, true), false), expected("new", true));
        assert_eq!(decide(None, &found(Some("a"), true), true), expected("a", false));
        assert_eq!(decide(Some("a"), &found(None, true), true), expected("a", false));
        assert_eq!(decide(Some("a"), &found(Some("b"), true), true), expected("a", false));
        assert_eq!(decide(Some("a"), &found(Some("b"), true), false), expected("b", true));
        assert_eq!(decide(Some("a"), &found(None, false), false), expected("a", true));
    }
}
