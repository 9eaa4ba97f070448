//! Managed tables: CREATE TABLE, INSERT, TRUNCATE and bulk ingest.
//!
//! The rows of a statement come in as a query's do, and go to workers that write files of their own ([`TableWrite`]). One commit makes the files
//! the table's: a statement stores all of its rows, or none.

use crate::catalog::location::Location;
use crate::catalog::store::{FileChange, NewFile, NewTable};
use crate::catalog::text_lengths::TextLengths;
use crate::catalog::{Table, TableDetails, defaults, footer};
use crate::coordinator::CoordinatorInner;
use crate::coordinator::parts::Delivery;
use crate::coordinator::query::{self, PlannedQuery, QueryStream};
use crate::coordinator::table_places;
use crate::coordinator::table_writes::{TableWrite, Target, volume_of_tables};
use crate::error::{Error, ErrorClass, Result, from_datafusion};
use crate::files::announced::announced_of_client;
use crate::files::exact::exactly;
use crate::residency::Reach;
use crate::result_types::plain_type;
use crate::statement::repeated_names::Meant;
use crate::statement::table_properties::TableProperties;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Constraint, DFSchema, ScalarValue};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{CreateMemoryTable, DmlStatement, Expr, LogicalPlan, Values, WriteOp};
use futures::{Stream, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// Parameters of one run of a statement.
pub type ParameterRow = Vec<ScalarValue>;

/// Makes a table, with the rows of a query if there is one.
pub(crate) async fn create(
    inner: &Arc<CoordinatorInner>,
    (schema_name, name): (&str, &str),
    create: &CreateMemoryTable,
    properties: TableProperties,
    with_keys: impl FnOnce(&Schema, &mut TableDetails) -> Result<()>,
    query: impl Fn(LogicalPlan) -> PlannedQuery,
) -> Result<QueryStream> {
    let table = format!("{schema_name}.{name}");
    if create.temporary {
        return Err(Error::user("temporary tables are not supported: CREATE VIEW lasts for the session, CREATE TABLE for good"));
    }
    let snapshot = inner.snapshot();
    if !snapshot.schemas.contains_key(schema_name) {
        return Err(Error::not_found(format!("there is no schema '{schema_name}': CREATE SCHEMA {schema_name} makes it")));
    }
    if snapshot.table(schema_name, name).is_some() && !create.or_replace {
        if create.if_not_exists {
            return Ok(QueryStream::done(Some(0)));
        }
        return Err(exists_already(&table));
    }
    let declared = matches!(create.input.as_ref(), LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row);
    // Columns of a query may be empty in any later row, whatever this one's plan says.
    let fields = create.input.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(!declared || field.is_nullable()));
    let stored = stored_schema(&table, fields)?;
    let defaults = defaults::encode(&create.column_defaults)?;
    let mut details = TableDetails { primary_key: primary_key(create)?, defaults, ..TableDetails::default() };
    with_keys(&stored, &mut details)?;
    let stored = if declared { without_null(&stored, &details.primary_key) } else { stored };
    let sources = sources_regions(&create.input, &table)?;
    let regions = match properties.regions.is_empty() {
        true => sources,
        false if Reach::within(&properties.regions).is_within(&Reach::within(&sources)) => properties.regions,
        false => {
            let (wanted, sources) = (Reach::within(&properties.regions), Reach::within(&sources));
            return Err(Error::new(ErrorClass::Denied, format!("rows of table {table} would come from {sources} and be in {wanted}")));
        }
    };
    let mut target = new_target(inner, table.clone(), stored, regions.clone())?;
    target.0.lengths = details.text_lengths.clone();
    table_places::check(inner, &regions, properties.replicas, &target.0.location)?;
    let (files, rows, query_id) = if declared {
        (None, 0, None)
    } else {
        let mut write = TableWrite::begin(inner, target.0)?;
        let (rows, query_id) = take_rows(inner, &mut write, query(create.input.as_ref().clone()), &target.2).await?;
        (Some((write.finish().await?, write)), rows, Some(query_id))
    };
    let (files, write) = files.map_or((vec![], None), |(files, write)| (files, Some(write)));
    let new = NewTable {
        schema_name: schema_name.into(),
        name: name.into(),
        location: target.1,
        schema_ipc: footer::encode_schema(&target.2).map_err(Error::bug)?,
        files,
        replicas: properties.replicas,
        regions,
        managed: true,
        details,
    };
    let replace = create.or_replace;
    // As for INSERT OVERWRITE: the new rows may come from those that they replace.
    let replaced = snapshot.table(schema_name, name).filter(|known| known.managed).map(|known| (known.table_id, known.revision));
    let name = table.clone();
    let created = inner.change_catalog(move |store| match replaced {
        Some((table_id, revision)) if replace && !store.is_unchanged(table_id, revision)? => Err(changed_meanwhile(&name)),
        _ => store.create_table(&new, replace),
    });
    if !created.await? {
        return if create.if_not_exists { Ok(QueryStream::done(Some(0))) } else { Err(exists_already(&table)) };
    }
    if let Some(write) = write {
        write.committed();
    }
    inner.rules_known().await;
    Ok(done(query_id, rows))
}

