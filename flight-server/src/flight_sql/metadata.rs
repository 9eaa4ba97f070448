//! The metadata commands: what catalogs, schemas, tables, types and features there are.

use super::service::{Caller, FlightSql};
use super::{column_metadata, sql_info, status, type_info};
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{Command, CommandGetPrimaryKeys, CommandGetTables};
use bowshot_engine::TableInfo;
use std::sync::Arc;
use tonic::Status;

/// The kinds of tables; BI tools look for exactly `TABLE`, not `BASE TABLE`.
const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];

/// The schema of the answer to a metadata command; nothing for other commands.
pub fn schema(command: &Command) -> Option<SchemaRef> {
    Some(match command {
        Command::CommandGetCatalogs(command) => (*command).into_builder().schema(),
        Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
        Command::CommandGetTables(command) => command.clone().into_builder().schema(),
        Command::CommandGetTableTypes(_) => table_types_schema(),
        Command::CommandGetSqlInfo(_) => Arc::new(sql_info::schema()),
        Command::CommandGetXdbcTypeInfo(_) => type_info::schema(),
        Command::CommandGetPrimaryKeys(_) => primary_keys_schema(),
        Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
            foreign_keys_schema()
        }
        _ => return None,
    })
}

impl FlightSql {
    /// The answer to a metadata command; nothing for other commands.
    pub(super) async fn metadata(&self, caller: &Caller, command: Command) -> Option<Result<RecordBatch, Status>> {
        let session = &caller.session;
        Some(match command {
            Command::CommandGetCatalogs(command) => {
                let mut builder = command.into_builder();
                for catalog in session.catalogs().await {
                    builder.append(catalog);
                }
                builder.build().map_err(status::from_encoding)
            }
            Command::CommandGetDbSchemas(command) => {
                let mut builder = command.into_builder();
                for (catalog, schema) in session.schemas().await {
                    builder.append(catalog, schema);
                }
                builder.build().map_err(status::from_encoding)
            }
            Command::CommandGetTables(command) => self.tables(caller, command).await,
            Command::CommandGetTableTypes(_) => {
                RecordBatch::try_new(table_types_schema(), vec![Arc::new(StringArray::from(TABLE_TYPES.to_vec()))])
                    .map_err(status::from_encoding)
            }
            Command::CommandGetSqlInfo(command) => sql_info::answer(&command.info).map_err(status::from_encoding),
            Command::CommandGetXdbcTypeInfo(command) => type_info::answer(command.data_type).map_err(status::from_encoding),
            Command::CommandGetPrimaryKeys(command) => self.primary_keys(caller, &command).await,
            // There are no foreign keys to tell of; tools expect the empty answer, not an error.
            command => Ok(RecordBatch::new_empty(schema(&command)?)),
        })
    }

    async fn tables(&self, caller: &Caller, command: CommandGetTables) -> Result<RecordBatch, Status> {
        let mut builder = command.into_builder();
        for table in caller.session.tables().await.map_err(status::from_engine)? {
            let columns = column_metadata::describe(&table);
            builder.append(&table.catalog, &table.schema, &table.name, &table.table_type, &columns).map_err(status::from_encoding)?;
        }
        builder.build().map_err(status::from_encoding)
    }

    async fn primary_keys(&self, caller: &Caller, command: &CommandGetPrimaryKeys) -> Result<RecordBatch, Status> {
        let tables = caller.session.tables().await.map_err(status::from_engine)?;
        let asked = |table: &&TableInfo| {
            table.name == command.table
                && command.catalog.as_ref().is_none_or(|catalog| *catalog == table.catalog)
                && command.db_schema.as_ref().is_none_or(|schema| *schema == table.schema)
        };
        let columns = tables.iter().filter(asked).flat_map(|table| {
            let numbered = table.details.primary_key.iter().zip(1_i32..);
            numbered.map(move |(column, number)| (table, column.as_str(), number))
        });
        let keys: Vec<(&TableInfo, &str, i32)> = columns.collect();
        let text = |of: &dyn Fn(&TableInfo, &str) -> String| -> ArrayRef {
            Arc::new(keys.iter().map(|(table, column, _)| Some(of(table, column))).collect::<StringArray>())
        };
        let sequence: ArrayRef = Arc::new(Int32Array::from_iter_values(keys.iter().map(|(_, _, number)| *number)));
        let columns = vec![
            text(&|table, _| table.catalog.clone()),
            text(&|table, _| table.schema.clone()),
            text(&|table, _| table.name.clone()),
            text(&|_, column| column.to_string()),
            text(&|table, _| key_name(&table.name)),
            sequence,
        ];
        RecordBatch::try_new(primary_keys_schema(), columns).map_err(status::from_encoding)
    }
}

/// Name of a key that was declared without one.
fn key_name(table: &str) -> String {
    format!("{table}_pkey")
}

fn table_types_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("table_type", DataType::Utf8, false)]))
}

fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn foreign_keys_schema() -> SchemaRef {
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
