//! Sessions: settings, views, and the way of a statement from text to rows.

use crate::catalog::provider::OverlaySchemas;
use crate::catalog::store::NewTable;
use crate::catalog::{CATALOG_NAME, SYSTEM_SCHEMA, Snapshot, Table, TableDetails};
use crate::config::{BowshotOptions, residency_of};
use crate::coordinator::membership::NodeInfo;
use crate::coordinator::query::{self, PlannedQuery, QueryStream};
use crate::coordinator::{Coordinator, CoordinatorInner, explain, planner};
use crate::error::{Error, ErrorClass, Result, from_datafusion};
use crate::residency::Reach;
use crate::result_types::{plain_schema, plain_type};
use crate::statement::change_table::{IngestMode, ParameterRow};
use crate::statement::own::{self, OwnStatement};
use crate::statement::{cache_table, change_table, diagnosis, external_table, guard, rewrite};
use crate::{limits, system};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::config::{ConfigExtension, ExtensionOptions};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{ParamValues, ScalarValue, TableReference};
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{CreateView, DdlStatement, DmlStatement, LogicalPlan, Statement as PlanStatement, WriteOp};
use datafusion::prelude::SessionConfig;
use futures::{Stream, TryStreamExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
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
    kind: StatementKind,
    plan: Arc<LogicalPlan>,
    state: SessionState,
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
    parameters: Schema,
    /// Set where it is none of DataFusion's; the plan says nothing then.
    own: Option<OwnStatement>,
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

/// A table as metadata calls see it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Catalog.
    pub catalog: String,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub table_type: String,
    /// Columns in plain types.
    pub columns: SchemaRef,
    /// What was declared of it beside its columns' types.
    pub details: TableDetails,
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
}

/// Settings that a session may change; others could make an answer depend on them, or reach past the engine.
const SETTABLE: [&str; 6] = [
    "bowshot.",
    "datafusion.execution.batch_size",
    "datafusion.execution.time_zone",
    "datafusion.execution.parquet.pushdown_filters",
    "datafusion.execution.parquet.reorder_filters",
    "datafusion.optimizer.",
];

/// Set for single statements alone.
const CACHE_ACTION: &str = "bowshot.cache_action";

impl Session {
    pub(crate) fn new(coordinator: Coordinator, user: &str) -> Self {
        let config = planner::session_config(&coordinator.inner.config.default_schema);
        let inner =
            SessionInner { id: Uuid::now_v7(), user: user.into(), coordinator, config: Mutex::new(config), views: Mutex::default() };
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
        guard::check(sql)?;
        let snapshot = self.inner.coordinator.inner.snapshot();
        let state = self.state(snapshot.clone()).await?;
        if let Some(own) = own::parse(sql)? {
            let (kind, schema) = match own {
                OwnStatement::Cache { .. } => (StatementKind::Query, cache_table::schema()),
                _ => (StatementKind::Command, Arc::new(Schema::empty())),
            };
            let (plan, parameters) = (Arc::new(LogicalPlan::default()), Schema::empty());
            return Ok(Prepared { sql: sql.into(), kind, plan, state, snapshot, schema, parameters, own: Some(own) });
        }
        let plan = rewrite::plan_statement(&state, sql).await.map_err(|error| diagnosis::planning_error(sql, &error, &snapshot))?;
        let parameters = parameter_schema(&plan)?;
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
            plan => plain_schema(plan.schema().as_arrow()),
        };
        let kind = if command { StatementKind::Command } else { StatementKind::Query };
        Ok(Prepared { sql: sql.into(), kind, plan: Arc::new(plan), state, snapshot, schema, parameters, own: None })
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
        let prepared = fresh.as_ref().unwrap_or(prepared);
        let LogicalPlan::Dml(dml) = prepared.plan.as_ref() else { return Err(Error::bug("an INSERT is planned as something else")) };
        let table = self.changed_table(prepared, dml)?;
        let wanted = prepared.parameters.fields().len();
        if let Some(wrong) = rows.iter().find(|row| row.len() != wanted) {
            return Err(Error::user(format!("the statement has {wanted} parameter(s), {} value(s) were bound", wrong.len())));
        }
        let plans = match change_table::bind_rows(&dml.input, &rows)? {
            Some(plan) => vec![plan],
            None => {
                let bound = rows.into_iter().map(|row| dml.input.as_ref().clone().with_param_values(ParamValues::from(row)));
                bound.collect::<Result<_, _>>().map_err(|error| from_datafusion(&error))?
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
            snapshot: prepared.snapshot.clone(),
            sql: prepared.sql.clone(),
            user: self.inner.user.clone(),
        }
    }

