//! The catalog: which tables there are, which files each has, and what is known of them.
//!
//! Knows nothing of plans or workers' lives: placement at a moment is [`fragment`](crate::fragment)'s matter.

pub mod footer;
pub mod location;
pub mod provider;
pub mod store;

use crate::control::FileFacts;
use crate::error::Result;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Statistics;
use location::Location;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the one catalog that sessions see.
pub const CATALOG_NAME: &str = "bowshot";
/// Schema of the engine's own tables.
pub const SYSTEM_SCHEMA: &str = "system";

/// One committed state of the catalog; a statement reads exactly one.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts commits.
    pub version: i64,
    /// Tables by schema and name.
    pub schemas: BTreeMap<String, BTreeMap<String, Arc<Table>>>,
}

impl Snapshot {
    /// The table of this name.
    pub fn table(&self, schema: &str, name: &str) -> Option<&Arc<Table>> {
        self.schemas.get(schema)?.get(name)
    }
}

/// A table over Parquet files.
#[derive(Debug)]
pub struct Table {
    /// Catalog id.
    pub table_id: i64,
    /// Schema it belongs to.
    pub schema_name: String,
    /// Name in that schema.
    pub name: String,
    /// LOCATION as it was declared.
    pub location_text: String,
    /// The same, parsed.
    pub location: Location,
    /// Column types as files declare them: what clients see.
    pub stored_schema: SchemaRef,
    /// Column types as plans read them: strings and bytes as views.
    pub scan_schema: SchemaRef,
    /// Files in the order they were added.
    pub files: Vec<Arc<CatalogFile>>,
    /// Sums over the files, inexact.
    pub statistics: Statistics,
}

impl Table {
    /// Builds a table from stored facts.
    pub fn new(
        table_id: i64,
        schema_name: String,
        name: String,
        location_text: String,
        stored: Schema,
        files: Vec<Arc<CatalogFile>>,
    ) -> Result<Self> {
        let scan_schema = Arc::new(scan_schema(&stored));
        let statistics = footer::table_statistics(&scan_schema, files.iter().map(|file| &file.facts));
        Ok(Self {
            table_id,
            schema_name,
            name,
            location: Location::parse(&location_text)?,
            location_text,
            stored_schema: Arc::new(stored),
            scan_schema,
            files,
            statistics,
        })
    }

    /// `schema.name`.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema_name, self.name)
    }
}

/// A file of a table.
#[derive(Debug)]
pub struct CatalogFile {
    /// Catalog id, unique over all tables.
    pub file_id: i64,
    /// Base URL of its object store inside plans.
    pub store_url: String,
    /// Path below it.
    pub path: String,
    /// What its footer said.
    pub facts: FileFacts,
    /// Nodes that hold a copy, with the version of each copy; empty for buckets, which every node reads.
    pub homes: Vec<(String, i64)>,
}

impl CatalogFile {
    /// The file for people: `node://node-1/data/part-1.parquet` or `s3://bucket/key`.
    pub fn display_name(&self) -> String {
        match self.store_url.strip_prefix("node://") {
            Some(volume) => {
                let nodes: Vec<_> = self.homes.iter().map(|(node, _)| node.as_str()).collect();
                format!("node://{}/{}/{}", nodes.join("|"), volume.trim_end_matches('/'), self.path)
            }
            None => format!("{}/{}", self.store_url.trim_end_matches('/'), self.path),
        }
    }
}

/// Plans read strings and bytes as views: DataFusion's operators are faster on them.
fn scan_schema(stored: &Schema) -> Schema {
    let fields: Vec<Field> = stored
        .fields()
        .iter()
        .map(|field| {
            let kind = match field.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
                DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
                other => other.clone(),
            };
            field.as_ref().clone().with_data_type(kind)
        })
        .collect();
    Schema::new(fields)
}
