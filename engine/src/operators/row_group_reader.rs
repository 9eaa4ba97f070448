//! Reads row groups as chunks: from the column cache where it holds them, else from Parquet into the cache.
#![expect(
    deprecated,
    reason = "ParquetObjectReader is deprecated in favour of an implementation of one's own; it stays in parquet 59 and is maintained"
)]

use super::read_column::{ComputedColumn, ReadColumn, ReadError, StoredColumn};
use super::translate::same_type;
use crate::catalog::footer::row_group_offset;
use crate::control::CachedColumn;
use crate::files::by_name::ByName;
use crate::files::exact::exactly;
use crate::files::exact_column::{ExactColumn, no_equal};
use crate::files::readable::readable;
use crate::limits;
use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bowshot_kernels::{Chunk, ChunkColumn, ChunkEncoder, ChunkKey, ColumnType, Decline, Kernels, RowGroup};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileMetrics;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccessPlanFilter};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use futures::TryStreamExt;
use moka::sync::Cache;
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{ParquetObjectReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;

/// Rows that one decode step hands to the encoders.
pub(super) const DECODE_BATCH_ROWS: usize = 16_384;

/// The kernels of a worker and the parsed footers they read by.
#[derive(Clone)]
pub struct KernelRuntime {
    /// Executors and column cache.
    pub kernels: Kernels,
    footers: Cache<Arc<str>, ArrowReaderMetadata>,
    /// The version of each file that was opened last.
    versions: Cache<String, Arc<str>>,
    /// One for each row group that was loaded of late.
    flights: Cache<(Arc<str>, usize), Arc<Mutex<Flown>>>,
    computations: Cache<Arc<Computation>, u64>,
    /// Chunks that were encoded or computed.
    encoded: Arc<AtomicU64>,
    uses: Arc<CacheUses>,
}

/// How often scans found a chunk in the cache.
#[derive(Default)]
struct CacheUses {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Chunks of one row group that were loaded and may still be held by someone, be they in the cache or not.
type Flown = HashMap<ChunkColumn, Weak<Chunk>>;

impl std::fmt::Debug for KernelRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelRuntime")
    }
}

impl KernelRuntime {
    /// A runtime over open kernels.
    pub fn new(kernels: Kernels) -> Self {
        Self {
            kernels,
            footers: Cache::new(limits::FOOTERS_CACHED),
            versions: Cache::new(limits::VERSIONS_KEPT),
            flights: Cache::new(limits::FLIGHTS_KEPT),
            computations: Cache::new(limits::COMPUTATIONS_KEPT),
            encoded: Arc::default(),
            uses: Arc::default(),
        }
    }

    /// Chunks that scans found in the cache so far, and those that they did not.
    pub fn cache_uses(&self) -> (u64, u64) {
        (self.uses.hits.load(Ordering::Relaxed), self.uses.misses.load(Ordering::Relaxed))
    }

    /// Chunks that were encoded or computed so far.
    pub fn chunks_encoded(&self) -> u64 {
        self.encoded.load(Ordering::Relaxed)
    }

    /// Whatever the cache holds, by file and column, the largest first and as many as a heartbeat carries.
    pub fn cached_columns(&self) -> Vec<CachedColumn> {
        let mut columns: HashMap<(Arc<str>, ChunkColumn), CachedColumn> = HashMap::new();
        for chunk in self.kernels.cache().entries() {
            let column = columns.entry((chunk.key.file, chunk.key.column)).or_default();
            column.row_groups += 1;
            column.pinned_row_groups += u64::from(chunk.pinned);
            column.bytes += chunk.bytes;
        }
        let mut largest: Vec<_> = columns.into_iter().collect();
        largest.sort_by(|((file, column), a), ((other_file, other), b)| {
            b.bytes.cmp(&a.bytes).then_with(|| (file, column).cmp(&(other_file, other)))
        });
        largest.truncate(limits::CACHED_COLUMNS_LISTED);
        let computations: HashMap<u64, Arc<Computation>> =
            self.computations.iter().map(|(computation, id)| (id, (*computation).clone())).collect();
        let named = largest.into_iter().map(|((file, column), mut cached)| {
            (cached.column, cached.computed) = match column {
                ChunkColumn::Stored(index) => {
                    let name =
                        self.footers.get(&file).and_then(|footer| Some(footer.schema().fields().get(index as usize)?.name().clone()));
                    (name.unwrap_or_else(|| format!("column {index}")), false)
                }
                ChunkColumn::Computed(id) => {
                    (computations.get(&id).map_or_else(|| "an expression".into(), |computation| computation.0.to_string()), true)
                }
            };
            cached.file = path_of(&file).to_string();
            cached
        });
        named.collect()
    }