    /// The table that a statement changes, as it reads it.
    fn changed_table(&self, prepared: &Prepared, dml: &DmlStatement) -> Result<Arc<Table>> {
        let (schema, name) = self.resolve(&dml.table_name)?;
        let known = prepared.snapshot.table(&schema, &name);
        known.cloned().ok_or_else(|| Error::not_found(format!("there is no table {schema}.{name}")))
    }

    /// Runs a prepared statement with the values of its parameters in order.
    pub async fn execute(&self, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<QueryStream> {
        if matches!(*prepared.plan, LogicalPlan::Dml(_)) && !parameters.is_empty() {
            return self.insert_rows(prepared, vec![parameters]).await;
        }
        let fresh = self.fresh(prepared).await?;
        self.run(self.inner.coordinator.inner.clone(), fresh.as_ref().unwrap_or(prepared), parameters).await
    }

    /// A plan holds the catalog it was made from: after a change it is made again.
    async fn fresh(&self, prepared: &Prepared) -> Result<Option<Prepared>> {
        let reads = prepared.kind == StatementKind::Query || matches!(*prepared.plan, LogicalPlan::Dml(_));
        if !reads || self.inner.coordinator.inner.snapshot().version == prepared.snapshot.version {
            return Ok(None);
        }
        let fresh = Box::pin(self.prepare(&prepared.sql)).await?;
        if (&fresh.schema, &fresh.parameters) != (&prepared.schema, &prepared.parameters) {
            return Err(Error::retry("a table of this prepared statement has changed its columns since: prepare it again"));
        }
        Ok(Some(fresh))
    }

    async fn run(&self, inner: Arc<CoordinatorInner>, prepared: &Prepared, parameters: Vec<ScalarValue>) -> Result<QueryStream> {
        let wanted = prepared.parameters.fields().len();
        if parameters.len() != wanted {
            return Err(Error::user(format!("the statement has {wanted} parameter(s), {} value(s) were bound", parameters.len())));
        }
        match &prepared.own {
            Some(OwnStatement::Refresh(table)) => return self.refresh_table(table).await,
            Some(OwnStatement::AlterTable { table, replicas, regions }) => {
                let (schema, name) = self.resolve(table)?;
                let known = known_table(&inner, &schema, &name)?;
                if let Some(regions) = regions {
                    let files = known
                        .files
                        .iter()
                        .map(|file| (&*file.store_url, file.path.as_str(), file.homes.iter().map(|(node, _)| &**node).collect()));
                    check_homes(&inner, &known.qualified_name(), regions, files)?;
                }
                let (table_id, replicas, regions) = (known.table_id, *replicas, regions.clone());
                inner.change_catalog(move |store| store.alter_table(table_id, replicas, regions.as_deref())).await?;
                inner.rules_known().await;
                return Ok(QueryStream::done(None));
            }
            Some(OwnStatement::AlterNode { node, drain }) => {
                // A node that is gone may be resumed all the same: its mark outlives it.
                if *drain && !inner.membership.nodes().iter().any(|known| known.node_id == *node) {
                    return Err(Error::not_found(format!("node '{node}' is not in the cluster; system.nodes lists those that are")));
                }
                let (node, drain) = (node.clone(), *drain);
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
                let snapshot = prepared.snapshot.clone();
                let statement = cache_table::Statement { sql: &prepared.sql, user: &self.inner.user, state: &prepared.state, snapshot };
                return cache_table::run(inner, statement, (&schema, &name), columns, *action).await;
            }
            None => {}
        }
        let mut plan = prepared.plan.as_ref().clone();
        if wanted > 0 {
            plan = plan.with_param_values(ParamValues::from(parameters)).map_err(|error| from_datafusion(&error))?;
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
                change_table::create(&inner, (&schema, &name), &create, query).await
            }
            LogicalPlan::Ddl(ddl) => self.change_catalog(ddl, &prepared.sql).await,
            LogicalPlan::Dml(dml) => {
                let (table, input) = (self.changed_table(prepared, &dml)?, query(dml.input.as_ref().clone()));
                change_table::change(&inner, &table, &dml, vec![input]).await
            }
            plan => Ok(query::start(inner, query(plan))),
        }
    }