fn exists_already(table: &str) -> Error {
    Error::exists(format!("table {table} exists already: add OR REPLACE, or IF NOT EXISTS"))
}

fn done(query_id: Option<Uuid>, rows: u64) -> QueryStream {
    let rows = Some(rows as i64);
    query_id.map_or_else(|| QueryStream::done(rows), |query_id| QueryStream::done_by(query_id, rows))
}

/// Runs INSERT or TRUNCATE, an INSERT once with all of its rows of parameters.
pub(crate) async fn change(
    inner: &Arc<CoordinatorInner>,
    table: &Table,
    statement: &DmlStatement,
    queries: Vec<PlannedQuery>,
) -> Result<QueryStream> {
    let name = table.qualified_name();
    if !table.managed {
        return Err(Error::user(format!(
            "table {name} is external, its files are written by others: write Parquet files into its location, then REFRESH TABLE {name}"
        )));
    }
    let change = match &statement.op {
        WriteOp::Insert(InsertOp::Append) => FileChange::Append,
        WriteOp::Insert(InsertOp::Overwrite) => FileChange::Replace,
        WriteOp::Truncate => {
            commit(inner, table, vec![], FileChange::Replace, None).await?;
            return Ok(QueryStream::done(Some(0)));
        }
        other => return Err(not_yet(other.name())),
    };
    if let LogicalPlan::Dml(_) = statement.input.as_ref() {
        return Err(not_yet("an INSERT within another statement"));
    }
    check_sources(&statement.input, table)?;
    let target = Target::of(table);
    let mut write = TableWrite::begin(inner, target)?;
    let (mut rows, mut query_id) = (0, None);
    for mut query in queries {
        query.plan = open_values(query.plan)?;
        let (taken, id) = take_rows(inner, &mut write, query, &table.stored_schema).await?;
        rows += taken;
        query_id.get_or_insert(id);
    }
    let files = write.finish().await?;
    commit(inner, table, files, change, Some(write)).await?;
    Ok(done(query_id, rows))
}

/// What is wrong with a statement that changes stored rows.
pub(crate) fn not_yet(what: &str) -> Error {
    Error::user(format!(
        "{what} is not supported yet: tables take INSERT, INSERT OVERWRITE and TRUNCATE; CREATE OR REPLACE TABLE … AS SELECT makes one anew"
    ))
}

async fn commit(
    inner: &Arc<CoordinatorInner>,
    table: &Table,
    files: Vec<NewFile>,
    change: FileChange,
    write: Option<TableWrite>,
) -> Result<()> {
    if !files.is_empty() || change == FileChange::Replace {
        let (table_id, revision, name) = (table.table_id, table.revision, table.qualified_name());
        // What takes the place of rows was made from them, perhaps: rows that came in meanwhile must not be lost.
        let replaces = change == FileChange::Replace && write.is_some();
        let changed = inner.change_catalog(move |store| {
            if replaces && !store.is_unchanged(table_id, revision)? {
                return Err(changed_meanwhile(&name));
            }
            if store.change_files(table_id, &files, change)? { Ok(()) } else { Err(changed_meanwhile(&name)) }
        });
        changed.await?;
    }
    if let Some(write) = write {
        write.committed();
    }
    Ok(())
}

fn changed_meanwhile(table: &str) -> Error {
    Error::retry(format!("another statement has changed table {table} meanwhile: nothing was stored, run this one again"))
}

