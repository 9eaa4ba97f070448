//! Results that clients take from the workers: which plans have them, and the way of a part through the coordinator for clients that cannot reach
//! its worker.
//!
//! Only a plan whose last fragment is all there is to it, a scan with what is done row by row, keeps its rows on the workers. Above a merge, a
//! sort or a limit they are the coordinator's. And where fragments feed several tasks of the last one, a client that takes one part after the
//! other would hold up the parts it takes, or fill the memory of those it does not.

use super::Coordinator;
use super::planner;
use crate::catalog::provider::StoredTable;
use crate::config::{BowshotOptions, ResultEndpoints};
use crate::error::{Error, Result};
use crate::fragment::placement::Placement;
use crate::limits;
use crate::result_types::plain_schema;
use crate::worker::files;
use crate::worker::published::{PUBLISH_HEADER, PartId};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::FlightData;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNode;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion_distributed::{DistributedExec, DistributedExt, NetworkBoundaryExt, NetworkCoalesceExec, Stage};
use futures::Stream;
use http::{HeaderMap, HeaderName};
use std::sync::Arc;
use url::Url;
use uuid::Uuid;

/// Bytes that a value of no fixed width counts as.
const TEXT_BYTES: u64 = 24;

/// How the client of a query could take its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// All of it from the coordinator.
    Whole,
    /// Parts of it from the workers too.
    Parts {
        /// Whether it is thought to reach them.
        reaches_workers: bool,
    },
}

/// A part of a result, waiting on the worker that made it.
#[derive(Debug, Clone)]
pub struct ResultPart {
    /// What the worker knows it by.
    pub id: PartId,
    /// The worker.
    pub node_id: String,
    /// Where clients fetch it, if the worker listens to them.
    pub client_url: Option<Arc<str>>,
    url: Url,
}

/// A result in parts that is about to be offered.
pub struct PartsOfPlan {
    /// Fragment that makes them.
    pub fragment: usize,
    /// One a task, in order.
    pub parts: Vec<ResultPart>,
}

/// Whether parts may come of a query that is not planned physically yet. Whoever asks for its result waits until that is certain.
pub fn may_come_of(plan: &LogicalPlan, options: &BowshotOptions, delivery: Delivery) -> bool {
    let Delivery::Parts { reaches_workers } = delivery else { return false };
    let mut rows = 0;
    let simple = is_row_by_row(plan, &mut rows);
    match options.result_endpoints {
        _ if !simple || options.result_buffer > 0 => false,
        ResultEndpoints::Coordinator => false,
        ResultEndpoints::Workers => true,
        ResultEndpoints::Auto => reaches_workers && bytes_of(rows, plan.schema().as_arrow()) >= limits::DIRECT_RESULT_BYTES_MIN,
    }
}

/// Whether a plan is a scan of one stored table and what is done with each row of it; counts the rows.
fn is_row_by_row(plan: &LogicalPlan, rows: &mut u64) -> bool {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(|input| is_row_by_row(input, rows))
        }
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
            let Ok(provider) = datafusion::datasource::source_as_provider(&scan.source) else { return false };
            if let Some(view) = provider.get_logical_plan() {
                return is_row_by_row(&view, rows);
            }
            let stored = provider.downcast_ref::<StoredTable>();
            let files = stored.map_or(&[][..], |stored| &stored.table().files);
            *rows = files.iter().fold(*rows, |rows, file| rows.saturating_add(file.row_count));
            stored.is_some()
        }
        _ => false,
    }
}

/// Estimated bytes. Counts of rows are what footers say, however large.
fn bytes_of(rows: u64, schema: &Schema) -> u64 {
    let row: u64 = schema.fields().iter().map(|field| value_bytes(field.data_type())).sum();
    rows.saturating_mul(row)
}

fn value_bytes(data_type: &DataType) -> u64 {
    match data_type {
        DataType::Dictionary(_, value) => value_bytes(value),
        other => other.primitive_width().map_or(TEXT_BYTES, |width| width as u64),
    }
}