    /// Catalogs there are: one.
    pub async fn catalogs(&self) -> Vec<String> {
        vec![CATALOG_NAME.into()]
    }

    /// Schemas, as (catalog, schema).
    pub async fn schemas(&self) -> Vec<(String, String)> {
        let mut names: Vec<String> = self.inner.coordinator.inner.snapshot().schemas.keys().cloned().collect();
        names.extend([SYSTEM_SCHEMA.to_string(), "information_schema".to_string()]);
        names.sort();
        names.dedup();
        names.into_iter().map(|name| (CATALOG_NAME.to_string(), name)).collect()
    }

    /// Tables, views and system tables.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        let snapshot = self.inner.coordinator.inner.snapshot();
        let info = |schema: &str, name: &str, table_type: &str, columns: SchemaRef| TableInfo {
            catalog: CATALOG_NAME.into(),
            schema: schema.into(),
            name: name.into(),
            table_type: table_type.into(),
            columns,
            details: TableDetails::default(),
        };
        let mut tables = vec![];
        let plain_stored = |schema: &Schema| -> SchemaRef {
            Arc::new(Schema::new(
                schema
                    .fields()
                    .iter()
                    .map(|field| field.as_ref().clone().with_data_type(plain_type(field.data_type())))
                    .collect::<Vec<_>>(),
            ))
        };
        for (schema, stored) in &snapshot.schemas {
            tables.extend(stored.values().map(|table| {
                let info = info(schema, &table.name, "TABLE", plain_stored(&table.stored_schema));
                TableInfo { details: table.details.clone(), ..info }
            }));
        }
        for (schema, providers) in self.overlay(snapshot).await? {
            let kind = if schema == SYSTEM_SCHEMA { "SYSTEM TABLE" } else { "VIEW" };
            tables.extend(providers.iter().map(|(name, provider)| info(&schema, name, kind, plain_schema(&provider.schema()))));
        }
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(tables)
    }

    /// Changes a setting, as `SET name = value` does. `catalog` and `schema` are names of their own.
    pub fn set_option(&self, name: &str, value: &str) -> Result<()> {
        let name = name.to_ascii_lowercase();
        let mut config = self.inner.config.lock();
        match name.as_str() {
            "catalog" if value == CATALOG_NAME => return Ok(()),
            "catalog" => return Err(Error::not_found(format!("there is no catalog '{value}': the one catalog is '{CATALOG_NAME}'"))),
            "schema" => {
                if !self.inner.coordinator.inner.snapshot().schemas.contains_key(value) && value != SYSTEM_SCHEMA {
                    return Err(Error::not_found(format!("there is no schema '{value}'")));
                }
                config.options_mut().catalog.default_schema = value.to_string();
                return Ok(());
            }
            _ => {}
        }
        if !SETTABLE.iter().any(|prefix| name.starts_with(prefix))
            || name == "datafusion.optimizer.enable_round_robin_repartition"
            || name == "datafusion.optimizer.repartition_file_scans"
            || name == CACHE_ACTION
        {
            return Err(Error::user(format!("'{name}' is not a setting of a session; system.settings lists those that are")));
        }
        if !settable_values(&config).contains_key(&name) {
            return Err(Error::user(format!("'{name}' is not a setting; system.settings lists those there are")));
        }
        config.options_mut().set(&name, value).map_err(|error| from_datafusion(&error))
    }

    /// Settings of the session with their values.
    pub fn get_options(&self) -> BTreeMap<String, String> {
        let config = self.inner.config.lock();
        let mut options = settable_values(&config);
        options.insert("catalog".into(), CATALOG_NAME.into());
        options.insert("schema".into(), config.options().catalog.default_schema.clone());
        options
    }

    async fn state(&self, snapshot: Arc<Snapshot>) -> Result<SessionState> {
        let overlay = self.overlay(snapshot.clone()).await?;
        let config = self.inner.config.lock().clone();
        Ok(planner::logical_state(&self.inner.coordinator.inner, config, snapshot, overlay))
    }

    /// Views planned over this snapshot, in the order they were created, and the system tables.
    async fn overlay(&self, snapshot: Arc<Snapshot>) -> Result<OverlaySchemas> {
        let mut overlay = OverlaySchemas::new();
        overlay.insert(SYSTEM_SCHEMA.into(), system::tables(&self.inner.coordinator, self.get_options()));
        let views = self.inner.views.lock().clone();
        for (schema, name, sql) in views {
            let config = self.inner.config.lock().clone();
            let state = planner::logical_state(&self.inner.coordinator.inner, config, snapshot.clone(), overlay.clone());
            let plan = rewrite::plan_statement(&state, &sql).await.map_err(|error| {
                let error = from_datafusion(&error);
                Error::new(
                    error.class(),
                    format!("view {schema}.{name} no longer fits the tables it reads: {error}; DROP VIEW {schema}.{name} removes it"),
                )
            })?;
            if let LogicalPlan::Ddl(DdlStatement::CreateView(CreateView { input, definition, .. })) = plan {
                let view: Arc<dyn TableProvider> = Arc::new(ViewTable::new(input.as_ref().clone(), definition));
                overlay.entry(schema).or_default().insert(name, view);
            }
        }
        Ok(overlay)
    }

    fn change_session(&self, statement: PlanStatement) -> Result<QueryStream> {
        match statement {
            PlanStatement::SetVariable(set) => self.set_option(&set.variable, &set.value)?,
            PlanStatement::ResetVariable(reset) => {
                let default = planner::session_config(&self.inner.coordinator.inner.config.default_schema);
                let value = settable_values(&default).remove(&reset.variable);
                self.set_option(&reset.variable, &value.unwrap_or_default())?;
            }
            other => return Err(Error::user(format!("{} is not supported: every statement is its own transaction", other.name()))),
        }
        Ok(QueryStream::done(None))
    }

    /// Schema and table name of a reference, lower-cased names as the parser left them.
    fn resolve(&self, name: &TableReference) -> Result<(String, String)> {
        let default = self.inner.config.lock().options().catalog.default_schema.clone();
        let resolved = name.clone().resolve(CATALOG_NAME, &default);
        if resolved.catalog.as_ref() != CATALOG_NAME {
            return Err(Error::not_found(format!("there is no catalog '{}': the one catalog is '{CATALOG_NAME}'", resolved.catalog)));
        }
        if resolved.schema.as_ref() == SYSTEM_SCHEMA || resolved.schema.as_ref() == "information_schema" {
            return Err(Error::new(ErrorClass::Denied, format!("schema {} belongs to the engine", resolved.schema)));
        }
        Ok((resolved.schema.to_string(), resolved.table.to_string()))
    }

    async fn change_catalog(&self, ddl: DdlStatement, sql: &str) -> Result<QueryStream> {
        let inner = &self.inner.coordinator.inner;
        match ddl {
            DdlStatement::CreateExternalTable(create) => {
                let (schema, name) = self.resolve(&create.name)?;
                if !create.file_type.eq_ignore_ascii_case("parquet") {
                    return Err(Error::user(format!("STORED AS {} is not supported: tables lie in Parquet files", create.file_type)));
                }
                if !create.table_partition_cols.is_empty() {
                    return Err(Error::user("PARTITIONED BY is not supported yet: the partition columns must be in the files"));
                }
                if create.schema.fields().iter().len() > 0 {
                    return Err(Error::user("columns come from the Parquet files: leave the column list out"));
                }
                let snapshot = inner.snapshot();
                if !snapshot.schemas.contains_key(&schema) {
                    return Err(Error::not_found(format!("there is no schema '{schema}': CREATE SCHEMA {schema} makes it")));
                }
                if snapshot.table(&schema, &name).is_some() && !create.or_replace {
                    if create.if_not_exists {
                        return Ok(QueryStream::done(None));
                    }
                    return Err(Error::user(format!("table {schema}.{name} exists already: add OR REPLACE, or IF NOT EXISTS")));
                }
                let location = match create.locations.as_slice() {
                    [one] => one.clone(),
                    other => return Err(Error::user(format!("CREATE EXTERNAL TABLE takes one LOCATION, not {}", other.len()))),
                };
                let known = snapshot.table(&schema, &name).filter(|known| known.location_text == location);
                let mut table = external_table::discover(inner, &schema, &name, &location, known.map(Arc::as_ref)).await?;
                (table.replicas, table.regions) = own::table_options(&create.options)?;
                check_new_homes(inner, &table)?;
                let replace = create.or_replace;
                if !inner.change_catalog(move |store| store.create_table(&table, replace)).await? && !create.if_not_exists {
                    return Err(Error::user(format!("table {schema}.{name} was created by somebody else meanwhile")));
                }
                inner.rules_known().await;
            }
            DdlStatement::CreateCatalogSchema(create) => {
                let name = create.schema_name.rsplit('.').next().unwrap_or_default().to_string();
                if name == SYSTEM_SCHEMA || name == "information_schema" {
                    return Err(Error::user(format!("schema {name} belongs to the engine")));
                }
                let added = name.clone();
                if !inner.change_catalog(move |store| store.create_schema(&added)).await? && !create.if_not_exists {
                    return Err(Error::user(format!("schema {name} exists already")));
                }
            }
            DdlStatement::DropCatalogSchema(drop) => {
                let name = drop.name.schema_name().to_string();
                match inner.snapshot().schemas.get(&name) {
                    None if drop.if_exists => {}
                    None => return Err(Error::not_found(format!("there is no schema '{name}'"))),
                    Some(tables) if !tables.is_empty() && !drop.cascade => {
                        return Err(Error::user(format!(
                            "schema {name} has {} table(s): drop them first, or add CASCADE; the files of external ones stay in either case",
                            tables.len()
                        )));
                    }
                    Some(_) => drop_schema(inner, &name).await?,
                }
            }
            DdlStatement::DropTable(drop) => {
                let (schema, name) = self.resolve(&drop.name)?;
                let (in_schema, dropped) = (schema.clone(), name.clone());
                if !inner.change_catalog(move |store| store.drop_table(&in_schema, &dropped)).await? && !drop.if_exists {
                    return Err(Error::not_found(format!("there is no table {schema}.{name}")));
                }
                inner.rules_known().await;
            }
            DdlStatement::CreateView(create) => self.create_view(&create, sql)?,
            DdlStatement::DropView(drop) => {
                let (schema, name) = self.resolve(&drop.name)?;
                let mut views = self.inner.views.lock();
                let before = views.len();
                views.retain(|(s, n, _)| (s, n) != (&schema, &name));
                if views.len() == before && !drop.if_exists {
                    return Err(Error::not_found(format!("this session has no view {schema}.{name}")));
                }
            }
            other => {
                return Err(Error::user(format!(
                    "{} is not supported yet; tables are made by CREATE TABLE and CREATE EXTERNAL TABLE",
                    other.name()
                )));
            }
        }
        Ok(QueryStream::done(None))
    }

    fn create_view(&self, create: &CreateView, sql: &str) -> Result<()> {
        let (schema, name) = self.resolve(&create.name)?;
        if self.inner.coordinator.inner.snapshot().table(&schema, &name).is_some() {
            return Err(Error::user(format!("{schema}.{name} is a table: choose another name for the view")));
        }
        // A parameter has no value once the statement has ended.
        if create.input.exists(|node| Ok(!node.get_parameter_names()?.is_empty())).unwrap_or(false) {
            return Err(Error::user("a view cannot have parameters"));
        }
        let mut views = self.inner.views.lock();
        let known = views.iter().position(|(s, n, _)| (s, n) == (&schema, &name));
        match known {
            Some(_) if !create.or_replace => return Err(Error::user(format!("view {schema}.{name} exists already: add OR REPLACE"))),
            Some(at) => views[at].2 = sql.to_string(),
            None if views.len() >= limits::SESSION_VIEWS_MAX => {
                return Err(Error::new(ErrorClass::Resource, format!("a session holds at most {} views", limits::SESSION_VIEWS_MAX)));
            }
            None => views.push((schema, name, sql.to_string())),
        }
        Ok(())
    }

    async fn comment(&self, table: &TableReference, column: Option<&str>, text: Option<String>) -> Result<QueryStream> {
        let inner = &self.inner.coordinator.inner;
        let (schema, name) = self.resolve(table)?;
        let known = known_table(inner, &schema, &name)?;
        if let Some(column) = column
            && known.stored_schema.index_of(column).is_err()
        {
            return Err(Error::not_found(format!("table {schema}.{name} has no column {column}")));
        }
        if let Some(long) = text.as_ref().filter(|text| text.len() > limits::COMMENT_BYTES_MAX) {
            let most = limits::COMMENT_BYTES_MAX;
            return Err(Error::user(format!("the comment has {} bytes, more than the {most} that are kept", long.len())));
        }
        let (mut details, table_id) = (known.details.clone(), known.table_id);
        match (column, text) {
            (None, text) => details.comment = text,
            (Some(column), Some(text)) => drop(details.column_comments.insert(column.into(), text)),
            (Some(column), None) => drop(details.column_comments.remove(column)),
        }
        inner.change_catalog(move |store| store.set_details(table_id, &details)).await?;
        Ok(QueryStream::done(None))
    }

    async fn refresh_table(&self, table: &TableReference) -> Result<QueryStream> {
        let inner = &self.inner.coordinator.inner;
        let (schema, name) = self.resolve(table)?;
        let known = known_table(inner, &schema, &name)?;
        if known.managed {
            return Err(Error::user(format!("table {schema}.{name} is managed: what is stored in it is known already")));
        }
        let mut fresh = external_table::discover(inner, &schema, &name, &known.location_text, Some(&known)).await?;
        (fresh.replicas, fresh.regions, fresh.details) = (known.replicas, known.regions.clone(), known.details.clone());
        check_new_homes(inner, &fresh)?;
        inner.change_catalog(move |store| store.create_table(&fresh, true)).await?;
        inner.rules_known().await;
        Ok(QueryStream::done(None))
    }
}

