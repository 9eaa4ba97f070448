//! Whether a Parquet footer agrees with itself, before anything is believed of it.
//!
//! Readers take a footer's word for how many rows there are, where they lie and which row groups a filter may leave out. One that contradicts
//! itself gives each reader another answer, or ends one in a panic. What contradicts itself is refused by row group and column.

use crate::catalog::footer::row_group_offset;
use parquet::basic::{ConvertedType, LogicalType, SortOrder};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;
use std::cmp::Ordering;

/// Bytes that a file has before its first page: the magic `PAR1`.
const MAGIC_BYTES: i64 = 4;
/// Bytes after the footer: its length and the magic.
pub const TAIL_BYTES: u64 = 8;
/// The header of the smallest page, in bytes: type, two sizes, and the count of values with its encodings.
const PAGE_HEADER_BYTES_MIN: i64 = 8;

/// Checks the footer of a file of `size_bytes`; of `u64::MAX` where that is not known.
///
/// # Errors
/// With the place and what disagrees there.
pub fn check(metadata: &ParquetMetaData, size_bytes: u64) -> Result<(), String> {
    let groups = metadata.row_groups();
    let mut places = vec![];
    for (at, group) in groups.iter().enumerate() {
        check_group(group, size_bytes, &mut places).map_err(|why| format!("row group {at}: {why}"))?;
    }
    let rows = groups.iter().try_fold(0i64, |sum, group| sum.checked_add(group.num_rows()));
    let said = metadata.file_metadata().num_rows();
    if rows != Some(said) {
        let counted = rows.map_or("more than 64 bits hold".to_string(), |rows| rows.to_string());
        return Err(format!("the footer says that the file has {said} rows, and its row groups have {counted}"));
    }
    check_starts(metadata)?;
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!(
            "two columns lie over each other: one from byte {} to {}, one from byte {} to {}",
            pair[0].0, pair[0].1, pair[1].0, pair[1].1
        )),
        None => Ok(()),
    }
}

/// Readers are told by a row group's first byte which they are to read. A file without columns has no bytes.
fn check_starts(metadata: &ParquetMetaData) -> Result<(), String> {
    let filled = metadata.row_groups().iter().filter(|group| group.num_rows() > 0 && group.num_columns() > 0);
    let mut starts: Vec<u64> = filled.map(row_group_offset).collect();
    starts.sort_unstable();
    match starts.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("two row groups of the file begin at the same byte, {}", pair[0])),
        None => Ok(()),
    }
}

/// Checks a row group and adds the places of its columns, as (first byte, byte after the last).
fn check_group(group: &RowGroupMetaData, size_bytes: u64, places: &mut Vec<(i64, i64)>) -> Result<(), String> {
    if group.num_rows() < 0 {
        return Err(format!("it has {} rows", group.num_rows()));
    }
    for column in group.columns() {
        check_column(column, group.num_rows(), size_bytes, places)
            .map_err(|why| format!("column {}: {why}", column.column_path().string()))?;
    }
    Ok(())
}

fn check_column(column: &ColumnChunkMetaData, rows: i64, size_bytes: u64, places: &mut Vec<(i64, i64)>) -> Result<(), String> {
    if let Some(file) = column.file_path().filter(|path| !path.is_empty()) {
        return Err(format!("its values lie in another file, {file}"));
    }
    let (values, bytes) = (column.num_values(), column.compressed_size());
    if bytes < 0 || column.uncompressed_size() < 0 {
        return Err(format!("it has {bytes} bytes, {} uncompressed", column.uncompressed_size()));
    }
    // In a list each row has an entry at least, an empty one too.
    let nested = column.column_descr().max_rep_level() > 0;
    if values != rows && !(nested && values > rows) {
        return Err(format!("it has {values} values of {rows} rows"));
    }
    // A page counts its values in 32 bits.
    let values_max = (bytes / PAGE_HEADER_BYTES_MIN).saturating_mul(i64::from(i32::MAX));
    if values > values_max {
        return Err(format!("{values} values cannot lie in {bytes} bytes"));
    }
    if bytes > 0 {
        let data = column.data_page_offset();
        let start = column.dictionary_page_offset().unwrap_or(data);
        let end_max = i64::try_from(size_bytes.saturating_sub(TAIL_BYTES)).unwrap_or(i64::MAX);
        // Without a value there is no page of data: a writer then says 0.
        let end = start.checked_add(bytes).filter(|end| *end <= end_max);
        let Some(end) = end.filter(|end| start >= MAGIC_BYTES && (values == 0 || (start..*end).contains(&data))) else {
            return Err(format!("{bytes} bytes from byte {start}, with data from byte {data}, cannot lie in a file of {size_bytes} bytes"));
        };
        places.push((start, end));
    }
    for (what, offset, length) in [
        ("its index of bounds", column.column_index_offset(), column.column_index_length()),
        ("its index of pages", column.offset_index_offset(), column.offset_index_length()),
    ] {
        let Some(offset) = offset else { continue };
        let end = length.and_then(|length| offset.checked_add(i64::from(length)).filter(|_| length >= 0));
        if offset < 0 || end.is_none_or(|end| end as u64 > size_bytes) {
            return Err(format!("{what} cannot lie at byte {offset} with {} bytes", length.unwrap_or(-1)));
        }
    }
    column.statistics().map_or(Ok(()), |statistics| check_statistics(statistics, column.column_descr(), values))
}