    /// The lock of those who load chunks of a row group.
    fn flight(&self, file: &Arc<str>, row_group: usize) -> Arc<Mutex<Flown>> {
        self.flights.get_with((file.clone(), row_group), Arc::default)
    }

    /// The number of a computed column. One that was forgotten gets a new one, under which nothing is cached yet.
    fn id_of(&self, computation: Computation) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.computations.get_with(Arc::new(computation), || NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A panic on a blocking thread.
pub fn panicked(error: tokio::task::JoinError) -> DataFusionError {
    DataFusionError::Execution(format!("{}: {error}", crate::worker::PANIC_TEXT))
}

/// Expression, types and positions in the file of its inputs: computed columns that differ in any of these are not the same.
type Computation = (Arc<dyn PhysicalExpr>, SchemaRef, Vec<usize>);

/// A file of a scan, ready to be read row group by row group.
pub struct FileReader {
    runtime: KernelRuntime,
    store: Arc<dyn ObjectStore>,
    planned: PartitionedFile,
    identity: Arc<str>,
    metadata: ArrowReaderMetadata,
    columns: Vec<FileColumn>,
}

/// A column in this file.
enum FileColumn {
    Stored(StoredInFile),
    Computed { id: u64, column: ComputedColumn, inputs: Vec<StoredInFile> },
}

#[derive(Debug, Clone)]
struct StoredInFile {
    name: String,
    /// Position in this file's schema; `None` where the file lacks the column, and every row has NULL.
    index: Option<usize>,
    kind: ColumnType,
    /// The table's type.
    data_type: DataType,
    /// Under which its chunks are kept. Those of a column in another type than the file's are not those of the file's column: another table
    /// over the same file may have that.
    id: ChunkColumn,
}

impl StoredInFile {
    fn new(column: &StoredColumn, schema: &Schema, runtime: &KernelRuntime) -> Result<Self, Decline> {
        let StoredColumn { name, data_type, kind } = column.clone();
        let found = schema.column_with_name(&name).filter(|(_, field)| *field.data_type() != DataType::Null);
        let (index, id) = match found {
            Some((index, field)) if same_type(field.data_type(), &data_type) => (Some(index), ChunkColumn::Stored(index as u32)),
            Some((index, field)) => {
                let of_file = Arc::new(Column::new(&name, 0));
                let wanted = Arc::new(Field::new(&name, data_type.clone(), true));
                let expr: Arc<dyn PhysicalExpr> = Arc::new(ExactColumn::new(of_file, wanted, "".into()));
                (Some(index), ChunkColumn::Computed(runtime.id_of((expr, Arc::new(Schema::new(vec![field.clone()])), vec![index]))))
            }
            None => {
                let nothing = ScalarValue::try_from(&data_type).map_err(|error| Decline::new(error.to_string()))?;
                let expr: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(nothing));
                (None, ChunkColumn::Computed(runtime.id_of((expr, Arc::new(Schema::empty()), vec![]))))
            }
        };
        Ok(Self { name, index, kind, data_type, id })
    }

    /// What the decoder gives, as the table has it. The encoder takes strings in all layouts.
    fn of_table(&self, stored: &ArrayRef, file: &str) -> Result<ArrayRef, ReadError> {
        if same_type(stored.data_type(), &self.data_type) {
            return Ok(stored.clone());
        }
        exactly(stored, &self.data_type).map_err(|why| ReadError::Failed(no_equal(file, &self.name, &why).into()))
    }
}

impl FileColumn {
    fn id(&self) -> ChunkColumn {
        match self {
            Self::Stored(stored) => stored.id,
            Self::Computed { id, .. } => ChunkColumn::Computed(*id),
        }
    }
}

/// Chunks of one row group.
pub struct ReadRowGroup {
    /// For the kernel.
    pub rows: RowGroup,
    /// Where they came from.
    pub bytes: Bytes,
}

/// Bytes by where they came from.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    /// Of Parquet pages that were read.
    pub read: u64,
    /// Of chunks that were in the cache, or in another query's hands.
    pub cached: u64,
}