fn known_table(inner: &CoordinatorInner, schema: &str, name: &str) -> Result<Arc<Table>> {
    let snapshot = inner.snapshot();
    let known = snapshot.table(schema, name).ok_or_else(|| Error::not_found(format!("there is no table {schema}.{name}")))?;
    Ok(known.clone())
}

/// A file of a table that is to be pinned: its store, its path, and the nodes that hold it.
type Held<'a> = (&'a str, &'a str, Vec<&'a str>);

/// Refuses to pin a table whose files lie elsewhere: they would be out of reach, and out of their region already.
fn check_homes<'a>(inner: &CoordinatorInner, table: &str, regions: &[String], files: impl Iterator<Item = Held<'a>>) -> Result<()> {
    if regions.is_empty() {
        return Ok(());
    }
    let reach = Reach::within(regions);
    let nodes: BTreeMap<String, NodeInfo> = inner.membership.nodes().into_iter().map(|node| (node.node_id.clone(), node)).collect();
    let refuse = |why: String| Err(Error::user(format!("table {table} cannot be pinned to {reach}: {why}")));
    for (store, path, homes) in files {
        let Some(volume) = store.strip_prefix("node://").map(|volume| volume.trim_end_matches('/')) else {
            let bucket = store.trim_end_matches('/');
            match residency_of(&inner.config.storage, store) {
                Some(region) if reach.allows(Some(&region)) => continue,
                Some(region) => return refuse(format!("{bucket} lies in {region}")),
                None => {
                    return refuse(format!("nothing says where {bucket} lies: set residency = '<region>' in its [[coordinator.storage]]"));
                }
            }
        };
        for node in homes.iter().filter_map(|node| nodes.get(*node)) {
            let beyond = if reach.allows(Some(&node.region)) {
                let region = node.region_of(volume);
                (!reach.allows(Some(region))).then(|| format!("in volume {volume} of node {}, which is in {region}", node.node_id))
            } else {
                Some(format!("on node {} in {}", node.node_id, node.region))
            };
            if let Some(place) = beyond {
                return refuse(format!("its file {path} lies {place}; move it first, then REFRESH TABLE"));
            }
        }
    }
    Ok(())
}

