//! The note beside each generated file: which parameters it was made with, so that it can be kept.
//!
//! Its name starts with an underscore, which readers of Parquet folders skip by convention.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Raised when the generator changes what it writes for the same parameters; older files are then made anew.
pub const GENERATOR_VERSION: u32 = 1;

/// The parameters a file was generated with, and what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub generator_version: u32,
    pub table: String,
    /// How large the whole table is: TPC-H's scale factor (1 is about 1 GB of raw data), elsewhere the rows of all parts.
    pub scale: f64,
    /// Counted from 1.
    pub part: usize,
    pub parts: usize,
    /// Files the part is divided into.
    pub files_per_part: usize,
    pub compression: String,
    /// Wanted rows in a row group.
    pub row_group_rows: usize,
    pub rows: u64,
    pub bytes: u64,
}

impl Manifest {
    /// Where the manifest of a data file lies: `part-1.parquet` -> `_part-1.json`.
    pub fn path_of(file: &Path) -> PathBuf {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        file.with_file_name(format!("_{stem}.json"))
    }

    /// The manifest of `file`, or nothing if it is missing or not readable as one: the file is then made anew.
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(Self::path_of(file)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether this manifest describes a file made with the parameters of `wanted`, whatever came out.
    pub fn same_parameters(&self, wanted: &Self) -> bool {
        Self { rows: wanted.rows, bytes: wanted.bytes, ..self.clone() } == *wanted
    }

    /// Writes the manifest beside `file`.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, file: &Path) -> Result<()> {
        let path = Self::path_of(file);
        let text = serde_json::to_string_pretty(self).map_err(|source| Error::file("write", &path, source.into()))?;
        fs::write(&path, text).map_err(|source| Error::file("write", &path, source))
    }
}
