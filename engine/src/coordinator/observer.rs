//! What a query did, task by task: the one source of the figures in EXPLAIN ANALYZE, the footer, `system.tasks` and the metrics.

use crate::error::NodeLost;
use crate::fragment::transport::{BYTES_MOVED_METRIC, FROM_FRAGMENT_LABEL, FROM_TASK_LABEL};
use crate::operators::cache_columns::{CACHED_BYTES_METRIC, CACHED_CHUNKS_METRIC, COLUMN_LABEL};
use crate::operators::hot_aggregate::{
    DECLINED_METRIC, DEVICE_ESTIMATE_METRIC, EXECUTOR_LABEL, HOST_ESTIMATE_METRIC, KERNEL_ROWS_METRIC, REASON_LABEL, UPLOAD_ESTIMATE_METRIC,
};
use crate::operators::panic_guard::{ELAPSED_METRIC, PEAK_MEMORY_METRIC, ROWS_METRIC};
use datafusion::physical_plan::metrics::MetricValue;
use datafusion_distributed::{BytesCounterMetric, TaskKey, TaskMetrics};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::watch;
use uuid::Uuid;

/// One task of a query, for people and programs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TaskRecord {
    /// Fragment number.
    pub fragment: usize,
    /// Task number within the fragment.
    pub task: usize,
    /// Node that ran it.
    pub node_id: String,
    /// Region of that node.
    pub region: String,
    /// `device`, `host`, `declined`, or `-` for a fragment without an aggregation.
    pub device: String,
    /// Why the kernel declined, or which parts ran elsewhere.
    pub reason: String,
    /// What kernels were foreseen to take: `host 12.1 ms, device 3.0 ms after 8.0 ms of upload`. One thread of the host; empty where nothing is
    /// foreseen.
    pub estimate: String,
    /// Rows it sent on.
    pub rows: u64,
    /// Rows that a kernel aggregated.
    pub kernel_rows: u64,
    /// Bytes read from Parquet files or, for cached chunks, from the column cache.
    pub bytes_scanned: u64,
    /// Bytes it sent to other nodes, as Arrow messages.
    pub bytes_moved: u64,
    /// Part of them that crossed a region's border.
    pub bytes_moved_across_regions: u64,
    /// Time from the first poll to its last batch.
    pub elapsed_ms: f64,
    /// Whether its report arrived: false while it runs, or when it was cut off.
    pub ended: bool,
}

/// A query's figures. The same struct live and at the end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QuerySummary {
    /// Query id.
    #[serde(with = "crate::uuid_text")]
    pub query_id: Uuid,
    /// Rows released to the client.
    pub rows: u64,
    /// Time since admission, in milliseconds.
    pub elapsed_ms: u64,
    /// Bytes read by all tasks.
    pub bytes_scanned: u64,
    /// Bytes moved between nodes as Arrow messages, the last hop to the coordinator included.
    pub bytes_moved: u64,
    /// Part of them that crossed a region's border.
    pub bytes_moved_across_regions: u64,
    /// Tasks on workers.
    pub tasks: u32,
    /// Tasks that aggregated on a device.
    pub tasks_on_device: u32,
    /// Tasks that aggregated on the host kernel.
    pub tasks_on_host_kernel: u32,
    /// Whole-query tries before this one.
    pub retries: u32,
    /// Tasks that have not reported their end.
    #[serde(default)]
    pub running_tasks: u32,
    /// Most bytes that its operators held at once on one node, the coordinator among them; of workers when their tasks have ended.
    #[serde(default)]
    pub peak_memory_bytes: u64,
}

#[derive(Default)]
struct Task {
    node_id: String,
    ended: bool,
    rows: u64,
    elapsed_ns: u64,
    peak_memory_bytes: u64,
    bytes_scanned: u64,
    device_rows: u64,
    host_rows: u64,
    declined: BTreeSet<String>,
    host_estimate_ns: u64,
    device_estimate_ns: u64,
    upload_estimate_ns: u64,
    cached: BTreeMap<String, CachedByTask>,
}

