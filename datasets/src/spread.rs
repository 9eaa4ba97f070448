//! Small tables whose rows are dealt to the nodes of a cluster: what a statement makes of NULLs, repeated values and mixed types shows on a few
//! rows, but only where they lie apart.
//!
//! Every table has an `id` to order by. NULLs fall on other rows in every column, and every column repeats values.

use crate::error::{Error, Result};
use crate::parquet_file::{WrittenFile, write_file};
use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, Int64Builder,
    ListBuilder, RecordBatch, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use parquet::file::properties::WriterProperties;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The tables: one of most types, one to join it with (by keys of other types), one of nested values, one of special doubles, one without rows.
pub const TABLES: [&str; 5] = ["things", "pairs", "nested", "doubles", "nothing"];

const WORDS: [&str; 8] = ["apple", "Banana", "cherry", "", "apple ", "Äpfel", "a_b%c", "zeta"];
const NUMBERS: [f64; 8] = [0.5, -1.5, 2.25, 0.0, 4.0, 3.0, 1e10, -7.125];
const SPECIAL: [f64; 9] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1.0, -1.0, f64::MAX, 5e-324];

type Columns = std::result::Result<RecordBatch, ArrowError>;

/// Writes part `part` of `parts` of every table to `dir/<table>/part-<part>.parquet`. Parts are counted from 1.
///
/// # Errors
/// When there is no such part, or a folder or file cannot be written.
pub fn write(dir: &Path, part: usize, parts: usize) -> Result<Vec<WrittenFile>> {
    let write_table = |table: &str| {
        let rows = rows(table).map_err(|source| Error::Columns { table: table.to_string(), source })?;
        let first = part.saturating_sub(1);
        let kept: Vec<RecordBatch> = (first..rows.num_rows()).step_by(parts.max(1)).map(|row| rows.slice(row, 1)).collect();
        let folder = dir.join(table);
        fs::create_dir_all(&folder).map_err(|source| Error::file("create", &folder, source))?;
        let file = folder.join(format!("part-{part}.parquet"));
        write_file(&file, rows.schema(), WriterProperties::builder().build(), kept.into_iter().map(Ok))
    };
    TABLES.into_iter().map(write_table).collect()
}

fn rows(table: &str) -> Columns {
    match table {
        "things" => things(24),
        "pairs" => pairs(),
        "nested" => nested(),
        "doubles" => doubles(),
        "nothing" => things(0),
        _ => Err(ArrowError::InvalidArgumentError(format!("no rows for {table}"))),
    }
}

/// The values of rows 1 to `count`, NULL in every row whose number leaves `rest` when divided by `by`.
fn of_rows<T>(count: i64, by: i64, rest: i64, value: impl Fn(i64) -> T) -> impl Iterator<Item = Option<T>> {
    (1..=count).map(move |row| (row % by != rest).then(|| value(row)))
}

fn pick<T: Copy>(values: &[T], row: i64) -> T {
    values[row.rem_euclid(values.len() as i64) as usize]
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Columns {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, name != "id")))
}

fn things(count: i64) -> Columns {
    let decimal = |values: Decimal128Array, precision, scale| values.with_precision_and_scale(precision, scale);
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(1..=count))),
        ("k", Arc::new(of_rows(count, 5, 0, |row| (row % 4 + 1) as i32).collect::<Int32Array>())),
        ("i", Arc::new(of_rows(count, 6, 2, |row| (row * 7 % 11 - 5) as i32).collect::<Int32Array>())),
        ("j", Arc::new(of_rows(count, 7, 3, |row| row * 1_000_003 % 97 - 48).collect::<Int64Array>())),
        ("sm", Arc::new(of_rows(count, 8, 4, |row| (row % 3) as i16).collect::<Int16Array>())),
        ("u", Arc::new(of_rows(count, 9, 0, |row| (row * 5 % 9) as u32).collect::<UInt32Array>())),
        ("p", Arc::new(decimal(of_rows(count, 5, 3, |row| i128::from(row * 137 % 1000 - 500)).collect(), 9, 2)?)),
        ("q", Arc::new(decimal(of_rows(count, 7, 5, |row| i128::from(row * 791_919 % 2_000_000 - 1_000_000)).collect(), 18, 6)?)),
        ("f", Arc::new(of_rows(count, 6, 5, |row| pick(&NUMBERS, row)).collect::<Float64Array>())),
        ("s", Arc::new(of_rows(count, 7, 6, |row| pick(&WORDS, row * 3)).collect::<StringArray>())),
        ("d", Arc::new(of_rows(count, 8, 7, |row| (19_700 + row * 13 % 60) as i32).collect::<Date32Array>())),
        (
            "ts",
            Arc::new(
                of_rows(count, 9, 4, |row| 1_709_164_800_000_000 + row * 7_654_321_098 % 604_800_000_000)
                    .collect::<TimestampMicrosecondArray>(),
            ),
        ),
        ("b", Arc::new(of_rows(count, 3, 2, |row| row % 3 == 0).collect::<BooleanArray>())),
    ])
}

