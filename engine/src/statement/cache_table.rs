//! CACHE TABLE and UNCACHE TABLE: a scan of the columns, whose leaves do something to the column cache of the nodes that hold the files.

use super::diagnosis;
use super::rewrite::plan_statement;
use crate::catalog::{Snapshot, Table};
use crate::config::{BowshotOptions, CacheAction};
use crate::coordinator::CoordinatorInner;
use crate::coordinator::observer::QueryObserver;
use crate::coordinator::query::{PlannedQuery, QueryStream, run_to_end};
use crate::error::{Error, Result, from_datafusion};
use crate::limits;
use crate::operators::translate::column_type;
use arrow::array::{RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use std::sync::Arc;
use std::time::Duration;

/// The answer: one row a node and column.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("node_id", DataType::Utf8, true),
        Field::new("column_name", DataType::Utf8, true),
        Field::new("row_groups", DataType::UInt64, true),
        Field::new("bytes", DataType::UInt64, true),
        Field::new("reason", DataType::Utf8, true),
    ]))
}

/// Who runs the statement, and over what.
pub(crate) struct Statement<'a> {
    pub sql: &'a str,
    pub user: &'a str,
    pub state: &'a SessionState,
    pub snapshot: Arc<Snapshot>,
}

/// Pins or drops columns of a table, all where none is named, on every node that holds files of it.
pub(crate) async fn run(
    inner: Arc<CoordinatorInner>,
    statement: Statement<'_>,
    (schema_name, name): (&str, &str),
    columns: &[String],
    action: CacheAction,
) -> Result<QueryStream> {
    let Some(table) = statement.snapshot.table(schema_name, name) else {
        return Err(Error::not_found(diagnosis::missing_table(&format!("{schema_name}.{name}"), &statement.snapshot)));
    };
    let wanted = wanted_columns(table, columns, action)?;
    let mut config = statement.state.config().clone();
    if let Some(options) = config.options_mut().extensions.get_mut::<BowshotOptions>() {
        options.cache_action = action;
    }
    let state = SessionStateBuilder::new_from_existing(statement.state.clone()).with_config(config).build();
    let columns: Vec<String> = wanted.iter().map(|column| quoted(column)).collect();
    let scan = format!("SELECT {} FROM {}.{}", columns.join(", "), quoted(schema_name), quoted(name));
    let plan: LogicalPlan = plan_statement(&state, &scan).await.map_err(|error| from_datafusion(&error))?;
    let (snapshot, sql, user) = (statement.snapshot, statement.sql.to_string(), statement.user.to_string());
    let run = run_to_end(inner, PlannedQuery { plan, state, snapshot, sql, user }).await?;
    await_reports(&run.observer).await?;
    let done = run.observer.cached();
    let columns = vec![
        Arc::new(StringArray::from_iter_values(done.keys().map(|(node, _)| node))) as _,
        Arc::new(StringArray::from_iter_values(done.keys().map(|(_, column)| column))) as _,
        Arc::new(UInt64Array::from_iter_values(done.values().map(|column| column.chunks))) as _,
        Arc::new(UInt64Array::from_iter_values(done.values().map(|column| column.bytes))) as _,
        Arc::new(done.values().map(|column| column.reason.clone()).collect::<StringArray>()) as _,
    ];
    let batch = RecordBatch::try_new(schema(), columns).map_err(|error| from_datafusion(&error.into()))?;
    Ok(QueryStream::ready(run.observer.query_id, batch))
}

/// The named columns, or all that can be cached. A named one that cannot is an error.
fn wanted_columns(table: &Table, columns: &[String], action: CacheAction) -> Result<Vec<String>> {
    let fields = table.scan_schema.fields();
    if columns.is_empty() {
        let all = fields.iter().filter(|field| action == CacheAction::Drop || column_type(field.data_type()).is_ok());
        let all: Vec<String> = all.map(|field| field.name().clone()).collect();
        return match all.is_empty() {
            true => Err(Error::user(format!("table {} has no column of a type that is cached", table.qualified_name()))),
            false => Ok(all),
        };
    }
    for column in columns {
        let Some(field) = fields.iter().find(|field| field.name() == column) else {
            let near = fields.iter().map(|field| (levenshtein(field.name(), column), field.name())).min();
            let hint = near.filter(|(distance, _)| *distance <= 3).map(|(_, name)| format!("; did you mean '{name}'?")).unwrap_or_default();
            return Err(Error::user(format!("table {} has no column '{column}'{hint}", table.qualified_name())));
        };
        column_type(field.data_type())
            .map_err(|decline| Error::user(format!("column {column} of table {} cannot be cached: {decline}", table.qualified_name())))?;
    }
    Ok(columns.to_vec())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Tasks report what they did just after their last batch.
async fn await_reports(observer: &QueryObserver) -> Result<()> {
    let deadline = tokio::time::Instant::now() + limits::TASK_REPORTS_WAIT;
    while observer.tasks().iter().any(|task| !task.ended) {
        if tokio::time::Instant::now() > deadline {
            return Err(Error::retry("the workers did not report what they cached in time: system.cache tells"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