impl Task {
    fn estimate(&self) -> String {
        let ms = |ns: u64| format!("{:.1} ms", ns as f64 / 1e6);
        let device = match (self.device_estimate_ns, self.upload_estimate_ns) {
            (0, _) => String::new(),
            (run, 0) => format!(", device {}", ms(run)),
            (run, upload) => format!(", device {} after {} of upload", ms(run), ms(upload)),
        };
        if self.host_estimate_ns == 0 { String::new() } else { format!("host {}{device}", ms(self.host_estimate_ns)) }
    }
}

/// What CACHE TABLE or UNCACHE TABLE did with a column.
#[derive(Debug, Clone, Default)]
pub struct CachedByTask {
    /// Chunks that were pinned or dropped.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why there are not more.
    pub reason: Option<String>,
}

/// Bytes on one edge of the plan, still counting while the stream runs.
struct Edge {
    from: (usize, usize),
    to_node: Option<String>,
    bytes: Bytes,
}

enum Bytes {
    Live(BytesCounterMetric),
    Final(u64),
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<(usize, usize), Task>,
    edges: Vec<Edge>,
    decisions: Vec<String>,
}

/// Collects the figures of one try of one query. Lives in the session configuration of that try.
pub struct QueryObserver {
    /// Query id.
    pub query_id: Uuid,
    regions: HashMap<String, String>,
    coordinator_region: String,
    started: Instant,
    elapsed_ms: AtomicU64,
    rows: AtomicU64,
    retries: u32,
    own_peak_memory: OnceLock<Arc<AtomicUsize>>,
    inner: Mutex<Inner>,
    /// The first node of a task that was lost.
    lost_task: watch::Sender<Option<NodeLost>>,
    /// Tasks whose nodes have taken their plan.
    begun: watch::Sender<usize>,
    /// Fragment whose rows clients take from the workers, if there is one, once that is known.
    kept_fragment: OnceLock<Option<usize>>,
}

impl QueryObserver {
    /// An observer; `regions` maps node ids to regions.
    pub fn new(query_id: Uuid, regions: HashMap<String, String>, coordinator_region: String, started: Instant, retries: u32) -> Self {
        Self {
            query_id,
            regions,
            coordinator_region,
            started,
            elapsed_ms: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            retries,
            own_peak_memory: OnceLock::new(),
            inner: Mutex::default(),
            lost_task: watch::Sender::new(None),
            begun: watch::Sender::new(0),
            kept_fragment: OnceLock::new(),
        }
    }

    /// A task's node was lost, or never got its plan.
    pub fn task_lost(&self, lost: NodeLost) {
        self.lost_task.send_if_modified(|first| {
            let news = first.is_none();
            first.get_or_insert(lost);
            news
        });
    }

    /// Resolves when a task's node was lost.
    pub async fn lost_task(&self) -> NodeLost {
        let mut first = self.lost_task.subscribe();
        let found = first.wait_for(Option::is_some).await.ok().and_then(|lost| lost.clone());
        match found {
            Some(lost) => lost,
            None => std::future::pending().await,
        }
    }

    /// Notes what was decided about the plan that its reader would not expect, with the reason.
    pub fn decided(&self, decision: String) {
        self.inner.lock().decisions.push(decision);
    }

    /// What was decided, in order.
    pub fn decisions(&self) -> Vec<String> {
        self.inner.lock().decisions.clone()
    }

    /// Where the coordinator's own memory of the query is counted.
    pub fn watch_memory(&self, peak: Arc<AtomicUsize>) {
        // A try has one pool.
        let _ = self.own_peak_memory.set(peak);
    }

    /// A task's plan goes to a node.
    pub fn task_sent(&self, key: &TaskKey, node_id: String) {
        self.inner.lock().tasks.insert((key.stage_id, key.task_number), Task { node_id, ..Default::default() });
    }

    /// A node has taken a task's plan.
    pub fn task_begun(&self) {
        self.begun.send_modify(|begun| *begun += 1);
    }