/// Stores the rows of a query. Returns how many, and its id.
async fn take_rows(inner: &Arc<CoordinatorInner>, write: &mut TableWrite, query: PlannedQuery, schema: &SchemaRef) -> Result<(u64, Uuid)> {
    let mut batches = query::start(inner.clone(), query, &Meant::default(), Delivery::Whole);
    let (query_id, mut rows) = (batches.query_id(), 0);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let stored = in_columns(batch.columns().to_vec(), batch.num_rows(), schema);
        write.write(stored.map_err(|error| error.with_query(query_id))?).await.map_err(|error| error.with_query(query_id))?;
    }
    Ok((rows, query_id))
}

/// A batch in the columns of a table, by position.
fn in_columns(columns: Vec<ArrayRef>, rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    // A value that does not fit is an error, not a NULL.
    let exactly = CastOptions { safe: false, ..CastOptions::default() };
    let casts = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            return Ok(column);
        }
        let rounded = rounded(&column, field.data_type()).map_err(|error| Error::bug(error.to_string()))?;
        cast_with_options(&rounded, field.data_type(), &exactly)
            .map_err(|error| Error::user(format!("column {} is {}: {error}", field.name(), field.data_type())))
    });
    let columns = casts.collect::<Result<Vec<ArrayRef>>>()?;
    open_batch(columns, rows, schema)
}

/// A client's batch in the columns of a table, by position: equal values, or an error.
fn sent_columns(columns: Vec<ArrayRef>, rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let exact = columns.iter().zip(schema.fields()).map(|(column, field)| {
        exactly(column, field.data_type()).map_err(|why| Error::user(format!("column {}: {why}; nothing was stored", field.name())))
    });
    open_batch(exact.collect::<Result<Vec<ArrayRef>>>()?, rows, schema)
}

/// NOT NULL is checked where the table is named.
fn open_batch(columns: Vec<ArrayRef>, rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let open: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(open)), columns, &options).map_err(|error| Error::bug(error.to_string()))
}

/// Decimals that become integers are rounded half away from zero, as they are for fewer digits; arrow cuts them.
fn rounded(column: &ArrayRef, to: &DataType) -> std::result::Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Decimal128(_, 1..) if to.is_integer() => cast(column, &DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
        _ => Ok(column.clone()),
    }
}

/// Columns as they are stored, in types that clients and Parquet know.
fn stored_schema(table: &str, fields: impl Iterator<Item = Field>) -> Result<SchemaRef> {
    let mut names = BTreeSet::new();
    let mut stored = vec![];
    for field in fields {
        let data_type = plain_type(field.data_type());
        if !names.insert(field.name().clone()) {
            return Err(Error::user(format!("table {table} would have two columns {}: give one another name with AS", field.name())));
        }
        if !can_be_stored(&data_type) {
            return Err(Error::user(format!(
                "column {} of table {table} is {data_type}, which Parquet files cannot hold: CAST it",
                field.name()
            )));
        }
        stored.push(Field::new(field.name(), data_type, field.is_nullable()));
    }
    if stored.is_empty() {
        return Err(Error::user(format!("table {table} would have no column: name some, or add AS SELECT")));
    }
    Ok(Arc::new(Schema::new(stored)))
}

fn can_be_stored(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) | DataType::Union(..) | DataType::Null => false,
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale >= 0,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            can_be_stored(item.data_type())
        }
        // Parquet has no groups without members.
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| can_be_stored(field.data_type())),
        _ => true,
    }
}

fn primary_key(create: &CreateMemoryTable) -> Result<Vec<String>> {
    let schema = create.input.schema();
    for constraint in create.constraints.iter() {
        if let Constraint::PrimaryKey(columns) = constraint {
            return Ok(columns.iter().map(|column| schema.field(*column).name().clone()).collect());
        }
    }
    Ok(vec![])
}

/// Columns of a primary key are never NULL.
fn without_null(schema: &SchemaRef, key: &[String]) -> SchemaRef {
    let fields =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(field.is_nullable() && !key.contains(field.name())));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Where a new table's files will be, and what they will hold: the target, its LOCATION, its columns.
fn new_target(inner: &CoordinatorInner, table: String, schema: SchemaRef, regions: Vec<String>) -> Result<(Target, String, SchemaRef)> {
    let location_text = Location::of_managed(&volume_of_tables(inner)?, Uuid::new_v4());
    let location = Location::parse(&location_text)?;
    let target = Target { table, location, regions, schema: schema.clone(), lengths: TextLengths::new() };
    Ok((target, location_text, schema))
}

