//! The catalog as DataFusion sees it: a scan is built from catalog facts alone, no file is opened.

use super::{CATALOG_NAME, Snapshot, Table};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A stored table in a plan.
#[derive(Debug)]
pub struct StoredTable {
    table: Arc<Table>,
}

impl StoredTable {
    /// Wraps a table of a snapshot.
    pub fn new(table: Arc<Table>) -> Self {
        Self { table }
    }

    /// The catalog's table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.table.scan_schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.table.statistics.clone())
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // Inexact: row groups are pruned by the filter, rows are filtered above the scan.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // At least two groups, empty ones included: a scan of one partition would not be distributed, and the coordinator holds no file.
        let group_count = session.config().target_partitions().max(2);
        let mut groups = vec![vec![]; group_count];
        for (index, file) in self.table.files.iter().enumerate() {
            let mut planned = PartitionedFile::new(file.path.clone(), file.size_bytes);
            // The entity tag carries the catalog id to the leaf handler of this process; it is not part of the plan that travels.
            planned.object_meta.e_tag = Some(file.file_id.to_string());
            groups[index % group_count].push(planned);
        }
        let store = ObjectStoreUrl::parse(self.table.location.store_url()?)?;
        let options = session.config_options().execution.parquet.clone();
        let source = ParquetSource::new(self.table.scan_schema.clone())
            .with_pushdown_filters(options.pushdown_filters)
            .with_reorder_filters(options.reorder_filters);
        let config = FileScanConfigBuilder::new(store, Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_statistics(self.table.statistics.clone())
            .with_limit(limit)
            .with_projection_indices(projection.cloned())?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// Extra schemas of a session's catalog: its views and the system tables.
pub type OverlaySchemas = BTreeMap<String, BTreeMap<String, Arc<dyn TableProvider>>>;

/// The one catalog of a statement: a snapshot, with the session's own views and the system tables over it.
pub struct StatementCatalog {
    snapshot: Arc<Snapshot>,
    overlay: OverlaySchemas,
}

impl fmt::Debug for StatementCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatementCatalog").field("snapshot", &self.snapshot.version).finish_non_exhaustive()
    }
}

impl StatementCatalog {
    /// A catalog over `snapshot`; names in `overlay` come first.
    pub fn new(snapshot: Arc<Snapshot>, overlay: OverlaySchemas) -> Self {
        Self { snapshot, overlay }
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
        Some(Arc::new(StatementSchema { stored: stored.cloned().unwrap_or_default(), overlay: overlay.cloned().unwrap_or_default() }))
    }
}

#[derive(Debug)]
struct StatementSchema {
    stored: BTreeMap<String, Arc<Table>>,
    overlay: BTreeMap<String, Arc<dyn TableProvider>>,
}

#[async_trait]
impl SchemaProvider for StatementSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.stored.keys().chain(self.overlay.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(provider) = self.overlay.get(name) {
            return Ok(Some(provider.clone()));
        }
        Ok(self.stored.get(name).map(|table| Arc::new(StoredTable::new(table.clone())) as Arc<dyn TableProvider>))
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
