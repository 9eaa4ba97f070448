//! TPC-H: its eight tables at any scale, in parts, and its 22 queries.
//!
//! A part is what one node of a cluster holds: part k of n of every table is generated where it is to lie, with no
//! other part present. Rows come from `tpchgen`, which writes the same rows as the reference generator.

mod parts;
mod queries;
mod tables;

pub use parts::{Options, ParquetCompression, write_part, write_tables};
pub use queries::{Q15_WITH_VIEW, QUERIES};
pub use tables::{TABLES, schema};
