//! Scans that find a table's columns in each file by name, in whatever place and type the file has them.
//!
//! ```text
//!   the table:  a BIGINT, b VARCHAR, c DOUBLE
//!   the file:   b dictionary, a INTEGER            scan of the file:  CAST(a@1 AS BIGINT), b exactly as VARCHAR, NULL
//! ```

use super::common_type::holds_all;
use super::exact_column::ExactColumn;
use super::readable::{FILE_NAME_KEY, readable};
use crate::operators::float_values::one_nan_function;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource, ParquetFileReaderFactory, ParquetSource};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::ParquetMetaData;
use std::ops::Range;
use std::sync::Arc;

/// The scan of stored files in a leaf, if it is one.
pub fn stored_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

/// The plan with scans that read files in this way.
pub fn scans_by_name(plan: Arc<dyn ExecutionPlan>, runtime: &RuntimeEnv) -> Result<Arc<dyn ExecutionPlan>> {
    let over = |node: &Arc<dyn ExecutionPlan>| -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(scan) = stored_scan(node) else { return Ok(None) };
        let Some(source) = scan.file_source().downcast_ref::<ParquetSource>() else { return Ok(None) };
        let readers = DefaultParquetFileReaderFactory::new(runtime.object_store(&scan.object_store_url)?);
        let source = source.clone().with_parquet_file_reader_factory(Arc::new(Readers { readers }));
        let source = with_one_nan(source, &node.schema())?;
        let scan = FileScanConfigBuilder::from(scan.clone()).with_source(source).with_expr_adapter(Some(Arc::new(ByName)));
        Ok(Some(DataSourceExec::from_data_source(scan.build())))
    };
    plan.transform_up(|node| Ok(over(&node)?.map_or_else(|| Transformed::no(node), Transformed::yes))).data()
}

/// The source with the one NaN that SQL knows, whatever NaNs files have. A predicate that rows are not tested by needs no such care.
fn with_one_nan(source: ParquetSource, columns: &SchemaRef) -> Result<Arc<dyn FileSource>> {
    let table = source.table_schema().table_schema().clone();
    let source = match source.filter() {
        Some(tests) if source.table_parquet_options().global.pushdown_filters => source.with_predicate(over_one_nan(tests, &table)?),
        _ => source,
    };
    if !columns.fields().iter().any(|field| field.data_type().is_floating()) {
        return Ok(Arc::new(source));
    }
    let read = columns.fields().iter().enumerate().map(|(at, field)| {
        let column = Arc::new(Column::new(field.name(), at));
        Ok(ProjectionExpr::new(over_one_nan(column, columns)?, field.name().clone()))
    });
    let read = ProjectionExprs::new(read.collect::<Result<Vec<_>>>()?);
    match source.try_pushdown_projection(&read)? {
        Some(source) => Ok(source),
        None => internal_err!("a scan takes no projection"),
    }
}

/// The expression over columns of doubles with one NaN.
fn over_one_nan(expr: Arc<dyn PhysicalExpr>, columns: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    let over = |node: Arc<dyn PhysicalExpr>| match node.downcast_ref::<Column>() {
        Some(column) if node.data_type(columns)?.is_floating() => {
            let field = Arc::new(columns.field(column.index()).clone());
            let options = Arc::new(ConfigOptions::default());
            let function = one_nan_function();
            let name = function.name().to_string();
            let one: Arc<dyn PhysicalExpr> = Arc::new(ScalarFunctionExpr::new(&name, function, vec![node], field, options));
            Ok(Transformed::new(one, true, TreeNodeRecursion::Jump))
        }
        _ => Ok(Transformed::no(node)),
    };
    expr.transform_down(over).data()
}

/// Opens files with metadata by which no value is cut.
#[derive(Debug)]
struct Readers {
    readers: DefaultParquetFileReaderFactory,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let name = file.object_meta.location.to_string();
        let of = self.readers.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(Reader { of, name }))
    }
}

struct Reader {
    of: Box<dyn AsyncFileReader + Send>,
    name: String,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.of.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.of.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(&'a mut self, options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let Self { of, name } = self;
        of.get_metadata(options).map(|metadata| readable(metadata?, name)).boxed()
    }
}

/// Makes expressions over the table's columns ones over a file's.
#[derive(Debug)]
pub struct ByName;

impl PhysicalExprAdapterFactory for ByName {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(Arc::new(OfFile { table, file }))
    }
}

#[derive(Debug)]
struct OfFile {
    table: SchemaRef,
    /// As it is read, with its name.
    file: SchemaRef,
}

impl PhysicalExprAdapter for OfFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let over_file = |node: Arc<dyn PhysicalExpr>| match node.downcast_ref::<Column>() {
            Some(column) => self.column(column.name()).map(Transformed::yes),
            None => Ok(Transformed::no(node)),
        };
        expr.transform_up(over_file).data()
    }
}

impl OfFile {
    fn column(&self, name: &str) -> Result<Arc<dyn PhysicalExpr>> {
        let Ok(wanted) = self.table.field_with_name(name) else { return internal_err!("no table column is called {name}") };
        let found = self.file.index_of(name).ok().filter(|index| *self.file.field(*index).data_type() != DataType::Null);
        let Some(index) = found else {
            return Ok(Arc::new(Literal::new(ScalarValue::try_from(wanted.data_type())?)));
        };
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, index));
        let stored = self.file.field(index).data_type();
        if stored == wanted.data_type() {
            return Ok(column);
        }
        let wanted = Arc::new(wanted.clone());
        if holds_all(stored, wanted.data_type()) {
            return Ok(Arc::new(CastExpr::new_with_target_field(column, wanted, None)));
        }
        let file = self.file.metadata().get(FILE_NAME_KEY).map_or("", String::as_str);
        Ok(Arc::new(ExactColumn::new(column, wanted, file.into())))
    }
}