/// The parts of a plan that is about to run.
///
/// # Errors
/// Why it has none, as the end of a sentence, if the session should hear of it.
pub fn of_plan(
    plan: &Arc<dyn ExecutionPlan>,
    placement: &Placement,
    options: &BowshotOptions,
    schema: &SchemaRef,
) -> Result<PartsOfPlan, Option<&'static str>> {
    let wanted = options.result_endpoints == ResultEndpoints::Workers;
    let told = |reason| wanted.then_some(reason);
    if placement.reads_pinned() {
        // Their rows leave the cluster where the coordinator is, in its region.
        return Err(told("a table of the query is pinned to regions"));
    }
    if options.result_buffer > 0 {
        return Err(told("bowshot.result_buffer holds rows back"));
    }
    if planner::adapts(options, placement) {
        return Err(told("bowshot.adaptive_tasks counts tasks while the query runs"));
    }
    let last = last_fragment(plan).ok_or_else(|| told("the coordinator has to merge, sort or limit its rows"))?;
    if plain_schema(&last.plan.schema()) != *schema {
        return Err(told("the coordinator has to change its columns"));
    }
    if !wanted
        && (estimated_bytes(&last.plan) < limits::DIRECT_RESULT_BYTES_MIN || placement.nodes.iter().any(|node| node.client_url.is_none()))
    {
        return Err(None);
    }
    if placement.nodes.iter().any(|node| !node.keeps_parts) {
        return Err(told("a worker is of a release that does not keep results"));
    }
    let parts = placement.nodes.iter().take(last.tasks).enumerate().map(|(task, node)| ResultPart {
        id: PartId { query: last.query, task: task as u64 },
        node_id: node.node_id.clone(),
        client_url: node.client_url.clone(),
        url: node.url.clone(),
    });
    Ok(PartsOfPlan { fragment: last.number, parts: parts.collect() })
}

struct LastFragment {
    query: Uuid,
    number: usize,
    tasks: usize,
    plan: Arc<dyn ExecutionPlan>,
}

/// The fragment whose rows the coordinator would pass on as they are, if no other feeds it.
fn last_fragment(plan: &Arc<dyn ExecutionPlan>) -> Option<LastFragment> {
    plan.downcast_ref::<DistributedExec>()?;
    let [merge] = plan.children()[..] else { return None };
    merge.downcast_ref::<CoalescePartitionsExec>().filter(|merge| merge.fetch().is_none())?;
    let [gathered] = merge.children()[..] else { return None };
    gathered.downcast_ref::<NetworkCoalesceExec>()?;
    let Stage::Local(stage) = gathered.as_network_boundary()?.input_stage() else { return None };
    let fed = stage.plan.exists(|node| Ok(node.is_network_boundary())).ok()?;
    (!fed).then(|| LastFragment { query: stage.query_id, number: stage.num, tasks: stage.tasks, plan: stage.plan.clone() })
}

fn estimated_bytes(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let rows = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).ok();
    let rows = rows.and_then(|known| known.num_rows.get_value().copied()).unwrap_or(0);
    bytes_of(rows as u64, &plan.schema())
}

/// Asks the tasks of a fragment to keep their rows.
pub fn ask_to_keep(state: &mut SessionState, mut headers: HeaderMap, fragment: usize) -> Result<(), DataFusionError> {
    headers.insert(HeaderName::from_static(PUBLISH_HEADER), fragment.into());
    state.set_distributed_passthrough_headers(headers)
}

impl Coordinator {
    /// Fetches a part of a result for a client that cannot reach its worker.
    ///
    /// # Errors
    /// When the worker cannot be reached or has no such part any more; afterwards what ended the part.
    pub async fn fetch_part(&self, part: &ResultPart) -> Result<impl Stream<Item = Result<FlightData, Error>> + Send + use<>> {
        files::read_part(&self.inner.channels, &part.url, part.id).await
    }
}
