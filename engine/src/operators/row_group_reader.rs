//! Reads row groups as chunks: from the column cache where it holds them, else from Parquet into the cache.
#![expect(
    deprecated,
    reason = "ParquetObjectReader is deprecated in favour of an implementation of one's own; it stays in parquet 59 and is maintained"
)]

use crate::catalog::footer::row_group_offset;
use crate::limits;
use arrow::datatypes::{DataType, Field, Schema};
use bowshot_kernels::{Chunk, ChunkEncoder, ChunkKey, ColumnType, Decline, KernelError, Kernels, RowGroup};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use futures::TryStreamExt;
use moka::sync::Cache;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use std::sync::Arc;

/// Rows that one decode step hands to the encoders.
const DECODE_BATCH_ROWS: usize = 16_384;

/// The kernels of a worker and the parsed footers they read by.
#[derive(Clone)]
pub struct KernelRuntime {
    /// Executors and column cache.
    pub kernels: Kernels,
    footers: Cache<Arc<str>, ArrowReaderMetadata>,
}

impl std::fmt::Debug for KernelRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelRuntime")
    }
}

impl KernelRuntime {
    /// A runtime over open kernels.
    pub fn new(kernels: Kernels) -> Self {
        Self { kernels, footers: Cache::new(limits::FOOTERS_CACHED) }
    }
}

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

/// A file of a scan, ready to be read row group by row group.
pub struct FileReader {
    runtime: KernelRuntime,
    store: Arc<dyn ObjectStore>,
    planned: PartitionedFile,
    identity: Arc<str>,
    metadata: ArrowReaderMetadata,
    columns: Vec<FileColumn>,
}

/// A column that the kernel reads.
struct FileColumn {
    /// Position in this file's schema.
    index: usize,
    kind: ColumnType,
}

/// Chunks of one row group and where they came from.
pub struct ReadRowGroup {
    /// For the kernel.
    pub rows: RowGroup,
    /// Bytes of Parquet pages that were read.
    pub bytes_read: u64,
    /// Bytes of chunks that were in the cache.
    pub bytes_cached: u64,
}

impl FileReader {
    /// Opens a file: its footer, once per version. `columns` are names and kernel types in plan order.
    pub async fn open(
        runtime: &KernelRuntime,
        store: Arc<dyn ObjectStore>,
        store_url: &str,
        planned: &PartitionedFile,
        columns: &[(String, ColumnType)],
    ) -> Result<Self, ReadError> {
        let meta = &planned.object_meta;
        let version = meta.last_modified.timestamp_nanos_opt().unwrap_or(0);
        let identity: Arc<str> = format!("{store_url}{}@{}:{version}", meta.location, meta.size).into();
        let metadata = match runtime.footers.get(&identity) {
            Some(metadata) => metadata,
            None => {
                let mut reader = ParquetObjectReader::new(store.clone(), meta.location.clone()).with_file_size(meta.size);
                let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await?;
                let metadata = with_dictionaries(metadata)?;
                runtime.footers.insert(identity.clone(), metadata.clone());
                metadata
            }
        };
        let schema = metadata.schema();
        let columns = columns
            .iter()
            .map(|(name, kind)| {
                let (index, field) =
                    schema.column_with_name(name).ok_or_else(|| Decline::new(format!("file {} has no column {name}", meta.location)))?;
                let own = super::translate::column_type(field.data_type())?;
                if own != *kind {
                    return Err(Decline::new(format!("column {name} of file {} is {}", meta.location, field.data_type())));
                }
                Ok(FileColumn { index, kind: *kind })
            })
            .collect::<Result<_, Decline>>()
            .map_err(ReadError::Declined)?;
        Ok(Self { runtime: runtime.clone(), store, planned: planned.clone(), identity, metadata, columns })
    }

    /// Row groups of this task's part of the file.
    pub fn row_groups(&self) -> Vec<usize> {
        let groups = self.metadata.metadata().row_groups().iter().enumerate();
        groups
            .filter(|(_, group)| self.planned.range.as_ref().is_none_or(|range| range.contains(row_group_offset(group) as i64)))
            .map(|(index, _)| index)
            .collect()
    }

    /// The chunks of a row group.
    pub async fn read(&self, row_group: usize) -> Result<ReadRowGroup, ReadError> {
        let group = self.metadata.metadata().row_group(row_group);
        let row_count = group.num_rows().max(0) as usize;
        let key = |column: &FileColumn| ChunkKey { file: self.identity.clone(), row_group: row_group as u32, column: column.index as u32 };
        let cache = self.runtime.kernels.cache();
        let mut chunks: Vec<Option<Arc<Chunk>>> = self.columns.iter().map(|column| cache.get(&key(column))).collect();
        let bytes_cached = chunks.iter().flatten().map(|chunk| chunk.bytes() as u64).sum();
        let missing: Vec<usize> = (0..chunks.len()).filter(|&index| chunks[index].is_none()).collect();
        let mut bytes_read = 0;
        if !missing.is_empty() {
            bytes_read = missing.iter().map(|&index| group.column(self.columns[index].index).compressed_size().max(0) as u64).sum();
            for (index, chunk) in missing.iter().zip(self.encode(row_group, &missing).await?) {
                let (chunk, _) = cache
                    .get_or_encode(key(&self.columns[*index]), || Ok::<_, KernelError>(chunk))
                    .map_err(|error| ReadError::Declined(Decline::new(error.to_string())))?;
                chunks[*index] = Some(chunk);
            }
        }
        Ok(ReadRowGroup { rows: RowGroup { row_count, chunks: chunks.into_iter().flatten().collect() }, bytes_read, bytes_cached })
    }

    /// Decodes the missing columns together and narrows them batch by batch.
    async fn encode(&self, row_group: usize, missing: &[usize]) -> Result<Vec<Chunk>, ReadError> {
        let meta = &self.planned.object_meta;
        let reader = ParquetObjectReader::new(self.store.clone(), meta.location.clone()).with_file_size(meta.size);
        let roots = missing.iter().map(|&index| self.columns[index].index);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone())
            .with_projection(mask)
            .with_row_groups(vec![row_group])
            .with_batch_size(DECODE_BATCH_ROWS)
            .build()?;
        let mut encoders: Vec<ChunkEncoder> = missing.iter().map(|&index| ChunkEncoder::new(self.columns[index].kind)).collect();
        // The reader returns columns in file order.
        let mut file_order: Vec<usize> = (0..missing.len()).collect();
        file_order.sort_by_key(|&position| self.columns[missing[position]].index);
        while let Some(batch) = batches.try_next().await? {
            for (column, &position) in batch.columns().iter().zip(&file_order) {
                encoders[position].push(column.as_ref())?;
            }
        }
        encoders.into_iter().map(|encoder| encoder.finish().map_err(ReadError::from)).collect()
    }
}

/// Asks the decoder for string columns as dictionaries: their pages mostly are, and chunks hold codes anyway.
fn with_dictionaries(metadata: ArrowReaderMetadata) -> Result<ArrowReaderMetadata, ReadError> {
    let schema = metadata.schema();
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                field.as_ref().clone().with_data_type(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))
            }
            _ => field.as_ref().clone(),
        })
        .collect();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())));
    // A file whose schema cannot be read this way keeps its own.
    Ok(ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).unwrap_or(metadata))
}
