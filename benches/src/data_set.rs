//! The data sets: where they lie, who generates them, and how Bowshot learns of their tables.

use crate::Outcome;
use bowshot_datasets::{Options, hits, sweep};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Nodes of the demo cluster: a table is divided into as many parts.
pub const NODES: usize = 3;
/// Parts that are generated at once: as many as saturate two cores.
const THREADS: usize = 2;
/// TPC-H of the demo cluster where the suite reads other tables: next to nothing.
const TINY_SCALE: f64 = 0.001;

/// What the queries of a suite read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DataSet {
    /// TPC-H, which the workers of the demo cluster generate.
    Tpch { scale: f64 },
    /// The table of ClickBench's queries.
    Hits { rows: usize },
    /// The table of keys of every cardinality.
    Sweep { rows: usize },
}

impl DataSet {
    /// The folder of its files, below that of all data sets.
    pub fn folder(&self) -> String {
        match self {
            Self::Tpch { scale } => format!("tpch-sf{scale}"),
            Self::Hits { rows } => format!("hits-{rows}"),
            Self::Sweep { rows } => format!("sweep-{rows}"),
        }
    }

    /// Its size, for the head of a report.
    pub fn size(&self) -> String {
        match self {
            Self::Tpch { scale } => format!("at scale factor {scale}"),
            Self::Hits { rows } | Self::Sweep { rows } => format!("of {rows} rows"),
        }
    }

    /// The scale of TPC-H with which the demo cluster starts.
    pub fn demo_scale(&self) -> f64 {
        match self {
            Self::Tpch { scale } => *scale,
            Self::Hits { .. } | Self::Sweep { .. } => TINY_SCALE,
        }
    }

    /// Writes what the workers do not generate: part k of each table into the volume of node k below `data`.
    pub fn write(&self, data: &Path) -> Outcome<()> {
        let write_part = |part: usize| {
            let (volume, options) = (data.join(format!("node-{part}")), Options::default());
            match *self {
                Self::Tpch { .. } => Ok(vec![]),
                Self::Hits { rows } => hits::write_part(rows, part, NODES, &volume, &options),
                Self::Sweep { rows } => sweep::write_part(rows, part, NODES, &volume, &options),
            }
        };
        let next = AtomicUsize::new(1);
        let write_parts = || -> Outcome<()> {
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part > NODES {
                    return Ok(());
                }
                write_part(part)?;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(write_parts)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a generating thread panicked")?)
        })
    }

    /// The statements after which Bowshot has the tables that the demo does not register.
    pub fn registrations(&self) -> Vec<String> {
        let table = match self {
            Self::Tpch { .. } => return vec![],
            Self::Hits { .. } => hits::TABLE,
            Self::Sweep { .. } => sweep::TABLE,
        };
        vec![format!("CREATE OR REPLACE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION 'node://*/data/{table}/'")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_gets_its_part() {
        let data = tempfile::tempdir().unwrap();
        DataSet::Sweep { rows: 100 }.write(data.path()).unwrap();
        for node in 1..=NODES {
            let volume = data.path().join(format!("node-{node}"));
            assert!(volume.join(format!("sweep/part-{node}.parquet")).is_file(), "node {node}");
        }
        assert!(DataSet::Hits { rows: 0 }.write(data.path()).is_err());
    }
}
