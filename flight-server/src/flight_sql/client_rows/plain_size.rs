//! How large rows become when each value is spelt out, and pieces of them that stay within a bound.
//!
//! A dictionary, a run or a view lets many rows share the bytes of one value; stored rows and bound values have bytes of their own.

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, make_array};
use arrow::array::{MutableArrayData, OffsetSizeTrait};
use arrow::datatypes::{ArrowNativeType, ByteArrayType, ByteViewType, DataType};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Bytes that a value takes beside its own: an offset, or a NULL made into text.
const VALUE_BYTES: u64 = 8;

/// Bytes of an array's rows with each value spelt out, at most.
pub(super) fn plain_bytes(array: &dyn Array) -> u64 {
    let rows = array.len() as u64;
    let own = match array.data_type() {
        DataType::Utf8 => text_bytes::<arrow::datatypes::Utf8Type>(array),
        DataType::LargeUtf8 => text_bytes::<arrow::datatypes::LargeUtf8Type>(array),
        DataType::Binary => text_bytes::<arrow::datatypes::BinaryType>(array),
        DataType::LargeBinary => text_bytes::<arrow::datatypes::LargeBinaryType>(array),
        DataType::Utf8View => view_bytes::<arrow::datatypes::StringViewType>(array),
        DataType::BinaryView => view_bytes::<arrow::datatypes::BinaryViewType>(array),
        DataType::List(_) => list_bytes::<i32>(array),
        DataType::LargeList(_) => list_bytes::<i64>(array),
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            within(map.entries(), offsets.first().map(|first| *first as usize), offsets.last().map(|last| *last as usize))
        }
        DataType::ListView(_) => {
            let views = array.as_list_view::<i32>();
            total(views.sizes().iter().map(|size| *size as u64), widest(views.values()))
        }
        DataType::LargeListView(_) => {
            let views = array.as_list_view::<i64>();
            total(views.sizes().iter().map(|size| *size as u64), widest(views.values()))
        }
        DataType::FixedSizeList(..) => plain_bytes(array.as_fixed_size_list().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| plain_bytes(column)).fold(0, u64::saturating_add),
        DataType::Dictionary(..) => rows.saturating_mul(widest(array.as_any_dictionary().values())),
        // Every row may be the widest value of every child.
        DataType::RunEndEncoded(..) | DataType::Union(..) => array
            .to_data()
            .child_data()
            .iter()
            .map(|child| rows.saturating_mul(widest(&make_array(child.clone()))))
            .fold(0, u64::saturating_add),
        fixed => rows.saturating_mul(fixed.primitive_width().map_or_else(|| fixed_width(fixed), |width| width as u64)),
    };
    own.saturating_add(rows.saturating_mul(VALUE_BYTES))
}

fn fixed_width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeBinary(width) => u64::try_from(*width).unwrap_or(0),
        _ => 1,
    }
}

/// Bytes of the largest value of an array, at most.
fn widest(values: &dyn Array) -> u64 {
    let own = match values.data_type() {
        DataType::Utf8 => widest_text::<arrow::datatypes::Utf8Type>(values),
        DataType::LargeUtf8 => widest_text::<arrow::datatypes::LargeUtf8Type>(values),
        DataType::Binary => widest_text::<arrow::datatypes::BinaryType>(values),
        DataType::LargeBinary => widest_text::<arrow::datatypes::LargeBinaryType>(values),
        DataType::Utf8View => view_lengths::<arrow::datatypes::StringViewType>(values).max().unwrap_or(0),
        DataType::BinaryView => view_lengths::<arrow::datatypes::BinaryViewType>(values).max().unwrap_or(0),
        fixed if fixed.primitive_width().is_some() => fixed.primitive_width().unwrap_or(0) as u64,
        // Of what is nested: all of it.
        _ => plain_bytes(values),
    };
    own.saturating_add(VALUE_BYTES)
}

fn text_bytes<T: ByteArrayType>(array: &dyn Array) -> u64 {
    let offsets = array.as_bytes::<T>().value_offsets();
    let at = |offset: Option<&T::Offset>| offset.map_or(0, |offset| offset.as_usize() as u64);
    at(offsets.last()).saturating_sub(at(offsets.first()))
}

fn widest_text<T: ByteArrayType>(array: &dyn Array) -> u64 {
    let offsets = array.as_bytes::<T>().value_offsets();
    offsets.windows(2).map(|pair| pair[1].as_usize().saturating_sub(pair[0].as_usize()) as u64).max().unwrap_or(0)
}

