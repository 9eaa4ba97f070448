//! What leaves the engine has plain types: drivers know strings, not view or dictionary layouts.

use crate::sql_types::{declared_type, type_name};
use arrow::array::{Array, ArrayRef, Datum, RecordBatch, RecordBatchOptions};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, IntervalUnit, Schema, SchemaRef};
use arrow::error::ArrowError;
use std::collections::HashMap;
use std::sync::Arc;

/// The plain form of a type; nested types keep their shape.
pub fn plain_type(data_type: &DataType) -> DataType {
    let plain_field = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::RunEndEncoded(_, value) => plain_type(value.data_type()),
        // Large lists too: the library that encodes messages announces them as what they are, and sends lists.
        DataType::List(item) | DataType::ListView(item) | DataType::LargeList(item) | DataType::LargeListView(item) => {
            DataType::List(plain_field(item))
        }
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => plain_decimal(data_type, *precision, *scale),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) if *scale < 0 => {
            plain_decimal(data_type, *precision, *scale)
        }
        // The one unit that all drivers know.
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        // A column of untyped NULLs: drivers have no such type.
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}

/// A decimal of as many digits, none of which is left out before the point; of so many that no type has them it stays as it is.
fn plain_decimal(data_type: &DataType, precision: u8, scale: i8) -> DataType {
    let (digits, after) = (precision.saturating_add(scale.min(0).unsigned_abs()), scale.max(0));
    if digits <= DECIMAL128_MAX_PRECISION {
        DataType::Decimal128(digits, after)
    } else if digits <= DECIMAL256_MAX_PRECISION {
        DataType::Decimal256(digits, after)
    } else {
        data_type.clone()
    }
}

/// The columns of a table in plain types.
pub fn plain_columns(schema: &Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()));
    Schema::new(fields.collect::<Vec<_>>())
}

/// The schema of a result: plain types, every column nullable, since a plan's own nullability changes with its rewrites and drivers
/// reject a stream whose schema is not the announced one. Each column says of its SQL type what drivers do not see in Arrow's.
pub fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let data_type = plain_type(field.data_type());
        let sql_type = sql_type(&data_type);
        Field::new(field.name(), data_type, true).with_metadata(sql_type)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Begins the names under which Flight SQL has a column's metadata.
pub const COLUMN_METADATA: &str = "ARROW:FLIGHT:SQL:";

/// The SQL type of a column as Flight SQL's metadata.
pub fn sql_type(data_type: &DataType) -> HashMap<String, String> {
    let mut told = vec![("TYPE_NAME", type_name(data_type))];
    if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) = data_type {
        told.extend([("PRECISION", precision.to_string()), ("SCALE", scale.to_string())]);
    }
    told.into_iter().map(|(name, value)| (format!("{COLUMN_METADATA}{name}"), value)).collect()
}

/// A column in the type that was announced for it: in another layout, or as an equal value of another type.
///
/// # Errors
/// When a value has no equal in that type, by the column's name.
fn exactly(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(column, field.data_type(), &strict)?;
    if plain_type(column.data_type()) == *field.data_type() {
        return Ok(cast);
    }
    let back = cast_with_options(&cast, column.data_type(), &strict)?;
    let same = not_distinct(&column as &dyn Datum, &back as &dyn Datum)?;
    if same.false_count() > 0 {
        return Err(ArrowError::CastError(format!(
            "column {} was announced as {}, and a value of type {} has no equal there: CAST it in the statement",
            field.name(),
            declared_type(field.data_type()),
            declared_type(column.data_type())
        )));
    }
    Ok(cast)
}

/// A batch in its plain form.
pub fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns =
        batch.columns().iter().zip(schema.fields()).map(|(column, field)| exactly(column, field)).collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
