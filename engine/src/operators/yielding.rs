//! Joins that yield to the runtime now and then.
//!
//! A join that expands its input can feed an aggregate above it from one poll to the next without ever waiting for anything. Such a task
//! cannot be ended: its runtime never gets control back to drop it.

use super::in_place::{InPlace, InPlaceExec};
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

/// Lets every join of a fragment yield.
pub fn over_joins(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(plan.transform_up(|node| Ok(yielding(node)))?.data)
}

/// Lets the joins yield that run on the coordinator; the fragments below travel as they are.
pub fn over_joins_of_head(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_down(|node| {
        Ok(match node.as_network_boundary().is_some() {
            true => Transformed::new(node, false, TreeNodeRecursion::Jump),
            false => yielding(node),
        })
    })?;
    Ok(wrapped.data)
}

/// The node, yielding if it may make many batches out of one.
fn yielding(node: Arc<dyn ExecutionPlan>) -> Transformed<Arc<dyn ExecutionPlan>> {
    match node.name().ends_with("JoinExec") || node.name() == "UnnestExec" {
        true => Transformed::yes(InPlaceExec::over(node, Arc::new(Yielding))),
        false => Transformed::no(node),
    }
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
