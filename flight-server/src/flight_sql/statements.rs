//! Running statements: started when their FlightInfo is asked for, streamed when the ticket comes back.

use super::results::{BatchStream, TooMany, Waiting};
use super::service::{Caller, FlightSql};
use super::status;
use super::ticket::Fetch;
use crate::limits;
use crate::sql_text;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{ProstMessageExt, SubstraitPlan, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bowshot_engine::statement::substrait::NO_READER;
use bowshot_engine::{Delivery, ParameterRow, Prepared, ResultPart, Session, StatementKind};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use std::sync::Arc;
use std::time::SystemTime;
use tonic::Status;
use uuid::Uuid;

/// A statement that runs, or ran to its end already.
pub struct Started {
    pub query_id: Uuid,
    pub schema: SchemaRef,
    /// Where the rows wait instead, if they do; then the stream has the query's end alone.
    pub parts: Vec<ResultPart>,
    pub batches: BatchStream,
    /// It ran to its end.
    pub is_over: bool,
}

/// Starts a statement, once for each row of parameters; a command is over then.
///
/// # Errors
/// The status of what is wrong with it.
pub async fn begin(session: &Session, prepared: Arc<Prepared>, rows: Vec<ParameterRow>, delivery: Delivery) -> Result<Started, Status> {
    match prepared.kind() {
        StatementKind::Command => run_command(session, &prepared, rows).await,
        StatementKind::Query => start_query(session, prepared, rows, delivery).await,
    }
}

/// Parses and plans a statement as clients write it.
///
/// # Errors
/// The status of what is wrong with it.
pub async fn prepare(session: &Session, sql: &str) -> Result<Prepared, Status> {
    if sql.len() > limits::STATEMENT_BYTES_MAX {
        return Err(Status::invalid_argument(format!(
            "the statement has {} bytes, more than the {} that are allowed",
            sql.len(),
            limits::STATEMENT_BYTES_MAX
        )));
    }
    let numbered = sql_text::number_parameters(sql).map_err(Status::invalid_argument)?;
    session.prepare(&numbered).await.map_err(status::from_engine)
}

/// Plans a query from a Substrait plan.
///
/// # Errors
/// The status of what is wrong with it.
pub async fn prepare_substrait(session: &Session, plan: Option<&SubstraitPlan>) -> Result<Prepared, Status> {
    let plan = plan.ok_or_else(|| Status::invalid_argument("the command has no Substrait plan"))?;
    if session.coordinator().substrait_version().is_none() {
        return Err(Status::unimplemented(NO_READER));
    }
    session.prepare_substrait(&plan.plan).await.map_err(status::from_engine)
}

/// A statement to run at once, which has no parameters then.
///
/// # Errors
/// When it has some.
pub fn without_parameters(prepared: Prepared) -> Result<(Arc<Prepared>, Vec<ParameterRow>), Status> {
    match prepared.parameter_schema().fields().len() {
        0 => Ok((Arc::new(prepared), vec![Vec::new()])),
        parameters => {
            Err(Status::invalid_argument(format!("the statement has {parameters} parameters, but no values are bound; prepare it first")))
        }
    }
}

impl FlightSql {
    /// Starts a statement, once for each row of parameters, and answers how to fetch its result.
    pub(super) async fn start_for_fetching(
        &self,
        caller: &Caller,
        prepared: Arc<Prepared>,
        rows: Vec<ParameterRow>,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let started = begin(&caller.session, prepared, rows, self.delivery(caller)).await?;
        self.offer(caller, started, descriptor)
    }

    /// Notes a result for its user to fetch, and answers how.
    pub(super) fn offer(&self, caller: &Caller, started: Started, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let (query_id, schema) = (started.query_id, Arc::clone(&started.schema));
        let user = &caller.principal.user;
        let too_many = |error: TooMany| Status::resource_exhausted(error.to_string());
        let endpoints = if started.parts.is_empty() {
            let compression = caller.session.result_compression();
            let waiting = Waiting { schema: started.schema, batches: started.batches, compression, is_over: started.is_over };
            self.results.insert(query_id, user, waiting).map_err(too_many)?;
            vec![FlightEndpoint::new().with_ticket(Ticket::new(self.ticket(Fetch::whole(query_id), user)))]
        } else {
            let endpoints = self.endpoints(query_id, user, &started.parts);
            self.results.insert_parts(query_id, user, started.parts, started.batches).map_err(too_many)?;
            endpoints
        };
        flight_info(&schema, endpoints, descriptor).map(|info| info.with_app_metadata(query_id.to_string()))
    }

    /// A ticket for `user` to fetch a result of theirs, valid for as long as the result waits.
    pub(super) fn ticket(&self, fetch: Fetch, user: &str) -> Vec<u8> {
        let statement_handle = self.tickets.sign(fetch, user, SystemTime::now(), limits::RESULT_UNCLAIMED).into();
        TicketStatementQuery { statement_handle }.as_any().encode_to_vec()
    }

    /// Runs a statement to its end, once for each row of parameters, and answers how many rows it changed.
    pub(super) async fn run_update(&self, caller: &Caller, prepared: &Prepared, rows: Vec<ParameterRow>) -> Result<i64, Status> {
        let mut stream = caller.session.execute_rows(prepared, rows).await.map_err(status::from_engine)?;
        while let Some(batch) = stream.next().await {
            batch.map_err(status::from_engine)?;
        }
        // What stores no rows has changed none: drivers take -1 for "unknown".
        Ok(stream.affected_rows().unwrap_or(0))
    }
}

/// Runs a command now, exactly once a row, and keeps the few rows it may answer with.
async fn run_command(session: &Session, prepared: &Prepared, rows: Vec<ParameterRow>) -> Result<Started, Status> {
    let mut stream = session.execute_rows(prepared, rows).await.map_err(status::from_engine)?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch.map_err(status::from_engine)?);
    }
    Ok(Started {
        query_id: stream.query_id(),
        schema: prepared.schema(),
        parts: vec![],
        batches: Box::pin(futures::stream::iter(batches.into_iter().map(Ok))),
        is_over: true,
    })
}

