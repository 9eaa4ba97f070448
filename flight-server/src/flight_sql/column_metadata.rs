//! What BI tools read about a column beside its Arrow type.

use arrow::datatypes::{Field, Schema};
use bowshot_engine::TableInfo;
use bowshot_engine::result_types::{COLUMN_METADATA, sql_type};
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
    let of_table = [
        ("CATALOG_NAME", table.catalog.as_str()),
        // The specification says the first; the JDBC driver reads the second.
        ("DB_SCHEMA_NAME", &table.schema),
        ("SCHEMA_NAME", &table.schema),
        ("TABLE_NAME", &table.name),
        ("IS_AUTO_INCREMENT", "0"),
        ("IS_CASE_SENSITIVE", "1"),
        ("IS_READ_ONLY", if table.stored.as_ref().is_some_and(|stored| stored.managed) { "0" } else { "1" }),
        ("IS_SEARCHABLE", "1"),
    ];
    let comment = table.details.column_comments.get(field.name()).map(|comment| ("REMARKS", comment.as_str()));
    let named = of_table.into_iter().chain(comment).map(|(name, value)| (format!("{COLUMN_METADATA}{name}"), value.to_string()));
    sql_type(field.data_type()).into_iter().chain(named).collect()
}