    /// Resolves when so many tasks have begun.
    pub async fn tasks_begun(&self, count: usize) {
        // The sender lives in `self`.
        let _ = self.begun.subscribe().wait_for(|begun| *begun >= count).await;
    }

    /// Rows of this fragment go from the workers to the client; of none, if the coordinator has the result.
    pub fn keeps_rows_of(&self, fragment: Option<usize>) {
        // A try has one plan.
        let _ = self.kept_fragment.set(fragment);
    }

    /// Who has the rows for the client, once that is known.
    pub fn result_from(&self) -> Option<&'static str> {
        self.kept_fragment.get().map(|kept| if kept.is_some() { "workers" } else { "coordinator" })
    }

    /// The coordinator itself reads from a task.
    pub fn receives(&self, key: &TaskKey, bytes: BytesCounterMetric) {
        self.inner.lock().edges.push(Edge { from: (key.stage_id, key.task_number), to_node: None, bytes: Bytes::Live(bytes) });
    }

    /// A task reported its metrics.
    pub fn task_ended(&self, key: &TaskKey, metrics: &TaskMetrics) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let task = inner.tasks.entry((key.stage_id, key.task_number)).or_default();
        task.ended = true;
        for metric in metrics.pre_order_plan_metrics.iter().flat_map(|set| set.iter()) {
            let label = |name: &str| metric.labels().iter().find(|label| label.name() == name).map(|label| label.value().to_string());
            let count = match metric.value() {
                MetricValue::Count { count, .. } => count.value() as u64,
                MetricValue::Gauge { gauge, .. } => gauge.value() as u64,
                MetricValue::Custom { value, .. } => match value.as_any().downcast_ref::<BytesCounterMetric>() {
                    Some(bytes) => bytes.value() as u64,
                    None => continue,
                },
                _ => continue,
            };
            match metric.value().name() {
                ROWS_METRIC => task.rows += count,
                ELAPSED_METRIC => task.elapsed_ns = task.elapsed_ns.max(count),
                PEAK_MEMORY_METRIC => task.peak_memory_bytes = task.peak_memory_bytes.max(count),
                "bytes_scanned" => task.bytes_scanned += count,
                KERNEL_ROWS_METRIC if label(EXECUTOR_LABEL).as_deref() == Some("device") => task.device_rows += count,
                KERNEL_ROWS_METRIC => task.host_rows += count,
                HOST_ESTIMATE_METRIC => task.host_estimate_ns += count,
                DEVICE_ESTIMATE_METRIC => task.device_estimate_ns += count,
                UPLOAD_ESTIMATE_METRIC => task.upload_estimate_ns += count,
                CACHED_CHUNKS_METRIC => task.cached.entry(label(COLUMN_LABEL).unwrap_or_default()).or_default().chunks += count,
                CACHED_BYTES_METRIC => task.cached.entry(label(COLUMN_LABEL).unwrap_or_default()).or_default().bytes += count,
                DECLINED_METRIC if label(COLUMN_LABEL).is_some() => {
                    task.cached.entry(label(COLUMN_LABEL).unwrap_or_default()).or_default().reason = label(REASON_LABEL);
                }
                DECLINED_METRIC => drop(task.declined.insert(label(REASON_LABEL).unwrap_or_default())),
                BYTES_MOVED_METRIC => {
                    let number = |name| label(name).and_then(|text| text.parse::<usize>().ok());
                    if let (Some(fragment), Some(sender)) = (number(FROM_FRAGMENT_LABEL), number(FROM_TASK_LABEL)) {
                        inner.edges.push(Edge {
                            from: (fragment, sender),
                            to_node: Some(task.node_id.clone()),
                            bytes: Bytes::Final(count),
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// Rows went to the client.
    pub fn released(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Stops the clock, once.
    pub fn finish(&self) {
        let elapsed = self.started.elapsed().as_millis().max(1) as u64;
        let _ = self.elapsed_ms.compare_exchange(0, elapsed, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Tasks in order of fragment and number.
    pub fn tasks(&self) -> Vec<TaskRecord> {
        let inner = self.inner.lock();
        let region = |node: &str| self.regions.get(node).cloned().unwrap_or_default();
        let mut records: BTreeMap<(usize, usize), TaskRecord> = inner
            .tasks
            .iter()
            .map(|(&(fragment, number), task)| {
                let declined = task.declined.iter().cloned().collect::<Vec<_>>().join("; ");
                let device = match (task.device_rows, task.host_rows, task.declined.is_empty()) {
                    (1.., _, _) => "device",
                    (0, 1.., _) => "host",
                    (0, 0, false) => "declined",
                    _ => "-",
                };
                let record = TaskRecord {
                    fragment,
                    task: number,
                    node_id: task.node_id.clone(),
                    region: region(&task.node_id),
                    device: device.into(),
                    reason: declined,
                    estimate: task.estimate(),
                    rows: task.rows,
                    kernel_rows: task.device_rows + task.host_rows,
                    bytes_scanned: task.bytes_scanned,
                    elapsed_ms: task.elapsed_ns as f64 / 1e6,
                    ended: task.ended,
                    ..Default::default()
                };
                ((fragment, number), record)
            })
            .collect();
        for edge in &inner.edges {
            let Some(record) = records.get_mut(&edge.from) else { continue };
            let bytes = match &edge.bytes {
                Bytes::Live(counter) => counter.value() as u64,
                Bytes::Final(bytes) => *bytes,
            };
            let to = edge.to_node.as_deref().map_or(self.coordinator_region.clone(), region);
            record.bytes_moved += bytes;
            if to != record.region {
                record.bytes_moved_across_regions += bytes;
            }
        }
        records.into_values().collect()
    }

    /// What CACHE TABLE or UNCACHE TABLE did, by node and column.
    pub fn cached(&self) -> BTreeMap<(String, String), CachedByTask> {
        let mut all: BTreeMap<(String, String), CachedByTask> = BTreeMap::new();
        for task in self.inner.lock().tasks.values() {
            for (column, part) in &task.cached {
                let whole = all.entry((task.node_id.clone(), column.clone())).or_default();
                whole.chunks += part.chunks;
                whole.bytes += part.bytes;
                whole.reason = whole.reason.take().or_else(|| part.reason.clone());
            }
        }
        all
    }

    /// The figures so far.
    pub fn summary(&self) -> QuerySummary {
        let tasks = self.tasks();
        let sum = |figure: fn(&TaskRecord) -> u64| tasks.iter().map(figure).sum::<u64>();
        let finished = self.elapsed_ms.load(Ordering::Relaxed);
        let of_workers = self.inner.lock().tasks.values().map(|task| task.peak_memory_bytes).max().unwrap_or(0);
        let kept = self.kept_fragment.get().copied().flatten();
        let kept_rows: u64 = tasks.iter().filter(|task| kept == Some(task.fragment)).map(|task| task.rows).sum();
        let own = self.own_peak_memory.get().map_or(0, |peak| peak.load(Ordering::Relaxed) as u64);
        QuerySummary {
            query_id: self.query_id,
            rows: self.rows.load(Ordering::Relaxed) + kept_rows,
            elapsed_ms: if finished > 0 { finished } else { self.started.elapsed().as_millis() as u64 },
            bytes_scanned: sum(|task| task.bytes_scanned),
            bytes_moved: sum(|task| task.bytes_moved),
            bytes_moved_across_regions: sum(|task| task.bytes_moved_across_regions),
            tasks: tasks.len() as u32,
            tasks_on_device: tasks.iter().filter(|task| task.device == "device").count() as u32,
            tasks_on_host_kernel: tasks.iter().filter(|task| task.device == "host").count() as u32,
            retries: self.retries,
            running_tasks: if finished > 0 { 0 } else { tasks.iter().filter(|task| !task.ended).count() as u32 },
            peak_memory_bytes: of_workers.max(own),
        }
    }
}
