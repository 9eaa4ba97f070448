//! EXPLAIN shows the fragments that would run; EXPLAIN ANALYZE runs the query and shows what every task did.

use super::CoordinatorInner;
use super::observer::{QueryObserver, TaskRecord};
use super::query::{PlannedQuery, QueryStream, place, plan_physical, run_to_end};
use crate::error::{Result, from_datafusion};
use crate::limits;
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion_distributed::{DistributedExec, DistributedMetricsFormat, display_plan_ascii, explain_analyze};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Columns of both statements.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("plan_type", DataType::Utf8, true), Field::new("plan", DataType::Utf8, true)]))
}

fn answer(query_id: Uuid, rows: Vec<(&str, String)>) -> Result<QueryStream> {
    let kinds = StringArray::from_iter_values(rows.iter().map(|(kind, _)| *kind));
    let plans = StringArray::from_iter_values(rows.iter().map(|(_, plan)| plan.as_str()));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(kinds), Arc::new(plans)]).map_err(|error| from_datafusion(&error.into()))?;
    Ok(QueryStream::ready(query_id, batch))
}

/// EXPLAIN: logical plan and fragments.
pub(crate) async fn explain(inner: Arc<CoordinatorInner>, query: PlannedQuery) -> Result<QueryStream> {
    let query_id = Uuid::now_v7();
    let observer = Arc::new(QueryObserver::new(query_id, HashMap::new(), inner.config.region.clone(), Instant::now(), 0));
    let failed = |error| from_datafusion(&error).with_query(query_id);
    let placement = Arc::new(place(&inner, &query, &HashSet::new()).map_err(failed)?);
    let optimized = query.state.optimize(&query.plan).map_err(failed)?;
    let nodes =
        placement.nodes.iter().enumerate().map(|(slot, node)| format!("task {slot}: {} ({})\n", node.node_id, node.region)).collect();
    let (plan, _) = plan_physical(&inner, &query, placement, observer.clone(), None).await.map_err(failed)?;
    let fragments = match plan.is::<DistributedExec>() {
        true => display_plan_ascii(plan.as_ref(), false),
        false => DisplayableExecutionPlan::new(plan.as_ref()).indent(false).to_string(),
    };
    let rows = vec![("logical_plan", optimized.display_indent().to_string()), ("fragments", fragments), ("placement", nodes)];
    answer(query_id, with_decisions(rows, &observer))
}

/// EXPLAIN ANALYZE: the tasks first, since they answer most questions; then the plan with its metrics.
pub(crate) async fn analyze(inner: Arc<CoordinatorInner>, query: PlannedQuery, verbose: bool) -> Result<QueryStream> {
    let run = run_to_end(inner, query).await?;
    let query_id = run.observer.query_id;
    let plan = match run.plan.is::<DistributedExec>() {
        true => {
            let format = if verbose { DistributedMetricsFormat::PerTask } else { DistributedMetricsFormat::Aggregated };
            match tokio::time::timeout(limits::TASK_REPORTS_WAIT, explain_analyze(run.plan.clone(), format)).await {
                Ok(text) => text.map_err(|error| from_datafusion(&error).with_query(query_id))?,
                Err(_) => "the workers' metrics did not arrive".into(),
            }
        }
        false => DisplayableExecutionPlan::with_metrics(run.plan.as_ref()).indent(verbose).to_string(),
    };
    let summary = run.observer.summary();
    let total = format!(
        "rows {} · elapsed {} ms · bytes scanned {} · bytes moved {} (across regions {}) · tasks {} (device {}, host kernel {}) · retries {} · query {}",
        summary.rows,
        summary.elapsed_ms,
        summary.bytes_scanned,
        summary.bytes_moved,
        summary.bytes_moved_across_regions,
        summary.tasks,
        summary.tasks_on_device,
        summary.tasks_on_host_kernel,
        summary.retries,
        summary.query_id
    );
    let rows = vec![("tasks", task_table(&run.observer.tasks())), ("summary", total), ("plan", plan)];
    answer(query_id, with_decisions(rows, &run.observer))
}

/// What was decided about the plan, after the rest; nothing where all went the usual way.
fn with_decisions<'a>(mut rows: Vec<(&'a str, String)>, observer: &QueryObserver) -> Vec<(&'a str, String)> {
    let decisions = observer.decisions();
    if !decisions.is_empty() {
        rows.push(("decisions", decisions.join("\n")));
    }
    rows
}

/// The tasks as aligned text.
fn task_table(tasks: &[TaskRecord]) -> String {
    let mut rows = vec![
        ["fragment", "task", "node", "region", "kernel", "rows", "kernel rows", "bytes scanned", "bytes moved", "ms", "estimate", "reason"]
            .map(str::to_string)
            .to_vec(),
    ];
    rows.extend(tasks.iter().map(|task| {
        vec![
            task.fragment.to_string(),
            task.task.to_string(),
            task.node_id.clone(),
            task.region.clone(),
            task.device.clone(),
            task.rows.to_string(),
            task.kernel_rows.to_string(),
            task.bytes_scanned.to_string(),
            task.bytes_moved.to_string(),
            format!("{:.1}", task.elapsed_ms),
            task.estimate.clone(),
            task.reason.clone(),
        ]
    }));
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_string()
        })
        .collect::<Vec<_>>()
        .join("\n")
}