/// A view's length is in its lower half.
fn view_lengths<T: ByteViewType>(array: &dyn Array) -> impl Iterator<Item = u64> {
    array.as_byte_view::<T>().views().iter().map(|view| u64::from(*view as u32))
}

fn view_bytes<T: ByteViewType>(array: &dyn Array) -> u64 {
    view_lengths::<T>(array).fold(0, u64::saturating_add)
}

fn list_bytes<O: OffsetSizeTrait>(array: &dyn Array) -> u64 {
    let list = array.as_list::<O>();
    let offsets = list.value_offsets();
    within(list.values(), offsets.first().map(|first| first.as_usize()), offsets.last().map(|last| last.as_usize()))
}

/// Bytes of the values that lists refer to; others may lie before and behind.
fn within(values: &dyn Array, first: Option<usize>, last: Option<usize>) -> u64 {
    match (first, last) {
        (Some(first), Some(last)) if first < last && last <= values.len() => plain_bytes(&*values.slice(first, last - first)),
        _ => 0,
    }
}

fn total(counts: impl Iterator<Item = u64>, each: u64) -> u64 {
    counts.fold(0, u64::saturating_add).saturating_mul(each)
}

/// Bytes of a batch's rows with each value spelt out, at most.
pub fn plain_bytes_of(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| plain_bytes(column)).fold(0, u64::saturating_add)
}

/// Cuts a batch until each piece, its values spelt out, is within the bound or one row. They lie in the batch, until each is made [`alone`].
pub(super) fn pieces(batch: RecordBatch, bytes_max: u64) -> Vec<RecordBatch> {
    if plain_bytes_of(&batch) <= bytes_max || batch.num_rows() <= 1 {
        return vec![batch];
    }
    let mut pieces = vec![];
    let mut cuts = vec![(0, batch.num_rows())];
    // The first piece lies on top, so that rows stay in their order.
    while let Some((offset, rows)) = cuts.pop() {
        let piece = batch.slice(offset, rows);
        if rows > 1 && plain_bytes_of(&piece) > bytes_max {
            let half = rows / 2;
            cuts.extend([(offset + half, rows - half), (offset, half)]);
        } else {
            pieces.push(piece);
        }
    }
    pieces
}

/// A piece that shares nothing with others: casts go through all values that lists lie in, and senders go by the bytes that columns lie in.
pub(super) fn alone(piece: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = piece.columns().iter().map(copied);
    let options = RecordBatchOptions::new().with_row_count(Some(piece.num_rows()));
    RecordBatch::try_new_with_options(piece.schema(), columns.collect::<Result<_, _>>()?, &options)
}

fn copied(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Utf8View => return Ok(Arc::new(column.as_string_view().gc())),
        DataType::BinaryView => return Ok(Arc::new(column.as_binary_view().gc())),
        _ => {}
    }
    let data: ArrayData = column.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, column.len());
    copy.try_extend(0, 0, column.len())?;
    Ok(make_array(copy.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, Int32Array, ListArray, NullArray, StringArray, StringViewArray};
    use arrow::datatypes::{Int32Type, Int64Type};

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap()
    }

    #[test]
    fn shared_values_count_for_each_row() {
        let value = "x".repeat(1000);
        let text = StringArray::from(vec![value.as_str()]);
        let shared = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0; 50]), Arc::new(text));
        assert!(plain_bytes(&shared) >= 50_000);
        assert!(plain_bytes(&StringViewArray::from(vec![value.as_str(); 50])) >= 50_000);
        assert!(plain_bytes(&NullArray::new(1000)) < 10_000);
    }

    #[test]
    fn pieces_are_all_rows_in_their_order() {
        let lists = (0..1000).map(|row| Some(vec![Some(row); 7]));
        let whole = batch(Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)));
        let cut: Vec<_> = pieces(whole.clone(), 8 << 10).into_iter().map(|piece| alone(piece).unwrap()).collect();
        assert!(cut.len() > 5 && cut.iter().all(|piece| plain_bytes_of(piece) <= 8 << 10));
        assert!(cut.iter().all(|piece| piece.column(0).as_list::<i32>().values().len() == 7 * piece.num_rows()));
        assert_eq!(arrow::compute::concat_batches(&whole.schema(), &cut).unwrap(), whole);
    }
}