/// The same of a table that is about to be made, or made anew.
fn check_new_homes(inner: &CoordinatorInner, table: &NewTable) -> Result<()> {
    let files = table
        .files
        .iter()
        .map(|file| (file.store_url.as_str(), file.path.as_str(), file.homes.iter().map(|(node, _)| node.as_str()).collect()));
    check_homes(inner, &format!("{}.{}", table.schema_name, table.name), &table.regions, files)
}

/// Settings that a session may change, with their values.
fn settable_values(config: &SessionConfig) -> BTreeMap<String, String> {
    let options = config.options();
    let own = options.extensions.get::<BowshotOptions>().map(|options| options.entries()).unwrap_or_default();
    // An extension lists its settings without its prefix.
    let own =
        own.into_iter().map(|entry| (format!("{}.{}", BowshotOptions::PREFIX, entry.key.trim_start_matches("bowshot.")), entry.value));
    let others = options.entries().into_iter().map(|entry| (entry.key, entry.value));
    own.chain(others)
        .filter(|(name, _)| SETTABLE.iter().any(|prefix| name.starts_with(prefix)) && name != CACHE_ACTION)
        .map(|(name, value)| (name, value.unwrap_or_default()))
        .collect()
}

async fn drop_schema(inner: &Arc<CoordinatorInner>, name: &str) -> Result<()> {
    if name == inner.config.default_schema {
        return Err(Error::user(format!("schema {name} is the default schema of new sessions (coordinator.default_schema) and stays")));
    }
    let dropped = name.to_string();
    inner.change_catalog(move |store| store.drop_schema(&dropped)).await.map(|_| ())
}

