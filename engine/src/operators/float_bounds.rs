//! Parquet files without the upper bounds that their writers give for doubles.
//!
//! A file says of each column what its greatest value is, and writers leave NaN out of that. In SQL NaN is greater than all other numbers: a
//! file of `1.0, NaN` has a row for `x > 2`, and its bound says that it has none. No bound tells whether there is a NaN beside it, so plans
//! do without upper bounds of doubles; lower ones hold.

use parquet::basic::{LogicalType, Type};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};
use std::sync::Arc;

/// Whether a file has doubles.
pub fn has_floats(schema: &SchemaDescriptor) -> bool {
    schema.columns().iter().any(|leaf| is_float(leaf))
}

fn is_float(leaf: &ColumnDescriptor) -> bool {
    matches!(leaf.physical_type(), Type::FLOAT | Type::DOUBLE) || is_half(leaf)
}

fn is_half(leaf: &ColumnDescriptor) -> bool {
    matches!(leaf.logical_type_ref(), Some(LogicalType::Float16))
}

/// The metadata without bounds that a NaN may be beyond. Indexes of pages are read from where the metadata says: of doubles there are none.
pub fn doubtless(metadata: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>> {
    let mut builder = Arc::unwrap_or_clone(metadata).into_builder();
    let groups = builder.take_row_groups().into_iter().map(|group: RowGroupMetaData| {
        let columns = group.columns().iter().cloned().map(doubtless_column).collect::<ParquetResult<Vec<_>>>()?;
        group.into_builder().set_column_metadata(columns).build()
    });
    let groups = groups.collect::<ParquetResult<Vec<_>>>()?;
    Ok(Arc::new(builder.set_row_groups(groups).set_column_index(None).build()))
}

fn doubtless_column(column: ColumnChunkMetaData) -> ParquetResult<ColumnChunkMetaData> {
    if !is_float(column.column_descr()) {
        return Ok(column);
    }
    if is_half(column.column_descr()) {
        return column.into_builder().clear_statistics().set_column_index_offset(None).set_column_index_length(None).build();
    }
    let old = column.statistics().is_some_and(Statistics::is_min_max_deprecated);
    let bounds = match column.statistics() {
        // A writer that takes NaN for the least of numbers says nothing with it.
        Some(Statistics::Float(of)) => {
            let min = of.min_opt().copied().filter(|min| !min.is_nan());
            Some(Statistics::float(min, None, of.distinct_count(), of.null_count_opt(), old))
        }
        Some(Statistics::Double(of)) => {
            let min = of.min_opt().copied().filter(|min| !min.is_nan());
            Some(Statistics::double(min, None, of.distinct_count(), of.null_count_opt(), old))
        }
        _ => None,
    };
    let builder = column.into_builder().set_column_index_offset(None).set_column_index_length(None);
    match bounds {
        Some(bounds) => builder.set_statistics(bounds).build(),
        None => builder.build(),
    }
}
