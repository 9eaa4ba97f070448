//! The engine's own tables: `system.cache`, `column_statistics`, `files`, `nodes`, `queries`, `settings`, `tables`, `tasks`. Rows are taken
//! when a statement is planned.

use crate::catalog::location::Location;
use crate::catalog::provider::planned;
use crate::catalog::{BadFile, Table};
use crate::config::residency_of;
use crate::control::CachedColumn;
use crate::coordinator::membership::{NodeInfo, NodeState};
use crate::coordinator::registry::{QueryRecord, QueryState};
use crate::coordinator::{Coordinator, drains};
use crate::result_types::plain_type;
use crate::statement::definition;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// Names of the system tables.
pub const NAMES: [&str; 8] = ["cache", "column_statistics", "files", "nodes", "queries", "settings", "tables", "tasks"];

type Rows = Arc<dyn Fn() -> Vec<ArrayRef> + Send + Sync>;

/// A table whose rows are made when it is scanned.
pub(crate) struct SystemTable {
    schema: SchemaRef,
    rows: Rows,
}

impl SystemTable {
    /// A table of these columns; `rows` makes an array of each.
    pub(crate) fn new(fields: Vec<Field>, rows: Rows) -> Self {
        Self { schema: Arc::new(Schema::new(fields)), rows }
    }

    fn plan_scan(&self, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
        let batch = RecordBatch::try_new(self.schema.clone(), (self.rows)())?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema.clone(), projection.cloned())?)
    }
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemTable")
    }
}

impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    fn table_type(&self) -> TableType {
        TableType::View
    }
    fn scan<'a, 'b, 'c, 'd, 'future>(
        &'a self,
        _: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _: &'d [Expr],
        _: Option<usize>,
    ) -> BoxFuture<'future, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'future,
        'b: 'future,
        'c: 'future,
        'd: 'future,
        Self: 'future,
    {
        planned(self.plan_scan(projection))
    }
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}
fn count(name: &str) -> Field {
    Field::new(name, DataType::UInt64, true)
}
fn strings<T>(rows: &[T], value: impl Fn(&T) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
}
fn counts<T>(rows: &[T], value: impl Fn(&T) -> u64) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(rows.iter().map(value)))
}

