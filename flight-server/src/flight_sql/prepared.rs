//! Prepared statements: planned once, bound to rows of parameters, run any number of times.

use super::client_rows::{ClientRows, plain_bytes_of};
use super::service::{Caller, FlightSql};
use super::statements;
use super::status;
use crate::limits;
use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::sql::ActionCreatePreparedStatementResult;
use bowshot_engine::{ParameterRow, Prepared, StatementKind};
use datafusion::common::ScalarValue;
use futures::Stream;
use moka::sync::Cache;
use parking_lot::Mutex;
use prost::bytes::Bytes;
use std::sync::Arc;
use tonic::Status;
use uuid::Uuid;

/// A planned statement and the parameters bound last.
struct Statement {
    user: String,
    prepared: Arc<Prepared>,
    rows: Mutex<Vec<ParameterRow>>,
}

/// The prepared statements of all sessions, by handle.
pub struct PreparedStatements {
    known: Cache<Uuid, Arc<Statement>>,
}

impl Default for PreparedStatements {
    fn default() -> Self {
        Self { known: Cache::builder().max_capacity(limits::PREPARED_STATEMENTS_MAX).time_to_idle(limits::PREPARED_STATEMENT_IDLE).build() }
    }
}

impl PreparedStatements {
    fn find(&self, handle: &Bytes, user: &str) -> Result<Arc<Statement>, Status> {
        Uuid::from_slice(handle)
            .ok()
            .and_then(|handle| self.known.get(&handle))
            .filter(|statement| statement.user == user)
            .ok_or_else(|| Status::not_found("this prepared statement is not known here; prepare it again"))
    }
}

impl FlightSql {
    /// Keeps a planned statement under a handle.
    pub(super) fn keep_prepared(&self, caller: &Caller, prepared: Prepared) -> Result<ActionCreatePreparedStatementResult, Status> {
        let schema = prepared.schema();
        // An empty dataset schema tells clients that this is an update; only commands may have it.
        let dataset_schema = match prepared.kind() {
            StatementKind::Command if schema.fields().is_empty() => Bytes::new(),
            _ => statements::schema_message(&schema)?.0,
        };
        let parameter_schema = statements::schema_message(&prepared.parameter_schema())?.0;
        // Random, not counted: a handle must not be guessed, even though only its user may use it.
        let handle = Uuid::new_v4();
        let statement = Statement { user: caller.principal.user.clone(), prepared: Arc::new(prepared), rows: Mutex::new(Vec::new()) };
        self.prepared.known.insert(handle, Arc::new(statement));
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: Bytes::copy_from_slice(handle.as_bytes()),
            dataset_schema,
            parameter_schema,
        })
    }

    /// Forgets a statement; closing one that is gone already is no error.
    pub(super) fn close_prepared(&self, caller: &Caller, handle: &Bytes) {
        if self.prepared.find(handle, &caller.principal.user).is_ok()
            && let Ok(handle) = Uuid::from_slice(handle)
        {
            self.prepared.known.invalidate(&handle);
        }
    }

    /// The plan behind a handle.
    pub(super) fn prepared_plan(&self, caller: &Caller, handle: &Bytes) -> Result<Arc<Prepared>, Status> {
        let statement = self.prepared.find(handle, &caller.principal.user)?;
        Ok(Arc::clone(&statement.prepared))
    }

    /// Binds the rows sent by a client; they replace those bound before.
    pub(super) async fn bind_prepared(
        &self,
        caller: &Caller,
        handle: &Bytes,
        data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<(), Status> {
        let statement = self.prepared.find(handle, &caller.principal.user)?;
        let rows = self.read_rows(data).await?;
        check_width(&statement.prepared, &rows)?;
        *statement.rows.lock() = rows;
        Ok(())
    }

    /// A statement to run, with the rows bound last.
    pub(super) fn bound(&self, caller: &Caller, handle: &Bytes) -> Result<(Arc<Prepared>, Vec<ParameterRow>), Status> {
        let statement = self.prepared.find(handle, &caller.principal.user)?;
        let rows = rows_to_run(&statement.prepared, statement.rows.lock().clone())?;
        Ok((Arc::clone(&statement.prepared), rows))
    }

    /// Runs a statement to its end, with the rows sent along or else those bound last.
    pub(super) async fn update_prepared(
        &self,
        caller: &Caller,
        handle: &Bytes,
        data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<i64, Status> {
        let statement = self.prepared.find(handle, &caller.principal.user)?;
        let sent = self.read_rows(data).await?;
        check_width(&statement.prepared, &sent)?;
        let rows = if sent.is_empty() { statement.rows.lock().clone() } else { sent };
        let rows = rows_to_run(&statement.prepared, rows)?;
        self.run_update(caller, &statement.prepared, rows).await
    }
}

/// Without parameters a statement runs once; with parameters it needs at least one row.
fn rows_to_run(prepared: &Prepared, rows: Vec<ParameterRow>) -> Result<Vec<ParameterRow>, Status> {
    let wanted = prepared.parameter_schema().fields().len();
    match (wanted, rows.is_empty()) {
        (0, true) => Ok(vec![Vec::new()]),
        (_, true) => Err(Status::invalid_argument(format!("the statement has {wanted} parameters, but no values are bound"))),
        _ => Ok(rows),
    }
}

fn check_width(prepared: &Prepared, rows: &[ParameterRow]) -> Result<(), Status> {
    let wanted = prepared.parameter_schema().fields().len();
    match rows.iter().find(|row| row.len() != wanted) {
        Some(row) => Err(Status::invalid_argument(format!("the statement has {wanted} parameters, but {} values were bound", row.len()))),
        None => Ok(()),
    }
}

impl FlightSql {
    async fn read_rows(&self, data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static) -> Result<Vec<ParameterRow>, Status> {
        let mut sent = ClientRows::new("bound values", false, data, self.coordinator.client_memory("values bound to a statement"));
        let mut rows = Vec::new();
        let mut bytes = 0u64;
        if sent.schema().await.map_err(status::from_engine)?.is_none() {
            return Ok(rows);
        }
        while let Some(batch) = sent.next().await {
            let batch = batch.map_err(status::from_engine)?;
            if rows.len() + batch.num_rows() > limits::BOUND_ROWS_MAX {
                return Err(Status::resource_exhausted(format!("more than {} rows of parameters were sent", limits::BOUND_ROWS_MAX)));
            }
            let values = (batch.num_rows() * batch.num_columns() * size_of::<ScalarValue>()) as u64;
            bytes = bytes.saturating_add(values).saturating_add(plain_bytes_of(&batch));
            if bytes > limits::BOUND_VALUES_BYTES_MAX {
                return Err(Status::resource_exhausted(format!(
                    "the bound values take more than {} bytes: bind fewer rows at once, or ingest them into a table",
                    limits::BOUND_VALUES_BYTES_MAX
                )));
            }
            append_rows(&batch, &mut rows)?;
        }
        Ok(rows)
    }
}

fn append_rows(batch: &RecordBatch, rows: &mut Vec<ParameterRow>) -> Result<(), Status> {
    for row in 0..batch.num_rows() {
        let values = batch
            .columns()
            .iter()
            .map(|column| ScalarValue::try_from_array(column, row).map(without_union))
            .collect::<Result<ParameterRow, _>>()
            .map_err(|error| status::malformed("bound value", error))?;
        rows.push(values);
    }
    Ok(())
}

/// Some drivers send each value as a union of all types: what counts is the value in it.
fn without_union(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Union(Some((_, value)), ..) => without_union(*value),
        ScalarValue::Union(None, ..) => ScalarValue::Null,
        other => other,
    }
}
