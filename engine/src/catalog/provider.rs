//! The catalog as DataFusion sees it: a scan is built from catalog facts alone, no file is opened.

use super::location::{Location, object_path};
use super::{CATALOG_NAME, Snapshot, Table};
use crate::error::Error;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::catalog::memory::DataSourceExec;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A stored table in a plan.
#[derive(Debug)]
pub struct StoredTable {
    table: Arc<Table>,
    /// Its columns to this statement.
    schema: SchemaRef,
}

impl StoredTable {
    /// Wraps a table of a snapshot. Instants are shown by the clock of the session's zone, whichever their files name.
    pub fn new(table: Arc<Table>, zone: &str) -> Self {
        let in_zone = |field: &FieldRef| match field.data_type() {
            DataType::Timestamp(unit, Some(named)) if named.as_ref() != zone => {
                let shown = DataType::Timestamp(*unit, Some(zone.into()));
                Some(Arc::new(field.as_ref().clone().with_data_type(shown)))
            }
            _ => None,
        };
        let stored = &table.scan_schema;
        let schema = match stored.fields().iter().any(|field| in_zone(field).is_some()) {
            true => {
                let fields: Vec<FieldRef> = stored.fields().iter().map(|field| in_zone(field).unwrap_or_else(|| field.clone())).collect();
                Arc::new(Schema::new_with_metadata(fields, stored.metadata().clone()))
            }
            false => stored.clone(),
        };
        Self { table, schema }
    }

    /// The catalog's table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    fn plan_scan(&self, session: &dyn Session, projection: Option<&Vec<usize>>, limit: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        // At least two groups, empty ones included: a scan of one partition would not be distributed, and the coordinator holds no file.
        let group_count = session.config().target_partitions().max(2);
        let mut groups = vec![FileGroup::default(); group_count];
        groups[0] = FileGroup::new(vec![whole_table(&self.table)]);
        let store = ObjectStoreUrl::parse(self.table.location.store_url()?)?;
        let options = session.config_options().execution.parquet.clone();
        let source = ParquetSource::new(self.schema.clone())
            .with_pushdown_filters(options.pushdown_filters)
            .with_reorder_filters(options.reorder_filters);
        let config = FileScanConfigBuilder::new(store, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(self.table.statistics.clone())
            .with_limit(limit)
            .with_projection_indices(projection.cloned())?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// A plan that is there already, as the future that [`TableProvider::scan`] wants. Written without `#[async_trait]`, whose futures capture all
/// arguments: rustc would walk the whole type of an expression to prove that they may change threads.
pub(crate) fn planned<'a>(plan: Result<Arc<dyn ExecutionPlan>>) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
    Box::pin(std::future::ready(plan))
}

impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.table.statistics.clone())
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.table.defaults.get(column)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Inexact: row groups are pruned by the filter, rows are filtered above the scan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn scan<'a, 'b, 'c, 'd, 'future>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'future, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'future,
        'b: 'future,
        'c: 'future,
        'd: 'future,
        Self: 'future,
    {
        planned(self.plan_scan(session, projection, limit))
    }
}

/// All files of a table as one entry of a scan. Optimizers copy scans dozens of times, and a table may have a hundred thousand files: the leaf
/// handler puts in those of each task.
fn whole_table(table: &Table) -> PartitionedFile {
    let bytes = table.files.iter().map(|file| file.size_bytes).sum();
    let (Location::Node { path, .. } | Location::Bucket { prefix: path, .. }) = &table.location;
    let mut whole = PartitionedFile::new(path.clone(), bytes);
    // Stays in this process: it is not part of the plan that travels.
    whole.object_meta.location = object_path(path);
    whole.object_meta.e_tag = Some(table.table_id.to_string());
    whole
}

/// The id of the table that a scan is of, as long as it names the [whole table](whole_table).
pub fn scanned_table(scan: &FileScanConfig) -> Option<i64> {
    let mut files = scan.file_groups.iter().flat_map(|group| group.files());
    files.find_map(|file| file.object_meta.e_tag.as_ref()?.parse().ok())
}