/// The tables, over the coordinator's state at the time of a scan.
pub fn tables(coordinator: &Coordinator, user: &str, settings: BTreeMap<String, String>) -> BTreeMap<String, Arc<dyn TableProvider>> {
    let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
    let mut add = |name: &str, fields: Vec<Field>, rows: Rows| {
        tables.insert(name.into(), Arc::new(SystemTable::new(fields, rows)));
    };
    let of = coordinator.clone();
    let fields = vec![
        text("node_id"),
        text("role"),
        text("region"),
        text("address"),
        text("observed_address"),
        count("pid"),
        text("state"),
        text("version"),
        text("device"),
        count("cached_bytes"),
        count("cpu_threads"),
        count("file_count"),
        count("last_heartbeat_ms"),
        count("replica_count"),
        count("running_tasks"),
        count("max_tasks"),
        count("memory_reserved_bytes"),
        count("spilled_bytes"),
        Field::new("clock_ahead_ms", DataType::Int64, true),
        Field::new("draining", DataType::Boolean, true),
        count("files_left"),
    ];
    add("nodes", fields, Arc::new(move || node_rows(&of)));
    let of = coordinator.clone();
    let fields = vec![
        text("node_id"),
        text("table_schema"),
        text("table_name"),
        text("path"),
        text("column_name"),
        Field::new("computed", DataType::Boolean, true),
        count("row_groups"),
        count("pinned_row_groups"),
        count("bytes"),
    ];
    add("cache", fields, Arc::new(move || cache_rows(&of)));
    let of = coordinator.clone();
    let fields = vec![
        text("table_schema"),
        text("table_name"),
        text("path"),
        count("size_bytes"),
        count("row_count"),
        text("node_id"),
        text("storage"),
        text("region"),
        count("replica"),
        text("checksum"),
        text("kind"),
        text("state"),
        text("reason"),
    ];
    add("files", fields, Arc::new(move || file_rows(&of)));
    let (of, asks) = (coordinator.clone(), user.to_string());
    let fields = vec![
        text("query_id"),
        text("user_name"),
        text("state"),
        text("sql"),
        Field::new("started_at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        count("elapsed_ms"),
        count("rows"),
        count("bytes_scanned"),
        count("bytes_moved"),
        count("bytes_moved_across_regions"),
        count("retries"),
        text("priority"),
        count("queued_ms"),
        count("running_tasks"),
        count("peak_memory_bytes"),
        text("error"),
        text("result_from"),
        text("decisions"),
    ];
    add("queries", fields, Arc::new(move || query_rows(&of, &asks)));
    let (of, asks) = (coordinator.clone(), user.to_string());
    let fields = vec![
        text("query_id"),
        Field::new("fragment", DataType::Int64, true),
        Field::new("task", DataType::Int64, true),
        text("node_id"),
        text("region"),
        text("device"),
        text("reason"),
        count("rows"),
        count("kernel_rows"),
        count("bytes_scanned"),
        count("bytes_moved"),
        count("bytes_moved_across_regions"),
        Field::new("elapsed_ms", DataType::Float64, true),
        text("estimate"),
    ];
    add("tasks", fields, Arc::new(move || task_rows(&of, &asks)));
    let of = coordinator.clone();
    let fields = vec![
        text("table_schema"),
        text("table_name"),
        text("location"),
        count("file_count"),
        count("row_count"),
        count("size_bytes"),
        count("replicas"),
        text("regions"),
        Field::new("managed", DataType::Boolean, true),
        text("comment"),
        text("definition"),
    ];
    add("tables", fields, Arc::new(move || table_rows(&of)));
    let of = coordinator.clone();
    let fields = vec![
        text("table_schema"),
        text("table_name"),
        text("column_name"),
        text("data_type"),
        count("null_count"),
        text("min_value"),
        text("max_value"),
    ];
    add("column_statistics", fields, Arc::new(move || column_rows(&of)));
    let settings: Vec<(String, String)> = settings.into_iter().collect();
    let rows = move || vec![strings(&settings, |(name, _)| name.clone()), strings(&settings, |(_, value)| value.clone())];
    add("settings", vec![text("name"), text("value")], Arc::new(rows));
    tables
}

fn node_rows(coordinator: &Coordinator) -> Vec<ArrayRef> {
    let nodes = coordinator.nodes();
    let snapshot = coordinator.inner.snapshot();
    let draining = &snapshot.draining;
    let left = drains::files_left(&snapshot, &coordinator.inner.membership.inventories());
    vec![
        strings(&nodes, |node| node.node_id.clone()),
        strings(&nodes, |node| node.role.clone()),
        strings(&nodes, |node| node.region.clone()),
        strings(&nodes, |node| node.address.clone()),
        Arc::new(nodes.iter().map(|node| node.observed_address.clone()).collect::<StringArray>()),
        counts(&nodes, |node| node.pid.into()),
        strings(&nodes, |node| node.state.to_string()),
        strings(&nodes, |node| node.version.clone()),
        strings(&nodes, |node| node.device.clone()),
        counts(&nodes, |node| node.cached_bytes),
        counts(&nodes, |node| node.cpu_threads as u64),
        counts(&nodes, |node| node.file_count as u64),
        counts(&nodes, |node| node.heartbeat_age_ms),
        counts(&nodes, |node| node.replica_count as u64),
        counts(&nodes, |node| node.running_tasks),
        counts(&nodes, |node| node.max_tasks),
        counts(&nodes, |node| node.memory_reserved_bytes),
        counts(&nodes, |node| node.spilled_bytes),
        Arc::new(nodes.iter().map(|node| Some(node.clock_ahead_ms)).collect::<Int64Array>()),
        Arc::new(nodes.iter().map(|node| Some(draining.contains(&node.node_id))).collect::<BooleanArray>()),
        Arc::new(nodes.iter().map(|node| left.get(&node.node_id).copied()).collect::<UInt64Array>()),
    ]
}

/// A column of a file in a node's cache, once for each table that the file belongs to.
fn cache_rows(coordinator: &Coordinator) -> Vec<ArrayRef> {
    let snapshot = coordinator.inner.snapshot();
    let mut tables: BTreeMap<String, Vec<&Table>> = BTreeMap::new();
    for table in snapshot.schemas.values().flat_map(|tables| tables.values()) {
        for file in &table.files {
            tables.entry(format!("{}/{}", file.store_url.trim_end_matches('/'), file.path)).or_default().push(table);
        }
    }
    let cached = coordinator.inner.membership.cached_columns();
    let mut rows: Vec<(&str, Option<&Table>, &CachedColumn)> = vec![];
    for (node, columns) in &cached {
        for column in columns.iter() {
            match tables.get(&column.file) {
                Some(tables) => rows.extend(tables.iter().map(|table| (node.as_str(), Some(*table), column))),
                None => rows.push((node, None, column)),
            }
        }
    }
    vec![
        strings(&rows, |(node, _, _)| node.to_string()),
        Arc::new(rows.iter().map(|(_, table, _)| table.map(|table| table.schema_name.clone())).collect::<StringArray>()),
        Arc::new(rows.iter().map(|(_, table, _)| table.map(|table| table.name.clone())).collect::<StringArray>()),
        strings(&rows, |(_, _, column)| column.file.clone()),
        strings(&rows, |(_, _, column)| column.column.clone()),
        Arc::new(rows.iter().map(|(_, _, column)| Some(column.computed)).collect::<BooleanArray>()),
        counts(&rows, |(_, _, column)| column.row_groups),
        counts(&rows, |(_, _, column)| column.pinned_row_groups),
        counts(&rows, |(_, _, column)| column.bytes),
    ]
}

/// A copy of a file of a table.
#[derive(Clone)]
struct FileRow {
    schema: String,
    table: String,
    path: String,
    size_bytes: u64,
    row_count: u64,
    node: Option<String>,
    storage: Option<String>,
    region: Option<String>,
    replica: u64,
    checksum: Option<String>,
    kind: &'static str,
    state: &'static str,
    reason: Option<String>,
}

fn file_rows(coordinator: &Coordinator) -> Vec<ArrayRef> {
    let nodes: BTreeMap<String, NodeInfo> = coordinator.nodes().into_iter().map(|node| (node.node_id.clone(), node)).collect();
    let buckets = &coordinator.inner.config.storage;
    let (snapshot, inventories) = (coordinator.inner.snapshot(), coordinator.inner.membership.inventories());
    // Copies that the cluster made, by volume and checksum.
    let mut made: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
    for (node, held) in &inventories {
        for (volume, checksum) in held.replicas.keys() {
            made.entry((volume, checksum)).or_default().push(node);
        }
    }
    let alive = |node: &str, whole: fn(NodeState) -> &'static str| match inventories.get(node) {
        Some(_) if snapshot.draining.contains(node) => "draining",
        Some(held) => whole(held.state),
        None => "missing",
    };
    let of_node = |state: NodeState| if state == NodeState::Live { "live" } else { "suspect" };
    let mut rows = vec![];
    for table in snapshot.tables() {
        for file in &table.files {
            let one = FileRow {
                schema: table.schema_name.clone(),
                table: table.name.clone(),
                path: file.path.clone(),
                size_bytes: file.size_bytes,
                row_count: file.row_count,
                node: None,
                storage: None,
                region: None,
                replica: 0,
                checksum: file.checksum.clone(),
                kind: "object",
                state: "live",
                reason: None,
            };
            let Some(volume) = file.volume() else {
                rows.push(FileRow { storage: Some(file.store_url.to_string()), region: residency_of(buckets, &file.store_url), ..one });
                continue;
            };
            let key = format!("{volume}/{}", file.path);
            let mut replica = 0;
            let mut add = |node: &str, kind: &'static str, state: &'static str, reason: Option<String>| {
                let region = nodes.get(node).map(|known| known.region_of(volume).to_string());
                rows.push(FileRow { node: Some(node.to_string()), region, replica, kind, state, reason, ..one.clone() });
                replica += 1;
            };
            for (node, version) in &file.homes {
                let held = inventories.get(&**node);
                let damaged = held.and_then(|held| held.damaged.get(&key)).cloned();
                let state = match held.map(|held| held.files.get(&key)) {
                    Some(None) if damaged.is_some() => "damaged",
                    Some(None) => "missing",
                    Some(Some(found)) if found.version != *version => "replaced",
                    _ => alive(node, of_node),
                };
                add(node, "original", state, damaged);
            }
            let copies = file.checksum.as_deref().and_then(|checksum| made.get(&(volume, checksum)));
            for node in copies.into_iter().flatten() {
                add(node, "replica", alive(node, of_node), None);
            }
        }
    }
    let bad = snapshot.tables().flat_map(|table| table.details.bad_files.iter().map(move |file| (table, file)));
    rows.extend(bad.map(|(table, file)| bad_file_row(table, file, &nodes)));
    let optional = |value: fn(&FileRow) -> Option<String>| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<StringArray>()) };
    vec![
        strings(&rows, |row| row.schema.clone()),
        strings(&rows, |row| row.table.clone()),
        strings(&rows, |row| row.path.clone()),
        counts(&rows, |row| row.size_bytes),
        counts(&rows, |row| row.row_count),
        optional(|row| row.node.clone()),
        optional(|row| row.storage.clone()),
        optional(|row| row.region.clone()),
        counts(&rows, |row| row.replica),
        optional(|row| row.checksum.clone()),
        strings(&rows, |row| row.kind.to_string()),
        strings(&rows, |row| row.state.to_string()),
        optional(|row| row.reason.clone()),
    ]
}

