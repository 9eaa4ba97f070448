//! Arrays in the types of a table: each value as its equal, or none at all.
//!
//! A cast that keeps every value is arrow's. After any other the values are cast back: one that comes back as another has no equal.

use super::common_type::holds_all;
use super::readable::RAW_BYTES;
use crate::sql_types::declared_type;
use arrow::array::{
    Array, ArrayRef, AsArray, Datum, FixedSizeBinaryArray, FixedSizeListArray, IntervalMonthDayNanoArray, ListArray, MapArray, StringArray,
    StructArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use chrono::DateTime;
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a UUID.
pub const UUID_BYTES: i32 = 16;
/// Days from the one that INT96 counts from to 1970.
const EPOCH_JULIAN_DAY: i128 = 2_440_588;
const NANOSECONDS_A_DAY: i128 = 86_400 * NANOSECONDS_A_SECOND;
const NANOSECONDS_A_SECOND: i128 = 1_000_000_000;
const NANOSECONDS_A_MILLISECOND: i64 = 1_000_000;
/// Layouts change in it, values never.
const SAFE: CastOptions<'static> = CastOptions { safe: true, format_options: arrow::util::display::FormatOptions::new() };

/// The array in this type.
///
/// # Errors
/// When a value has no equal there: says which, and of what type it is.
pub fn exactly(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    use DataType::*;
    match (array.data_type(), wanted) {
        (from, _) if from == wanted => Ok(array.clone()),
        (Null, _) => Ok(new_null_array(wanted, array.len())),
        (Dictionary(_, values), _) => exactly(&cast(array, values)?, wanted),
        (RunEndEncoded(_, values), _) => exactly(&cast(array, values.data_type())?, wanted),
        (FixedSizeBinary(RAW_BYTES), Timestamp(unit, zone)) => {
            let instants = timestamps(array.as_fixed_size_binary(), *unit)?;
            cast(&instants, &Timestamp(*unit, zone.clone()))
        }
        (FixedSizeBinary(RAW_BYTES), Interval(IntervalUnit::MonthDayNano)) => intervals(array.as_fixed_size_binary()),
        (FixedSizeBinary(UUID_BYTES), Utf8 | LargeUtf8 | Utf8View) => cast(&uuids(array.as_fixed_size_binary()), wanted),
        (List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _), List(field)) => {
            let lists = cast(array, &List(item.clone()))?;
            list(lists.as_list(), field)
        }
        (FixedSizeList(_, size), FixedSizeList(field, wanted)) if size == wanted => {
            let lists = array.as_fixed_size_list();
            let values = exactly(lists.values(), field.data_type())?;
            made(FixedSizeListArray::try_new(field.clone(), *size, values, lists.nulls().cloned()))
        }
        (Struct(_), Struct(fields)) => structure(array.as_struct(), fields),
        (Map(..), Map(entries, sorted)) => map(array.as_map(), entries, *sorted),
        _ => value_by_value(array, wanted),
    }
}

fn made<A: Array + 'static>(array: Result<A, ArrowError>) -> Result<ArrayRef, String> {
    array.map(|array| Arc::new(array) as ArrayRef).map_err(|error| error.to_string())
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    cast_with_options(array, to, &SAFE).map_err(|error| error.to_string())
}

fn misfit(value: &str, from: &str, wanted: &DataType) -> String {
    format!("the value {value} ({from}) has no equal in {}", declared_type(wanted))
}

fn value_by_value(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    let there = cast(array, wanted)?;
    let lost = |row: usize| {
        let value = array_value_to_string(array, row).unwrap_or_default();
        Err(misfit(&value, &declared_type(array.data_type()), wanted))
    };
    if there.null_count() != array.null_count()
        && let Some(row) = (0..array.len()).find(|row| there.is_null(*row) && array.is_valid(*row))
    {
        return lost(row);
    }
    if holds_all(array.data_type(), wanted) {
        return Ok(there);
    }
    let back = cast(&there, array.data_type())?;
    let same = not_distinct(array as &dyn Datum, &back as &dyn Datum).map_err(|error| error.to_string())?;
    match (0..array.len()).find(|row| !same.value(*row)) {
        Some(row) => lost(row),
        None => Ok(there),
    }
}

fn list(lists: &ListArray, field: &Arc<Field>) -> Result<ArrayRef, String> {
    let values = exactly(lists.values(), field.data_type())?;
    made(ListArray::try_new(field.clone(), lists.offsets().clone(), values, lists.nulls().cloned()))
}

