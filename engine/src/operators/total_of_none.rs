//! ROLLUP, CUBE and GROUPING SETS with an empty set have a row for it even of no rows: DataFusion's aggregate gives none then.
//!
//! What begins the aggregate gives the state of nothing in each partition without rows. Merging it changes no group that is there.

use super::in_place::{InPlace, InPlaceExec};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use std::future::ready;
use std::sync::Arc;

#[derive(Debug)]
struct TotalOfNone {
    /// A row for each empty set.
    rows: RecordBatch,
}

/// Lets an aggregate that begins over rows have a row for its empty grouping sets.
pub fn over(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let groups = aggregate.group_expr();
    let empty = groups.groups().iter().filter(|set| set.iter().all(|left_out| *left_out)).count();
    if !groups.has_grouping_set() || empty == 0 || !matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::Single) {
        return Ok(None);
    }
    let rows = rows_of_none(aggregate, empty)?;
    Ok(Some(InPlaceExec::over(node.clone(), Arc::new(TotalOfNone { rows }))))
}

/// NULL for each key, the number of the grouping set, and what the aggregates are of nothing.
fn rows_of_none(aggregate: &AggregateExec, empty_sets: usize) -> Result<RecordBatch> {
    let schema: SchemaRef = aggregate.schema();
    let keys = aggregate.group_expr().expr().len();
    let mut values = vec![];
    for call in aggregate.aggr_expr() {
        let mut nothing = call.create_accumulator()?;
        match aggregate.mode() {
            AggregateMode::Partial => values.extend(nothing.state()?),
            _ => values.push(nothing.evaluate()?),
        }
    }
    if schema.fields().len() != keys + 1 + values.len() {
        return internal_err!("an aggregate over {keys} keys has {} columns, its state {}", schema.fields().len(), values.len());
    }
    // As DataFusion numbers them: a bit for each key that the set leaves out, above those how many such sets came before.
    let left_out = u64::MAX.checked_shr(64 - keys as u32).unwrap_or(0);
    let columns = schema.fields().iter().enumerate().map(|(at, field)| {
        let kind = field.data_type();
        match at.checked_sub(keys) {
            None => ScalarValue::try_from(kind)?.to_array_of_size(empty_sets),
            Some(0) => {
                let numbers = (0..empty_sets as u64).map(|before| ScalarValue::from(left_out | before << keys).cast_to(kind));
                ScalarValue::iter_to_array(numbers.collect::<Result<Vec<_>>>()?)
            }
            Some(value) => values[value - 1].cast_to(kind)?.to_array_of_size(empty_sets),
        }
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema, columns).map_err(DataFusionError::from)
}

impl InPlace for TotalOfNone {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut seen = false;
        let rows = self.rows.clone();
        // The end is a batch like any other here: only there it is known whether a row came.
        let ended = stream::once(ready(None));
        let batches = node.execute(partition, context)?.map(Some).chain(ended).filter_map(move |batch| {
            let given = match batch {
                Some(Ok(batch)) => {
                    seen |= batch.num_rows() > 0;
                    Some(Ok(batch))
                }
                Some(Err(error)) => {
                    seen = true;
                    Some(Err(error))
                }
                None if seen => None,
                None => Some(Ok(rows.clone())),
            };
            ready(given)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), batches)))
    }
}
