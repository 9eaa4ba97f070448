//! Parquet files without the upper bounds that their writers give for doubles.
//!
//! A file says of each column what its greatest value is, and writers leave NaN out of that. In SQL NaN is greater than all other numbers: a
//! file of `1.0, NaN` has a row for `x > 2`, and its bound says that it has none. No bound tells whether there is a NaN beside it, so plans
//! do without upper bounds of doubles; lower ones hold.

use bytes::Bytes;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::Type;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use std::ops::Range;
use std::sync::Arc;

/// The plan with scans that do without the upper bounds of doubles.
pub fn without_upper(plan: Arc<dyn ExecutionPlan>, runtime: &RuntimeEnv) -> Result<Arc<dyn ExecutionPlan>> {
    let over = |node: &Arc<dyn ExecutionPlan>| -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(scan) = node.downcast_ref::<DataSourceExec>().and_then(|leaf| leaf.data_source().downcast_ref::<FileScanConfig>()) else {
            return Ok(None);
        };
        let Some(source) = scan.file_source().downcast_ref::<ParquetSource>() else { return Ok(None) };
        if !scan.file_schema().flattened_fields().iter().any(|field| field.data_type().is_floating()) {
            return Ok(None);
        }
        let readers = DefaultParquetFileReaderFactory::new(runtime.object_store(&scan.object_store_url)?);
        let source = source.clone().with_parquet_file_reader_factory(Arc::new(WithoutUpper { readers }));
        let scan = FileScanConfigBuilder::from(scan.clone()).with_source(Arc::new(source)).build();
        Ok(Some(DataSourceExec::from_data_source(scan)))
    };
    let plan = plan.transform_up(|node| Ok(over(&node)?.map_or_else(|| Transformed::no(node), Transformed::yes)))?;
    Ok(plan.data)
}

#[derive(Debug)]
struct WithoutUpper {
    readers: DefaultParquetFileReaderFactory,
}

impl ParquetFileReaderFactory for WithoutUpper {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let of = self.readers.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader { of }))
    }
}

struct Reader {
    of: Box<dyn AsyncFileReader + Send>,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.of.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.of.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.of.get_metadata(options).map(|metadata| doubtless(metadata?)).boxed()
    }
}

/// The metadata without bounds that a NaN may be beyond. Indexes of pages are read from where the metadata says: of doubles there are none.
pub fn doubtless(metadata: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>> {
    let mut builder = Arc::unwrap_or_clone(metadata).into_builder();
    let groups = builder.take_row_groups().into_iter().map(|group: RowGroupMetaData| {
        let columns = group.columns().iter().cloned().map(doubtless_column).collect::<ParquetResult<Vec<_>>>()?;
        group.into_builder().set_column_metadata(columns).build()
    });
    let groups = groups.collect::<ParquetResult<Vec<_>>>()?;
    Ok(Arc::new(builder.set_row_groups(groups).set_column_index(None).build()))
}

fn doubtless_column(column: ColumnChunkMetaData) -> ParquetResult<ColumnChunkMetaData> {
    if !matches!(column.column_type(), Type::FLOAT | Type::DOUBLE) {
        return Ok(column);
    }
    let old = column.statistics().is_some_and(Statistics::is_min_max_deprecated);
    let bounds = match column.statistics() {
        // A writer that takes NaN for the least of numbers says nothing with it.
        Some(Statistics::Float(of)) => {
            let min = of.min_opt().copied().filter(|min| !min.is_nan());
            Some(Statistics::float(min, None, of.distinct_count(), of.null_count_opt(), old))
        }
        Some(Statistics::Double(of)) => {
            let min = of.min_opt().copied().filter(|min| !min.is_nan());
            Some(Statistics::double(min, None, of.distinct_count(), of.null_count_opt(), old))
        }
        _ => None,
    };
    let builder = column.into_builder().set_column_index_offset(None).set_column_index_length(None);
    match bounds {
        Some(bounds) => builder.set_statistics(bounds).build(),
        None => builder.build(),
    }
}