impl FileReader {
    /// Opens a file: its footer, once per version. `columns` are those of the plan, in its order.
    pub async fn open(
        runtime: &KernelRuntime,
        store: Arc<dyn ObjectStore>,
        store_url: &str,
        planned: &PartitionedFile,
        columns: &[ReadColumn],
    ) -> Result<Self, ReadError> {
        let meta = &planned.object_meta;
        let version = meta.last_modified.timestamp_nanos_opt().unwrap_or(0);
        let identity: Arc<str> = format!("{store_url}{}@{}:{version}", meta.location, meta.size).into();
        let before = runtime.versions.get(path_of(&identity));
        if before.as_ref() != Some(&identity) {
            // Nobody asks for chunks of a version that was replaced: they would hold memory, pinned ones for good.
            if let Some(before) = &before {
                runtime.kernels.cache().remove(before, None);
            }
            runtime.versions.insert(path_of(&identity).to_string(), identity.clone());
        }
        let metadata = match runtime.footers.get(&identity) {
            Some(metadata) => metadata,
            None => {
                let mut reader = ParquetObjectReader::new(store.clone(), meta.location.clone()).with_file_size(meta.size);
                let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await?;
                let metadata = with_dictionaries(metadata, meta.location.as_ref())?;
                runtime.footers.insert(identity.clone(), metadata.clone());
                metadata
            }
        };
        let schema = metadata.schema();
        let stored = |column: &StoredColumn| StoredInFile::new(column, schema, runtime);
        let columns = columns.iter().map(|column| match column {
            ReadColumn::Stored(column) => Ok(FileColumn::Stored(stored(column)?)),
            ReadColumn::Computed(column) => {
                let inputs = column.inputs.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
                // One that is not in the file has no position: an expression over it is another one than over any that is.
                let positions = inputs.iter().map(|input| input.index.unwrap_or(usize::MAX)).collect();
                let id = runtime.id_of((column.expr.clone(), column.schema.clone(), positions));
                Ok(FileColumn::Computed { id, column: column.clone(), inputs })
            }
        });
        let columns = columns.collect::<Result<_, Decline>>().map_err(ReadError::Declined)?;
        Ok(Self { runtime: runtime.clone(), store, planned: planned.clone(), identity, metadata, columns })
    }

    /// Row groups of this task's part of the file in which `predicate` may hold, by their footers' statistics.
    pub fn row_groups(&self, predicate: Option<&PruningPredicate>, metrics: &ParquetFileMetrics) -> Vec<usize> {
        let groups = self.metadata.metadata().row_groups();
        let mut plan = RowGroupAccessPlanFilter::new(ParquetAccessPlan::new_all(groups.len()));
        let of_file;
        let predicate = match predicate {
            Some(predicate) if !self.has_columns_of(predicate) => {
                of_file = self.predicate_of_file(predicate);
                of_file.as_ref()
            }
            other => other,
        };
        if let Some(predicate) = predicate {
            plan.prune_by_statistics(predicate.schema(), self.metadata.parquet_schema(), groups, predicate, metrics);
        }
        let in_range =
            |group: &RowGroupMetaData| self.planned.range.as_ref().is_none_or(|range| range.contains(row_group_offset(group) as i64));
        plan.row_group_indexes().filter(|group| in_range(&groups[*group])).collect()
    }

    /// Whether this file has the predicate's columns as the table has them: in the same places, in the same types.
    fn has_columns_of(&self, predicate: &PruningPredicate) -> bool {
        let fields = |schema: &Schema, column: &Column| schema.fields().get(column.index()).cloned();
        collect_columns(predicate.orig_expr()).iter().all(|column| {
            let (file, table) = (fields(self.metadata.schema(), column), fields(predicate.schema(), column));
            file.zip(table).is_some_and(|(file, table)| file.name() == table.name() && same_type(file.data_type(), table.data_type()))
        })
    }

    /// The predicate over the file's own columns, as scans have it; `None` where it tells nothing of the file's bounds.
    fn predicate_of_file(&self, predicate: &PruningPredicate) -> Option<PruningPredicate> {
        let schema = self.metadata.schema();
        let over_file =
            ByName.create(predicate.schema().clone(), schema.clone()).and_then(|file| file.rewrite(predicate.orig_expr().clone()));
        PruningPredicateBuilder::new().with_file_schema(schema.clone()).build(over_file.ok()?).map(Arc::unwrap_or_clone)
    }

    /// Rows of a row group.
    pub fn row_count(&self, row_group: usize) -> usize {
        self.metadata.metadata().row_group(row_group).num_rows().max(0) as usize
    }

