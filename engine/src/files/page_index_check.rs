//! Whether the indexes of pages that a reader has loaded agree with their footer.
//!
//! Filters leave out pages by these indexes. They are read when a scan asks for them, apart from the footer, and so are checked then.

use super::footer_check::signed_order;
use parquet::basic::SortOrder;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::column_index::{ByteArrayColumnIndex, ColumnIndexMetaData, PrimitiveColumnIndex};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

/// Checks the indexes that are there.
///
/// # Errors
/// With the place and what disagrees there.
pub fn check(metadata: &ParquetMetaData) -> Result<(), String> {
    let (bounds, pages) = (metadata.column_index(), metadata.offset_index());
    for (at, group) in metadata.row_groups().iter().enumerate() {
        for (number, column) in group.columns().iter().enumerate() {
            let pages = pages.and_then(|groups| groups.get(at)?.get(number)).filter(|pages| !pages.page_locations().is_empty());
            let bounds = bounds.and_then(|groups| groups.get(at)?.get(number));
            let checked = pages
                .map_or(Ok(()), |pages| check_pages(pages, column, group.num_rows()))
                .and_then(|()| bounds.map_or(Ok(()), |bounds| check_bounds(bounds, pages, column)));
            checked.map_err(|why| format!("row group {at}: column {}: the index of its pages: {why}", column.column_path().string()))?;
        }
    }
    Ok(())
}

fn check_pages(pages: &OffsetIndexMetaData, column: &ColumnChunkMetaData, rows: i64) -> Result<(), String> {
    let (start, bytes) = column.byte_range();
    let chunk_end = (start + bytes) as i64;
    let (mut end, mut next_row) = (start as i64, 0);
    for (at, page) in pages.page_locations().iter().enumerate() {
        let size = i64::from(page.compressed_page_size);
        if page.offset < end || size <= 0 || page.offset.checked_add(size).is_none_or(|end| end > chunk_end) {
            return Err(format!("page {at} cannot lie at byte {} with {size} bytes", page.offset));
        }
        let first = page.first_row_index;
        if (at == 0 && first != 0) || first < next_row || first >= rows {
            return Err(format!("page {at} cannot begin with row {first} of {rows}"));
        }
        (end, next_row) = (page.offset + size, first + 1);
    }
    Ok(())
}

fn check_bounds(bounds: &ColumnIndexMetaData, pages: Option<&OffsetIndexMetaData>, column: &ColumnChunkMetaData) -> Result<(), String> {
    let unsigned = column.column_descr().sort_order() == SortOrder::UNSIGNED;
    let signed = column.column_descr().sort_order() == SortOrder::SIGNED;
    let (count, swapped) = match bounds {
        ColumnIndexMetaData::NONE => return Ok(()),
        ColumnIndexMetaData::BOOLEAN(of) => (of.num_pages(), swapped(of, |min, max| min > max)),
        ColumnIndexMetaData::INT32(of) if unsigned => (of.num_pages(), swapped(of, |min, max| *min as u32 > *max as u32)),
        ColumnIndexMetaData::INT32(of) => (of.num_pages(), swapped(of, |min, max| min > max)),
        ColumnIndexMetaData::INT64(of) if unsigned => (of.num_pages(), swapped(of, |min, max| *min as u64 > *max as u64)),
        ColumnIndexMetaData::INT64(of) => (of.num_pages(), swapped(of, |min, max| min > max)),
        ColumnIndexMetaData::INT96(of) => (of.num_pages(), None),
        ColumnIndexMetaData::FLOAT(of) => (of.num_pages(), swapped(of, |min, max| min > max)),
        ColumnIndexMetaData::DOUBLE(of) => (of.num_pages(), swapped(of, |min, max| min > max)),
        ColumnIndexMetaData::BYTE_ARRAY(of) | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(of) if unsigned => {
            (of.num_pages(), swapped_bytes(of, |min, max| min > max))
        }
        // Half floats alone have this order and are no whole numbers: their bounds are not read.
        ColumnIndexMetaData::BYTE_ARRAY(of) | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(of)
            if signed && column.column_descr().type_precision() > 0 =>
        {
            (of.num_pages(), swapped_bytes(of, |min, max| signed_order(min, max).is_gt()))
        }
        ColumnIndexMetaData::BYTE_ARRAY(of) | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(of) => (of.num_pages(), None),
    };
    if let Some(pages) = pages.map(|pages| pages.page_locations().len() as u64).filter(|pages| *pages != count) {
        return Err(format!("it has bounds of {count} pages and places of {pages}"));
    }
    if let Some(page) = swapped {
        return Err(format!("the least value of page {page} is greater than its greatest value"));
    }
    let nulls = (0..count as usize).try_fold(0i64, |sum, page| {
        let nulls = bounds.null_count(page).unwrap_or(0);
        sum.checked_add(nulls).filter(|sum| nulls >= 0 && *sum <= column.num_values())
    });
    nulls.map(drop).ok_or_else(|| "it counts more NULLs than values".to_string())
}

/// The first page whose bounds are the wrong way round.
fn swapped<T>(bounds: &PrimitiveColumnIndex<T>, greater: impl Fn(&T, &T) -> bool) -> Option<usize> {
    let pages = bounds.min_values_iter().zip(bounds.max_values_iter());
    pages.map(|(min, max)| min.zip(max)).position(|bounds| bounds.is_some_and(|(min, max)| greater(min, max)))
}

fn swapped_bytes(bounds: &ByteArrayColumnIndex, greater: impl Fn(&[u8], &[u8]) -> bool) -> Option<usize> {
    let pages = bounds.min_values_iter().zip(bounds.max_values_iter());
    pages.map(|(min, max)| min.zip(max)).position(|bounds| bounds.is_some_and(|(min, max)| greater(min, max)))
}
