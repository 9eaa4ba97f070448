//! What BI tools read about a column beside its Arrow type.

use arrow::datatypes::{DataType, Field, Schema};
use bowshot_engine::TableInfo;
use bowshot_engine::sql_types::type_name;
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
        ("IS_READ_ONLY", if table.stored.as_ref().is_some_and(|stored| stored.managed) { "0" } else { "1" }.to_string()),
        ("IS_SEARCHABLE", "1".to_string()),
    ];
    if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) = field.data_type() {
        entries.push(("PRECISION", precision.to_string()));
        entries.push(("SCALE", scale.to_string()));
    }
    entries.extend(table.details.column_comments.get(field.name()).map(|comment| ("REMARKS", comment.clone())));
    entries.into_iter().map(|(key, value)| (format!("ARROW:FLIGHT:SQL:{key}"), value)).collect()
}
