//! Part k of n of generated tables, as files: what is generated, what is kept, and over how many threads.
//!
//! A part is what one node of a cluster holds: it is generated where it is to lie, with no other part present.

use crate::error::{Error, Result};
use crate::manifest::{GENERATOR_VERSION, Manifest};
use crate::parquet_file::{WrittenFile, write_file};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::VecDeque;
use std::fs;
use std::iter::StepBy;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Generating saturates two cores with two threads; more would only hold more rows in memory.
const THREADS_MAX: usize = 2;
/// Files of at least this many rows get two row groups, so that two cores can share one file.
const ROWS_FOR_TWO_GROUPS: usize = 200_000;
/// More parts than any cluster has nodes; also keeps part numbers within the 32 bits of TPC-H's generator.
const PARTS_MAX: usize = 10_000;
/// A hundred times ClickBench's table; row numbers times seconds of a month stay within 64 bits.
const ROWS_MAX: usize = 10_000_000_000;

/// Rows in a generated batch: enough to amortise the conversion, little enough to stay in the processor's cache.
pub(crate) const BATCH_ROWS: usize = 16 * 1024;

/// The rows of one part as batches of plain types.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// A table that is generated part by part. Parts are counted from 1.
pub(crate) trait PartedTable: Send + Sync {
    fn name(&self) -> &str;
    /// What the manifest notes as [`Manifest::scale`].
    fn scale(&self) -> f64;
    fn schema(&self) -> Result<SchemaRef>;
    /// Whether a column is written with a dictionary: those of few distinct values.
    fn has_dictionary(&self, column: &str) -> bool;
    /// Whether the table is too small to divide: it then lies whole in part 1.
    fn is_undivided(&self) -> bool {
        false
    }
    /// Rows of one part, from which row groups are cut; an estimate may be off by a percent.
    fn expected_rows(&self, part: usize, parts: usize) -> Result<usize>;
    /// The rows of one part.
    fn rows(&self, part: usize, parts: usize) -> Result<Batches>;
}

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParquetCompression {
    /// Fast to read; about a third larger than [`Self::Zstd`].
    Snappy,
    /// Zstandard at level 1.
    Zstd,
}

/// How the files of a part are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub compression: ParquetCompression,
    /// Wanted rows in a row group; groups of one file come out equally large.
    pub row_group_rows: usize,
    /// Files each divided table's part is written as: `part-<k>.parquet` for 1, `part-<k>-<i>.parquet` above.
    pub files_per_part: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { compression: ParquetCompression::Snappy, row_group_rows: 1_000_000, files_per_part: 1 }
    }
}

/// The numbers of the rows of one part, from 0: every `parts`-th, so that the parts of a table in order of time all span its whole time.
pub(crate) fn row_numbers(rows: usize, part: usize, parts: usize) -> StepBy<Range<usize>> {
    (part - 1..rows.max(part - 1)).step_by(parts)
}

/// The rows of one part of a table in which each row follows from its number alone.
pub(crate) fn numbered_rows(
    table: &'static str,
    mut numbers: StepBy<Range<usize>>,
    build: impl Fn(&mut dyn Iterator<Item = usize>) -> std::result::Result<RecordBatch, ArrowError> + Send + 'static,
) -> Batches {
    Box::new(std::iter::from_fn(move || {
        if numbers.len() == 0 {
            return None;
        }
        let batch = build(&mut numbers.by_ref().take(BATCH_ROWS));
        Some(batch.map_err(|source| Error::Columns { table: table.to_string(), source }))
    }))
}

/// Checks the size of a table of numbered rows.
///
/// # Errors
/// [`Error::Parameter`].
pub(crate) fn check_rows(rows: usize) -> Result<()> {
    match rows {
        1..=ROWS_MAX => Ok(()),
        _ => Err(Error::Parameter { parameter: "rows", value: rows.to_string(), expected: "1 to 10000000000" }),
    }
}

/// Writes part `part` of `parts` (counted from 1) of each table to `dir/<table>/`, over at most two threads. Files that are there
/// already, complete and made with the same parameters, are kept.
pub(crate) fn write_part(
    tables: impl IntoIterator<Item = Arc<dyn PartedTable>>,
    part: usize,
    parts: usize,
    dir: &Path,
    options: &Options,
) -> Result<Vec<WrittenFile>> {
    check_parameters(part, parts, options)?;
    write_jobs(tables.into_iter().flat_map(|table| plan_part(&table, part, parts, dir, options)).collect())
}

/// One file to be present at the end.
struct Job {
    table: Arc<dyn PartedTable>,
    path: PathBuf,
    wanted: Manifest,
    /// The generator's own division: file `generator_part` of `generator_parts`.
    generator_part: usize,
    generator_parts: usize,
    compression: ParquetCompression,
}

