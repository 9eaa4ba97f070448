//! What stands in for nodes where they run: joins yield to the runtime now and then, totals are there even of no rows.
//!
//! A join that expands its input can feed an aggregate above it from one poll to the next without ever waiting for anything. Such a task
//! cannot be ended: its runtime never gets control back to drop it.

use super::in_place::{InPlace, InPlaceExec};
use super::{panic_guard, total_of_none};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_distributed::NetworkBoundaryExt;
use futures::StreamExt;
use std::sync::Arc;

#[derive(Debug)]
struct Yielding;

/// Puts the stand-ins into a fragment.
pub fn in_fragment(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(plan.transform_up(stood_in)?.data)
}

/// Puts them into what runs on the coordinator; the fragments below travel as they are.
pub fn in_head(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_down(|node| match node.as_network_boundary().is_some() {
        true => Ok(Transformed::new(node, false, TreeNodeRecursion::Jump)),
        false => stood_in(node),
    })?;
    panic_guard::guard_head(wrapped.data)
}

/// The node, yielding if it may make many batches out of one.
fn stood_in(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    if node.name().ends_with("JoinExec") || node.name() == "UnnestExec" {
        return Ok(Transformed::yes(InPlaceExec::over(node, Arc::new(Yielding))));
    }
    Ok(match total_of_none::over(&node)? {
        Some(total) => Transformed::yes(total),
        None => Transformed::no(node),
    })
}

impl InPlace for Yielding {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = node.execute(partition, context)?.then(|batch| async move {
            // Spends one unit of the task's budget; when it is used up the task waits for its next turn.
            tokio::task::consume_budget().await;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), batches)))
    }
}
