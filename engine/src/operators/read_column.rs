//! The columns that kernels read: as they are stored, or as DataFusion computes them; and why one is not read.

use super::row_group_reader::DECODE_BATCH_ROWS;
use super::translate::{ColumnSource, column_type};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bowshot_kernels::{Chunk, ChunkCache, ChunkEncoder, ColumnType, Decline, KernelError};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Why a row group did not become chunks.
pub enum ReadError {
    /// The kernel cannot run over this data.
    Declined(Decline),
    /// Storage or data failed.
    Failed(DataFusionError),
}

impl From<DataFusionError> for ReadError {
    fn from(error: DataFusionError) -> Self {
        Self::Failed(error)
    }
}

impl From<parquet::errors::ParquetError> for ReadError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<arrow::error::ArrowError> for ReadError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<KernelError> for ReadError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Declined(decline) => Self::Declined(decline),
            other => Self::Declined(Decline::new(other.to_string())),
        }
    }
}

/// A column that a kernel reads.
#[derive(Debug, Clone)]
pub enum ReadColumn {
    /// As it is stored.
    Stored(StoredColumn),
    /// As DataFusion computes it from stored ones.
    Computed(ComputedColumn),
}

/// A column of the files.
#[derive(Debug, Clone)]
pub struct StoredColumn {
    pub(super) name: String,
    /// As the table has it.
    pub(super) data_type: DataType,
    pub(super) kind: ColumnType,
}

impl StoredColumn {
    fn new(field: &Field, kind: ColumnType) -> Self {
        Self { name: field.name().clone(), data_type: field.data_type().clone(), kind }
    }
}

/// An expression over columns of the files.
#[derive(Debug, Clone)]
pub struct ComputedColumn {
    /// Over `schema`.
    pub(super) expr: Arc<dyn PhysicalExpr>,
    /// The inputs as the table has them.
    pub(super) schema: SchemaRef,
    pub(super) inputs: Vec<StoredColumn>,
    pub(super) kind: ColumnType,
}

impl ReadColumn {
    /// The column of this source in a scan of files of this schema.
    pub fn new(source: &ColumnSource, kind: ColumnType, file_schema: &Schema) -> Result<Self, Decline> {
        let expr = match source {
            ColumnSource::Stored(index) => return Ok(Self::Stored(StoredColumn::new(file_schema.field(*index), kind))),
            ColumnSource::Computed(expr) => expr,
        };
        let indices: Vec<usize> = collect_columns(expr).iter().map(Column::index).collect::<BTreeSet<_>>().into_iter().collect();
        let over_inputs = expr.clone().transform_up(|node| {
            let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
            match indices.binary_search(&column.index()) {
                Ok(input) => Ok(Transformed::yes(Arc::new(Column::new(column.name(), input)) as _)),
                Err(_) => internal_err!("column {column} was not collected"),
            }
        });
        let expr = over_inputs.map_err(|error| Decline::new(error.to_string()))?.data;
        let fields: Vec<Field> = indices.iter().map(|index| file_schema.field(*index).clone().with_nullable(true)).collect();
        let inputs = fields.iter().map(|field| Ok(StoredColumn::new(field, column_type(field.data_type())?)));
        let inputs = inputs.collect::<Result<_, Decline>>()?;
        Ok(Self::Computed(ComputedColumn { expr, schema: Arc::new(Schema::new(fields)), inputs, kind }))
    }
}

impl ComputedColumn {
    /// The column's chunk over chunks of its inputs.
    pub(super) fn compute(&self, inputs: &[Arc<Chunk>], row_count: usize, cache: &ChunkCache) -> Result<Chunk, ReadError> {
        if let [input] = inputs
            && let Some(domain) = input.domain()?
        {
            let parts = batches_of(domain.len()).map(|lanes| Ok((vec![domain.slice(lanes.start, lanes.len())], lanes.len())));
            // Where it fails, it may be on a value that no row has: then the rows decide.
            if let Ok(image) = self.encode(parts, cache) {
                return Ok(input.mapped(&image)?);
            }
        }
        let batches = batches_of(row_count).map(|rows| {
            let arrays = inputs.iter().map(|input| input.to_array(rows.clone())).collect::<Result<_, _>>()?;
            Ok((arrays, rows.len()))
        });
        self.encode(batches, cache)
    }

    /// The answers for batches of inputs, in memory that the cache lends.
    fn encode(
        &self,
        batches: impl Iterator<Item = Result<(Vec<ArrayRef>, usize), KernelError>>,
        cache: &ChunkCache,
    ) -> Result<Chunk, ReadError> {
        let (mut encoder, mut memory) = (ChunkEncoder::new(self.kind), cache.lend());
        for batch in batches {
            let (arrays, rows) = batch?;
            let arrays = arrays.iter().zip(self.schema.fields()).map(|(array, field)| arrow::compute::cast(array, field.data_type()));
            let batch = RecordBatch::try_new(self.schema.clone(), arrays.collect::<Result<_, _>>()?)?;
            // A row that no filter lets through may fail here: DataFusion's own plan then decides.
            let answers = self.expr.evaluate(&batch).and_then(|answers| answers.into_array(rows));
            encoder.push(&answers.map_err(|error| ReadError::Declined(Decline::new(format!("{}: {error}", self.expr))))?)?;
            memory.grow_to(encoder.memory_bytes()).map_err(ReadError::Declined)?;
        }
        Ok(encoder.finish()?)
    }
}

/// Ranges of so many rows, each for one batch.
fn batches_of(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(DECODE_BATCH_ROWS).map(move |start| start..count.min(start + DECODE_BATCH_ROWS))
}
