//! Writing one Parquet file so that a reader sees all of it or nothing.

use crate::error::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A file of a data set that is complete on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    pub path: PathBuf,
    pub rows: u64,
    pub bytes: u64,
    /// True when the file was there already and was left alone.
    pub kept: bool,
}

/// Writes `batches` to `path` under a temporary name, syncs the file and renames it into place.
///
/// # Errors
/// When a batch is an error, or the disk refuses; the temporary file is then removed.
pub fn write_file(
    path: &Path,
    schema: SchemaRef,
    properties: WriterProperties,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<WrittenFile> {
    let temporary = temporary_path(path);
    let written = write_temporary(&temporary, schema, properties, batches).and_then(|rows| {
        let bytes = fs::metadata(&temporary).map_err(|source| Error::file("read the size of", &temporary, source))?.len();
        fs::rename(&temporary, path).map_err(|source| Error::file("create", path, source))?;
        sync_folder_of(path)?;
        Ok(WrittenFile { path: path.to_path_buf(), rows, bytes, kept: false })
    });
    if written.is_err() {
        // The first error is the one to report; a leftover temporary file is overwritten by the next run.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_temporary(
    temporary: &Path,
    schema: SchemaRef,
    properties: WriterProperties,
    batches: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<u64> {
    let file = File::create(temporary).map_err(|source| Error::file("create", temporary, source))?;
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(|source| Error::parquet(temporary, source))?;
    let mut rows = 0;
    for batch in batches {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        writer.write(&batch).map_err(|source| Error::parquet(temporary, source))?;
    }
    let file = writer.into_inner().map_err(|source| Error::parquet(temporary, source))?;
    file.sync_all().map_err(|source| Error::file("sync", temporary, source))?;
    Ok(rows)
}

/// A hidden name in the same folder, so that the rename stays within one file system.
fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.writing"))
}

/// A rename is only durable once the folder that holds the name is synced too.
fn sync_folder_of(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| Error::file("sync", folder, source))
}
