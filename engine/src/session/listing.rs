//! What there is, as metadata calls see it: catalogs, schemas, tables and views.

use super::Session;
use crate::catalog::provider::OverlaySchemas;
use crate::catalog::{CATALOG_NAME, INFORMATION_SCHEMA, SYSTEM_SCHEMA, Snapshot, Table, TableDetails};
use crate::error::Result;
use crate::result_types::{plain_schema, plain_type};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;

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
    /// What was declared of it beside its columns' types. A foreign key that points to a table that is gone is left out.
    pub details: TableDetails,
    /// The table of the catalog, unless it is a view or one of the engine's own.
    pub stored: Option<Arc<Table>>,
    /// The statement that made a view.
    pub definition: Option<String>,
}

impl TableInfo {
    /// All tables and views of a statement's catalog, by schema and name.
    pub(crate) fn all(snapshot: &Snapshot, overlay: &OverlaySchemas) -> Vec<Self> {
        let info = |schema: &str, name: &str, table_type: &str, columns: SchemaRef| Self {
            catalog: CATALOG_NAME.into(),
            schema: schema.into(),
            name: name.into(),
            table_type: table_type.into(),
            columns,
            details: TableDetails::default(),
            stored: None,
            definition: None,
        };
        let mut tables = vec![];
        for (schema, stored) in &snapshot.schemas {
            tables.extend(stored.values().map(|table| {
                let mut details = table.details.clone();
                details.foreign_keys.retain(|key| snapshot.table(&key.schema, &key.table).is_some());
                Self { details, stored: Some(table.clone()), ..info(schema, &table.name, "TABLE", plain_stored(&table.stored_schema)) }
            }));
        }
        for (schema, providers) in overlay {
            let own = schema == SYSTEM_SCHEMA || schema == INFORMATION_SCHEMA;
            let kind = if own { "SYSTEM TABLE" } else { "VIEW" };
            tables.extend(providers.iter().map(|(name, provider)| {
                let definition = provider.get_table_definition().map(Into::into);
                Self { definition, ..info(schema, name, kind, plain_schema(&provider.schema())) }
            }));
        }
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        tables
    }
}

/// Columns as they are stored, in plain types; what may be empty stays.
fn plain_stored(schema: &Schema) -> SchemaRef {
    let plain = schema.fields().iter().map(|field| field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    Arc::new(Schema::new(plain.collect::<Vec<_>>()))
}

impl Session {
    /// Catalogs there are: one.
    pub async fn catalogs(&self) -> Vec<String> {
        vec![CATALOG_NAME.into()]
    }

    /// Schemas, as (catalog, schema).
    pub async fn schemas(&self) -> Vec<(String, String)> {
        let snapshot = self.inner.coordinator.inner.snapshot();
        let mut names: Vec<&str> = snapshot.schemas.keys().map(String::as_str).collect();
        names.extend([SYSTEM_SCHEMA, INFORMATION_SCHEMA]);
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| (CATALOG_NAME.to_string(), name.to_string())).collect()
    }

    /// Tables, views and system tables.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        let snapshot = self.inner.coordinator.inner.snapshot();
        let overlay = self.overlay(snapshot.clone()).await?;
        Ok(TableInfo::all(&snapshot, &overlay))
    }
}