    /// The chunks of a row group. Queries that miss the same chunks wait for the first of them.
    pub async fn read(&self, row_group: usize) -> Result<ReadRowGroup, ReadError> {
        let row_count = self.row_count(row_group);
        let cache = self.runtime.kernels.cache();
        let keys: Vec<ChunkKey> = self.columns.iter().map(|column| self.key(row_group, column.id())).collect();
        let mut chunks: Vec<Option<Arc<Chunk>>> = keys.iter().map(|key| cache.get(key)).collect();
        let found = chunks.iter().flatten().count();
        self.runtime.uses.hits.fetch_add(found as u64, Ordering::Relaxed);
        self.runtime.uses.misses.fetch_add((chunks.len() - found) as u64, Ordering::Relaxed);
        let mut bytes = Bytes { read: 0, cached: chunks.iter().flatten().map(|chunk| chunk.bytes() as u64).sum() };
        if chunks.iter().any(Option::is_none) {
            let flight = self.runtime.flight(&self.identity, row_group);
            let mut flown = flight.lock().await;
            // What nobody holds any more is of no use, and others may be many.
            flown.retain(|_, chunk| chunk.strong_count() > 0);
            self.load(row_group, row_count, &mut flown, &mut chunks, &mut bytes).await?;
        }
        Ok(ReadRowGroup { rows: RowGroup { row_count, chunks: chunks.into_iter().flatten().collect() }, bytes })
    }

    /// Loads the chunks of a row group and pins them. Returns their bytes.
    pub async fn pin(&self, row_group: usize) -> Result<u64, ReadError> {
        let read = self.read(row_group).await?;
        let mut bytes = 0;
        for (column, chunk) in self.columns.iter().zip(&read.rows.chunks) {
            self.runtime.kernels.cache().pin(self.key(row_group, column.id()), chunk).map_err(ReadError::Declined)?;
            bytes += chunk.bytes() as u64;
        }
        Ok(bytes)
    }

    /// Drops the columns that the file was opened with from the cache; with `all`, whatever was computed from them too. Returns names, chunks
    /// and bytes.
    pub fn drop_cached(&self, all: bool) -> Vec<(String, usize, u64)> {
        let cache = self.runtime.kernels.cache();
        let stored = self.columns.iter().filter_map(|column| match column {
            FileColumn::Stored(stored) => Some(stored),
            FileColumn::Computed { .. } => None,
        });
        let mut dropped: Vec<(String, usize, u64)> = stored
            .map(|stored| {
                let (chunks, bytes) = cache.remove(&self.identity, Some(stored.id));
                (stored.name.clone(), chunks, bytes)
            })
            .collect();
        if all {
            let (chunks, bytes) = cache.remove(&self.identity, None);
            dropped.extend((chunks > 0).then(|| ("(computed)".to_string(), chunks, bytes)));
        }
        dropped
    }

    fn key(&self, row_group: usize, column: ChunkColumn) -> ChunkKey {
        ChunkKey { file: self.identity.clone(), row_group: row_group as u32, column }
    }

