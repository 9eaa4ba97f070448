//! The head of a query's last fragment, whose rows stay on the node for a client to fetch.
//!
//! To the coordinator it gives no rows: their end, or what ended them.

use super::in_place::{InPlace, InPlaceExec};
use crate::error::from_datafusion;
use crate::result_types::{plain_batch, plain_schema};
use crate::worker::published::{Part, PartId, Published};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

#[derive(Debug)]
struct Publishing {
    part: Arc<Part>,
    schema: SchemaRef,
}

/// Keeps the rows of a fragment's head as a part of its query's result.
pub fn over_head(head: Arc<dyn ExecutionPlan>, published: &Arc<Published>, id: PartId) -> Arc<dyn ExecutionPlan> {
    let schema = plain_schema(&head.schema());
    let part = published.open(id, schema.clone(), head.output_partitioning().partition_count());
    InPlaceExec::over(head, Arc::new(Publishing { part, schema }))
}

impl InPlace for Publishing {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = node.execute(partition, context)?;
        let (part, schema) = (self.part.clone(), self.schema.clone());
        let kept = futures::stream::once(keep(rows, part, schema)).filter_map(|kept| std::future::ready(kept.err().map(Err)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), kept)))
    }
}

async fn keep(mut rows: SendableRecordBatchStream, part: Arc<Part>, schema: SchemaRef) -> Result<()> {
    loop {
        let batch: Result<Option<RecordBatch>, DataFusionError> = rows.try_next().await;
        match batch {
            Ok(Some(batch)) if batch.num_rows() == 0 => {}
            Ok(Some(batch)) => part.send(plain_batch(&batch, &schema)?).await?,
            Ok(None) => {
                part.partition_ended();
                return Ok(());
            }
            Err(error) => {
                part.fail(from_datafusion(&error)).await;
                return Err(error);
            }
        }
    }
}
