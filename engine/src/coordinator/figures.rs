//! What an operator asks first, as figures: nodes, files, memory, cache, spilled data, disks, queries. Read when somebody asks for metrics.
//!
//! Nodes tell their own figures with their heartbeats. One that is lost has none: the series of a dead node would be its last word.

use super::membership::{Inventory, NodeInfo, NodeState};
use super::registry::QueryState;
use super::{Coordinator, CoordinatorInner};
use crate::catalog::Snapshot;
use crate::limits;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Whether a figure may fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It may.
    Gauge,
    /// It only grows, until its process starts again.
    Counter,
}

/// One name with all of its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Name, with its unit.
    pub name: &'static str,
    /// Whether it may fall.
    pub kind: Kind,
    /// What it says.
    pub help: &'static str,
    /// Labels and value of each series.
    pub series: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// Files of tables by what can be had of them.
#[derive(Debug, Clone, Copy)]
pub struct FilesCounted {
    at: Instant,
    files: Files,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Files {
    available: u64,
    missing: u64,
    damaged: u64,
    unreadable: u64,
}

const STATES: [NodeState; 5] = [NodeState::Live, NodeState::Joining, NodeState::Suspect, NodeState::Leaving, NodeState::Dead];

impl Coordinator {
    /// The figures as they are now. Blocking: it may look at every file of every table.
    pub fn figures(&self) -> Vec<Figure> {
        let nodes = self.nodes();
        let inventories = self.inner.membership.inventories();
        let mut figures = of_nodes(&nodes, &inventories);
        figures.push(of_files(self.inner.count_files(&inventories)));
        figures.push(of_queries(&self.inner));
        figures.push(of_data_folder(&self.inner.config.data_dir));
        figures
    }
}

fn of_nodes(nodes: &[NodeInfo], inventories: &BTreeMap<String, Inventory>) -> Vec<Figure> {
    let count = |state: NodeState| nodes.iter().filter(|node| node.role == "worker" && node.state == state).count() as f64;
    let by_state = STATES.iter().map(|state| (vec![("state", state.to_string())], count(*state))).collect();
    let of_each = |name, kind, help, value: fn(&NodeInfo) -> Option<f64>| {
        let alive = nodes.iter().filter(|node| node.state != NodeState::Dead);
        let series = alive.filter_map(|node| Some((vec![("node", node.node_id.clone())], value(node)?))).collect();
        Figure { name, kind, help, series }
    };
    // Releases that do not say what they may use say 0.
    let of_volumes = |name, help, value: fn(&Inventory, &str) -> Option<f64>| {
        let series = inventories.iter().flat_map(|(node, held)| {
            let of_volume = move |volume: &String| {
                let labels = vec![("node", node.clone()), ("volume", volume.clone())];
                Some((labels, value(held, volume)?))
            };
            held.volumes.iter().filter_map(of_volume)
        });
        Figure { name, kind: Kind::Gauge, help, series: series.collect() }
    };
    use Kind::{Counter, Gauge};
    vec![
        Figure { name: "bowshot_nodes", kind: Gauge, help: "Workers that ever registered, by state.", series: by_state },
        of_each("bowshot_node_heartbeat_age_seconds", Gauge, "Time since a node was last heard.", |node| {
            (node.role == "worker").then(|| node.heartbeat_age_ms as f64 / 1000.0)
        }),
        of_each("bowshot_node_tasks", Gauge, "Tasks that a node runs.", |node| {
            (node.role == "worker").then_some(node.running_tasks as f64)
        }),
        of_each("bowshot_node_tasks_limit", Gauge, "Tasks that a node runs at once (worker.max_tasks).", |node| {
            (node.max_tasks > 0).then_some(node.max_tasks as f64)
        }),
        of_each("bowshot_memory_used_bytes", Gauge, "Memory that query operators of a node hold.", |node| {
            Some(node.memory_reserved_bytes as f64)
        }),
        of_each(
            "bowshot_memory_limit_bytes",
            Gauge,
            "Memory that they may hold before they take that of the cache (memory_bytes).",
            |node| (node.budgets.memory_bytes > 0).then_some(node.budgets.memory_bytes as f64),
        ),
        of_each("bowshot_cache_bytes", Gauge, "Bytes in the column cache of a node.", |node| {
            (node.role == "worker").then_some(node.cached_bytes as f64)
        }),
        of_each("bowshot_cache_limit_bytes", Gauge, "Bytes that it may take (worker.cache_bytes).", |node| {
            (node.budgets.cache_bytes > 0).then_some(node.budgets.cache_bytes as f64)
        }),
        of_each("bowshot_cache_hits_total", Counter, "Column chunks that scans found in the cache of a node.", |node| {
            (node.role == "worker").then_some(node.budgets.cache_hits as f64)
        }),
        of_each("bowshot_cache_misses_total", Counter, "Column chunks that they did not find there.", |node| {
            (node.role == "worker").then_some(node.budgets.cache_misses as f64)
        }),
        of_each("bowshot_spill_bytes", Gauge, "Spilled data on a node's disk.", |node| Some(node.spilled_bytes as f64)),
        of_each("bowshot_spill_limit_bytes", Gauge, "Spilled data that there may be at once (spill_bytes_max).", |node| {
            (node.budgets.spill_bytes > 0).then_some(node.budgets.spill_bytes as f64)
        }),
        of_volumes("bowshot_volume_free_bytes", "Free bytes on the disk of a volume.", |held, volume| {
            held.free_bytes.get(volume).map(|free| *free as f64)
        }),
        of_volumes("bowshot_volume_up", "1 where the folder of a volume is the expected one, 0 where it is not there.", |held, volume| {
            Some(f64::from(u8::from(!held.missing_volumes.contains_key(volume))))
        }),
    ]
}

fn of_files(files: Files) -> Figure {
    let states = [("available", files.available), ("missing", files.missing), ("damaged", files.damaged), ("unreadable", files.unreadable)];
    Figure {
        name: "bowshot_files",
        kind: Kind::Gauge,
        help: "Files of tables by state: missing ones are on no node that is there, unreadable ones were left out of their tables.",
        series: states.into_iter().map(|(state, count)| (vec![("state", state.to_string())], count as f64)).collect(),
    }
}

fn of_queries(inner: &CoordinatorInner) -> Figure {
    let (queued, running) = inner.queries.open();
    let states = [(QueryState::Queued, queued), (QueryState::Running, running)];
    Figure {
        name: "bowshot_queries",
        kind: Kind::Gauge,
        help: "Queries that wait for places or run. Those that ended are in bowshot_queries_total.",
        series: states.into_iter().map(|(state, count)| (vec![("state", state.word().to_string())], count as f64)).collect(),
    }
}

fn of_data_folder(folder: &Path) -> Figure {
    let free = rustix::fs::statvfs(folder).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    Figure {
        name: "bowshot_data_dir_free_bytes",
        kind: Kind::Gauge,
        help: "Free bytes on the disk of the catalog (coordinator.data_dir).",
        series: free.map(|free| (vec![], free as f64)).into_iter().collect(),
    }
}

impl CoordinatorInner {
    /// Files by state, counted anew when the last count is old.
    fn count_files(&self, inventories: &BTreeMap<String, Inventory>) -> Files {
        let mut counted = self.files_counted.lock();
        match &*counted {
            Some(known) if known.at.elapsed() < limits::FILE_FIGURES_KEPT => known.files,
            _ => {
                let files = count(&self.snapshot(), inventories);
                *counted = Some(FilesCounted { at: Instant::now(), files });
                files
            }
        }
    }
}

fn count(snapshot: &Arc<Snapshot>, inventories: &BTreeMap<String, Inventory>) -> Files {
    let mut files = Files::default();
    for table in snapshot.tables() {
        files.unreadable += table.details.bad_files.len() as u64;
        for file in &table.files {
            let Some(volume) = file.volume() else {
                // Of a bucket: nobody looks before a query does.
                files.available += 1;
                continue;
            };
            let key = format!("{volume}/{}", file.path);
            let is_home = |(node, version): &(Arc<str>, i64)| {
                inventories.get(&**node).is_some_and(|held| held.file(&key) == Some((file.size_bytes, *version)))
            };
            let is_copied = |checksum: &String| inventories.values().any(|held| held.replica(volume, checksum).is_some());
            let there = file.homes.iter().any(is_home) || file.checksum.as_ref().is_some_and(is_copied);
            let damaged =
                || file.homes.iter().any(|(node, _)| inventories.get(&**node).is_some_and(|held| held.damaged.contains_key(&key)));
            match there {
                true => files.available += 1,
                false if damaged() => files.damaged += 1,
                false => files.missing += 1,
            }
        }
    }
    files
}