/// A file that a table leaves out.
fn bad_file_row(table: &Table, file: &BadFile, nodes: &BTreeMap<String, NodeInfo>) -> FileRow {
    let volume = match &table.location {
        Location::Node { volume, .. } => volume.as_str(),
        Location::Bucket { .. } => "",
    };
    let region = file.node.as_ref().and_then(|node| nodes.get(node)).map(|known| known.region_of(volume).to_string());
    FileRow {
        schema: table.schema_name.clone(),
        table: table.name.clone(),
        path: file.path.clone(),
        size_bytes: 0,
        row_count: 0,
        node: file.node.clone(),
        storage: None,
        region,
        replica: 0,
        checksum: None,
        kind: if file.node.is_some() { "original" } else { "object" },
        state: "unreadable",
        reason: Some(file.reason.clone()),
    }
}

fn table_rows(coordinator: &Coordinator) -> Vec<ArrayRef> {
    let snapshot = coordinator.inner.snapshot();
    let tables: Vec<_> = snapshot.tables().collect();
    vec![
        strings(&tables, |table| table.schema_name.clone()),
        strings(&tables, |table| table.name.clone()),
        strings(&tables, |table| table.location_text.clone()),
        counts(&tables, |table| table.files.len() as u64),
        counts(&tables, |table| table.files.iter().map(|file| file.row_count).sum()),
        counts(&tables, |table| table.files.iter().map(|file| file.size_bytes).sum()),
        counts(&tables, |table| table.replicas.into()),
        strings(&tables, |table| table.regions.join(", ")),
        Arc::new(tables.iter().map(|table| Some(table.managed)).collect::<BooleanArray>()),
        Arc::new(tables.iter().map(|table| table.details.comment.as_ref()).collect::<StringArray>()),
        strings(&tables, |table| definition::of(table)),
    ]
}