    /// Fills in what is missing, and counts the bytes.
    async fn load(
        &self,
        row_group: usize,
        row_count: usize,
        flown: &mut Flown,
        chunks: &mut [Option<Arc<Chunk>>],
        bytes: &mut Bytes,
    ) -> Result<(), ReadError> {
        let cache = self.runtime.kernels.cache();
        // A query before this one may have brought it, and may still hold it where the cache has no room.
        let mut find = |flown: &Flown, column: ChunkColumn| {
            let found = flown.get(&column).and_then(Weak::upgrade).or_else(|| cache.get(&self.key(row_group, column)));
            bytes.cached += found.as_ref().map_or(0, |chunk| chunk.bytes() as u64);
            found
        };
        let missing = self.columns.iter().zip(chunks.iter_mut()).filter(|(_, chunk)| chunk.is_none());
        let mut wanted: Vec<StoredInFile> = Vec::new();
        for (column, chunk) in missing {
            *chunk = find(flown, column.id());
            match column {
                _ if chunk.is_some() => {}
                FileColumn::Stored(stored) => wanted.push(stored.clone()),
                FileColumn::Computed { inputs, .. } => wanted.extend(inputs.iter().cloned()),
            }
        }
        wanted.sort_by_key(|stored| (stored.index, stored.id));
        wanted.dedup_by_key(|stored| stored.id);
        let mut inputs: HashMap<ChunkColumn, Arc<Chunk>> = HashMap::new();
        wanted.retain(|stored| {
            let found = find(flown, stored.id);
            let is_missing = found.is_none();
            inputs.extend(found.map(|chunk| (stored.id, chunk)));
            is_missing
        });
        let group = self.metadata.metadata().row_group(row_group);
        let in_file = wanted.iter().filter_map(|stored| stored.index);
        bytes.read += in_file.map(|index| group.column(index).compressed_size().max(0) as u64).sum::<u64>();
        let mut keep = |column: ChunkColumn, chunk: Chunk| {
            self.runtime.encoded.fetch_add(1, Ordering::Relaxed);
            let chunk = cache.insert(self.key(row_group, column), chunk);
            flown.insert(column, Arc::downgrade(&chunk));
            chunk
        };
        if !wanted.is_empty() {
            for (stored, chunk) in wanted.iter().zip(self.encode(row_group, row_count, &wanted).await?) {
                inputs.insert(stored.id, keep(stored.id, chunk));
            }
        }
        let input = |stored: &StoredInFile| match inputs.get(&stored.id) {
            Some(chunk) => Ok(chunk.clone()),
            None => internal_err!("column {} was not read", stored.name),
        };
        for (column, chunk) in self.columns.iter().zip(chunks.iter_mut()).filter(|(_, chunk)| chunk.is_none()) {
            *chunk = Some(match column {
                FileColumn::Stored(stored) => input(stored)?,
                FileColumn::Computed { column: computed, inputs, .. } => {
                    let inputs = inputs.iter().map(input).collect::<Result<Vec<_>>>()?;
                    let (computed, kernels) = (computed.clone(), self.runtime.kernels.clone());
                    let chunk = tokio::task::spawn_blocking(move || computed.compute(&inputs, row_count, kernels.cache())).await;
                    keep(column.id(), chunk.map_err(panicked)??)
                }
            });
        }
        Ok(())
    }

    /// Decodes columns together and narrows them batch by batch. They are in file order, as the decoder returns them; those that the file
    /// lacks come first.
    async fn encode(&self, row_group: usize, row_count: usize, columns: &[StoredInFile]) -> Result<Vec<Chunk>, ReadError> {
        let (missing, stored) = columns.split_at(columns.partition_point(|column| column.index.is_none()));
        let mut chunks = vec![];
        for column in missing {
            let mut encoder = ChunkEncoder::new(column.kind);
            encoder.push(&new_null_array(&column.data_type, row_count))?;
            chunks.push(encoder.finish()?);
        }
        if stored.is_empty() {
            return Ok(chunks);
        }
        let meta = &self.planned.object_meta;
        let reader = ParquetObjectReader::new(self.store.clone(), meta.location.clone()).with_file_size(meta.size);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), stored.iter().filter_map(|column| column.index));
        let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone())
            .with_projection(mask)
            .with_row_groups(vec![row_group])
            .with_batch_size(DECODE_BATCH_ROWS)
            .build()?;
        let mut encoders: Vec<ChunkEncoder> = stored.iter().map(|column| ChunkEncoder::new(column.kind)).collect();
        let mut memory = self.runtime.kernels.cache().lend();
        let of_file = |error| ParquetError::General(format!("{}: {error}", meta.location));
        while let Some(batch) = batches.try_next().await.map_err(of_file)? {
            for ((array, column), encoder) in batch.columns().iter().zip(stored).zip(&mut encoders) {
                encoder.push(column.of_table(array, meta.location.as_ref())?.as_ref())?;
            }
            memory.grow_to(encoders.iter().map(ChunkEncoder::memory_bytes).sum()).map_err(ReadError::Declined)?;
        }
        chunks.extend(encoders.into_iter().map(|encoder| encoder.finish()).collect::<Result<Vec<_>, _>>()?);
        Ok(chunks)
    }
}

/// The file of an identity, without its version.
fn path_of(identity: &str) -> &str {
    identity.rsplit_once('@').map_or(identity, |(path, _)| path)
}

