//! What BI tools read about a column beside its Arrow type.

use arrow::datatypes::{DataType, Field, Schema};
use bowshot_engine::TableInfo;
use std::collections::HashMap;
use std::sync::Arc;

/// The columns of a table with their `ARROW:FLIGHT:SQL:*` metadata.
pub fn describe(table: &TableInfo) -> Schema {
    let fields = table.columns.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        metadata.extend(of_column(table, field));
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn of_column(table: &TableInfo, field: &Field) -> HashMap<String, String> {
    let mut entries = vec![
        ("CATALOG_NAME", table.catalog.clone()),
        // The specification says the first; the JDBC driver reads the second.
        ("DB_SCHEMA_NAME", table.schema.clone()),
        ("SCHEMA_NAME", table.schema.clone()),
        ("TABLE_NAME", table.name.clone()),
        ("TYPE_NAME", type_name(field.data_type())),
        ("IS_AUTO_INCREMENT", "0".to_string()),
        ("IS_CASE_SENSITIVE", "1".to_string()),
        ("IS_READ_ONLY", "1".to_string()),
        ("IS_SEARCHABLE", "1".to_string()),
    ];
    if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) = field.data_type() {
        entries.push(("PRECISION", precision.to_string()));
        entries.push(("SCALE", scale.to_string()));
    }
    entries.extend(table.details.column_comments.get(field.name()).map(|comment| ("REMARKS", comment.clone())));
    entries.into_iter().map(|(key, value)| (format!("ARROW:FLIGHT:SQL:{key}"), value)).collect()
}

/// The SQL name of a type; the Arrow name where SQL has none.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "DECIMAL",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "VARBINARY",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Dictionary(_, values) => return type_name(values),
        other => return other.to_string(),
    }
    .to_string()
}
