//! Small tables at the edges of what Parquet and Arrow can hold, one folder each.
//!
//! They are for comparing answers between engines: every table has an `id` column to order by.

use crate::error::{Error, Result};
use crate::parquet_file::{WrittenFile, write_file};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;
use parquet::file::properties::WriterProperties;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The tables, each a folder of the same name below the target folder.
pub const TABLES: [&str; 11] = [
    "all_types",
    "floats",
    "integer_extremes",
    "no_rows",
    "one_row",
    "strings",
    "wide_decimals",
    "row_groups",
    "dictionary_strings",
    "early_dates",
    "booleans",
];

/// Rows of a row group in the table `row_groups`; elsewhere there is one group.
const ROW_GROUP_ROWS: usize = 1_000;

/// The largest value of `DECIMAL(38, 10)`, as its unscaled integer.
const DECIMAL_38_MAX: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// Writes every table to `dir/<table>/part-1.parquet`.
///
/// # Errors
/// When a folder or file cannot be written.
pub fn write(dir: &Path) -> Result<Vec<WrittenFile>> {
    TABLES.into_iter().map(|table| write_table(table, dir)).collect()
}

fn write_table(table: &str, dir: &Path) -> Result<WrittenFile> {
    let batch = rows(table).map_err(|source| Error::Columns { table: table.to_string(), source })?;
    let folder = dir.join(table);
    fs::create_dir_all(&folder).map_err(|source| Error::file("create", &folder, source))?;
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(ROW_GROUP_ROWS)).build();
    write_file(&folder.join("part-1.parquet"), batch.schema(), properties, std::iter::once(Ok(batch)))
}

fn rows(table: &str) -> std::result::Result<RecordBatch, ArrowError> {
    match table {
        "all_types" => all_types(),
        "floats" => floats(),
        "integer_extremes" => integer_extremes(),
        // The schema of a full table with none of its rows: a file of zero row groups.
        "no_rows" => Ok(all_types()?.slice(0, 0)),
        "one_row" => Ok(all_types()?.slice(0, 1)),
        "strings" => strings(),
        "wide_decimals" => wide_decimals(),
        "row_groups" => row_groups(),
        "dictionary_strings" => dictionary_strings(),
        "early_dates" => early_dates(),
        "booleans" => booleans(),
        _ => Err(ArrowError::InvalidArgumentError(format!("no rows for {table}"))),
    }
}

/// A batch whose columns are all nullable but `id`, which counts from 1.
fn with_id(columns: Vec<(&str, ArrayRef)>) -> std::result::Result<RecordBatch, ArrowError> {
    let rows = columns.first().map_or(0, |(_, column)| column.len()) as i64;
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=rows));
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(std::iter::once(("id", id, false)).chain(columns))
}

/// One column a type: a value, a null, the type's zero.
fn all_types() -> std::result::Result<RecordBatch, ArrowError> {
    let decimal = |values: Vec<Option<i128>>, precision, scale| Decimal128Array::from(values).with_precision_and_scale(precision, scale);
    let timestamps = vec![Some(1_600_000_000_123_456), None, Some(0)];
    with_id(vec![
        ("boolean", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("int8", Arc::new(Int8Array::from(vec![Some(-8), None, Some(0)]))),
        ("int16", Arc::new(Int16Array::from(vec![Some(-16), None, Some(0)]))),
        ("int32", Arc::new(Int32Array::from(vec![Some(-32), None, Some(0)]))),
        ("int64", Arc::new(Int64Array::from(vec![Some(-64), None, Some(0)]))),
        ("uint8", Arc::new(UInt8Array::from(vec![Some(8), None, Some(0)]))),
        ("uint16", Arc::new(UInt16Array::from(vec![Some(16), None, Some(0)]))),
        ("uint32", Arc::new(UInt32Array::from(vec![Some(32), None, Some(0)]))),
        ("uint64", Arc::new(UInt64Array::from(vec![Some(64), None, Some(0)]))),
        ("float32", Arc::new(Float32Array::from(vec![Some(1.5), None, Some(0.0)]))),
        ("float64", Arc::new(Float64Array::from(vec![Some(-2.25), None, Some(0.0)]))),
        ("text", Arc::new(StringArray::from(vec![Some("text"), None, Some("")]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some([0_u8, 255].as_slice()), None, Some(&[])]))),
        ("date", Arc::new(Date32Array::from(vec![Some(18_518), None, Some(0)]))),
        ("timestamp", Arc::new(TimestampMicrosecondArray::from(timestamps.clone()))),
        ("timestamp_utc", Arc::new(TimestampMicrosecondArray::from(timestamps).with_timezone("UTC"))),
        ("decimal_15_2", Arc::new(decimal(vec![Some(-12_345), None, Some(0)], 15, 2)?)),
        ("decimal_38_10", Arc::new(decimal(vec![Some(12_345_678_901_234_567_890), None, Some(0)], 38, 10)?)),
    ])
}

fn floats() -> std::result::Result<RecordBatch, ArrowError> {
    let values = vec![
        Some(f64::NAN),
        Some(f64::INFINITY),
        Some(f64::NEG_INFINITY),
        Some(-0.0),
        Some(0.0),
        Some(f64::MIN),
        Some(f64::MAX),
        Some(f64::MIN_POSITIVE),
        // The smallest number above zero, a subnormal.
        Some(f64::from_bits(1)),
        Some(f64::EPSILON),
        None,
    ];
    let narrow = values.iter().map(|value| value.map(|value| value as f32));
    let narrow: Float32Array = narrow.collect();
    with_id(vec![("float64", Arc::new(Float64Array::from(values))), ("float32", Arc::new(narrow))])
}

