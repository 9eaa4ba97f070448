//! The rules as they travel from the coordinator's catalog to every worker, which keeps a copy of its own.

use super::Reach;
use crate::catalog::Snapshot;
use crate::catalog::location::Location;
use crate::control::REPLICA_FOLDER;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Which files are pinned to which regions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Catalog version that it was made from.
    pub version: i64,
    /// Pinned locations.
    pub pins: Vec<Pin>,
    /// Pinned contents: copies that the cluster made lie elsewhere than their originals. Regions by checksum.
    pub contents: HashMap<String, Vec<String>>,
}

/// A pinned location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Base URL of the object store: `node://volume` or `s3://bucket`.
    pub store: String,
    /// Folder (ends with `/`, or is empty) or file below it.
    pub prefix: String,
    /// Regions that its rows never leave.
    pub regions: Vec<String>,
}

impl Policy {
    /// The rules of a catalog.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut policy = Self { version: snapshot.version, ..Self::default() };
        for table in snapshot.tables().filter(|table| !table.regions.is_empty()) {
            let (Location::Node { path: prefix, .. } | Location::Bucket { prefix, .. }) = &table.location;
            let Ok(store) = table.location.store_url() else { continue };
            policy.pins.push(Pin { store: base(store.as_str()), prefix: prefix.clone(), regions: table.regions.clone() });
            for checksum in table.files.iter().filter_map(|file| file.checksum.as_ref()) {
                // Two tables over one content: its rows stay where both allow it.
                let both = Reach::within(&table.regions).and(&policy.content(checksum));
                policy.contents.insert(checksum.clone(), both.regions());
            }
        }
        policy
    }

    fn content(&self, checksum: &str) -> Reach {
        self.contents.get(checksum).map_or_else(Reach::anywhere, |regions| Reach::exactly(regions))
    }

    /// Where the rows of a file may go.
    pub fn reach(&self, store: &str, path: &str) -> Reach {
        let store = base(store);
        let covers = |pin: &&Pin| {
            pin.store == store
                && (pin.prefix.is_empty() || path == pin.prefix || (pin.prefix.ends_with('/') && path.starts_with(pin.prefix.as_str())))
        };
        let located = self.pins.iter().filter(covers).fold(Reach::anywhere(), |all, pin| all.and(&Reach::exactly(&pin.regions)));
        let copy = path.strip_prefix(REPLICA_FOLDER).and_then(|name| name.trim_start_matches('/').strip_suffix(".parquet"));
        copy.map_or_else(|| located.clone(), |checksum| located.and(&self.content(checksum)))
    }
}

/// Without the slash that some writers of URLs put at the end.
fn base(store: &str) -> String {
    store.trim_end_matches('/').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_cover_folders_files_and_copies() {
        let pin = |prefix: &str, regions: &[&str]| Pin {
            store: "node://data".into(),
            prefix: prefix.into(),
            regions: regions.iter().map(ToString::to_string).collect(),
        };
        let policy = Policy {
            version: 1,
            pins: vec![pin("people/", &["eu"]), pin("people/old/", &["eu", "us"]), pin("one.parquet", &["us"])],
            contents: HashMap::from([("ab".into(), vec!["eu".into()])]),
        };
        let reach = |path: &str| policy.reach("node://data/", path).to_string();
        assert_eq!(reach("people/a.parquet"), "eu");
        assert_eq!(reach("people/old/a.parquet"), "eu");
        assert_eq!(reach("peoples/a.parquet"), "any region");
        assert_eq!(reach("one.parquet"), "us");
        assert_eq!(reach(".bowshot/replicas/ab.parquet"), "eu");
        assert_eq!(reach(".bowshot/replicas/cd.parquet"), "any region");
        assert_eq!(policy.reach("node://other", "people/a.parquet"), Reach::anywhere());
    }
}