/// `$1…$n` in ordinal order; a gap or a parameter without a type in sight is text.
fn parameter_schema(plan: &LogicalPlan) -> Result<Schema> {
    let types = plan.get_parameter_types().map_err(|error| from_datafusion(&error))?;
    let mut ordered: BTreeMap<usize, Option<DataType>> = BTreeMap::new();
    for (name, data_type) in types {
        let number: usize = name
            .trim_start_matches('$')
            .parse()
            .map_err(|_| Error::user(format!("parameter {name} has no number: write $1, $2, … or ?")))?;
        ordered.insert(number, data_type);
    }
    let count = ordered.keys().last().copied().unwrap_or(0);
    if count != ordered.len() {
        return Err(Error::user(format!("the parameters go up to ${count} but only {} are used: number them without gaps", ordered.len())));
    }
    let fields: Vec<Field> = ordered
        .into_iter()
        .map(|(number, data_type)| Field::new(format!("${number}"), parameter_type(&data_type.unwrap_or(DataType::Utf8)), true))
        .collect();
    Ok(Schema::new(fields))
}

/// The type that clients are told to send. Times are in milliseconds: the JDBC driver knows no others, and puts the number of milliseconds into
/// whatever unit it is asked for. Who sends another unit says so with the value.
fn parameter_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
        other => plain_type(other),
    }
}
