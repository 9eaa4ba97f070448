//! Sessions: settings, views, and the way of a statement from text to rows.

mod catalog_statements;
mod functions;
mod listing;
mod parameters;
mod settings;

pub use listing::TableInfo;

use crate::catalog::provider::{BrokenView, OverlaySchemas};
use crate::catalog::{CATALOG_NAME, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Snapshot, Table, TableDetails};
use crate::config::BowshotOptions;
use crate::coordinator::parts::Delivery;
use crate::coordinator::query::{self, PlannedQuery, QueryStream};
use crate::coordinator::{Coordinator, CoordinatorInner, explain, planner};
use crate::error::{Error, ErrorClass, Result, from_datafusion};
use crate::limits;
use crate::planning_scope::{self, planning};
use crate::result_types::plain_schema;
use crate::statement::change_table::{IngestMode, ParameterRow};
use crate::statement::own::{self, NodeChange, OwnStatement};
use crate::statement::repeated_names::Meant;
use crate::statement::{
    cache_table, change_table, diagnosis, guard, keys, repeated_names, rewrite, show, substrait, table_properties, text_lengths,
};
use crate::{information_schema, system};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{ScalarValue, TableReference};
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{CreateView, DdlStatement, DmlStatement, LogicalPlan, WriteOp};
use datafusion::prelude::SessionConfig;
use datafusion::sql::unparser::plan_to_sql;
use futures::{Stream, TryStreamExt};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// What a statement gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Rows.
    Query,
    /// A change of catalog or session; no rows.
    Command,
}

/// A statement that was parsed and planned.
#[derive(Clone)]
pub struct Prepared {
    sql: String,
    /// What it was planned from, if that is no SQL.
    substrait: Option<Arc<[u8]>>,
    kind: StatementKind,
    plan: Arc<LogicalPlan>,
    names: Meant,
    state: SessionState,
    basis: Basis,
    schema: SchemaRef,
    parameters: Schema,
    /// Set where it is none of DataFusion's; the plan says nothing then.
    own: Option<OwnStatement>,
    /// The statement as it was planned last, after a change of what its own plan was made with.
    later: Arc<Mutex<Option<Arc<Prepared>>>>,
}

/// What a plan was made with: names and settings mean what they meant then.
#[derive(Clone)]
struct Basis {
    session: Uuid,
    /// Changes of the session's settings and views so far.
    changes: u64,
    snapshot: Arc<Snapshot>,
}

impl Basis {
    fn is(&self, other: &Self) -> bool {
        (self.session, self.changes, self.snapshot.version) == (other.session, other.changes, other.snapshot.version)
    }
}

impl Prepared {
    /// Statement text.
    pub fn sql(&self) -> &str {
        &self.sql
    }
    /// Exactly the schema of the rows; empty for commands.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    /// Types of `$1…$n`, in order, nullable.
    pub fn parameter_schema(&self) -> Schema {
        self.parameters.clone()
    }
    /// Rows or not.
    pub fn kind(&self) -> StatementKind {
        self.kind
    }
}

/// One user's session. Clones share it.
#[derive(Clone)]
pub struct Session {
    inner: Arc<SessionInner>,
}

struct SessionInner {
    id: Uuid,
    user: String,
    coordinator: Coordinator,
    config: Mutex<SessionConfig>,
    /// CREATE VIEW statements in order, by schema and name.
    views: Mutex<Vec<(String, String, String)>>,
    /// Changes of settings and views so far: plans of a moment before may mean something else.
    changes: AtomicU64,
}

