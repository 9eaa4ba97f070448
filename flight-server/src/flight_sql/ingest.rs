//! Bulk ingest: rows that a client sends for a table, stored together.

use super::actions;
use super::service::{Caller, FlightSql};
use super::status;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use bowshot_engine::{Error, ErrorClass, IngestMode};
use datafusion::common::TableReference;
use futures::{Stream, StreamExt};
use tonic::Status;

impl FlightSql {
    /// Stores what a client sends, and answers how many rows it was.
    pub(super) async fn ingest(
        &self,
        caller: &Caller,
        command: CommandStatementIngest,
        data: impl Stream<Item = Result<FlightData, Status>> + Send + Unpin + 'static,
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
        // A message without a header carries no Arrow data: the first one may hold only the command.
        let data = data.filter(|message| std::future::ready(message.as_ref().map_or(true, |message| !message.data_header.is_empty())));
        let mut payloads = FlightDataDecoder::new(data.map(|message| message.map_err(FlightError::from)));
        let schema = schema_of(&mut payloads).await?;
        let batches = payloads.filter_map(|payload| std::future::ready(batch_of(payload).transpose()));
        let rows = caller.session.ingest(&table, mode, schema, batches).await.map_err(status::from_engine)?;
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

async fn schema_of(payloads: &mut FlightDataDecoder) -> Result<SchemaRef, Status> {
    match payloads.next().await {
        Some(Ok(decoded)) => match decoded.payload {
            DecodedPayload::Schema(schema) => Ok(schema),
            _ => Err(Status::invalid_argument("the rows to ingest have no schema before them")),
        },
        Some(Err(error)) => Err(status::from_decoding(error)),
        None => Err(Status::invalid_argument("neither a schema nor rows were sent")),
    }
}

fn batch_of(payload: Result<arrow_flight::decode::DecodedFlightData, FlightError>) -> Result<Option<RecordBatch>, Error> {
    match payload {
        Ok(decoded) => match decoded.payload {
            DecodedPayload::RecordBatch(batch) => Ok(Some(batch)),
            DecodedPayload::None => Ok(None),
            DecodedPayload::Schema(_) => Err(Error::user("the schema changes among the rows to ingest: nothing was stored")),
        },
        Err(FlightError::Tonic(status)) => {
            Err(Error::new(ErrorClass::Cancelled, format!("the client's rows ended early: {}; nothing was stored", status.message())))
        }
        Err(error) => Err(Error::user(format!("the rows to ingest cannot be read: {error}; nothing was stored"))),
    }
}
