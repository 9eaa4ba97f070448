//! What can go wrong while a data set is written.

use std::path::{Path, PathBuf};

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a data set could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named table is none of the data set's tables.
    #[error("unknown table '{table}'; the tables are {known}")]
    UnknownTable { table: String, known: String },
    /// A parameter is outside its range.
    #[error("{parameter} is {value}, but must be {expected}")]
    Parameter { parameter: &'static str, value: String, expected: &'static str },
    /// The file system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    /// Rows could not be brought into columnar form.
    #[error("cannot build the columns of {table}: {source}")]
    Columns { table: String, source: arrow::error::ArrowError },
    /// The Parquet writer failed, mostly because the disk did.
    #[error("cannot write {}: {source}", path.display())]
    Parquet { path: PathBuf, source: parquet::errors::ParquetError },
    /// A generating thread ended without a result: a defect in a generator.
    #[error("a generating thread stopped without a result while it wrote {table}")]
    ThreadLost { table: String },
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File { action, path: path.to_path_buf(), source }
    }

    pub(crate) fn parquet(path: &Path, source: parquet::errors::ParquetError) -> Self {
        Self::Parquet { path: path.to_path_buf(), source }
    }
}
