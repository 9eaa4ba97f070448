//! A table to group by keys of every cardinality: one column for 1, 2, 4, … distinct values, and two measures.
//!
//! Row numbers are shuffled once; a key is the low bits of the shuffled number. So every value of a key is as frequent as any other, and
//! no column is in order.

use crate::error::{Error, Result};
use crate::parquet_file::WrittenFile;
use crate::parts::{self, Batches, Options, PartedTable, numbered_rows, row_numbers};
use crate::random::{Random, mix};
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use std::path::Path;
use std::sync::Arc;

/// The table's name.
pub const TABLE: &str = "sweep";

/// Most distinct values of a key.
const CARDINALITY_MAX: usize = 1 << 24;
/// Keys that exist in two further forms too: as text, and as numbers spread over 64 bits.
const OTHER_FORMS: [usize; 3] = [1 << 8, 1 << 14, 1 << 20];
const SPREAD_SEED: u64 = 0x7370_7265;
const MEASURE_SEED: u64 = 0x6D65_6173;

/// A key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub form: Form,
    /// Distinct values: a power of two.
    pub cardinality: usize,
}

/// What the values of a key are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every number from 0 to below the cardinality.
    Dense,
    /// Numbers anywhere in 64 bits.
    Spread,
    /// Strings of 12 bytes.
    Text,
}

impl Key {
    /// The column's name: `k1024`, `spread16384`, `text256`.
    pub fn column(&self) -> String {
        let form = match self.form {
            Form::Dense => "k",
            Form::Spread => "spread",
            Form::Text => "text",
        };
        format!("{form}{}", self.cardinality)
    }

    fn values(&self, shuffled: &[usize]) -> ArrayRef {
        let numbers = shuffled.iter().map(|number| (number & (self.cardinality - 1)) as u64);
        match self.form {
            Form::Dense => Arc::new(Int64Array::from_iter_values(numbers.map(u64::cast_signed))),
            Form::Spread => Arc::new(Int64Array::from_iter_values(numbers.map(|number| mix(number ^ SPREAD_SEED).cast_signed()))),
            Form::Text => Arc::new(StringArray::from_iter_values(numbers.map(|number| format!("key-{number:08}")))),
        }
    }
}

/// The key columns of a table of `rows` rows, by form and then by cardinality: none has more distinct values than there are rows.
pub fn keys(rows: usize) -> Vec<Key> {
    let most = rows.min(CARDINALITY_MAX);
    let dense = (0..).map(|bits| 1 << bits).take_while(|cardinality| *cardinality <= most);
    let others =
        |form| OTHER_FORMS.into_iter().filter(|cardinality| *cardinality <= most).map(move |cardinality| Key { form, cardinality });
    dense.map(|cardinality| Key { form: Form::Dense, cardinality }).chain(others(Form::Spread)).chain(others(Form::Text)).collect()
}

/// Writes part `part` of `parts` (counted from 1) of a table of `rows` rows to `dir/sweep/`. Files that are there already, complete and
/// made with the same parameters, are kept.
///
/// # Errors
/// [`Error::Parameter`] for a part outside 1..=parts or a number of rows that is none, and what the disk refuses.
pub fn write_part(rows: usize, part: usize, parts: usize, dir: &Path, options: &Options) -> Result<Vec<WrittenFile>> {
    parts::check_rows(rows)?;
    parts::write_part([Arc::new(SweepTable { rows }) as Arc<dyn PartedTable>], part, parts, dir, options)
}

struct SweepTable {
    rows: usize,
}

impl PartedTable for SweepTable {
    fn name(&self) -> &str {
        TABLE
    }

    fn scale(&self) -> f64 {
        self.rows as f64
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(batch(self.rows, &[]).map_err(|source| Error::Columns { table: TABLE.to_string(), source })?.schema())
    }

    fn has_dictionary(&self, column: &str) -> bool {
        // A dictionary of more values would be tried and given up.
        keys(self.rows).iter().any(|key| key.cardinality <= 1 << 14 && key.column() == column)
    }