/// What the footers of a table's files say of its columns. NULL where not every file says it.
fn column_rows(coordinator: &Coordinator) -> Vec<ArrayRef> {
    let snapshot = coordinator.inner.snapshot();
    let rows: Vec<_> = snapshot
        .tables()
        .flat_map(|table| {
            let columns = table.stored_schema.fields().iter().zip(&table.statistics.column_statistics);
            columns.map(move |(field, statistics)| (table, field, statistics))
        })
        .collect();
    let value = |of: fn(&ColumnStatistics) -> &Precision<ScalarValue>| -> ArrayRef {
        let text = |known: &Precision<ScalarValue>| known.get_value().filter(|value| !value.is_null()).map(ToString::to_string);
        Arc::new(rows.iter().map(|(_, _, statistics)| text(of(statistics))).collect::<StringArray>())
    };
    vec![
        strings(&rows, |(table, _, _)| table.schema_name.clone()),
        strings(&rows, |(table, _, _)| table.name.clone()),
        strings(&rows, |(_, field, _)| field.name().clone()),
        strings(&rows, |(_, field, _)| plain_type(field.data_type()).to_string()),
        Arc::new(
            rows.iter().map(|(_, _, statistics)| statistics.null_count.get_value().map(|nulls| *nulls as u64)).collect::<UInt64Array>(),
        ),
        value(|statistics| &statistics.min_value),
        value(|statistics| &statistics.max_value),
    ]
}

