//! The catalog database: one SQLite file beside the coordinator.
//!
//! Written in one transaction a statement; read once at start and after each commit into an immutable [`Snapshot`](super::Snapshot),
//! so that planning never waits for the disk.

use super::{CatalogFile, Snapshot, Table, footer};
use crate::control::{ColumnFacts, FileFacts, RowGroupFacts};
use crate::error::{Error, Result};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS catalog_version (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS schemas (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS tables (
  table_id INTEGER PRIMARY KEY AUTOINCREMENT, schema_name TEXT NOT NULL REFERENCES schemas(name), name TEXT NOT NULL,
  location TEXT NOT NULL, schema_ipc TEXT NOT NULL, UNIQUE(schema_name, name));
CREATE TABLE IF NOT EXISTS files (
  file_id INTEGER PRIMARY KEY AUTOINCREMENT, table_id INTEGER NOT NULL REFERENCES tables(table_id) ON DELETE CASCADE,
  store_url TEXT NOT NULL, path TEXT NOT NULL, size_bytes INTEGER NOT NULL, version INTEGER NOT NULL, row_count INTEGER NOT NULL,
  row_groups TEXT NOT NULL, footer_hash TEXT NOT NULL, checksum TEXT);
CREATE TABLE IF NOT EXISTS column_statistics (
  file_id INTEGER NOT NULL REFERENCES files(file_id) ON DELETE CASCADE, column_index INTEGER NOT NULL,
  min TEXT, max TEXT, null_count INTEGER, PRIMARY KEY(file_id, column_index)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS placement (
  file_id INTEGER NOT NULL REFERENCES files(file_id) ON DELETE CASCADE, node_id TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY(file_id, node_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_table ON files(table_id);
";

/// Layout of the database; raised when the tables above change.
const LAYOUT_VERSION: i64 = 1;

/// A table as a statement wants it stored.
pub struct NewTable {
    /// Schema name; must exist.
    pub schema_name: String,
    /// Table name.
    pub name: String,
    /// LOCATION text.
    pub location: String,
    /// Arrow schema, encoded.
    pub schema_ipc: String,
    /// Files with their homes.
    pub files: Vec<NewFile>,
}

/// A file as a statement wants it stored.
pub struct NewFile {
    /// Base URL of the object store.
    pub store_url: String,
    /// Path below it.
    pub path: String,
    /// Facts.
    pub facts: FileFacts,
    /// Node id and version of each copy; empty for buckets.
    pub homes: Vec<(String, i64)>,
}

/// The open database.
pub struct CatalogStore {
    connection: Connection,
}

impl CatalogStore {
    /// Opens or creates `catalog.sqlite` in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        let place = |what: &str, error: &dyn std::fmt::Display| {
            Error::user(format!(
                "the catalog folder {} {what}: {error}; point coordinator.data_dir at a folder this user may write",
                folder.display()
            ))
        };
        std::fs::create_dir_all(folder).map_err(|error| place("cannot be created", &error))?;
        let connection = Connection::open(folder.join("catalog.sqlite")).map_err(|error| place("cannot hold a database", &error))?;
        // WAL with FULL: a committed statement survives kill -9 and power loss.
        connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=5000;")?;
        let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if layout > LAYOUT_VERSION {
            return Err(Error::user(format!(
                "the catalog in {} has layout {layout}, this release knows {LAYOUT_VERSION}: start the newer release again",
                folder.display()
            )));
        }
        connection.execute_batch(TABLES)?;
        connection.execute_batch(&format!("PRAGMA user_version={LAYOUT_VERSION}; INSERT OR IGNORE INTO schemas VALUES ('public');"))?;
        connection.execute("INSERT INTO catalog_version SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM catalog_version)", [])?;
        Ok(Self { connection })
    }

    /// Everything, as one immutable value.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let version = self.connection.query_row("SELECT version FROM catalog_version", [], |row| row.get(0))?;
        let mut schemas: BTreeMap<String, BTreeMap<String, Arc<Table>>> = BTreeMap::new();
        for name in self.connection.prepare("SELECT name FROM schemas")?.query_map([], |row| row.get::<_, String>(0))? {
            schemas.insert(name?, BTreeMap::new());
        }
        let mut statement = self.connection.prepare("SELECT table_id, schema_name, name, location, schema_ipc FROM tables")?;
        let rows = statement.query_map([], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
                row.get::<_, String>(4)?,
            ))
        })?;
        for row in rows {
            let (table_id, schema_name, name, location, schema_ipc) = row?;
            let schema = footer::decode_schema(&schema_ipc)
                .map_err(|why| Error::bug(format!("the catalog's schema of {schema_name}.{name} is damaged: {why}")))?;
            let table = Table::new(table_id, schema_name.clone(), name.clone(), location, schema, self.files(table_id, &schema_ipc)?)?;
            schemas.entry(schema_name).or_default().insert(name, Arc::new(table));
        }
        Ok(Snapshot { version, schemas })
    }

    fn files(&self, table_id: i64, schema_ipc: &str) -> Result<Vec<Arc<CatalogFile>>> {
        let mut homes: BTreeMap<i64, Vec<(String, i64)>> = BTreeMap::new();
        let mut statement = self.connection.prepare(
            "SELECT p.file_id, p.node_id, p.version FROM placement p JOIN files f USING (file_id) WHERE f.table_id = ? ORDER BY p.node_id",
        )?;
        for row in statement.query_map([table_id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))? {
            let (file_id, node, version): (i64, String, i64) = row?;
            homes.entry(file_id).or_default().push((node, version));
        }
        let mut columns: BTreeMap<i64, Vec<ColumnFacts>> = BTreeMap::new();
        let mut statement = self.connection.prepare(
            "SELECT c.file_id, c.min, c.max, c.null_count FROM column_statistics c JOIN files f USING (file_id) WHERE f.table_id = ? ORDER BY c.file_id, c.column_index",
        )?;
        for row in statement.query_map([table_id], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                ColumnFacts { min: row.get(1)?, max: row.get(2)?, null_count: row.get::<_, Option<i64>>(3)?.map(|count| count as u64) },
            ))
        })? {
            let (file_id, facts) = row?;
            columns.entry(file_id).or_default().push(facts);
        }
        let mut statement = self
            .connection
            .prepare("SELECT file_id, store_url, path, size_bytes, version, row_count, row_groups, footer_hash, checksum FROM files WHERE table_id = ? ORDER BY file_id")?;
        let rows = statement.query_map([table_id], |row| {
            let file_id: i64 = row.get(0)?;
            let row_groups: Vec<RowGroupFacts> = serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or_default();
            Ok(Arc::new(CatalogFile {
                file_id,
                store_url: row.get(1)?,
                path: row.get(2)?,
                facts: FileFacts {
                    size_bytes: row.get::<_, i64>(3)? as u64,
                    version: row.get(4)?,
                    row_count: row.get::<_, i64>(5)? as u64,
                    row_groups,
                    schema_ipc: schema_ipc.to_string(),
                    footer_hash: row.get(7)?,
                    checksum: row.get(8)?,
                    columns: columns.remove(&file_id).unwrap_or_default(),
                },
                homes: homes.remove(&file_id).unwrap_or_default(),
            }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a schema. Returns whether it was new.
    pub fn create_schema(&mut self, name: &str) -> Result<bool> {
        self.commit(|transaction| Ok(transaction.execute("INSERT OR IGNORE INTO schemas VALUES (?)", [name])? > 0))
    }

    /// Drops a schema with its tables. Returns whether it was there.
    pub fn drop_schema(&mut self, name: &str) -> Result<bool> {
        self.commit(|transaction| {
            transaction.execute("DELETE FROM tables WHERE schema_name = ?", [name])?;
            Ok(transaction.execute("DELETE FROM schemas WHERE name = ?", [name])? > 0)
        })
    }

    /// Adds a table, in place of one of the same name when `replace`. Returns whether it was added.
    pub fn create_table(&mut self, table: &NewTable, replace: bool) -> Result<bool> {
        self.commit(|transaction| {
            let known: Option<i64> = transaction
                .query_row(
                    "SELECT table_id FROM tables WHERE schema_name = ? AND name = ?",
                    params![table.schema_name, table.name],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(table_id) = known {
                if !replace {
                    return Ok(false);
                }
                transaction.execute("DELETE FROM tables WHERE table_id = ?", [table_id])?;
            }
            transaction.execute(
                "INSERT INTO tables (schema_name, name, location, schema_ipc) VALUES (?, ?, ?, ?)",
                params![table.schema_name, table.name, table.location, table.schema_ipc],
            )?;
            let table_id = transaction.last_insert_rowid();
            for file in &table.files {
                insert_file(transaction, table_id, file)?;
            }
            Ok(true)
        })
    }

    /// Drops a table; its files stay. Returns whether it was there.
    pub fn drop_table(&mut self, schema_name: &str, name: &str) -> Result<bool> {
        self.commit(|transaction| {
            Ok(transaction.execute("DELETE FROM tables WHERE schema_name = ? AND name = ?", params![schema_name, name])? > 0)
        })
    }

    fn commit<T>(&mut self, change: impl FnOnce(&Transaction) -> Result<T>) -> Result<T> {
        let transaction = self.connection.transaction()?;
        let value = change(&transaction)?;
        transaction.execute("UPDATE catalog_version SET version = version + 1", [])?;
        transaction.commit()?;
        Ok(value)
    }
}

fn insert_file(transaction: &Transaction, table_id: i64, file: &NewFile) -> Result<()> {
    let facts = &file.facts;
    let row_groups = serde_json::to_string(&facts.row_groups).map_err(|error| Error::bug(error.to_string()))?;
    transaction.prepare_cached(
        "INSERT INTO files (table_id, store_url, path, size_bytes, version, row_count, row_groups, footer_hash, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        table_id,
        file.store_url,
        file.path,
        facts.size_bytes as i64,
        facts.version,
        facts.row_count as i64,
        row_groups,
        facts.footer_hash,
        facts.checksum
    ])?;
    let file_id = transaction.last_insert_rowid();
    for (index, column) in facts.columns.iter().enumerate() {
        transaction.prepare_cached("INSERT INTO column_statistics VALUES (?, ?, ?, ?, ?)")?.execute(params![
            file_id,
            index as i64,
            column.min,
            column.max,
            column.null_count.map(|count| count as i64)
        ])?;
    }
    for (node, version) in &file.homes {
        transaction.prepare_cached("INSERT INTO placement VALUES (?, ?, ?)")?.execute(params![file_id, node, version])?;
    }
    Ok(())
}
