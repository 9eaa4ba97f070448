//! The metadata commands: what catalogs, schemas, tables, types and features there are.

use super::keys::{self, Asked};
use super::service::{Caller, FlightSql};
use super::{column_metadata, sql_info, status, type_info};
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{Command, CommandGetTables};
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
        Command::CommandGetPrimaryKeys(_) => keys::primary_schema(),
        Command::CommandGetExportedKeys(_) | Command::CommandGetImportedKeys(_) | Command::CommandGetCrossReference(_) => {
            keys::foreign_schema()
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
            Command::CommandGetSqlInfo(command) => {
                sql_info::answer(&command.info, self.coordinator.substrait_version()).map_err(status::from_encoding)
            }
            Command::CommandGetXdbcTypeInfo(command) => type_info::answer(command.data_type).map_err(status::from_encoding),
            Command::CommandGetPrimaryKeys(command) => {
                let of = Asked { catalog: command.catalog, schema: command.db_schema, table: command.table };
                self.listed(caller).await.and_then(|tables| keys::primary(&tables, &of))
            }
            Command::CommandGetImportedKeys(command) => {
                let foreign = Asked { catalog: command.catalog, schema: command.db_schema, table: command.table };
                self.listed(caller).await.and_then(|tables| keys::foreign(&tables, None, Some(&foreign)))
            }
            Command::CommandGetExportedKeys(command) => {
                let primary = Asked { catalog: command.catalog, schema: command.db_schema, table: command.table };
                self.listed(caller).await.and_then(|tables| keys::foreign(&tables, Some(&primary), None))
            }
            Command::CommandGetCrossReference(command) => {
                let primary = Asked { catalog: command.pk_catalog, schema: command.pk_db_schema, table: command.pk_table };
                let foreign = Asked { catalog: command.fk_catalog, schema: command.fk_db_schema, table: command.fk_table };
                self.listed(caller).await.and_then(|tables| keys::foreign(&tables, Some(&primary), Some(&foreign)))
            }
            _ => return None,
        })
    }

    async fn listed(&self, caller: &Caller) -> Result<Vec<TableInfo>, Status> {
        caller.session.tables().await.map_err(status::from_engine)
    }

    async fn tables(&self, caller: &Caller, mut command: CommandGetTables) -> Result<RecordBatch, Status> {
        // Some clients ask for the name that `information_schema` has for the same thing.
        if command.table_types.iter().any(|kind| kind == "BASE TABLE") {
            command.table_types.push("TABLE".to_string());
        }
        let mut builder = command.into_builder();
        for table in self.listed(caller).await? {
            let columns = column_metadata::describe(&table);
            builder.append(&table.catalog, &table.schema, &table.name, &table.table_type, &columns).map_err(status::from_encoding)?;
        }
        builder.build().map_err(status::from_encoding)
    }
}

fn table_types_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("table_type", DataType::Utf8, false)]))
}