/// Extra schemas of a session's catalog: its views and the system tables.
pub type OverlaySchemas = BTreeMap<String, BTreeMap<String, Arc<dyn TableProvider>>>;

/// The one catalog of a statement: a snapshot, with the session's own views and the system tables over it.
pub struct StatementCatalog {
    snapshot: Arc<Snapshot>,
    overlay: OverlaySchemas,
    /// The session's time zone.
    zone: Arc<str>,
}

impl fmt::Debug for StatementCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementCatalog").field("snapshot", &self.snapshot.version).finish_non_exhaustive()
    }
}

impl StatementCatalog {
    /// A catalog over `snapshot`; names in `overlay` come first.
    pub fn new(snapshot: Arc<Snapshot>, overlay: OverlaySchemas, zone: &str) -> Self {
        Self { snapshot, overlay, zone: zone.into() }
    }
}

impl CatalogProvider for StatementCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.snapshot.schemas.keys().chain(self.overlay.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let stored = self.snapshot.schemas.get(name);
        let overlay = self.overlay.get(name);
        if stored.is_none() && overlay.is_none() {
            return None;
        }
        let zone = self.zone.clone();
        Some(Arc::new(StatementSchema { stored: stored.cloned().unwrap_or_default(), overlay: overlay.cloned().unwrap_or_default(), zone }))
    }
}

#[derive(Debug)]
struct StatementSchema {
    stored: BTreeMap<String, Arc<Table>>,
    overlay: BTreeMap<String, Arc<dyn TableProvider>>,
    zone: Arc<str>,
}

impl StatementSchema {
    fn find(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let stored = || self.stored.get(name).map(|table| Arc::new(StoredTable::new(table.clone(), &self.zone)) as Arc<dyn TableProvider>);
        self.overlay.get(name).cloned().or_else(stored)
    }
}

/// As [`planned`], for [`SchemaProvider::table`].
fn found<'a>(table: Option<Arc<dyn TableProvider>>) -> BoxFuture<'a, Result<Option<Arc<dyn TableProvider>>>> {
    let found = match table.as_ref().and_then(|table| table.downcast_ref::<BrokenView>()) {
        Some(broken) => Err(broken.error.clone().into()),
        None => Ok(table),
    };
    Box::pin(std::future::ready(found))
}

/// A view that can no longer be planned: whoever asks for it hears why, and nobody else.
#[derive(Debug)]
pub struct BrokenView {
    /// Why, and the way out.
    pub error: Error,
}

impl TableProvider for BrokenView {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn scan<'a, 'b, 'c, 'd, 'future>(
        &'a self,
        _: &'b dyn Session,
        _: Option<&'c Vec<usize>>,
        _: &'d [Expr],
        _: Option<usize>,
    ) -> BoxFuture<'future, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'future,
        'b: 'future,
        'c: 'future,
        'd: 'future,
        Self: 'future,
    {
        planned(Err(self.error.clone().into()))
    }
}

impl SchemaProvider for StatementSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.stored.keys().chain(self.overlay.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    fn table<'a, 'b, 'future>(&'a self, name: &'b str) -> BoxFuture<'future, Result<Option<Arc<dyn TableProvider>>>>
    where
        'a: 'future,
        'b: 'future,
        Self: 'future,
    {
        found(self.find(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.overlay.contains_key(name) || self.stored.contains_key(name)
    }
}

/// The list of catalogs of a statement: always the one.
#[derive(Debug)]
pub struct StatementCatalogList {
    catalog: Arc<StatementCatalog>,
}

impl StatementCatalogList {
    /// A list of `catalog` alone.
    pub fn new(catalog: StatementCatalog) -> Self {
        Self { catalog: Arc::new(catalog) }
    }
}

impl CatalogProviderList for StatementCatalogList {
    fn register_catalog(&self, _name: String, _catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG_NAME.to_string()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG_NAME).then(|| self.catalog.clone() as Arc<dyn CatalogProvider>)
    }
}
