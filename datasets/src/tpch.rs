//! TPC-H: its eight tables at any scale, in parts, and its 22 queries.
//!
//! Rows come from `tpchgen`, which writes the same rows as the reference generator.

mod queries;
mod tables;

use crate::error::Result;
use crate::parquet_file::WrittenFile;
use crate::parts::{self, Options};
use std::path::Path;

pub use queries::{Q15_WITH_VIEW, QUERIES};
pub use tables::{TABLES, schema};

/// Writes part `part` of `parts` (counted from 1) of one table to `dir/<table>/`. Files that are there already,
/// complete and made with the same parameters, are kept. Nation and region lie whole in part 1.
///
/// # Errors
/// [`Error::UnknownTable`](crate::Error::UnknownTable), [`Error::Parameter`](crate::Error::Parameter) for a part outside 1..=parts or a
/// scale that is not positive, and what the disk refuses.
pub fn write_part(table: &str, scale: f64, part: usize, parts: usize, dir: &Path, options: &Options) -> Result<Vec<WrittenFile>> {
    parts::write_part([tables::parted(table, scale)?], part, parts, dir, options)
}

/// Writes part `part` of `parts` of all eight tables below `dir`, over at most two threads.
///
/// # Errors
/// As [`write_part`].
pub fn write_tables(scale: f64, part: usize, parts: usize, dir: &Path, options: &Options) -> Result<Vec<WrittenFile>> {
    let tables = TABLES.into_iter().map(|table| tables::parted(table, scale)).collect::<Result<Vec<_>>>()?;
    parts::write_part(tables, part, parts, dir, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
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
        assert_eq!(reader.schema().fields(), schema("lineitem").unwrap().fields());
        let groups = reader.metadata().row_groups();
        assert_eq!(groups.len(), 3);
        assert!(groups.iter().all(|group| group.num_rows() > 19_000));
        assert!(groups[0].columns().iter().all(|column| column.statistics().is_some()));
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
