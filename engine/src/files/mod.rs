//! Parquet files of anybody as the columns of a table.
//!
//! ```text
//!   footer ──► announced types ──► common types of all files ──► the table          (CREATE, REFRESH)
//!   footer ──► types as they are read ──► the table's, value by value or not at all   (every scan)
//! ```
//!
//! 0. [`footer_bytes`] believes a footer only if it agrees with itself ([`footer_check`], [`chunk_names`], [`page_index_check`]).
//! 1. [`announced`] says what a file's columns are to SQL: plain types, whatever layout its writer had in mind.
//! 2. [`common_type`] finds the type that holds the values of two files, or of a file and of a column list.
//! 3. [`readable`] gives readers a footer by which no value is cut: INT96 and INTERVAL as bytes.
//! 4. [`exact`] brings an array into the table's type, or names the value that has no equal there.
//! 5. [`by_name`] puts that into scans: columns by name, missing ones as NULL.

pub mod announced;
pub mod by_name;
pub mod categories;
pub mod chunk_names;
pub mod common_type;
pub mod exact;
pub mod exact_column;
pub mod footer_bytes;
pub mod footer_check;
pub mod old_bounds;
pub mod page_index_check;
pub mod readable;