/// By name; a field that the file lacks is NULL.
fn structure(rows: &StructArray, fields: &Fields) -> Result<ArrayRef, String> {
    let columns = fields.iter().map(|field| match rows.column_by_name(field.name()) {
        Some(column) => exactly(column, field.data_type()).map_err(|why| format!("{why} (field {})", field.name())),
        None => Ok(new_null_array(field.data_type(), rows.len())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    if fields.is_empty() {
        return Ok(Arc::new(StructArray::new_empty_fields(rows.len(), rows.nulls().cloned())));
    }
    made(StructArray::try_new(fields.clone(), columns, rows.nulls().cloned()))
}

fn map(maps: &MapArray, entries: &Arc<Field>, sorted: bool) -> Result<ArrayRef, String> {
    let DataType::Struct(fields) = entries.data_type() else { return Err("a MAP without entries".into()) };
    let of_file = [maps.keys(), maps.values()];
    let columns = of_file.iter().zip(fields).map(|(column, field)| exactly(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let pairs = StructArray::try_new(fields.clone(), columns, None).map_err(|error| error.to_string())?;
    made(MapArray::try_new(entries.clone(), maps.offsets().clone(), pairs, maps.nulls().cloned(), sorted))
}

/// INT96: nanoseconds of the day, then the Julian day.
fn timestamps(raw: &FixedSizeBinaryArray, unit: TimeUnit) -> Result<ArrayRef, String> {
    let per_unit = match unit {
        TimeUnit::Second => NANOSECONDS_A_SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    let instants = raw.iter().map(|bytes| {
        let Some(bytes) = bytes else { return Ok(None) };
        let (of_day, day) = (little_endian(&bytes[..8]) as u64 as i64, little_endian(&bytes[8..]) as u32 as i32);
        let nanoseconds = (i128::from(day) - EPOCH_JULIAN_DAY) * NANOSECONDS_A_DAY + i128::from(of_day);
        match i64::try_from(nanoseconds.div_euclid(per_unit)) {
            Ok(instant) if nanoseconds.rem_euclid(per_unit) == 0 => Ok(Some(instant)),
            _ => Err(misfit(&instant_text(nanoseconds), "INT96", &DataType::Timestamp(unit, None))),
        }
    });
    let instants = instants.collect::<Result<Vec<Option<i64>>, String>>()?;
    Ok(match unit {
        TimeUnit::Second => Arc::new(TimestampSecondArray::from(instants)),
        TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::from(instants)),
        TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::from(instants)),
        TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::from(instants)),
    })
}

fn instant_text(nanoseconds: i128) -> String {
    let seconds = i64::try_from(nanoseconds.div_euclid(NANOSECONDS_A_SECOND)).ok();
    let instant = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, nanoseconds.rem_euclid(NANOSECONDS_A_SECOND) as u32));
    instant.map_or_else(|| format!("{nanoseconds} ns after 1970"), |instant| instant.format("%Y-%m-%d %H:%M:%S%.f").to_string())
}

/// INTERVAL: months, days and milliseconds, each of four bytes. Some writers take them for signed, and Parquet does not.
fn intervals(raw: &FixedSizeBinaryArray) -> Result<ArrayRef, String> {
    let spans = raw.iter().map(|bytes| {
        let Some(bytes) = bytes else { return Ok(None) };
        let part = |at: usize| i32::try_from(little_endian(&bytes[at..at + 4]) as u32);
        match (part(0), part(4), part(8)) {
            (Ok(months), Ok(days), Ok(milliseconds)) => {
                Ok(Some(IntervalMonthDayNano::new(months, days, i64::from(milliseconds) * NANOSECONDS_A_MILLISECOND)))
            }
            _ => Err("an INTERVAL has a part of 2^31 or more, which its writer may have meant to be negative".to_string()),
        }
    });
    Ok(Arc::new(spans.collect::<Result<IntervalMonthDayNanoArray, String>>()?))
}

fn little_endian(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn uuids(raw: &FixedSizeBinaryArray) -> ArrayRef {
    let texts = raw.iter().map(|bytes| bytes.and_then(|bytes| Uuid::from_slice(bytes).ok()).map(|id| id.hyphenated().to_string()));
    Arc::new(texts.collect::<StringArray>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array};

    fn instant(nanoseconds_of_day: i64, julian_day: i32) -> Vec<u8> {
        nanoseconds_of_day.to_le_bytes().into_iter().chain(julian_day.to_le_bytes()).collect()
    }

    #[test]
    fn instants_of_all_years_are_read_and_none_is_cut() {
        // 9999-12-31 23:59:59.999999 and 0001-01-01.
        let raw = FixedSizeBinaryArray::try_from_iter([instant(86_399_999_999_000, 5_373_484), instant(0, 1_721_426)].into_iter()).unwrap();
        let raw: ArrayRef = Arc::new(raw);
        let read = exactly(&raw, &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
        let texts: Vec<String> = (0..2).map(|row| array_value_to_string(&read, row).unwrap()).collect();
        assert_eq!(texts, ["9999-12-31T23:59:59.999999", "0001-01-01T00:00:00"]);
        let beyond = exactly(&raw, &DataType::Timestamp(TimeUnit::Nanosecond, None)).unwrap_err();
        assert!(beyond.contains("9999-12-31 23:59:59.999999"), "{beyond}");
        let cut = exactly(&raw, &DataType::Timestamp(TimeUnit::Millisecond, None)).unwrap_err();
        assert!(cut.contains("has no equal in TIMESTAMP(3)"), "{cut}");
    }

    #[test]
    fn a_number_without_an_equal_is_named() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1 << 53), None, Some((1 << 53) + 1)]));
        let why = exactly(&numbers, &DataType::Float64).unwrap_err();
        assert!(why.contains("9007199254740993 (BIGINT) has no equal in DOUBLE"), "{why}");
        let halves: ArrayRef = Arc::new(Float64Array::from(vec![2.0, 2.5]));
        assert!(exactly(&halves, &DataType::Int32).unwrap_err().contains("2.5"));
        assert!(exactly(&halves.slice(0, 1), &DataType::Int32).is_ok());
    }
}
