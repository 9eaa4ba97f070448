//! Statements that change the catalog, and the session's own views.

use super::Session;
use crate::catalog::location::Location;
use crate::catalog::store::NewTable;
use crate::catalog::{INFORMATION_SCHEMA, SYSTEM_SCHEMA, Table, TableDetails};
use crate::config::residency_of;
use crate::coordinator::CoordinatorInner;
use crate::coordinator::membership::NodeInfo;
use crate::coordinator::query::QueryStream;
use crate::coordinator::table_places;
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use crate::residency::Reach;
use crate::statement::external_table::{self, Asked};
use crate::statement::keys::{DeclaredKey, Declaring};
use crate::statement::table_properties;
use arrow::datatypes::Schema;
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{CreateView, DdlStatement};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Session {
    pub(super) async fn change_catalog(&self, ddl: DdlStatement, sql: &str) -> Result<QueryStream> {
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
                if !create.column_defaults.is_empty() || !create.constraints.is_empty() {
                    return Err(Error::user(
                        "the column list of an external table has names and types alone: its rows are in the files; ALTER TABLE … ADD PRIMARY KEY declares a key",
                    ));
                }
                let declared = (create.schema.fields().iter().len() > 0).then(|| create.schema.as_arrow().clone());
                let snapshot = inner.snapshot();
                if !snapshot.schemas.contains_key(&schema) {
                    return Err(Error::not_found(format!("there is no schema '{schema}': CREATE SCHEMA {schema} makes it")));
                }
                if snapshot.table(&schema, &name).is_some() && !create.or_replace {
                    if create.if_not_exists {
                        return Ok(QueryStream::done(None));
                    }
                    return Err(Error::exists(format!("table {schema}.{name} exists already: add OR REPLACE, or IF NOT EXISTS")));
                }
                let location = match create.locations.as_slice() {
                    [one] => one.clone(),
                    other => return Err(Error::user(format!("CREATE EXTERNAL TABLE takes one LOCATION, not {}", other.len()))),
                };
                let known = snapshot.table(&schema, &name).filter(|known| known.location_text == location);
                let options = table_properties::of_external(&create.options)?;
                let asked = Asked { location: &location, declared, skip_bad_files: options.skip_bad_files };
                let mut table = external_table::discover(inner, &schema, &name, asked, known.map(Arc::as_ref)).await?;
                (table.replicas, table.regions) = (options.replicas, options.regions);
                check_new_homes(inner, &table)?;
                table_places::check(inner, &table.regions, table.replicas, &Location::parse(&location)?)?;
                let replace = create.or_replace;
                if !inner.change_catalog(move |store| store.create_table(&table, replace)).await? && !create.if_not_exists {
                    return Err(Error::exists(format!("table {schema}.{name} was created by somebody else meanwhile")));
                }
                inner.rules_known().await;
            }
            DdlStatement::CreateCatalogSchema(create) => {
                let name = create.schema_name.rsplit('.').next().unwrap_or_default().to_string();
                if [SYSTEM_SCHEMA, INFORMATION_SCHEMA].contains(&name.as_str()) {
                    return Err(Error::user(format!("schema {name} belongs to the engine")));
                }
                let added = name.clone();
                if !inner.change_catalog(move |store| store.create_schema(&added)).await? && !create.if_not_exists {
                    return Err(Error::exists(format!("schema {name} exists already")));
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
                self.inner.changes.fetch_add(1, Ordering::AcqRel);
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
        if !self.inner.coordinator.inner.snapshot().schemas.contains_key(&schema) {
            return Err(Error::not_found(format!("there is no schema '{schema}': CREATE SCHEMA {schema} makes it")));
        }
        // A parameter has no value once the statement has ended.
        if create.input.exists(|node| Ok(!node.get_parameter_names()?.is_empty())).unwrap_or(false) {
            return Err(Error::user("a view cannot have parameters"));
        }
        let mut views = self.inner.views.lock();
        let known = views.iter().position(|(s, n, _)| (s, n) == (&schema, &name));
        match known {
            Some(_) if !create.or_replace => return Err(Error::exists(format!("view {schema}.{name} exists already: add OR REPLACE"))),
            Some(at) => views[at].2 = sql.to_string(),
            None if views.len() >= limits::SESSION_VIEWS_MAX => {
                return Err(Error::new(ErrorClass::Resource, format!("a session holds at most {} views", limits::SESSION_VIEWS_MAX)));
            }
            None => views.push((schema, name, sql.to_string())),
        }
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    pub(super) async fn alter_table(
        &self,
        table: &TableReference,
        replicas: Option<u32>,
        regions: Option<Vec<String>>,
    ) -> Result<QueryStream> {
        let inner = &self.inner.coordinator.inner;
        let (schema, name) = self.resolve(table)?;
        let known = known_table(inner, &schema, &name)?;
        if let Some(regions) = &regions {
            let files =
                known.files.iter().map(|file| (&*file.store_url, file.path.as_str(), file.homes.iter().map(|(node, _)| &**node).collect()));
            check_homes(inner, &known.qualified_name(), regions, known.managed, files)?;
        }
        let (asked, copies) = (regions.as_ref().unwrap_or(&known.regions), replicas.unwrap_or(known.replicas));
        table_places::check(inner, asked, copies, &known.location)?;
        let table_id = known.table_id;
        inner.change_catalog(move |store| store.alter_table(table_id, replicas, regions.as_deref())).await?;
        inner.rules_known().await;
        Ok(QueryStream::done(None))
    }

    /// Adds the keys that a statement declares of a table to what is known of it.
    pub(super) fn declare_keys(
        &self,
        (schema, name): (&str, &str),
        columns: &Schema,
        declared: Vec<DeclaredKey>,
        details: &mut TableDetails,
    ) -> Result<()> {
        let snapshot = self.inner.coordinator.inner.snapshot();
        let declaring = Declaring { schema, name, columns };
        declared.into_iter().try_for_each(|key| declaring.add(details, key, &snapshot, |other| self.resolve(other)))
    }

    pub(super) async fn add_key(&self, table: &TableReference, key: DeclaredKey) -> Result<QueryStream> {
        let (schema, name) = self.resolve(table)?;
        let known = known_table(&self.inner.coordinator.inner, &schema, &name)?;
        let mut details = known.details.clone();
        self.declare_keys((&schema, &name), &known.stored_schema, vec![key], &mut details)?;
        self.set_details(&known, details).await
    }

    pub(super) async fn drop_key(&self, table: &TableReference, key: &str, if_exists: bool) -> Result<QueryStream> {
        let (schema, name) = self.resolve(table)?;
        let known = known_table(&self.inner.coordinator.inner, &schema, &name)?;
        let mut details = known.details.clone();
        if !details.primary_key.is_empty() && details.primary_key_name(&name) == key {
            (details.primary_key, details.primary_key_name) = (vec![], None);
        } else {
            details.foreign_keys.retain(|foreign| foreign.name != key);
            if details == known.details && !if_exists {
                return Err(Error::not_found(format!(
                    "table {schema}.{name} has no key {key}; information_schema.table_constraints lists those there are"
                )));
            }
        }
        self.set_details(&known, details).await
    }

    async fn set_details(&self, table: &Table, details: TableDetails) -> Result<QueryStream> {
        let table_id = table.table_id;
        self.inner.coordinator.inner.change_catalog(move |store| store.set_details(table_id, &details)).await?;
        Ok(QueryStream::done(None))
    }

    pub(super) async fn comment(&self, table: &TableReference, column: Option<&str>, text: Option<String>) -> Result<QueryStream> {
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
        let mut details = known.details.clone();
        match (column, text) {
            (None, text) => details.comment = text,
            (Some(column), Some(text)) => drop(details.column_comments.insert(column.into(), text)),
            (Some(column), None) => drop(details.column_comments.remove(column)),
        }
        self.set_details(&known, details).await
    }

    pub(super) async fn refresh_table(&self, table: &TableReference) -> Result<QueryStream> {
        let inner = &self.inner.coordinator.inner;
        let (schema, name) = self.resolve(table)?;
        let known = known_table(inner, &schema, &name)?;
        if known.managed {
            return Err(Error::user(format!("table {schema}.{name} is managed: what is stored in it is known already")));
        }
        let declared = known.details.columns_declared.then(|| known.stored_schema.as_ref().clone());
        let asked = Asked { location: &known.location_text, declared, skip_bad_files: known.details.skip_bad_files };
        let mut fresh = external_table::discover(inner, &schema, &name, asked, Some(&known)).await?;
        let bad_files = std::mem::take(&mut fresh.details.bad_files);
        (fresh.replicas, fresh.regions) = (known.replicas, known.regions.clone());
        fresh.details = TableDetails { bad_files, ..known.details.clone() };
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
fn check_homes<'a>(
    inner: &CoordinatorInner,
    table: &str,
    regions: &[String],
    managed: bool,
    files: impl Iterator<Item = Held<'a>>,
) -> Result<()> {
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
                let way_out = match managed {
                    true => format!(
                        "CREATE TABLE … WITH (regions = '{}') AS SELECT * FROM {table} makes one of its rows that lies there",
                        regions.join(", ")
                    ),
                    false => "move it first, then REFRESH TABLE".to_string(),
                };
                return refuse(format!("its file {path} lies {place}; {way_out}"));
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
    check_homes(inner, &format!("{}.{}", table.schema_name, table.name), &table.regions, table.managed, files)
}

async fn drop_schema(inner: &Arc<CoordinatorInner>, name: &str) -> Result<()> {
    if name == inner.config.default_schema {
        return Err(Error::user(format!("schema {name} is the default schema of new sessions (coordinator.default_schema) and stays")));
    }
    let dropped = name.to_string();
    inner.change_catalog(move |store| store.drop_schema(&dropped)).await.map(|_| ())
}
