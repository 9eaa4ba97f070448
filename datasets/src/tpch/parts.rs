//! Part k of n of the tables, as files: what is generated, what is kept, and over how many threads.

use super::tables::{self, TABLES};
use crate::error::{Error, Result};
use crate::manifest::{GENERATOR_VERSION, Manifest};
use crate::parquet_file::{WrittenFile, write_file};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Generating saturates two cores with two threads; more would only hold more rows in memory.
const THREADS_MAX: usize = 2;
/// Files of at least this many rows get two row groups, so that two cores can share one file.
const ROWS_FOR_TWO_GROUPS: usize = 200_000;
/// More parts than any cluster has nodes; also keeps the part number within the generator's 32 bits.
const PARTS_MAX: usize = 10_000;

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

/// Writes part `part` of `parts` (counted from 1) of one table to `dir/<table>/`. Files that are there already,
/// complete and made with the same parameters, are kept. Nation and region lie whole in part 1.
///
/// # Errors
/// [`Error::UnknownTable`], [`Error::Parameter`] for a part outside 1..=parts or a scale that is not positive, and
/// what the disk refuses.
pub fn write_part(table: &str, scale: f64, part: usize, parts: usize, dir: &Path, options: &Options) -> Result<Vec<WrittenFile>> {
    write_jobs(plan_part(table, scale, part, parts, dir, options)?)
}

/// Writes part `part` of `parts` of all eight tables below `dir`, over at most two threads.
///
/// # Errors
/// As [`write_part`].
pub fn write_tables(scale: f64, part: usize, parts: usize, dir: &Path, options: &Options) -> Result<Vec<WrittenFile>> {
    let mut jobs = Vec::new();
    for table in TABLES {
        jobs.extend(plan_part(table, scale, part, parts, dir, options)?);
    }
    write_jobs(jobs)
}

/// One file to be present at the end.
struct Job {
    path: PathBuf,
    wanted: Manifest,
    /// The generator's own division: file `generator_part` of `generator_parts`.
    generator_part: i32,
    generator_parts: i32,
    compression: ParquetCompression,
}

fn plan_part(table: &str, scale: f64, part: usize, parts: usize, dir: &Path, options: &Options) -> Result<Vec<Job>> {
    check_parameters(scale, part, parts, options)?;
    tables::schema(table)?;
    let undivided = tables::is_undivided(table);
    if undivided && part != 1 {
        return Ok(Vec::new());
    }
    let files = if undivided { 1 } else { options.files_per_part };
    let jobs = (1..=files)
        .map(|file| {
            let name = match files {
                1 => format!("part-{part}.parquet"),
                _ => format!("part-{part}-{file}.parquet"),
            };
            let (generator_part, generator_parts) = match undivided {
                true => (1, 1),
                false => ((part - 1) * files + file, parts * files),
            };
            Job {
                path: dir.join(table).join(name),
                wanted: Manifest {
                    generator_version: GENERATOR_VERSION,
                    table: table.to_string(),
                    scale,
                    part,
                    parts,
                    files_per_part: files,
                    compression: format!("{:?}", options.compression).to_lowercase(),
                    row_group_rows: options.row_group_rows,
                    rows: 0,
                    bytes: 0,
                },
                // Both are at most PARTS_MAX * PARTS_MAX, far below the limit of 32 bits.
                generator_part: generator_part as i32,
                generator_parts: generator_parts as i32,
                compression: options.compression,
            }
        })
        .collect();
    Ok(jobs)
}

fn check_parameters(scale: f64, part: usize, parts: usize, options: &Options) -> Result<()> {
    let refuse = |parameter, value: String, expected| Err(Error::Parameter { parameter, value, expected });
    if !(scale.is_finite() && scale > 0.0 && scale <= 100_000.0) {
        return refuse("scale", scale.to_string(), "above 0 and at most 100000");
    }
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

    let wanted = &job.wanted;
    let (part, parts) = (job.generator_part, job.generator_parts);
    let expected = tables::expected_rows(&wanted.table, wanted.scale, part, parts)?;
    let rows = tables::rows(&wanted.table, wanted.scale, part, parts)?;
    let written = write_file(&job.path, tables::schema(&wanted.table)?, writer_properties(job, expected)?, rows)?;
    Manifest { rows: written.rows, bytes: written.bytes, ..wanted.clone() }.write(&job.path)?;
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
    for field in tables::schema(&job.wanted.table)?.fields() {
        if tables::has_dictionary(field.name()) {
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
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::fs::File;

    #[test]
    fn parts_together_hold_every_row_once() {
        let dir = tempfile::tempdir().unwrap();
        for (table, rows) in [("orders", 15_000), ("partsupp", 8_000), ("nation", 25), ("supplier", 100)] {
            let mut total = 0;
            for part in 1..=3 {
                for file in write_part(table, 0.01, part, 3, dir.path(), &Options::default()).unwrap() {
                    total += file.rows;
                }
            }
            assert_eq!(total, rows, "{table}");
        }
    }

    #[test]
    fn a_complete_file_of_the_same_parameters_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::default();
        let first = write_part("customer", 0.01, 1, 1, dir.path(), &options).unwrap();
        let again = write_part("customer", 0.01, 1, 1, dir.path(), &options).unwrap();
        assert!(!first[0].kept && again[0].kept);
        assert_eq!((first[0].rows, first[0].bytes), (again[0].rows, again[0].bytes));
        let larger = write_part("customer", 0.02, 1, 1, dir.path(), &options).unwrap();
        assert_eq!((larger[0].kept, larger[0].rows), (false, 3_000));
    }

    #[test]
    fn files_of_another_division_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let two = Options { files_per_part: 2, ..Options::default() };
        assert_eq!(write_part("part", 0.01, 1, 1, dir.path(), &two).unwrap().len(), 2);
        write_part("part", 0.01, 1, 1, dir.path(), &Options::default()).unwrap();
        assert!(!dir.path().join("part/part-1-1.parquet").exists());
        assert!(dir.path().join("part/part-1.parquet").exists());
    }

    #[test]
    fn files_hold_plain_types_statistics_and_even_row_groups() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { row_group_rows: 20_000, ..Options::default() };
        let files = write_part("lineitem", 0.01, 1, 1, dir.path(), &options).unwrap();
        assert_eq!(files[0].rows, 60_175);
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&files[0].path).unwrap()).unwrap();
        assert_eq!(reader.schema().fields(), tables::schema("lineitem").unwrap().fields());
        let groups = reader.metadata().row_groups();
        assert_eq!(groups.len(), 3);
        assert!(groups.iter().all(|group| group.num_rows() > 19_000));
        assert!(groups[0].columns().iter().all(|column| column.statistics().is_some()));
    }

    #[test]
    fn large_files_get_two_row_groups() {
        assert_eq!(row_group_rows(2_000_000, 1_000_000), 1_000_000);
        assert_eq!(row_group_rows(200_000, 1_000_000), 100_000);
        assert_eq!(row_group_rows(199_999, 1_000_000), 199_999);
        assert_eq!(row_group_rows(0, 1_000_000), 1);
    }

    #[test]
    fn wrong_parameters_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |table, scale, part| write_part(table, scale, part, 3, dir.path(), &Options::default());
        assert_eq!(write("orders", 1.0, 4).unwrap_err().to_string(), "part is 4, but must be 1 to the number of parts");
        assert!(matches!(write("orders", f64::NAN, 1), Err(Error::Parameter { parameter: "scale", .. })));
        assert!(matches!(write("lineitems", 1.0, 1), Err(Error::UnknownTable { .. })));
    }
}