/// Regions that a new table is pinned to: those of what its rows come from.
fn sources_regions(plan: &LogicalPlan, table: &str) -> Result<Vec<String>> {
    let mut sources = BTreeMap::new();
    query::stored_tables(plan, &mut sources).map_err(|error| from_datafusion(&error))?;
    let reach = sources.values().fold(Reach::anywhere(), |all, source| all.and(&Reach::within(&source.regions)));
    let regions = reach.regions();
    if reach.is_limited() && regions.is_empty() {
        return Err(Error::new(ErrorClass::Denied, format!("rows of table {table} would come from tables that have no region in common")));
    }
    Ok(regions)
}

/// Refuses to store rows of pinned tables where they may not be.
fn check_sources(plan: &LogicalPlan, table: &Table) -> Result<()> {
    let mut sources = BTreeMap::new();
    query::stored_tables(plan, &mut sources).map_err(|error| from_datafusion(&error))?;
    let target = Reach::within(&table.regions);
    for source in sources.values() {
        let reach = Reach::within(&source.regions);
        if !target.is_within(&reach) {
            let name = table.qualified_name();
            return Err(Error::new(
                ErrorClass::Denied,
                format!(
                    "rows of table {} must stay in {reach}, and those of table {name} may be in {target}: ALTER TABLE {name} SET (regions = '{}') keeps them there",
                    source.qualified_name(),
                    source.regions.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

/// The rows of VALUES as they were written: DataFusion types them as the table's columns, and would say of a missing one that `column1` is not
/// there. What may not be NULL is checked where the table is named.
fn open_values(plan: LogicalPlan) -> Result<LogicalPlan> {
    let opened = plan.transform_up(|node| match node {
        LogicalPlan::Values(Values { schema, values }) => {
            let fields = schema.iter().map(|(table, field)| (table.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))));
            let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
            Ok(Transformed::yes(LogicalPlan::Values(Values { schema: Arc::new(schema), values })))
        }
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    });
    opened.map(|opened| opened.data).map_err(|error| from_datafusion(&error))
}

/// An INSERT … VALUES with all rows of parameters at once; `None` where the parameters stand elsewhere.
pub(crate) fn bind_rows(plan: &LogicalPlan, rows: &[ParameterRow]) -> Result<Option<LogicalPlan>> {
    let (mut in_values, mut elsewhere) = (0, false);
    let seen = plan.apply_with_subqueries(|node| {
        let mut has = false;
        for expr in node.expressions() {
            has |= has_placeholder(&expr)?;
        }
        match node {
            LogicalPlan::Values(_) if has => in_values += 1,
            _ => elsewhere |= has,
        }
        Ok(TreeNodeRecursion::Continue)
    });
    seen.map_err(|error| from_datafusion(&error))?;
    if elsewhere || in_values != 1 {
        return Ok(None);
    }
    let bound = plan.clone().transform_down(|node| match node {
        LogicalPlan::Values(Values { schema, values }) => {
            let mut all = Vec::with_capacity(rows.len() * values.len());
            for row in rows {
                for exprs in &values {
                    let fields = schema.fields().iter();
                    let bound = exprs.iter().zip(fields).map(|(expr, field)| bind(expr, row, field.data_type()));
                    all.push(bound.collect::<datafusion::common::Result<Vec<Expr>>>()?);
                }
            }
            Ok(Transformed::yes(LogicalPlan::Values(Values { schema, values: all })))
        }
        other => Ok(Transformed::no(other)),
    });
    bound.map(|bound| Some(bound.data)).map_err(|error| from_datafusion(&error))
}

fn has_placeholder(expr: &Expr) -> datafusion::common::Result<bool> {
    expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_))))
}