/// Starts a query with its first row of parameters; those after it run when the ones before are fetched.
async fn start_query(session: &Session, prepared: Arc<Prepared>, rows: Vec<ParameterRow>, delivery: Delivery) -> Result<Started, Status> {
    // Several runs make one result, in order.
    let delivery = if rows.len() == 1 { delivery } else { Delivery::Whole };
    let mut rows = rows.into_iter();
    let Some(first_row) = rows.next() else {
        let none = futures::stream::empty();
        return Ok(Started { query_id: Uuid::now_v7(), schema: prepared.schema(), parts: vec![], batches: Box::pin(none), is_over: false });
    };
    let mut first = session.execute_for(&prepared, first_row, delivery).await.map_err(status::from_engine)?;
    let parts = first.parts().await;
    let (query_id, schema) = (first.query_id(), first.schema());
    let session = session.clone();
    let later = futures::stream::iter(rows)
        .then(move |row| {
            let (session, prepared) = (session.clone(), Arc::clone(&prepared));
            async move { session.execute(&prepared, row).await }
        })
        .try_flatten();
    Ok(Started { query_id, schema, parts, batches: Box::pin(first.chain(later)), is_over: false })
}

/// How to fetch a result. An endpoint without an address means the connection in use.
pub fn flight_info(schema: &Schema, endpoints: Vec<FlightEndpoint>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let info = FlightInfo::new().try_with_schema(schema).map_err(status::from_encoding)?;
    let info = info.with_descriptor(descriptor).with_total_records(-1).with_total_bytes(-1);
    Ok(endpoints.into_iter().fold(info, FlightInfo::with_endpoint))
}

/// A schema as the message that clients decode.
pub fn schema_message(schema: &Schema) -> Result<IpcMessage, Status> {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(status::from_encoding)
}
