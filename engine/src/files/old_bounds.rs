//! Bounds of writers from before Parquet said in which order they are.
//!
//! Such a footer has `min` and `max`, and not `min_value` and `max_value`. Writers compared strings and unsigned numbers by signed bytes, so
//! that `é` came before `a`: nothing is known of the order that readers have. The format says to pass over them
//! (<https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>, `Statistics`).

use parquet::basic::SortOrder;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;
use std::sync::Arc;

/// Whether nothing is known of the order of these bounds.
pub fn is_old(statistics: &Statistics, leaf: &ColumnDescriptor) -> bool {
    let some = statistics.min_bytes_opt().is_some() || statistics.max_bytes_opt().is_some();
    some && statistics.is_min_max_deprecated() && leaf.sort_order() != SortOrder::SIGNED
}

fn has_old(column: &ColumnChunkMetaData) -> bool {
    column.statistics().is_some_and(|statistics| is_old(statistics, column.column_descr()))
}

/// The metadata without such bounds.
pub fn without_old_bounds(metadata: Arc<ParquetMetaData>) -> Result<Arc<ParquetMetaData>> {
    if !metadata.row_groups().iter().flat_map(RowGroupMetaData::columns).any(has_old) {
        return Ok(metadata);
    }
    let mut builder = Arc::unwrap_or_clone(metadata).into_builder();
    let groups = builder.take_row_groups().into_iter().map(|group: RowGroupMetaData| {
        let columns = group.columns().iter().map(|column| match column.statistics() {
            Some(statistics) if is_old(statistics, column.column_descr()) => {
                column.clone().into_builder().set_statistics(without_bounds(statistics)).build()
            }
            _ => Ok(column.clone()),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        group.into_builder().set_column_metadata(columns).build()
    });
    let groups = groups.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(builder.set_row_groups(groups).build()))
}

fn without_bounds(statistics: &Statistics) -> Statistics {
    let (distinct, nulls) = (statistics.distinct_count_opt(), statistics.null_count_opt());
    match statistics {
        Statistics::Boolean(_) => Statistics::boolean(None, None, distinct, nulls, true),
        Statistics::Int32(_) => Statistics::int32(None, None, distinct, nulls, true),
        Statistics::Int64(_) => Statistics::int64(None, None, distinct, nulls, true),
        Statistics::Int96(_) => Statistics::int96(None, None, distinct, nulls, true),
        Statistics::Float(_) => Statistics::float(None, None, distinct, nulls, true),
        Statistics::Double(_) => Statistics::double(None, None, distinct, nulls, true),
        Statistics::ByteArray(_) => Statistics::byte_array(None::<ByteArray>, None, distinct, nulls, true),
        Statistics::FixedLenByteArray(_) => Statistics::fixed_len_byte_array(None::<FixedLenByteArray>, None, distinct, nulls, true),
    }
}
