//! Primary and foreign keys as the metadata commands answer them.

use super::status;
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bowshot_engine::TableInfo;
use std::sync::Arc;
use tonic::Status;

/// `NO ACTION` of the specification: nothing follows from a change, keys are not enforced.
const NO_ACTION: u8 = 3;

/// The table that a command asks for; a part that is absent does not matter.
pub struct Asked {
    pub catalog: Option<String>,
    pub schema: Option<String>,
    pub table: String,
}

impl Asked {
    fn is(&self, catalog: &str, schema: &str, table: &str) -> bool {
        self.table == table
            && self.catalog.as_ref().is_none_or(|wanted| wanted == catalog)
            && self.schema.as_ref().is_none_or(|wanted| wanted == schema)
    }
}

/// The schema of the answer about primary keys.
pub fn primary_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// The primary key of a table, a row a column, numbered from 1.
///
/// # Errors
/// A defect of ours only.
pub fn primary(tables: &[TableInfo], of: &Asked) -> Result<RecordBatch, Status> {
    let asked = tables.iter().filter(|table| of.is(&table.catalog, &table.schema, &table.name));
    let rows: Vec<(&TableInfo, &str, i32)> = asked
        .flat_map(|table| {
            let numbered = table.details.primary_key.iter().zip(1_i32..);
            numbered.map(move |(column, number)| (table, column.as_str(), number))
        })
        .collect();
    let columns = vec![
        texts(&rows, |(table, ..)| table.catalog.clone()),
        texts(&rows, |(table, ..)| table.schema.clone()),
        texts(&rows, |(table, ..)| table.name.clone()),
        texts(&rows, |(_, column, _)| column.to_string()),
        texts(&rows, |(table, ..)| table.details.primary_key_name(&table.name)),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(.., number)| *number))),
    ];
    RecordBatch::try_new(primary_schema(), columns).map_err(status::from_encoding)
}

/// The schema of the answers about foreign keys.
pub fn foreign_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// One column of a foreign key.
struct ForeignColumn<'a> {
    from: &'a TableInfo,
    column: &'a str,
    to_schema: &'a str,
    to_table: &'a str,
    to_column: &'a str,
    number: i32,
    name: &'a str,
    primary_name: Option<String>,
}

/// Foreign keys that point to one table, or from one, or both, a row a column, numbered from 1.
///
/// # Errors
/// A defect of ours only.
pub fn foreign(tables: &[TableInfo], primary: Option<&Asked>, foreign: Option<&Asked>) -> Result<RecordBatch, Status> {
    let mut rows = vec![];
    for from in tables.iter().filter(|table| foreign.is_none_or(|of| of.is(&table.catalog, &table.schema, &table.name))) {
        for key in &from.details.foreign_keys {
            if primary.is_some_and(|of| !of.is(&from.catalog, &key.schema, &key.table)) {
                continue;
            }
            let to = tables.iter().find(|table| (&table.schema, &table.name) == (&key.schema, &key.table));
            let to = to.filter(|to| to.details.primary_key == key.referenced);
            for ((column, to_column), number) in key.columns.iter().zip(&key.referenced).zip(1_i32..) {
                rows.push(ForeignColumn {
                    from,
                    column,
                    to_schema: &key.schema,
                    to_table: &key.table,
                    to_column,
                    number,
                    name: &key.name,
                    primary_name: to.map(|to| to.details.primary_key_name(&to.name)),
                });
            }
        }
    }
    // As JDBC wants them: by the other table, in the order of the key.
    rows.sort_by_key(|row| match primary {
        Some(_) => (row.from.schema.clone(), row.from.name.clone(), row.name.to_string(), row.number),
        None => (row.to_schema.to_string(), row.to_table.to_string(), row.name.to_string(), row.number),
    });
    let rules: ArrayRef = Arc::new(UInt8Array::from_iter_values(rows.iter().map(|_| NO_ACTION)));
    let columns = vec![
        texts(&rows, |row| row.from.catalog.clone()),
        texts(&rows, |row| row.to_schema.to_string()),
        texts(&rows, |row| row.to_table.to_string()),
        texts(&rows, |row| row.to_column.to_string()),
        texts(&rows, |row| row.from.catalog.clone()),
        texts(&rows, |row| row.from.schema.clone()),
        texts(&rows, |row| row.from.name.clone()),
        texts(&rows, |row| row.column.to_string()),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.number))),
        texts(&rows, |row| row.name.to_string()),
        Arc::new(rows.iter().map(|row| row.primary_name.clone()).collect::<StringArray>()),
        rules.clone(),
        rules,
    ];
    RecordBatch::try_new(foreign_schema(), columns).map_err(status::from_encoding)
}

fn texts<T>(rows: &[T], value: impl Fn(&T) -> String) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
}
