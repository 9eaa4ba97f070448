//! The catalog: which tables there are, which files each has, and what is known of them.
//!
//! Knows nothing of plans or workers' lives: placement at a moment is [`fragment`](crate::fragment)'s matter.

pub mod backup;
pub mod defaults;
pub mod footer;
pub mod integrity;
pub mod location;
pub mod provider;
pub mod series;
pub mod store;
pub mod text_lengths;

use crate::control::RowGroupFacts;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Statistics;
use datafusion::logical_expr::Expr;
use location::Location;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use text_lengths::TextLengths;

/// Name of the one catalog that sessions see.
pub const CATALOG_NAME: &str = "bowshot";
/// Schema of the engine's own tables.
pub const SYSTEM_SCHEMA: &str = "system";
/// The schema that tells of the others, as the standard has it.
pub const INFORMATION_SCHEMA: &str = "information_schema";

/// One committed state of the catalog; a statement reads exactly one.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts commits.
    pub version: i64,
    /// Tables by schema and name.
    pub schemas: BTreeMap<String, BTreeMap<String, Arc<Table>>>,
    /// Nodes that are to be emptied: `ALTER NODE … DRAIN`.
    pub draining: BTreeSet<String>,
}

impl Snapshot {
    /// All tables, in the order of their names.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.schemas.values().flat_map(|tables| tables.values())
    }

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
    /// Catalog version that changed it last.
    pub revision: i64,
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
    /// Copies of each file that the cluster keeps, the original included.
    pub replicas: u32,
    /// Regions that its rows never leave; empty where they may go anywhere.
    pub regions: Vec<String>,
    /// Whether the cluster writes its files; those of external tables are written by others.
    pub managed: bool,
    /// What was declared beside the columns' types.
    pub details: TableDetails,
    /// Its expressions for columns that an INSERT leaves out, decoded.
    pub defaults: BTreeMap<String, Expr>,
}

/// What a statement declared of a table beside the types of its columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDetails {
    /// Columns of the primary key, in its order. Declared, not enforced.
    #[serde(default)]
    pub primary_key: Vec<String>,
    /// Its name, where it was given one.
    #[serde(default)]
    pub primary_key_name: Option<String>,
    /// Declared, not enforced.
    #[serde(default)]
    pub foreign_keys: Vec<ForeignKey>,
    /// Expressions of columns that an INSERT leaves out, encoded, by column.
    #[serde(default)]
    pub defaults: BTreeMap<String, String>,
    /// What the table is, for people.
    #[serde(default)]
    pub comment: Option<String>,
    /// What its columns are, by column.
    #[serde(default)]
    pub column_comments: BTreeMap<String, String>,
    /// Whether a column list made the columns of an external table; else its files do, and may widen them.
    #[serde(default)]
    pub columns_declared: bool,
    /// Lengths of text, by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub text_lengths: TextLengths,
    /// Whether files that cannot be read are left out of an external table; else they refuse it.
    #[serde(default)]
    pub skip_bad_files: bool,
    /// Those that the last CREATE or REFRESH left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_files: Vec<BadFile>,
}

/// A file at a table's location that is not part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadFile {
    /// The node that has it; none for a bucket.
    #[serde(default)]
    pub node: Option<String>,
    /// Path below the volume or bucket.
    pub path: String,
    /// Why it cannot be read.
    pub reason: String,
}

/// Columns whose values are those of a key of another table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Name, unique in its table.
    pub name: String,
    /// Columns of the table that declares it.
    pub columns: Vec<String>,
    /// Schema of the table it points to.
    pub schema: String,
    /// Name of that table.
    pub table: String,
    /// Columns there, as many.
    pub referenced: Vec<String>,
}

impl TableDetails {
    /// The name of the primary key of a table, whether it was given one or not.
    pub fn primary_key_name(&self, table: &str) -> String {
        self.primary_key_name.clone().unwrap_or_else(|| format!("{table}_pkey"))
    }
}

impl Table {
    /// Whether a copy of its files may lie in, and its rows be read in, this region.
    pub fn allows_region(&self, region: &str) -> bool {
        self.regions.is_empty() || self.regions.iter().any(|allowed| allowed == region)
    }

    /// `schema.name`.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema_name, self.name)
    }
}

/// A file of a table. There may be a million of them: what only CREATE needs is not kept here.
#[derive(Debug)]
pub struct CatalogFile {
    /// Catalog id, unique over all tables.
    pub file_id: i64,
    /// Base URL of its object store inside plans.
    pub store_url: Arc<str>,
    /// Path below it.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Version of a bucket's object; copies on disks have one each, see [`Self::homes`].
    pub version: i64,
    /// Rows.
    pub row_count: u64,
    /// Row groups in file order.
    pub row_groups: Box<[RowGroupFacts]>,
    /// SHA-256 of the whole content, where it was asked for; copies that the cluster made are found by it.
    pub checksum: Option<String>,
    /// Nodes that hold an original, with the version of each; empty for buckets, which every node reads.
    pub homes: Box<[(Arc<str>, i64)]>,
}

impl CatalogFile {
    /// Volume it lies in; `None` for objects of a bucket.
    pub fn volume(&self) -> Option<&str> {
        self.store_url.strip_prefix("node://").map(|volume| volume.trim_end_matches('/'))
    }

    /// The file for people: `node://node-1/data/part-1.parquet` or `s3://bucket/key`.
    pub fn display_name(&self) -> String {
        match self.volume() {
            Some(volume) => {
                let nodes: Vec<_> = self.homes.iter().map(|(node, _)| &**node).collect();
                format!("node://{}/{}/{}", nodes.join("|"), volume, self.path)
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