impl Session {
    pub(crate) fn new(coordinator: Coordinator, user: &str) -> Self {
        let config = planner::session_config(&coordinator.inner.config.default_schema);
        let inner = SessionInner {
            id: Uuid::now_v7(),
            user: user.into(),
            coordinator,
            config: Mutex::new(config),
            views: Mutex::default(),
            changes: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Session id.
    pub fn id(&self) -> Uuid {
        self.inner.id
    }
    /// User.
    pub fn user(&self) -> &str {
        &self.inner.user
    }
    /// The coordinator it belongs to.
    pub fn coordinator(&self) -> &Coordinator {
        &self.inner.coordinator
    }

    /// Parses and plans one statement.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        let depth = guard::check(sql)?;
        metrics::counter!("bowshot_statements_planned_total").increment(1);
        let basis = self.basis();
        let state = self.state(basis.snapshot.clone()).await?;
        if let Some(own) = own::parse(sql)? {
            let (kind, schema) = match own {
                OwnStatement::Cache { .. } => (StatementKind::Query, cache_table::schema()),
                _ => (StatementKind::Command, Arc::new(Schema::empty())),
            };
            let (plan, parameters) = (Arc::new(LogicalPlan::default()), Schema::empty());
            return Ok(Prepared {
                sql: sql.into(),
                substrait: None,
                kind,
                plan,
                names: Meant::default(),
                state,
                basis,
                schema,
                parameters,
                own: Some(own),
                later: Arc::default(),
            });
        }
        let shown = show::as_query(sql, &state, |name| self.get_options().contains_key(name))?;
        let text = shown.unwrap_or_else(|| sql.to_string());
        let (planned, state) = if is_long(&text, depth) {
            self.apart(async move { (repeated_names::plan_statement(&state, &text).await, state) }).await?
        } else {
            (planning(repeated_names::plan_statement(&state, &text)).await, state)
        };
        let (plan, names) = planned.map_err(|error| diagnosis::planning_error(sql, &error, &basis.snapshot))?;
        let parameters = parameters::parameter_schema(&plan)?;
        let command = matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) | LogicalPlan::Dml(_));
        match &plan {
            LogicalPlan::Copy(_) => return Err(change_table::not_yet("COPY")),
            LogicalPlan::Dml(dml) if !matches!(dml.op, WriteOp::Insert(InsertOp::Append | InsertOp::Overwrite) | WriteOp::Truncate) => {
                return Err(change_table::not_yet(dml.op.name()));
            }
            _ => {}
        }
        let schema = match &plan {
            _ if command => Arc::new(Schema::empty()),
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => explain::schema(),
            plan => names.of(plain_schema(plan.schema().as_arrow())),
        };
        let kind = if command { StatementKind::Command } else { StatementKind::Query };
        Ok(Prepared {
            sql: sql.into(),
            substrait: None,
            kind,
            plan: Arc::new(plan),
            names,
            state,
            basis,
            schema,
            parameters,
            own: None,
            later: Arc::default(),
        })
    }

    /// Plans where neither connections nor other statements wait for it, within the time that a query has.
    async fn apart<T: Send + 'static>(&self, plans: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let inner = &self.inner.coordinator.inner;
        let options = self.inner.config.lock().options().extensions.get::<BowshotOptions>().cloned().unwrap_or_default();
        let timeout_ms = inner.timeout_ms(options.query_timeout_ms);
        let cpu = inner.cpu.handle();
        let planned = planning_scope::apart(&cpu, Uuid::now_v7(), plans);
        let planned = tokio::time::timeout(Duration::from_millis(timeout_ms), planned).await;
        planned.unwrap_or_else(|_| Err(query::too_late(timeout_ms, Duration::ZERO)))
    }

    /// Plans a query from a serialized Substrait plan.
    ///
    /// # Errors
    /// When it is no query that can be run here, or the program [reads](Coordinator::read_substrait) none.
    pub async fn prepare_substrait(&self, bytes: &[u8]) -> Result<Prepared> {
        metrics::counter!("bowshot_statements_planned_total").increment(1);
        let basis = self.basis();
        let state = self.state(basis.snapshot.clone()).await?;
        let reader = self.inner.coordinator.inner.substrait.get().cloned();
        let sent: Arc<[u8]> = bytes.into();
        let plans = async move {
            let plan = substrait::plan(reader.as_ref(), &state, &sent).await?;
            // Whoever looks at the queries sees what it does.
            let text = plan_to_sql(&plan).map_or_else(|_| plan.display_indent().to_string(), |sql| sql.to_string());
            Ok::<_, Error>((plan, format!("/* Substrait */ {text}"), sent, state))
        };
        let (plan, sql, sent, state) = self.apart(plans).await??;
        let schema = plain_schema(plan.schema().as_arrow());
        let parameters = parameters::parameter_schema(&plan)?;
        Ok(Prepared {
            sql,
            substrait: Some(sent),
            kind: StatementKind::Query,
            plan: Arc::new(plan),
            names: Meant::default(),
            state,
            basis,
            schema,
            parameters,
            own: None,
            later: Arc::default(),
        })
    }

    /// Runs a prepared command once for each row of parameters. The rows of an INSERT are stored together: all of them, or none.
    ///
    /// # Errors
    /// Of the first run that fails; those before it are done unless the statement is an INSERT.
    pub async fn execute_rows(&self, prepared: &Prepared, mut rows: Vec<ParameterRow>) -> Result<QueryStream> {
        if rows.len() > 1 && matches!(*prepared.plan, LogicalPlan::Dml(_)) {
            return self.insert_rows(prepared, rows).await;
        }
        let last = rows.pop().unwrap_or_default();
        let mut affected = 0;
        for row in rows {
            let mut done = self.execute(prepared, row).await?;
            while done.try_next().await?.is_some() {}
            affected += done.affected_rows().unwrap_or(0);
        }
        Ok(self.execute(prepared, last).await?.with_more_affected(affected))
    }

    async fn insert_rows(&self, prepared: &Prepared, rows: Vec<ParameterRow>) -> Result<QueryStream> {
        let fresh = self.fresh(prepared).await?;
        let prepared = fresh.as_deref().unwrap_or(prepared);
        let LogicalPlan::Dml(dml) = prepared.plan.as_ref() else { return Err(Error::bug("an INSERT is planned as something else")) };
        let table = self.changed_table(prepared, dml)?;
        let wanted = prepared.parameters.fields().len();
        if let Some(wrong) = rows.iter().find(|row| row.len() != wanted) {
            return Err(Error::user(format!("the statement has {wanted} parameter(s), {} value(s) were bound", wrong.len())));
        }
        let plans = match change_table::bind_rows(&dml.input, &rows)? {
            Some(plan) => vec![plan],
            None => {
                let bound = rows.into_iter().map(|row| parameters::bind(dml.input.as_ref().clone(), &prepared.parameters, row));
                bound.collect::<Result<_, _>>()?
            }
        };
        let queries = plans.into_iter().map(|plan| self.planned(prepared, plan)).collect();
        change_table::change(&self.inner.coordinator.inner, &table, dml, queries).await
    }

    /// Stores the rows of a client in a table. Returns how many.
    ///
    /// # Errors
    /// When the table is not as the mode wants it, columns do not fit, or a worker or the stream fails: nothing is stored then.
    pub async fn ingest<S>(&self, table: &TableReference, mode: IngestMode, schema: SchemaRef, batches: S) -> Result<u64>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + Unpin,
    {
        let (schema_name, name) = self.resolve(table)?;
        change_table::ingest(&self.inner.coordinator.inner, (&schema_name, &name), mode, schema, batches).await
    }

    fn planned(&self, prepared: &Prepared, plan: LogicalPlan) -> PlannedQuery {
        PlannedQuery {
            plan,
            state: prepared.state.clone(),
            snapshot: prepared.basis.snapshot.clone(),
            sql: prepared.sql.clone(),
            user: self.inner.user.clone(),
        }
    }

    /// The table that a statement changes, as it reads it.
    fn changed_table(&self, prepared: &Prepared, dml: &DmlStatement) -> Result<Arc<Table>> {
        let (schema, name) = self.resolve(&dml.table_name)?;
        let known = prepared.basis.snapshot.table(&schema, &name);
        known.cloned().ok_or_else(|| Error::not_found(format!("there is no table {schema}.{name}")))
    }

    /// Runs a prepared statement with the values of its parameters in order.
    pub async fn execute(&self, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<QueryStream> {
        self.execute_for(prepared, parameters, Delivery::Whole).await
    }

    /// The same for a client that could take parts of the result from the workers: [`QueryStream::parts`] are it then.
    pub async fn execute_for(&self, prepared: &Prepared, parameters: Vec<ScalarValue>, delivery: Delivery) -> Result<QueryStream> {
        if matches!(*prepared.plan, LogicalPlan::Dml(_)) && !parameters.is_empty() {
            return self.insert_rows(prepared, vec![parameters]).await;
        }
        let fresh = self.fresh(prepared).await?;
        self.run(self.inner.coordinator.inner.clone(), fresh.as_deref().unwrap_or(prepared), parameters, delivery).await
    }

    fn basis(&self) -> Basis {
        // Read before settings and views are: a change meanwhile makes the plan count as older than it is, and it is made once more.
        let changes = self.inner.changes.load(Ordering::Acquire);
        Basis { session: self.id(), changes, snapshot: self.inner.coordinator.inner.snapshot() }
    }

    /// A plan holds the catalog, the views and the settings it was made with: after a change of theirs it is made again, once, and otherwise not.
    async fn fresh(&self, prepared: &Prepared) -> Result<Option<Arc<Prepared>>> {
        let reads = prepared.kind == StatementKind::Query || matches!(*prepared.plan, LogicalPlan::Dml(_));
        let now = self.basis();
        if !reads || prepared.basis.is(&now) {
            return Ok(None);
        }
        let later = prepared.later.lock().clone();
        if let Some(later) = later.filter(|later| later.basis.is(&now)) {
            return Ok(Some(later));
        }
        let fresh = match &prepared.substrait {
            Some(bytes) => self.prepare_substrait(bytes).await?,
            None => Box::pin(self.prepare(&prepared.sql)).await?,
        };
        if (&fresh.schema, &fresh.parameters) != (&prepared.schema, &prepared.parameters) {
            return Err(Error::retry("a table of this prepared statement has changed its columns since: prepare it again"));
        }
        let fresh = Arc::new(fresh);
        *prepared.later.lock() = Some(fresh.clone());
        Ok(Some(fresh))
    }

    async fn run(
        &self,
        inner: Arc<CoordinatorInner>,
        prepared: &Prepared,
        parameters: Vec<ScalarValue>,
        delivery: Delivery,
    ) -> Result<QueryStream> {
        let wanted = prepared.parameters.fields().len();
        if parameters.len() != wanted {
            return Err(Error::user(format!("the statement has {wanted} parameter(s), {} value(s) were bound", parameters.len())));
        }
        match &prepared.own {
            Some(OwnStatement::Refresh(table)) => return self.refresh_table(table).await,
            Some(OwnStatement::AlterTable { table, replicas, regions }) => {
                return self.alter_table(table, *replicas, regions.clone()).await;
            }
            Some(OwnStatement::AddKey { table, key }) => return self.add_key(table, key.clone()).await,
            Some(OwnStatement::DropKey { table, name, if_exists }) => return self.drop_key(table, name, *if_exists).await,
            Some(OwnStatement::AlterNode { node, change }) => {
                // A node that is gone may be resumed all the same: its mark outlives it.
                if *change != NodeChange::Resume && !inner.membership.nodes().iter().any(|known| known.node_id == *node) {
                    return Err(Error::not_found(format!("node '{node}' is not in the cluster; system.nodes lists those that are")));
                }
                if *change == NodeChange::Scrub {
                    inner.membership.ask_scrub(node);
                    return Ok(QueryStream::done(None));
                }
                let (node, drain) = (node.clone(), *change == NodeChange::Drain);
                inner.change_catalog(move |store| store.set_draining(&node, drain)).await?;
                return Ok(QueryStream::done(None));
            }
            Some(OwnStatement::Comment { table, column, text }) => return self.comment(table, column.as_deref(), text.clone()).await,
            Some(OwnStatement::Use { catalog, schema }) => {
                for (name, value) in [("catalog", catalog), ("schema", schema)] {
                    value.as_ref().map_or(Ok(()), |value| self.set_option(name, value))?;
                }
                return Ok(QueryStream::done(None));
            }
            Some(OwnStatement::Cache { action, table, columns }) => {
                let (schema, name) = self.resolve(table)?;
                let snapshot = prepared.basis.snapshot.clone();
                let statement = cache_table::Statement { sql: &prepared.sql, user: &self.inner.user, state: &prepared.state, snapshot };
                return cache_table::run(inner, statement, (&schema, &name), columns, *action).await;
            }
            None => {}
        }
        let mut plan = prepared.plan.as_ref().clone();
        if wanted > 0 {
            plan = parameters::bind(plan, &prepared.parameters, parameters)?;
        }
        let query = |plan: LogicalPlan| self.planned(prepared, plan);
        match plan {
            LogicalPlan::Explain(explain) => {
                // How an INSERT comes to its rows is what there is to explain.
                let explained = match explain.plan.as_ref() {
                    LogicalPlan::Dml(dml) => dml.input.as_ref(),
                    plan => plan,
                };
                explain::explain(inner, query(explained.clone())).await
            }
            LogicalPlan::Analyze(analyze) if matches!(*analyze.input, LogicalPlan::Dml(_)) => {
                Err(Error::user("EXPLAIN ANALYZE would run the statement: ask it of the SELECT alone, or use EXPLAIN"))
            }
            LogicalPlan::Analyze(analyze) => explain::analyze(inner, query(analyze.input.as_ref().clone()), analyze.verbose).await,
            LogicalPlan::Statement(statement) => self.change_session(statement),
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => {
                let (schema, name) = self.resolve(&create.name)?;
                let declared = keys::declared(&prepared.sql)?;
                let lengths = text_lengths::declared(&prepared.sql)?;
                let with_keys = |columns: &Schema, details: &mut TableDetails| {
                    details.text_lengths = lengths;
                    self.declare_keys((&schema, &name), columns, declared, details)
                };
                let properties = table_properties::declared(&prepared.sql)?;
                change_table::create(&inner, (&schema, &name), &create, properties, with_keys, query).await
            }
            LogicalPlan::Ddl(ddl) => self.change_catalog(ddl, &prepared.sql).await,
            LogicalPlan::Dml(dml) => {
                let (table, input) = (self.changed_table(prepared, &dml)?, query(dml.input.as_ref().clone()));
                change_table::change(&inner, &table, &dml, vec![input]).await
            }
            plan => Ok(query::start(inner, query(plan), &prepared.names, delivery)),
        }
    }

    async fn state(&self, snapshot: Arc<Snapshot>) -> Result<SessionState> {
        let overlay = self.overlay(snapshot.clone()).await?;
        Ok(self.state_over(snapshot, overlay))
    }

    fn state_over(&self, snapshot: Arc<Snapshot>, overlay: OverlaySchemas) -> SessionState {
        let config = self.inner.config.lock().clone();
        let functions = functions::of_session(&self.inner.user, &config.options().catalog.default_schema);
        planner::logical_state(&self.inner.coordinator.inner, config, snapshot, overlay, functions)
    }

    /// Views planned over this snapshot, in the order they were created, and the engine's own tables.
    async fn overlay(&self, snapshot: Arc<Snapshot>) -> Result<OverlaySchemas> {
        let mut overlay = OverlaySchemas::new();
        overlay.insert(SYSTEM_SCHEMA.into(), system::tables(&self.inner.coordinator, &self.inner.user, self.get_options()));
        let views = self.inner.views.lock().clone();
        for (schema, name, sql) in views {
            // A view may be over what is known before it.
            let mut before = overlay.clone();
            before.insert(INFORMATION_SCHEMA.into(), information_schema::tables(&snapshot, &overlay).await);
            let state = self.state_over(snapshot.clone(), before);
            let planned = if is_long(&sql, guard::check(&sql)?) {
                let text = sql.clone();
                self.apart(async move { rewrite::plan_statement(&state, &text).await }).await?
            } else {
                planning(rewrite::plan_statement(&state, &sql)).await
            };
            let view: Arc<dyn TableProvider> = match planned {
                Ok(LogicalPlan::Ddl(DdlStatement::CreateView(CreateView { input, definition, .. }))) => {
                    Arc::new(ViewTable::new(input.as_ref().clone(), definition))
                }
                Ok(_) => return Err(Error::bug(format!("view {schema}.{name} is planned as something else"))),
                Err(error) => {
                    let error = from_datafusion(&error);
                    let why =
                        format!("view {schema}.{name} no longer fits the tables it reads: {error}; DROP VIEW {schema}.{name} removes it");
                    Arc::new(BrokenView { error: Error::new(error.class(), why) })
                }
            };
            overlay.entry(schema).or_default().insert(name, view);
        }
        overlay.insert(INFORMATION_SCHEMA.into(), information_schema::tables(&snapshot, &overlay).await);
        Ok(overlay)
    }

    /// Schema and table name of a reference, lower-cased names as the parser left them.
    fn resolve(&self, name: &TableReference) -> Result<(String, String)> {
        let default = self.inner.config.lock().options().catalog.default_schema.clone();
        let resolved = name.clone().resolve(CATALOG_NAME, &default);
        if resolved.catalog.as_ref() != CATALOG_NAME {
            return Err(Error::not_found(format!("there is no catalog '{}': the one catalog is '{CATALOG_NAME}'", resolved.catalog)));
        }
        if [SYSTEM_SCHEMA, INFORMATION_SCHEMA].contains(&resolved.schema.as_ref()) {
            return Err(Error::new(ErrorClass::Denied, format!("schema {} belongs to the engine", resolved.schema)));
        }
        Ok((resolved.schema.to_string(), resolved.table.to_string()))
    }
}

/// Whether planning a statement may take so long that nobody should wait beside it.
fn is_long(sql: &str, depth: usize) -> bool {
    depth >= limits::SQL_CHAIN_LONG || sql.len() >= limits::SQL_LONG_BYTES
}