    fn expected_rows(&self, part: usize, parts: usize) -> Result<usize> {
        Ok(row_numbers(self.rows, part, parts).len())
    }

    fn rows(&self, part: usize, parts: usize) -> Result<Batches> {
        let rows = self.rows;
        let build = move |numbers: &mut dyn Iterator<Item = usize>| batch(rows, &numbers.map(|row| shuffle(row, rows)).collect::<Vec<_>>());
        Ok(numbered_rows(TABLE, row_numbers(rows, part, parts), build))
    }
}

/// A permutation of the numbers from 0 to below `rows`.
fn shuffle(row: usize, rows: usize) -> usize {
    let bits = usize::BITS - (rows - 1).leading_zeros();
    let mask = rows.next_power_of_two() - 1;
    let mut number = row;
    // Odd factors and shifts to the right permute the numbers of so many bits; those beyond the rows are sent on until they are within.
    loop {
        for factor in [0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
            number = number.wrapping_mul(factor) & mask;
            number ^= number >> (bits / 2).max(1);
        }
        if number < rows {
            return number;
        }
    }
}

fn batch(rows: usize, shuffled: &[usize]) -> std::result::Result<RecordBatch, ArrowError> {
    let measure = |index: usize, bound: u64| {
        let draw = move |number: &usize| Random::of(MEASURE_SEED + index as u64, *number as u64).below(bound).cast_signed();
        shuffled.iter().map(draw)
    };
    let amounts = Decimal128Array::from_iter_values(measure(1, 1_000_000).map(i128::from)).with_precision_and_scale(15, 2)?;
    let mut columns: Vec<(String, ArrayRef)> = keys(rows).iter().map(|key| (key.column(), key.values(shuffled))).collect();
    columns.push(("quantity".into(), Arc::new(Int64Array::from_iter_values(measure(0, 1_000)))));
    columns.push(("amount".into(), Arc::new(amounts)));
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use std::collections::HashMap;

    fn whole(rows: usize) -> RecordBatch {
        batch(rows, &(0..rows).map(|row| shuffle(row, rows)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_key_is_as_frequent_as_any_other() {
        for rows in [1, 2, 3, 1_000, 4_096, 300_000] {
            let table = whole(rows);
            for key in keys(rows) {
                let column = table.column_by_name(&key.column()).unwrap();
                let mut counts: HashMap<String, usize> = HashMap::new();
                for row in 0..rows {
                    let value = match key.form {
                        Form::Text => column.as_string::<i32>().value(row).to_string(),
                        Form::Dense | Form::Spread => column.as_primitive::<Int64Type>().value(row).to_string(),
                    };
                    *counts.entry(value).or_default() += 1;
                }
                assert_eq!(counts.len(), key.cardinality, "{} of {rows} rows", key.column());
                let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
                assert!(most - least <= 1, "{} of {rows} rows", key.column());
            }
        }
    }

    #[test]
    fn no_column_is_in_order() {
        let table = whole(100_000);
        for key in keys(100_000).iter().filter(|key| key.form == Form::Dense && key.cardinality > 1) {
            let values = table.column_by_name(&key.column()).unwrap().as_primitive::<Int64Type>().values();
            let rising = values.windows(2).filter(|pair| pair[0] < pair[1]).count();
            assert!((20_000..60_000).contains(&rising), "{}: {rising} steps rise", key.column());
        }
    }

    #[test]
    fn parts_together_hold_every_row_once() {
        let dir = tempfile::tempdir().unwrap();
        let files = (1..=3).flat_map(|part| write_part(1_000, part, 3, dir.path(), &Options::default()).unwrap());
        assert_eq!(files.map(|file| file.rows).collect::<Vec<_>>(), [334, 333, 333]);
        assert!(write_part(1_000, 1, 3, dir.path(), &Options::default()).unwrap()[0].kept);
    }
}