/// Asks the decoder for string columns as dictionaries: their pages mostly are, and chunks hold codes anyway.
fn with_dictionaries(metadata: ArrowReaderMetadata, name: &str) -> Result<ArrowReaderMetadata, ReadError> {
    let stored = readable(metadata.metadata().clone(), name)?;
    let metadata = ArrowReaderMetadata::try_new(stored.clone(), ArrowReaderOptions::new())?;
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
    Ok(ArrowReaderMetadata::try_new(stored, options).unwrap_or(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::translate::ColumnSource;
    use arrow::array::{Int64Array, RecordBatch};
    use bowshot_kernels::{DevicePolicy, KernelsConfig};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, lit};
    use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStoreExt, PutPayload};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    const ROWS: usize = 30_000;
    const GROUP_ROWS: usize = 10_000;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]))
    }

    /// Rows 0, 1, 2, … in three row groups.
    async fn file() -> (Arc<dyn ObjectStore>, PartitionedFile) {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP_ROWS)).build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema(), Some(properties)).unwrap();
        let numbers = Int64Array::from_iter_values(0..ROWS as i64);
        writer.write(&RecordBatch::try_new(schema(), vec![Arc::new(numbers)]).unwrap()).unwrap();
        writer.close().unwrap();
        let (store, path) = (InMemory::new(), Path::from("numbers.parquet"));
        store.put(&path, PutPayload::from(bytes)).await.unwrap();
        let meta = store.head(&path).await.unwrap();
        (Arc::new(store), PartitionedFile::from(meta))
    }

    fn runtime(host_cache_bytes: u64) -> KernelRuntime {
        KernelRuntime::new(Kernels::open(KernelsConfig { host_cache_bytes, device: DevicePolicy::Off, ..KernelsConfig::default() }))
    }

    /// x itself, and x + 1.
    fn columns() -> Vec<ReadColumn> {
        let kind = ColumnType::Int { bits: 64, signed: true };
        let x = Arc::new(Column::new("x", 0)) as Arc<dyn PhysicalExpr>;
        let next = binary(x, Operator::Plus, lit(1i64), &schema()).unwrap();
        let sources = [ColumnSource::Stored(0), ColumnSource::Computed(next)];
        sources.iter().map(|source| ReadColumn::new(source, kind, &schema()).unwrap()).collect()
    }

    async fn sums(runtime: KernelRuntime, store: Arc<dyn ObjectStore>, file: PartitionedFile) -> (i128, i128) {
        let reader = FileReader::open(&runtime, store, "memory://", &file, &columns()).await.unwrap_or_else(|_| panic!("unreadable"));
        let metrics = ParquetFileMetrics::new(0, "numbers", &ExecutionPlanMetricsSet::new());
        let mut sums = (0, 0);
        for row_group in reader.row_groups(None, &metrics) {
            let read = reader.read(row_group).await.unwrap_or_else(|_| panic!("unreadable"));
            let sum = |chunk: &Chunk| (0..chunk.row_count()).filter_map(|row| chunk.value(row)).sum::<i128>();
            sums = (sums.0 + sum(&read.rows.chunks[0]), sums.1 + sum(&read.rows.chunks[1]));
        }
        sums
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn two_hundred_queries_at_once_encode_each_chunk_once() {
        let (store, file) = file().await;
        let runtime = runtime(64 << 20);
        let queries: Vec<_> = (0..200).map(|_| tokio::spawn(sums(runtime.clone(), store.clone(), file.clone()))).collect();
        let total = (ROWS * (ROWS - 1) / 2) as i128;
        for query in queries {
            assert_eq!(query.await.unwrap(), (total, total + ROWS as i128));
        }
        assert_eq!(runtime.chunks_encoded(), 6, "two columns of three row groups");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_cache_without_room_answers_all_the_same() {
        let (store, file) = file().await;
        let runtime = runtime(0);
        let queries: Vec<_> = (0..20).map(|_| tokio::spawn(sums(runtime.clone(), store.clone(), file.clone()))).collect();
        let total = (ROWS * (ROWS - 1) / 2) as i128;
        for query in queries {
            assert_eq!(query.await.unwrap(), (total, total + ROWS as i128));
        }
        assert_eq!(runtime.kernels.cache().bytes(), 0);
    }

    #[tokio::test]
    async fn row_groups_in_which_nothing_passes_are_not_read() {
        let (store, file) = file().await;
        let reader = FileReader::open(&runtime(0), store, "memory://", &file, &columns()).await.unwrap_or_else(|_| panic!("unreadable"));
        let x = Arc::new(Column::new("x", 0)) as Arc<dyn PhysicalExpr>;
        let above = binary(x, Operator::Gt, lit(25_000i64), &schema()).unwrap();
        let predicate = PruningPredicateBuilder::new().with_file_schema(schema()).build(above);
        let metrics = ParquetFileMetrics::new(0, "numbers", &ExecutionPlanMetricsSet::new());
        assert_eq!(reader.row_groups(predicate.as_deref(), &metrics), [2]);
        assert_eq!(reader.row_groups(None, &metrics), [0, 1, 2]);
    }
}