/// Keys that meet those of `things`, as other types.
fn pairs() -> Columns {
    let count = 15;
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(1..=count))),
        ("k", Arc::new(of_rows(count, 4, 0, |row| row % 5 + 1).collect::<Int64Array>())),
        ("i", Arc::new(of_rows(count, 5, 1, |row| row % 7 - 3).collect::<Int64Array>())),
        (
            "p",
            Arc::new(
                of_rows(count, 6, 0, |row| i128::from(row * 137 % 1000 - 500) * 100)
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(12, 4)?,
            ),
        ),
        ("r", Arc::new(of_rows(count, 7, 2, |row| pick(&NUMBERS, row + 1) as f32).collect::<Float32Array>())),
        ("s", Arc::new(of_rows(count, 6, 4, |row| pick(&WORDS, row * 5)).collect::<StringArray>())),
        ("d", Arc::new(of_rows(count, 5, 3, |row| (19_700 + row * 13 % 60) as i32).collect::<Date32Array>())),
    ])
}

/// Lists that are NULL, empty, or hold NULLs, and structs of the same kind.
fn nested() -> Columns {
    let count = 9;
    let (mut numbers, mut words) = (ListBuilder::new(Int64Builder::new()), ListBuilder::new(StringBuilder::new()));
    for row in 1..=count {
        for item in 0..row % 4 {
            numbers.values().append_option(((row + item) % 5 != 0).then_some(row * 10 + item));
            words.values().append_option(((row + item) % 4 != 0).then(|| pick(&WORDS, row + item)));
        }
        numbers.append(row % 5 != 0);
        words.append(row % 7 != 0);
    }
    let x: ArrayRef = Arc::new(of_rows(count, 3, 1, |row| row * row).collect::<Int64Array>());
    let y: ArrayRef = Arc::new(of_rows(count, 4, 2, |row| pick(&WORDS, row)).collect::<StringArray>());
    let fields = vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)];
    let known: NullBuffer = (1..=count).map(|row| row % 8 != 0).collect::<Vec<_>>().into();
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(1..=count))),
        ("l", Arc::new(numbers.finish())),
        ("w", Arc::new(words.finish())),
        ("st", Arc::new(StructArray::try_new(fields.into(), vec![x, y], Some(known))?)),
    ])
}

/// Each special value twice, apart from a NULL, and a key to group them by.
fn doubles() -> Columns {
    let count = 2 * SPECIAL.len() as i64 + 1;
    table(vec![
        ("id", Arc::new(Int64Array::from_iter_values(1..=count))),
        ("g", Arc::new(of_rows(count, 8, 0, |row| (row % 3) as i32).collect::<Int32Array>())),
        ("x", Arc::new(of_rows(count, count, 0, |row| pick(&SPECIAL, row)).collect::<Float64Array>())),
        ("y", Arc::new(of_rows(count, 5, 4, |row| pick(&SPECIAL, row * 2) as f32).collect::<Float32Array>())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_every_row_once() {
        let dir = tempfile::tempdir().unwrap();
        let parts: Vec<WrittenFile> = (1..=3).flat_map(|part| write(dir.path(), part, 3).unwrap()).collect();
        assert_eq!(parts.len(), 3 * TABLES.len());
        for table in TABLES {
            let of_table = parts.iter().filter(|file| file.path.parent().is_some_and(|folder| folder.ends_with(table)));
            assert_eq!(of_table.map(|file| file.rows).sum::<u64>(), rows(table).unwrap().num_rows() as u64, "{table}");
        }
    }
}
