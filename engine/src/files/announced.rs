//! What the columns of a Parquet file are to SQL.
//!
//! Writers leave a hint of the type that they had in memory: large strings, categories, half floats. None of these is another SQL type.
//! Parquet's own INT96, INTERVAL and UUID have no hint, and need none.

use super::categories::with_readable_categories;
use super::exact::UUID_BYTES;
use super::readable::with_raw_leaves;
use crate::error::decoded;
use crate::result_types::plain_type;
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, Schema, TimeUnit};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema, parquet_to_arrow_schema_by_columns};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, SchemaDescriptor};
use std::sync::Arc;

/// Arrow's name of the type.
const UUID_EXTENSION: &str = "arrow.uuid";

/// The columns of a file in SQL's types.
///
/// # Errors
/// When a column has a type that cannot be read, by its name.
pub fn announced_schema(metadata: &ParquetMetaData) -> Result<Schema, String> {
    let stored = metadata.file_metadata().schema_descr();
    let read = read_schema(metadata)?;
    let mut leaves = stored.columns().iter();
    let fields = read.fields().iter().map(|field| announced_field(field, &mut leaves));
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// The columns of a file as its reader gives them, without metadata.
///
/// # Errors
/// As for [`announced_schema`].
pub fn read_schema(metadata: &ParquetMetaData) -> Result<Schema, String> {
    let file = metadata.file_metadata();
    let raw = with_raw_leaves(file.schema_descr()).map_err(|error| error.to_string())?;
    let descriptor = raw.as_deref().unwrap_or(file.schema_descr());
    // Arrow panics over types in a file's ARROW:schema that it does not know.
    let schema = decoded(|| parquet_to_arrow_schema(descriptor, file.key_value_metadata()).map_err(|error| error.to_string()));
    let schema = schema.map_err(|error| culprit(descriptor, &error))?;
    Ok(Schema::new(with_readable_categories(&schema).fields))
}

/// Which column has the type that cannot be read.
fn culprit(schema: &SchemaDescriptor, error: &str) -> String {
    for (root, field) in schema.root_schema().get_fields().iter().enumerate() {
        let alone = ProjectionMask::roots(schema, [root]);
        if let Err(error) = parquet_to_arrow_schema_by_columns(schema, alone, None) {
            return format!("column {} has a type that cannot be read: {error}", field.name());
        }
    }
    error.to_string()
}

fn announced_field<'l>(field: &Field, leaves: &mut impl Iterator<Item = &'l ColumnDescPtr>) -> Field {
    Field::new(field.name(), announced(field.data_type(), leaves), field.is_nullable())
}

/// The SQL type of a column; `leaves` are Parquet's leaf columns, which come in the order of Arrow's.
fn announced<'l>(data_type: &DataType, leaves: &mut impl Iterator<Item = &'l ColumnDescPtr>) -> DataType {
    let mut nested = |field: &Arc<Field>| Arc::new(announced_field(field, leaves));
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(nested(item))
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(nested(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(nested).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(nested(entries), *sorted),
        leaf => match leaves.next().and_then(|stored| without_hint(stored)) {
            Some(known) => known,
            // Another file may say what a column of NULLs is.
            None if *leaf == DataType::Null => DataType::Null,
            // Parquet has days alone.
            None if *leaf == DataType::Date64 => DataType::Date32,
            None => plain_type(leaf),
        },
    }
}

/// A column of a client's rows in SQL's types.
pub fn announced_of_client(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::FixedSizeBinary(UUID_BYTES) if field.extension_type_name() == Some(UUID_EXTENSION) => DataType::Utf8,
        DataType::Date64 => DataType::Date32,
        // Of NULLs without a type as well: text.
        other => plain_type(other),
    };
    Field::new(field.name(), data_type, field.is_nullable())
}

/// Types that Parquet knows and Arrow's reader does not.
fn without_hint(stored: &ColumnDescriptor) -> Option<DataType> {
    if stored.physical_type() == PhysicalType::INT96 {
        // What Spark means by it; Impala's nanoseconds are taken where a column list asks for them.
        return Some(DataType::Timestamp(TimeUnit::Microsecond, None));
    }
    if stored.converted_type() == ConvertedType::INTERVAL {
        return Some(DataType::Interval(IntervalUnit::MonthDayNano));
    }
    // As text: what clients know, what it is written as in a statement, in the same order.
    matches!(stored.logical_type_ref(), Some(LogicalType::Uuid)).then_some(DataType::Utf8)
}