/// The queries that `user` may see: all of them to administrators, to others their own.
fn seen_queries(coordinator: &Coordinator, user: &str) -> Vec<QueryRecord> {
    let mut queries = coordinator.inner.queries.records();
    if !coordinator.is_administrator(user) {
        queries.retain(|query| query.user == user);
    }
    queries
}

fn query_rows(coordinator: &Coordinator, user: &str) -> Vec<ArrayRef> {
    let queries = seen_queries(coordinator, user);
    let started = queries.iter().map(|query| Some(query.started_at_ms as i64)).collect::<TimestampMillisecondArray>();
    vec![
        strings(&queries, |query| query.query_id.to_string()),
        strings(&queries, |query| query.user.clone()),
        strings(&queries, |query| query.state.word().to_string()),
        strings(&queries, |query| query.sql.clone()),
        Arc::new(started.with_timezone("UTC")),
        counts(&queries, |query| query.summary.elapsed_ms),
        counts(&queries, |query| query.summary.rows),
        counts(&queries, |query| query.summary.bytes_scanned),
        counts(&queries, |query| query.summary.bytes_moved),
        counts(&queries, |query| query.summary.bytes_moved_across_regions),
        counts(&queries, |query| query.summary.retries.into()),
        strings(&queries, |query| query.priority.to_string()),
        counts(&queries, |query| query.queued.as_millis() as u64),
        counts(&queries, |query| query.summary.running_tasks.into()),
        counts(&queries, |query| query.summary.peak_memory_bytes),
        Arc::new(
            queries
                .iter()
                .map(|query| match &query.state {
                    QueryState::Failed(error) => Some(error.clone()),
                    _ => None,
                })
                .collect::<StringArray>(),
        ),
        Arc::new(queries.iter().map(|query| query.result_from).collect::<StringArray>()),
        Arc::new(queries.iter().map(|query| (!query.decisions.is_empty()).then(|| query.decisions.join("\n"))).collect::<StringArray>()),
    ]
}

fn task_rows(coordinator: &Coordinator, user: &str) -> Vec<ArrayRef> {
    let queries = seen_queries(coordinator, user);
    let rows: Vec<_> = queries.iter().flat_map(|query| query.tasks.iter().map(move |task| (query.query_id, task))).collect();
    vec![
        strings(&rows, |(query, _)| query.to_string()),
        Arc::new(rows.iter().map(|(_, task)| Some(task.fragment as i64)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(_, task)| Some(task.task as i64)).collect::<Int64Array>()),
        strings(&rows, |(_, task)| task.node_id.clone()),
        strings(&rows, |(_, task)| task.region.clone()),
        strings(&rows, |(_, task)| task.device.clone()),
        strings(&rows, |(_, task)| task.reason.clone()),
        counts(&rows, |(_, task)| task.rows),
        counts(&rows, |(_, task)| task.kernel_rows),
        counts(&rows, |(_, task)| task.bytes_scanned),
        counts(&rows, |(_, task)| task.bytes_moved),
        counts(&rows, |(_, task)| task.bytes_moved_across_regions),
        Arc::new(rows.iter().map(|(_, task)| Some(task.elapsed_ms)).collect::<Float64Array>()),
        strings(&rows, |(_, task)| task.estimate.clone()),
    ]
}