/// An expression of VALUES with its parameters' values, in the type of its column where it is nothing else.
fn bind(expr: &Expr, row: &ParameterRow, column: &DataType) -> datafusion::common::Result<Expr> {
    let whole = matches!(expr, Expr::Placeholder(_));
    let bound = expr.clone().transform_up(|part| {
        let Expr::Placeholder(Placeholder { id, field }) = &part else { return Ok(Transformed::no(part)) };
        let number = id.trim_start_matches('$').parse::<usize>().unwrap_or(0);
        let Some(value) = number.checked_sub(1).and_then(|at| row.get(at)) else {
            return datafusion::common::plan_err!("no value is bound for parameter {id}");
        };
        let wanted = if whole { Some(column) } else { field.as_ref().map(|field| field.data_type()) };
        let value = match wanted {
            Some(wanted) if *wanted != DataType::Null && value.data_type() != *wanted => value.cast_to(wanted)?,
            _ => value.clone(),
        };
        Ok(Transformed::yes(Expr::Literal(value, None)))
    });
    Ok(bound?.data)
}

/// What a bulk ingest does where its table is missing, or there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// Makes the table; it must not be there.
    Create,
    /// Adds to the table; it must be there.
    Append,
    /// Makes the table, in place of one that is there.
    Replace,
    /// Adds to the table, and makes it first where it is missing.
    CreateAppend,
}

/// Stores the rows of a client. Returns how many.
pub(crate) async fn ingest<S>(
    inner: &Arc<CoordinatorInner>,
    (schema_name, name): (&str, &str),
    mode: IngestMode,
    schema: SchemaRef,
    mut batches: S,
) -> Result<u64>
where
    S: Stream<Item = Result<RecordBatch>> + Send + Unpin,
{
    let table = format!("{schema_name}.{name}");
    let snapshot = inner.snapshot();
    if !snapshot.schemas.contains_key(schema_name) {
        return Err(Error::not_found(format!("there is no schema '{schema_name}': CREATE SCHEMA {schema_name} makes it")));
    }
    let known = snapshot.table(schema_name, name).cloned();
    let known = match (known, mode) {
        (Some(_), IngestMode::Create) => {
            return Err(Error::exists(format!("table {table} exists already: ingest with mode append or replace")));
        }
        (None, IngestMode::Append) => {
            return Err(Error::not_found(format!("there is no table {table}: ingest with mode create or create_append makes it")));
        }
        (Some(known), IngestMode::Append | IngestMode::CreateAppend) if !known.managed => {
            return Err(Error::user(format!("table {table} is external, its files are written by others")));
        }
        (Some(known), IngestMode::Append | IngestMode::CreateAppend) => Some(known),
        _ => None,
    };
    let regions = known.as_ref().map(|known| known.regions.clone()).unwrap_or_default();
    let (target, location, stored) = match &known {
        Some(known) => (Target::of(known), known.location_text.clone(), known.stored_schema.clone()),
        None => {
            let stored = stored_schema(&table, schema.fields().iter().map(|field| announced_of_client(field).with_nullable(true)))?;
            new_target(inner, table.clone(), stored, vec![])?
        }
    };
    let places = places_of(&table, &stored, &schema)?;
    let mut write = TableWrite::begin(inner, target)?;
    let mut rows = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let columns = places.iter().zip(stored.fields()).map(|(place, field)| match place {
            Some(at) => batch.column(*at).clone(),
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
        write.write(sent_columns(columns.collect(), batch.num_rows(), &stored)?).await?;
    }
    let files = write.finish().await?;
    match known {
        Some(known) => commit(inner, &known, files, FileChange::Append, Some(write)).await?,
        None => {
            let new = NewTable {
                schema_name: schema_name.into(),
                name: name.into(),
                location,
                schema_ipc: footer::encode_schema(&stored).map_err(Error::bug)?,
                files,
                replicas: 1,
                regions,
                managed: true,
                details: TableDetails::default(),
            };
            let replace = mode == IngestMode::Replace;
            if !inner.change_catalog(move |store| store.create_table(&new, replace)).await? {
                return Err(Error::retry(format!("table {table} was made by somebody else meanwhile: nothing was stored")));
            }
            write.committed();
            inner.rules_known().await;
        }
    }
    Ok(rows)
}

/// Which column of the client's goes where: by name, whatever their order. One that is left out is NULL.
fn places_of(table: &str, stored: &Schema, sent: &Schema) -> Result<Vec<Option<usize>>> {
    if let Some(stranger) = sent.fields().iter().find(|field| stored.index_of(field.name()).is_err()) {
        return Err(Error::not_found(format!("table {table} has no column {}", stranger.name())));
    }
    Ok(stored.fields().iter().map(|field| sent.index_of(field.name()).ok()).collect())
}
