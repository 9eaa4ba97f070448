//! Rows that are read once and handed out as often as they are asked for.
//!
//! A recursive query runs its recursive term once a step, but a task's rows can be taken from the network only once. Every network boundary
//! inside such a term gets this node over it:
//!
//! ```text
//!   RecursiveQueryExec                      RecursiveQueryExec
//!     static term                             static term
//!     HashJoinExec               ──►          HashJoinExec
//!       WorkTableExec                           WorkTableExec
//!       NetworkCoalesceExec                     ReplayExec
//!                                                 NetworkCoalesceExec
//! ```

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, replace_children_if_necessary,
};
use datafusion_distributed::NetworkBoundaryExt;
use futures::{StreamExt, TryStreamExt};
use std::fmt;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Puts a [`ReplayExec`] over every network boundary inside a recursive term.
pub fn in_recursive_terms(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let replaced = plan.transform_up(|node| {
        if !node.is::<RecursiveQueryExec>() {
            return Ok(Transformed::no(node));
        }
        let terms: Vec<_> = node.children().into_iter().cloned().collect();
        let [fixed, recursive] =
            <[_; 2]>::try_from(terms).or_else(|terms| internal_err!("a recursive query has {} terms instead of two", terms.len()))?;
        let recursive = over_boundaries(recursive)?;
        Ok(Transformed::yes(replace_children_if_necessary(node, vec![fixed, recursive])?))
    })?;
    Ok(replaced.data)
}

fn over_boundaries(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let replaced = plan.transform_down(|node| {
        if !node.is_network_boundary() {
            return Ok(Transformed::no(node));
        }
        let replay: Arc<dyn ExecutionPlan> = Arc::new(ReplayExec::new(node));
        // What lies beyond the boundary runs once, elsewhere.
        Ok(Transformed::new(replay, true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

/// A partition's rows, with the memory they hold.
type Kept = Arc<(Vec<RecordBatch>, MemoryReservation)>;

/// Keeps the rows of its input for the next execution.
#[derive(Debug)]
pub struct ReplayExec {
    input: Arc<dyn ExecutionPlan>,
    /// A cell a partition, shared by all clones that a recursive query makes of its term for its steps.
    kept: Arc<Vec<OnceCell<Kept>>>,
}

impl ReplayExec {
    /// Over `input`, whose partitions are executed at most once each.
    pub fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let partitions = input.output_partitioning().partition_count();
        Self { kept: Arc::new((0..partitions).map(|_| OnceCell::new()).collect()), input }
    }
}

impl DisplayAs for ReplayExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ReplayExec")
    }
}

impl ExecutionPlan for ReplayExec {
    fn name(&self) -> &str {
        "ReplayExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("ReplayExec has one child");
        };
        Ok(Arc::new(Self { input, kept: self.kept.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (input, cells) = (self.input.clone(), self.kept.clone());
        let reading = async move {
            let Some(cell) = cells.get(partition) else { return internal_err!("ReplayExec has no partition {partition}") };
            let kept = cell.get_or_try_init(|| read(input, partition, context)).await?.clone();
            Ok(futures::stream::iter((0..kept.0.len()).map(move |batch| Ok(kept.0[batch].clone()))))
        };
        let rows = futures::stream::once(reading).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

async fn read(input: Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<Kept> {
    let reservation = MemoryConsumer::new(format!("ReplayExec[{partition}]")).register(context.memory_pool());
    let mut stream = input.execute(partition, context)?;
    let mut batches = vec![];
    while let Some(batch) = stream.next().await.transpose()? {
        reservation.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(Arc::new((batches, reservation)))
}
