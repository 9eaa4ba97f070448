//! The head of a query's last fragment, whose rows stay on the node for a client to fetch.
//!
//! To the coordinator it gives no rows: their end, or what ended them.

use super::in_place::{InPlace, InPlaceExec};
use crate::config::{BowshotOptions, ResultCompression};
use crate::error::from_datafusion;
use crate::result_messages;
use crate::result_types::{plain_batch, plain_schema};
use crate::worker::published::{Part, PartId, Partition, Published};
use arrow::datatypes::SchemaRef;
use arrow_flight::error::FlightError;
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
    let partitions = head.output_partitioning().partition_count();
    let part = published.open(id, result_messages::schema_message(&schema), partitions);
    InPlaceExec::over(head, Arc::new(Publishing { part, schema }))
}

impl InPlace for Publishing {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let options = context.session_config().options().extensions.get::<BowshotOptions>();
        let compression = options.map_or(ResultCompression::None, |options| options.result_compression);
        let rows = node.execute(partition, context)?;
        let kept = keep(rows, self.part.partition(), self.schema.clone(), compression);
        let outcome = futures::stream::once(kept).filter_map(|kept| std::future::ready(kept.err().map(Err)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), outcome)))
    }
}

/// Hands the rows of a partition over, and waits until the client has all of the part.
async fn keep(rows: SendableRecordBatchStream, partition: Partition, schema: SchemaRef, compression: ResultCompression) -> Result<()> {
    let plain = {
        let schema = schema.clone();
        rows.try_filter(|batch| std::future::ready(batch.num_rows() > 0))
            .and_then(move |batch| std::future::ready(plain_batch(&batch, &schema).map_err(DataFusionError::from)))
            .map_err(|error| FlightError::from_external_error(Box::new(error)))
    };
    // The part has a schema of its own, before what all partitions send.
    let mut messages = result_messages::encode(schema, compression, plain)?.skip(1).boxed();
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => partition.send(message).await?,
            Err(error) => {
                let error = reason(error);
                partition.fail(from_datafusion(&error)).await;
                return Err(error);
            }
        }
    }
    Ok(partition.end().await?)
}

/// What ended the rows, under what the encoder made of it.
fn reason(error: FlightError) -> DataFusionError {
    match error {
        FlightError::ExternalError(source) => match source.downcast() {
            Ok(error) => *error,
            Err(source) => DataFusionError::External(source),
        },
        other => DataFusionError::External(Box::new(other)),
    }
}
