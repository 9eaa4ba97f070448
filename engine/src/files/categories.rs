//! Categories: columns whose writer had dictionaries in memory, as pandas has of any type.
//!
//! Writers leave that as a hint. Arrow's reader makes dictionaries of texts and bytes, and panics over some of other values: of decimals,
//! of fixed bytes, of a category without a value. The hint that it gets says of these what their values are.

use crate::error::decoded;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema, parquet_to_arrow_schema};
use parquet::file::metadata::KeyValue;
use parquet::schema::types::SchemaDescriptor;
use std::sync::Arc;

/// A schema whose dictionaries are of texts and bytes alone.
pub fn with_readable_categories(schema: &Schema) -> Schema {
    Schema::new_with_metadata(readable_fields(schema.fields()), schema.metadata().clone())
}

/// The notes of a footer with a hint by which readers make such dictionaries alone. One that cannot be read stays: readers say so.
pub fn correct_hint(stored: &SchemaDescriptor, notes: &mut Vec<KeyValue>) {
    if !notes.iter().any(|note| note.key == ARROW_SCHEMA_META_KEY) {
        return;
    }
    let read = decoded(|| parquet_to_arrow_schema(stored, Some(notes)).map_err(|error| error.to_string()));
    let Ok(read) = read else { return };
    let corrected = with_readable_categories(&read);
    if corrected != read {
        notes.retain(|note| note.key != ARROW_SCHEMA_META_KEY);
        notes.push(KeyValue::new(ARROW_SCHEMA_META_KEY.to_string(), encode_arrow_schema(&corrected)));
    }
}

fn readable_fields(fields: &Fields) -> Fields {
    fields.iter().map(|field| Arc::new(field.as_ref().clone().with_data_type(readable_type(field.data_type())))).collect()
}

fn readable_type(data_type: &DataType) -> DataType {
    let item = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(readable_type(field.data_type())));
    match data_type {
        DataType::Dictionary(_, values) if !has_dictionaries(values) => readable_type(values),
        DataType::List(field) => DataType::List(item(field)),
        DataType::LargeList(field) => DataType::LargeList(item(field)),
        DataType::ListView(field) => DataType::ListView(item(field)),
        DataType::LargeListView(field) => DataType::LargeListView(item(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(item(field), *size),
        DataType::Map(entries, sorted) => DataType::Map(item(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(readable_fields(fields)),
        other => other.clone(),
    }
}

fn has_dictionaries(values: &DataType) -> bool {
    matches!(values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary)
}
