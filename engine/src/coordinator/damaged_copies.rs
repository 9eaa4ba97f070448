//! Files of managed tables whose bytes on a disk are no longer those that were stored, as scrubbers find them.

use super::membership::Inventory;
use crate::catalog::{CatalogFile, Snapshot};
use crate::control::{HashedFile, Orders, SetAside};
use crate::limits;
use std::collections::{BTreeMap, HashMap};

/// Those that are to be set aside, by node and `volume/path`, until their nodes no longer show them.
#[derive(Default)]
pub struct DamagedCopies {
    found: HashMap<(String, String), Damaged>,
}

struct Damaged {
    size_bytes: u64,
    order: SetAside,
}

impl DamagedCopies {
    /// Compares what scrubbers have read with what was stored.
    pub fn compare(&mut self, snapshot: &Snapshot, inventories: &BTreeMap<String, Inventory>, hashed: Vec<(String, HashedFile)>) {
        self.found
            .retain(|(node, key), of| inventories.get(node).is_some_and(|held| held.file(key) == Some((of.size_bytes, of.order.version))));
        if hashed.is_empty() {
            return;
        }
        let files = snapshot.tables().filter(|table| table.managed).flat_map(|table| &table.files);
        // Their names are used once in a cluster.
        let stored: HashMap<&str, &CatalogFile> = files.map(|file| (file.path.as_str(), &**file)).collect();
        for (node, read) in hashed {
            let Some(file) = stored.get(read.path.as_str()).filter(|file| file.volume() == Some(&*read.volume)) else { continue };
            let is_home = file.homes.iter().any(|(home, version)| **home == *node && *version == read.version);
            let Some(checksum) = file.checksum.as_ref().filter(|checksum| is_home && **checksum != read.checksum) else { continue };
            let name = format!("node://{node}/{}/{}", read.volume, read.path);
            tracing::error!(file = name, stored = checksum, read = read.checksum, "the bytes of a file have changed on its disk");
            let order = SetAside { volume: read.volume, path: read.path, version: read.version, checksum: checksum.clone() };
            let key = format!("{}/{}", order.volume, order.path);
            self.found.insert((node, key), Damaged { size_bytes: read.size_bytes, order });
        }
    }

    /// Adds the orders to set them aside.
    pub fn order(&self, orders: &mut HashMap<String, Orders>) {
        for ((node, _), of) in &self.found {
            let set_aside = &mut orders.entry(node.clone()).or_default().set_aside;
            // The others follow when these are done.
            if set_aside.len() < limits::SCRUBBED_A_BEAT {
                set_aside.push(of.order.clone());
            }
        }
    }
}