fn integer_extremes() -> std::result::Result<RecordBatch, ArrowError> {
    with_id(vec![
        ("int8", Arc::new(Int8Array::from(vec![Some(i8::MIN), Some(i8::MAX), Some(-1), Some(0), None]))),
        ("int16", Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), Some(-1), Some(0), None]))),
        ("int32", Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), Some(-1), Some(0), None]))),
        ("int64", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), Some(-1), Some(0), None]))),
        ("uint8", Arc::new(UInt8Array::from(vec![Some(u8::MIN), Some(u8::MAX), Some(1), Some(0), None]))),
        ("uint16", Arc::new(UInt16Array::from(vec![Some(u16::MIN), Some(u16::MAX), Some(1), Some(0), None]))),
        ("uint32", Arc::new(UInt32Array::from(vec![Some(u32::MIN), Some(u32::MAX), Some(1), Some(0), None]))),
        ("uint64", Arc::new(UInt64Array::from(vec![Some(u64::MIN), Some(u64::MAX), Some(1), Some(0), None]))),
    ])
}

fn strings() -> std::result::Result<RecordBatch, ArrowError> {
    let long = "ab".repeat(5_000);
    with_id(vec![(
        "text",
        Arc::new(StringArray::from(vec![
            Some(""),
            Some(" "),
            Some("a"),
            Some("A"),
            Some("ä"),
            // The same letter in two code points: equal to the eye, not to a comparison of bytes.
            Some("a\u{308}"),
            Some("Straße"),
            Some("日本語"),
            Some("🏹 → 🎯"),
            Some("مرحبا"),
            Some("tab\tnewline\nquote'\"back\\slash"),
            Some("100%_like"),
            Some("zero\u{0}inside"),
            Some("\u{10FFFF}"),
            Some(long.as_str()),
            None,
        ])),
    )])
}

fn wide_decimals() -> std::result::Result<RecordBatch, ArrowError> {
    let values = vec![
        Some(DECIMAL_38_MAX),
        Some(-DECIMAL_38_MAX),
        Some(0),
        Some(1),
        Some(-1),
        Some(i128::from(i64::MAX) + 1),
        Some(i128::from(i64::MIN) - 1),
        Some(10_000_000_000),
        None,
    ];
    with_id(vec![("amount", Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, 10)?))])
}

/// Ten row groups; the fifth has only nulls in `value`, so that its statistics have no minimum.
fn row_groups() -> std::result::Result<RecordBatch, ArrowError> {
    let rows = 10 * ROW_GROUP_ROWS as i64;
    let all_null_group = 4 * ROW_GROUP_ROWS as i64..5 * ROW_GROUP_ROWS as i64;
    let value = |row: i64| (!all_null_group.contains(&row) && row % 7 != 3).then_some(row * row - 1_000_000);
    let names = ["north", "east", "south", "west"];
    with_id(vec![
        ("value", Arc::new((0..rows).map(value).collect::<Int64Array>())),
        ("group_name", Arc::new(StringArray::from_iter_values((0..rows).map(|row| names[(row % 4) as usize])))),
        ("date", Arc::new(Date32Array::from_iter_values((0..rows).map(|row| 10_000 + (row / 10) as i32)))),
    ])
}

fn dictionary_strings() -> std::result::Result<RecordBatch, ArrowError> {
    let words = [Some("red"), Some("green"), None, Some(""), Some("red"), Some("blue"), None, Some("green")];
    let repeated: Vec<Option<&str>> = words.iter().copied().cycle().take(400).collect();
    let coded: DictionaryArray<Int32Type> = repeated.iter().copied().collect();
    with_id(vec![("coded", Arc::new(coded)), ("plain", Arc::new(StringArray::from(repeated)))])
}

/// Days and microseconds on both sides of 1970, down to year 1 and up to year 9999.
fn early_dates() -> std::result::Result<RecordBatch, ArrowError> {
    let days = vec![Some(-719_162), Some(-25_567), Some(-1), Some(0), Some(1), Some(2_932_896), None];
    let microseconds: TimestampMicrosecondArray = days.iter().map(|day| day.map(|day| i64::from(day) * 86_400_000_000 - 1)).collect();
    with_id(vec![("date", Arc::new(Date32Array::from(days))), ("timestamp", Arc::new(microseconds))])
}

fn booleans() -> std::result::Result<RecordBatch, ArrowError> {
    let states = [Some(true), Some(false), None];
    let left: BooleanArray = (0..9).map(|row| states[row / 3]).collect();
    let right: BooleanArray = (0..9).map(|row| states[row % 3]).collect();
    with_id(vec![("left_side", Arc::new(left)), ("right_side", Arc::new(right))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use std::fs::File;

    #[test]
    fn every_table_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        for file in write(dir.path()).unwrap() {
            let table = file.path.parent().unwrap().file_name().unwrap().to_str().unwrap();
            let written = rows(table).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file.path).unwrap()).unwrap();
            let read: Vec<RecordBatch> = reader.with_batch_size(100_000).build().unwrap().collect::<std::result::Result<_, _>>().unwrap();
            let read_rows: usize = read.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(read_rows as u64, file.rows, "{table}");
            if table != "row_groups" && written.num_rows() > 0 {
                // Compared as text: NaN is not equal to itself.
                assert_eq!(format!("{:?}", read[0].columns()), format!("{:?}", written.columns()), "{table}");
            }
        }
    }

    #[test]
    fn row_groups_are_several() {
        let dir = tempfile::tempdir().unwrap();
        let file = write_table("row_groups", dir.path()).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&file.path).unwrap()).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 10);
    }
}
