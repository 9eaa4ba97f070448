//! Bulk ingest: rows that a client sends for a table, stored together.

use super::actions;
use super::client_rows::ClientRows;
use super::service::{Caller, FlightSql};
use super::status;
use arrow_flight::FlightData;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use bowshot_engine::{Error, IngestMode};
use datafusion::common::TableReference;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

impl FlightSql {
    /// Stores what a client sends, and answers how many rows it was.
    pub(super) async fn ingest(
        &self,
        caller: &Caller,
        command: CommandStatementIngest,
        data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<i64, Status> {
        actions::refuse_transaction(command.transaction_id.as_ref())?;
        if command.temporary {
            return Err(Status::invalid_argument("temporary tables are not supported: ingest without 'temporary'"));
        }
        let mode = mode(&command)?;
        let table = match (command.catalog, command.schema) {
            (Some(catalog), Some(schema)) => TableReference::full(catalog, schema, command.table),
            (None, Some(schema)) => TableReference::partial(schema, command.table),
            (Some(_), None) => return Err(Status::invalid_argument("the table's catalog is named, but not its schema")),
            (None, None) => TableReference::bare(command.table),
        };
        let mut sent = ClientRows::new("rows to ingest", true, data, self.coordinator.client_memory("rows of an ingest"));
        let schema = sent.schema().await.map_err(status::from_engine)?;
        let schema = schema.ok_or_else(|| Status::invalid_argument("neither a schema nor rows were sent"))?;
        let batches = stream::unfold(sent, |mut sent| async move { sent.next().await.map(|batch| (batch.map_err(nothing_stored), sent)) });
        let rows = caller.session.ingest(&table, mode, schema, batches.boxed()).await.map_err(status::from_engine)?;
        Ok(rows as i64)
    }
}

fn mode(command: &CommandStatementIngest) -> Result<IngestMode, Status> {
    let Some(options) = command.table_definition_options else {
        return Err(Status::invalid_argument("the ingest does not say what to do where the table is missing, or there"));
    };
    let missing = TableNotExistOption::try_from(options.if_not_exist).unwrap_or(TableNotExistOption::Unspecified);
    let there = TableExistsOption::try_from(options.if_exists).unwrap_or(TableExistsOption::Unspecified);
    match (missing, there) {
        (TableNotExistOption::Create, TableExistsOption::Fail) => Ok(IngestMode::Create),
        (TableNotExistOption::Create, TableExistsOption::Append) => Ok(IngestMode::CreateAppend),
        (TableNotExistOption::Create, TableExistsOption::Replace) => Ok(IngestMode::Replace),
        (TableNotExistOption::Fail, TableExistsOption::Append) => Ok(IngestMode::Append),
        _ => {
            Err(Status::invalid_argument("the ingest asks for a mode that is not supported: create, append, replace and create_append are"))
        }
    }
}

fn nothing_stored(error: Error) -> Error {
    Error::new(error.class(), format!("{}; nothing was stored", error.message()))
}
