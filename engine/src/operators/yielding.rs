//! Joins that yield to the runtime now and then.
//!
//! A join that expands its input can feed an aggregate above it from one poll to the next without ever waiting for anything. Such a task
//! cannot be ended: its runtime never gets control back to drop it.

use super::in_place::{InPlace, InPlaceExec};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use std::sync::Arc;

#[derive(Debug)]
struct Yielding;

/// Lets every join of a plan yield.
pub fn over_joins(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|node| {
        Ok(match node.name().ends_with("JoinExec") {
            true => Transformed::yes(InPlaceExec::over(node, Arc::new(Yielding))),
            false => Transformed::no(node),
        })
    })?;
    Ok(wrapped.data)
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