fn check_statistics(statistics: &Statistics, leaf: &ColumnDescriptor, values: i64) -> Result<(), String> {
    if let Some(nulls) = statistics.null_count_opt().filter(|nulls| *nulls > values as u64) {
        return Err(format!("{nulls} of its {values} values are NULL"));
    }
    let order = match statistics {
        Statistics::Boolean(of) => ordered(of.min_opt(), of.max_opt(), Ord::cmp),
        _ if super::old_bounds::is_old(statistics, leaf) => Ordering::Less,
        Statistics::Int32(of) if leaf.sort_order() == SortOrder::UNSIGNED => {
            ordered(of.min_opt(), of.max_opt(), |min, max| (**min as u32).cmp(&(**max as u32)))
        }
        Statistics::Int32(of) => ordered(of.min_opt(), of.max_opt(), Ord::cmp),
        Statistics::Int64(of) if leaf.sort_order() == SortOrder::UNSIGNED => {
            ordered(of.min_opt(), of.max_opt(), |min, max| (**min as u64).cmp(&(**max as u64)))
        }
        Statistics::Int64(of) => ordered(of.min_opt(), of.max_opt(), Ord::cmp),
        // NaN has no place in an order that writers agree on.
        Statistics::Float(of) => ordered(of.min_opt(), of.max_opt(), |min, max| min.partial_cmp(max).unwrap_or(Ordering::Less)),
        Statistics::Double(of) => ordered(of.min_opt(), of.max_opt(), |min, max| min.partial_cmp(max).unwrap_or(Ordering::Less)),
        // No order is defined for it, and nobody reads its bounds.
        Statistics::Int96(_) => Ordering::Less,
        Statistics::ByteArray(of) => bytes_ordered(of.min_opt().map(|min| min.data()), of.max_opt().map(|max| max.data()), leaf),
        Statistics::FixedLenByteArray(of) => bytes_ordered(of.min_opt().map(|min| min.data()), of.max_opt().map(|max| max.data()), leaf),
    };
    match order {
        Ordering::Greater => Err("its least value is greater than its greatest value".to_string()),
        _ => Ok(()),
    }
}

/// How the least value stands to the greatest, where both are said.
fn ordered<T>(min: Option<T>, max: Option<T>, order: impl Fn(&T, &T) -> Ordering) -> Ordering {
    min.zip(max).map_or(Ordering::Less, |(min, max)| order(&min, &max))
}

fn bytes_ordered(min: Option<&[u8]>, max: Option<&[u8]>, leaf: &ColumnDescriptor) -> Ordering {
    let half = matches!(leaf.logical_type_ref(), Some(LogicalType::Float16));
    match leaf.sort_order() {
        // Bounds that are not read: see `operators::float_bounds`.
        _ if half => Ordering::Less,
        SortOrder::UNSIGNED => ordered(min, max, |min, max| min.cmp(max)),
        SortOrder::SIGNED if is_decimal(leaf) => ordered(min, max, |min, max| signed_order(min, max)),
        _ => Ordering::Less,
    }
}

fn is_decimal(leaf: &ColumnDescriptor) -> bool {
    matches!(leaf.logical_type_ref(), Some(LogicalType::Decimal { .. })) || leaf.converted_type() == ConvertedType::DECIMAL
}

/// The order of two whole numbers in two's complement, the greatest byte first, of any lengths.
pub fn signed_order(left: &[u8], right: &[u8]) -> Ordering {
    let fill = |bytes: &[u8]| if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0u8 };
    let length = left.len().max(right.len());
    let wide = |bytes: &[u8]| -> Vec<u8> {
        let mut wide = vec![fill(bytes); length - bytes.len()];
        wide.extend_from_slice(bytes);
        // With the sign turned, unsigned order is signed order.
        if let Some(first) = wide.first_mut() {
            *first ^= 0x80;
        }
        wide
    };
    wide(left).cmp(&wide(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_have_an_order() {
        assert_eq!(signed_order(&[0xff], &[0]), Ordering::Less);
        assert_eq!(signed_order(&[0xff, 0xfe], &[0xff]), Ordering::Less);
        assert_eq!(signed_order(&[0, 0x80], &[0x7f]), Ordering::Greater);
        assert_eq!(signed_order(&[0, 1], &[1]), Ordering::Equal);
        assert_eq!(signed_order(&[], &[0]), Ordering::Equal);
    }
}
