//! CACHE TABLE and UNCACHE TABLE on a worker: in the place of a scan, loads and pins its columns, or drops them, and returns no rows.

use super::hot_aggregate::{DECLINED_METRIC, REASON_LABEL};
use super::in_place::{InPlace, InPlaceExec};
use super::read_column::{ReadColumn, ReadError};
use super::row_group_reader::{FileReader, KernelRuntime};
use super::translate::{ColumnSource, column_type};
use crate::config::CacheAction;
use crate::files::by_name::stored_scan;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetFileMetrics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use std::fmt;
use std::sync::Arc;

/// Bytes of a column's chunks that were pinned or dropped; labelled with the column.
pub const CACHED_BYTES_METRIC: &str = "bowshot_cached_bytes";
/// Their number, likewise.
pub const CACHED_CHUNKS_METRIC: &str = "bowshot_cached_chunks";
/// The column.
pub const COLUMN_LABEL: &str = "column";

/// Lets every scan of stored files do this with the cache.
pub fn over_scans(plan: Arc<dyn ExecutionPlan>, runtime: &KernelRuntime, action: CacheAction) -> Result<Arc<dyn ExecutionPlan>> {
    let done = plan.transform_up(|node| match stored_scan(&node) {
        Some(_) => {
            let metrics = ExecutionPlanMetricsSet::new();
            let stand_in = CacheColumns { runtime: runtime.clone(), action, metrics };
            Ok(Transformed::yes(InPlaceExec::over(node, Arc::new(stand_in))))
        }
        None => Ok(Transformed::no(node)),
    })?;
    Ok(done.data)
}

struct CacheColumns {
    runtime: KernelRuntime,
    action: CacheAction,
    metrics: ExecutionPlanMetricsSet,
}

impl fmt::Debug for CacheColumns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheColumns({})", self.action)
    }
}

impl InPlace for CacheColumns {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(scan) = stored_scan(node).cloned() else {
            return node.execute(partition, context);
        };
        let columns = node.schema().fields().iter().map(|field| field.name().clone()).collect();
        let (runtime, action, metrics) = (self.runtime.clone(), self.action, self.metrics.clone());
        let work = Work { scan, columns, partition, runtime, metrics };
        let nothing = stream::once(async move {
            match action {
                CacheAction::Pin => work.pin(&context).await?,
                CacheAction::Drop => work.drop(&context).await?,
                CacheAction::None => {}
            }
            Ok(stream::empty())
        });
        let rows = nothing.flat_map(|outcome| match outcome {
            Ok(nothing) => nothing.boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), rows)))
    }

    fn metrics(&self) -> MetricsSet {
        self.metrics.clone_inner()
    }
}

/// One partition's files and columns.
struct Work {
    scan: FileScanConfig,
    columns: Vec<String>,
    partition: usize,
    runtime: KernelRuntime,
    metrics: ExecutionPlanMetricsSet,
}

impl Work {
    /// Column by column, so that no more than one decoded column is held, and one that cannot be cached keeps no other out.
    async fn pin(&self, context: &TaskContext) -> Result<()> {
        for column in &self.columns {
            match self.pin_column(column, context).await {
                Ok(()) => {}
                Err(ReadError::Declined(decline)) => {
                    let builder = MetricBuilder::new(&self.metrics).with_new_label(COLUMN_LABEL, column.clone());
                    builder.with_new_label(REASON_LABEL, decline.to_string()).counter(DECLINED_METRIC, self.partition).add(1);
                }
                Err(ReadError::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    async fn pin_column(&self, column: &str, context: &TaskContext) -> Result<(), ReadError> {
        let schema = self.scan.file_schema();
        let index = schema.index_of(column).map_err(DataFusionError::from)?;
        let kind = column_type(schema.field(index).data_type()).map_err(ReadError::Declined)?;
        let read = ReadColumn::new(&ColumnSource::Stored(index), kind, schema).map_err(ReadError::Declined)?;
        for (reader, row_groups) in self.readers(&[read], context).await? {
            for row_group in row_groups {
                let bytes = reader.pin(row_group).await?;
                self.count(column, 1, bytes);
            }
        }
        Ok(())
    }

    async fn drop(&self, context: &TaskContext) -> Result<()> {
        let failed = |error| match error {
            ReadError::Failed(error) => error,
            ReadError::Declined(decline) => DataFusionError::Internal(decline.to_string()),
        };
        let schema = self.scan.file_schema();
        // Of types that kernels do not know nothing is cached.
        let read = self.columns.iter().filter_map(|column| {
            let index = schema.index_of(column).ok()?;
            let kind = column_type(schema.field(index).data_type()).ok()?;
            ReadColumn::new(&ColumnSource::Stored(index), kind, schema).ok()
        });
        let read: Vec<ReadColumn> = read.collect();
        for (reader, _) in self.readers(&read, context).await.map_err(failed)? {
            for (column, chunks, bytes) in reader.drop_cached(self.columns.len() == schema.fields().len()) {
                self.count(&column, chunks, bytes);
            }
        }
        Ok(())
    }

    /// Every file of this partition, with its row groups.
    async fn readers(&self, columns: &[ReadColumn], context: &TaskContext) -> Result<Vec<(FileReader, Vec<usize>)>, ReadError> {
        let store = context.runtime_env().object_store(&self.scan.object_store_url)?;
        let url = self.scan.object_store_url.as_str();
        let mut readers = vec![];
        for file in self.scan.file_groups.get(self.partition).map(|group| group.files()).unwrap_or_default() {
            let reader = FileReader::open(&self.runtime, store.clone(), url, file, columns).await?;
            let unpruned = ParquetFileMetrics::new(self.partition, file.object_meta.location.as_ref(), &self.metrics);
            let row_groups = reader.row_groups(None, &unpruned);
            readers.push((reader, row_groups));
        }
        Ok(readers)
    }

    fn count(&self, column: &str, chunks: usize, bytes: u64) {
        if chunks == 0 {
            return;
        }
        let counter =
            |name| MetricBuilder::new(&self.metrics).with_new_label(COLUMN_LABEL, column.to_string()).counter(name, self.partition);
        counter(CACHED_CHUNKS_METRIC).add(chunks);
        counter(CACHED_BYTES_METRIC).add(bytes as usize);
    }
}
