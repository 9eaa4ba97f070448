//! Data sets to try, test and measure Bowshot with, written as Parquet files.
//!
//! The life of one generated file:
//!
//! 1. A caller asks for part k of n of a table ([`tpch::write_part`], [`hits::write_part`], [`sweep::write_part`]) or for the edge cases
//!    ([`edge_cases::write`]), or for small tables that are dealt to nodes ([`spread::write`]).
//! 2. If the file is there already and the manifest beside it names the same parameters, it is kept as it is.
//! 3. Otherwise the rows are generated batch by batch and written under a temporary name ([`parquet_file`]).
//! 4. The file is synced to disk and renamed into place, so that a reader never sees half a file.
//! 5. Its manifest follows ([`manifest`]); a crash between the two only costs a second generation.
//!
//! This crate knows Arrow and Parquet, and nothing of the engine.

#![forbid(unsafe_code)]

pub mod edge_cases;
pub mod error;
pub mod hits;
pub mod manifest;
pub mod parquet_file;
mod parts;
mod random;
pub mod spread;
pub mod sweep;
pub mod tpch;

pub use error::{Error, Result};
pub use parquet_file::WrittenFile;
pub use parts::{Options, ParquetCompression};
