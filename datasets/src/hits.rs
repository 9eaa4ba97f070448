//! Hits of web pages, as in the table of ClickBench: the columns that its 43 queries read, and the queries.
//!
//! Rows are made up, but distributed as ClickBench's real ones: a month of hits in order of time, pages, users, regions and counters by
//! Zipf's law, mostly empty search phrases and phone models. A row follows from its number and the number of all rows alone, so that
//! part k of n can be generated anywhere; the parts are every n-th row.

mod hit;
mod page;
mod queries;
mod table;
mod words;

use crate::error::Result;
use crate::parquet_file::WrittenFile;
use crate::parts::{self, Options};
use std::path::Path;
use std::sync::Arc;

pub use queries::QUERIES;
pub use table::{TABLE, schema};

/// Writes part `part` of `parts` (counted from 1) of a table of `rows` hits to `dir/hits/`. Files that are there already, complete and
/// made with the same parameters, are kept.
///
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) for a part outside 1..=parts or a number of rows that is none, and what the disk refuses.
pub fn write_part(rows: usize, part: usize, parts: usize, dir: &Path, options: &Options) -> Result<Vec<WrittenFile>> {
    parts::check_rows(rows)?;
    parts::write_part([Arc::new(table::HitsTable { rows }) as Arc<dyn parts::PartedTable>], part, parts, dir, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, RecordBatch, UInt64Array};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{ArrowPrimitiveType, Date32Type, Int16Type, Int32Type, Int64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::collections::{HashMap, HashSet};
    use std::fs::File;

    const ROWS: usize = 100_000;

    fn read(path: &Path) -> RecordBatch {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
        concat_batches(&batches[0].schema(), &batches).unwrap()
    }

    /// All of the table, as one part.
    fn whole() -> RecordBatch {
        let dir = tempfile::tempdir().unwrap();
        let files = write_part(ROWS, 1, 1, dir.path(), &Options::default()).unwrap();
        read(&files[0].path)
    }

    fn numbers<T: ArrowPrimitiveType>(table: &RecordBatch, column: &str) -> Vec<T::Native> {
        table.column_by_name(column).unwrap().as_primitive::<T>().values().to_vec()
    }

    fn texts<'a>(table: &'a RecordBatch, column: &str) -> Vec<&'a str> {
        table.column_by_name(column).unwrap().as_string::<i32>().iter().flatten().collect()
    }

    /// In how many of a hundred rows.
    fn percent(rows: impl Iterator<Item = bool>) -> f64 {
        rows.filter(|row| *row).count() as f64 * 100.0 / ROWS as f64
    }

    #[test]
    fn parts_are_the_whole_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let whole = whole();
        let mut rows = 0;
        for part in 1..=3 {
            let files = write_part(ROWS, part, 3, dir.path(), &Options::default()).unwrap();
            let found = read(&files[0].path);
            rows += found.num_rows();
            let wanted: Vec<u64> = (part as u64 - 1..ROWS as u64).step_by(3).collect();
            assert_eq!(found, arrow::compute::take_record_batch(&whole, &UInt64Array::from(wanted)).unwrap());
            assert!(write_part(ROWS, part, 3, dir.path(), &Options::default()).unwrap()[0].kept);
        }
        assert_eq!(rows, ROWS);
    }

    #[test]
    fn integers_are_distributed_as_in_clickbench() {
        let table = whole();
        let distinct = |values: Vec<i64>| values.into_iter().collect::<HashSet<_>>().len();
        assert_eq!(distinct(numbers::<Int64Type>(&table, "watchid")), ROWS);
        let users = distinct(numbers::<Int64Type>(&table, "userid"));
        assert!((15_000..19_000).contains(&users), "{users} users");
        assert!(numbers::<Int64Type>(&table, "userid").contains(&435_090_932_899_640_449));
        let pages = distinct(numbers::<Int64Type>(&table, "urlhash"));
        assert!((15_000..30_000).contains(&pages), "{pages} pages");

        let days: HashSet<i32> = numbers::<Date32Type>(&table, "eventdate").into_iter().collect();
        assert_eq!((days.len(), days.iter().min(), days.iter().max()), (31, Some(&15_887), Some(&15_917)));
        let named_counter = percent(numbers::<Int32Type>(&table, "counterid").iter().map(|counter| *counter == 62));
        assert!((0.5..3.0).contains(&named_counter), "{named_counter} % of counter 62");
        let advertised = percent(numbers::<Int16Type>(&table, "advengineid").iter().map(|engine| *engine != 0));
        assert!((0.5..0.8).contains(&advertised), "{advertised} % advertised");
        let mut regions: HashMap<i32, usize> = HashMap::new();
        numbers::<Int32Type>(&table, "regionid").into_iter().for_each(|region| *regions.entry(region).or_default() += 1);
        let largest = regions.values().max().unwrap() * 100 / ROWS;
        assert!((10..30).contains(&largest), "{largest} % in the largest region");
    }

    #[test]
    fn texts_are_distributed_as_in_clickbench() {
        let table = whole();
        let phrases = texts(&table, "searchphrase");
        let searched = percent(phrases.iter().map(|phrase| !phrase.is_empty()));
        assert!((12.5..14.0).contains(&searched), "{searched} % searched");
        assert!(phrases.iter().any(|phrase| !phrase.is_ascii()));
        let phones = percent(texts(&table, "mobilephonemodel").iter().map(|model| !model.is_empty()));
        assert!((3.0..9.0).contains(&phones), "{phones} % phones");

        let addresses = texts(&table, "url");
        let lengths = addresses.iter().map(|url| url.len());
        let (shortest, longest) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
        assert!(shortest >= 20 && longest <= 120, "{shortest} to {longest} bytes");
        let google = percent(addresses.iter().map(|url| url.contains("google")));
        assert!((0.001..0.5).contains(&google), "{google} % of addresses name Google");
        let google = percent(texts(&table, "title").iter().map(|title| title.contains("Google")));
        assert!((0.01..1.0).contains(&google), "{google} % of titles name Google");
        // As many addresses as pages: no two share one.
        let pages: HashSet<i64> = numbers::<Int64Type>(&table, "urlhash").into_iter().collect();
        assert_eq!(addresses.into_iter().collect::<HashSet<_>>().len(), pages.len());
    }
}