fn plan_part(table: &Arc<dyn PartedTable>, part: usize, parts: usize, dir: &Path, options: &Options) -> Vec<Job> {
    let undivided = table.is_undivided();
    if undivided && part != 1 {
        return Vec::new();
    }
    let files = if undivided { 1 } else { options.files_per_part };
    let job = |file| {
        let name = match files {
            1 => format!("part-{part}.parquet"),
            _ => format!("part-{part}-{file}.parquet"),
        };
        let (generator_part, generator_parts) = match undivided {
            true => (1, 1),
            false => ((part - 1) * files + file, parts * files),
        };
        Job {
            table: Arc::clone(table),
            path: dir.join(table.name()).join(name),
            wanted: Manifest {
                generator_version: GENERATOR_VERSION,
                table: table.name().to_string(),
                scale: table.scale(),
                part,
                parts,
                files_per_part: files,
                compression: format!("{:?}", options.compression).to_lowercase(),
                row_group_rows: options.row_group_rows,
                rows: 0,
                bytes: 0,
            },
            generator_part,
            generator_parts,
            compression: options.compression,
        }
    };
    (1..=files).map(job).collect()
}

fn check_parameters(part: usize, parts: usize, options: &Options) -> Result<()> {
    let refuse = |parameter, value: String, expected| Err(Error::Parameter { parameter, value, expected });
    if parts == 0 || parts > PARTS_MAX {
        return refuse("parts", parts.to_string(), "1 to 10000");
    }
    if part == 0 || part > parts {
        return refuse("part", part.to_string(), "1 to the number of parts");
    }
    if options.files_per_part == 0 || options.files_per_part > PARTS_MAX {
        return refuse("files per part", options.files_per_part.to_string(), "1 to 10000");
    }
    if options.row_group_rows == 0 {
        return refuse("row group rows", "0".to_string(), "at least 1");
    }
    Ok(())
}

/// Runs the jobs over at most two threads; the results come in the order of the paths.
fn write_jobs(jobs: Vec<Job>) -> Result<Vec<WrittenFile>> {
    let threads = THREADS_MAX.min(jobs.len());
    let table = jobs.first().map(|job| job.wanted.table.clone()).unwrap_or_default();
    let queue = Mutex::new(VecDeque::from(jobs));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let results: Vec<Result<Vec<WrittenFile>>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut written = Vec::new();
                    while let Some(job) = next() {
                        written.push(write_job(&job)?);
                    }
                    Ok(written)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Error::ThreadLost { table: table.clone() }))).collect()
    });
    let mut files = Vec::new();
    for result in results {
        files.extend(result?);
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

fn write_job(job: &Job) -> Result<WrittenFile> {
    if let Some(kept) = present_file(job) {
        return Ok(kept);
    }
    let folder = job.path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| Error::file("create", folder, source))?;
    remove_stale_files(job, folder)?;

    let (table, part, parts) = (&job.table, job.generator_part, job.generator_parts);
    let properties = writer_properties(job, table.expected_rows(part, parts)?)?;
    let written = write_file(&job.path, table.schema()?, properties, table.rows(part, parts)?)?;
    Manifest { rows: written.rows, bytes: written.bytes, ..job.wanted.clone() }.write(&job.path)?;
    Ok(written)
}

/// The file as it lies there, if its manifest names the wanted parameters and its size is the one noted.
fn present_file(job: &Job) -> Option<WrittenFile> {
    let manifest = Manifest::read(&job.path)?;
    let bytes = fs::metadata(&job.path).ok()?.len();
    (manifest.same_parameters(&job.wanted) && manifest.bytes == bytes).then(|| WrittenFile {
        path: job.path.clone(),
        rows: manifest.rows,
        bytes,
        kept: true,
    })
}

/// Removes generated files of another scale or division, which would mix two data sets in one table. Only files with
/// a manifest of ours are touched.
fn remove_stale_files(job: &Job, folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|source| Error::file("list", folder, source))?;
    for entry in entries {
        let path = entry.map_err(|source| Error::file("list", folder, source))?.path();
        if path.extension().is_none_or(|extension| extension != "parquet") || path == job.path {
            continue;
        }
        let Some(found) = Manifest::read(&path) else {
            continue;
        };
        let wanted = &job.wanted;
        let same_set = found.scale == wanted.scale && found.parts == wanted.parts && found.files_per_part == wanted.files_per_part;
        if !same_set {
            for stale in [Manifest::path_of(&path), path] {
                match fs::remove_file(&stale) {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::file("remove", &stale, source));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn writer_properties(job: &Job, expected_rows: usize) -> Result<WriterProperties> {
    let compression = match job.compression {
        ParquetCompression::Snappy => Compression::SNAPPY,
        ParquetCompression::Zstd => Compression::ZSTD(ZstdLevel::try_new(1).map_err(|source| Error::parquet(&job.path, source))?),
    };
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(row_group_rows(expected_rows, job.wanted.row_group_rows)));
    for field in job.table.schema()?.fields() {
        if job.table.has_dictionary(field.name()) {
            let column = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_dictionary_enabled(column, true);
        }
    }
    Ok(properties.build())
}

/// Rows of each row group, so that the groups of a file are about equal instead of one being a small rest.
fn row_group_rows(expected_rows: usize, wanted: usize) -> usize {
    let least = if expected_rows >= ROWS_FOR_TWO_GROUPS { 2 } else { 1 };
    let groups = ((expected_rows + wanted / 2) / wanted).max(least);
    expected_rows.div_ceil(groups).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_get_two_row_groups() {
        assert_eq!(row_group_rows(2_000_000, 1_000_000), 1_000_000);
        assert_eq!(row_group_rows(200_000, 1_000_000), 100_000);
        assert_eq!(row_group_rows(199_999, 1_000_000), 199_999);
        assert_eq!(row_group_rows(0, 1_000_000), 1);
    }
}
