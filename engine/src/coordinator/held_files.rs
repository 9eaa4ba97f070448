//! The files of one node, as the coordinator keeps them.

use crate::control::VolumeFile;
use crate::control::packed::{self, PackedInventory};
use crate::error::Result;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

/// What identifies the content of a file on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldFile {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time in nanoseconds.
    pub version: i64,
    /// SHA-256 of the content, when it was asked for.
    pub checksum: Option<Box<str>>,
    /// Its place among the packed facts.
    place: usize,
}

/// The readable files of a node's volumes.
#[derive(Debug, Default)]
pub struct HeldFiles {
    by_key: BTreeMap<Box<str>, HeldFile>,
    facts: Box<[u8]>,
}

impl HeldFiles {
    /// What a node reported.
    pub fn new(inventory: PackedInventory) -> Result<Self> {
        let facts = inventory.facts()?.into();
        let held = inventory.files.into_iter().enumerate().map(|(place, file)| {
            let held = HeldFile { size_bytes: file.size_bytes, version: file.version, checksum: file.checksum.map(Box::from), place };
            (key(&file.volume, &file.path), held)
        });
        Ok(Self { by_key: held.collect(), facts })
    }

    /// The file at `volume/path`.
    pub fn get(&self, key: &str) -> Option<&HeldFile> {
        self.by_key.get(key)
    }

    /// Whether there is a file at `volume/path`.
    pub fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// All of them, as `volume/path`.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.by_key.keys().map(|key| &**key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// All that the node said of those files of `volume` whose paths are asked for.
    pub fn facts(&self, volume: &str, asked: impl Fn(&str) -> bool) -> Result<Vec<VolumeFile>> {
        let start = key(volume, "");
        let from_start = (Bound::Included(&*start), Bound::Unbounded);
        let of_volume = self.by_key.range::<str, _>(from_start).map_while(|(key, held)| Some((key.strip_prefix(&*start)?, held)));
        let places: HashSet<usize> = of_volume.filter(|(path, _)| asked(path)).map(|(_, held)| held.place).collect();
        if places.is_empty() {
            return Ok(vec![]);
        }
        packed::unpack(&self.facts, |place| places.contains(&place))
    }
}

fn key(volume: &str, path: &str) -> Box<str> {
    format!("{volume}/{path}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ColumnFacts, FileFacts, RowGroupFacts};

    fn file(volume: &str, number: u64) -> VolumeFile {
        let columns = (0..16).map(|column| ColumnFacts {
            min: Some(format!("bWlu{:012}", number * 31 + column)),
            max: Some(format!("bWF4{:012}", number * 37 + column)),
            null_count: Some(0),
        });
        let facts = FileFacts {
            size_bytes: 1_000 + number,
            version: 1_700_000_000_000_000_000 + number as i64,
            row_count: 10,
            row_groups: vec![RowGroupFacts { offset: 4, rows: 10, bytes: 900 }],
            schema_ipc: "c2NoZW1h".repeat(100),
            footer_hash: format!("{number:016x}"),
            checksum: number.is_multiple_of(2).then(|| format!("{number:064x}")),
            columns: columns.collect(),
        };
        VolumeFile { volume: volume.into(), path: format!("events/part-{number}.parquet"), facts }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let files: Vec<_> = (0..100).map(|number| file(if number < 60 { "cold" } else { "warm" }, number)).collect();
        let held = HeldFiles::new(PackedInventory::pack(&files).unwrap()).unwrap();
        assert_eq!(held.len(), 100);
        let second = held.get("cold/events/part-2.parquet").unwrap();
        assert_eq!((second.size_bytes, second.checksum.as_deref()), (1_002, files[2].facts.checksum.as_deref()));
        assert!(!held.contains("warm/events/part-2.parquet"));
        assert_eq!(held.facts("cold", |_| true).unwrap(), files[..60]);
        assert_eq!(held.facts("warm", |path| path.ends_with("part-77.parquet")).unwrap(), files[77..78]);
        assert_eq!(held.facts("col", |_| true).unwrap(), []);
        assert_eq!(held.facts("warm", |path| path.ends_with("part-2.parquet")).unwrap(), []);
    }

    #[test]
    fn a_thousand_files_are_small() {
        let files: Vec<_> = (0..1_000).map(|number| file("data", number)).collect();
        let held = HeldFiles::new(PackedInventory::pack(&files).unwrap()).unwrap();
        assert!(held.facts.len() < 250 * files.len(), "{} bytes of packed facts", held.facts.len());
    }
}
