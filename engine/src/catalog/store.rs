//! The catalog database: one SQLite file beside the coordinator.
//!
//! Written in one transaction a statement; read once at start and after each commit into an immutable [`Snapshot`](super::Snapshot),
//! so that planning never waits for the disk.

mod volume_ids;

use super::footer::StatisticsSum;
use super::integrity::{CATALOG_FILE, CATALOG_MODE};
use super::location::Location;
use super::{CatalogFile, Snapshot, Table, TableDetails, footer, integrity, scan_schema};
use crate::control::{FileFacts, RowGroupFacts, now_ms};
use crate::error::{Error, Result};
use crate::result_types::plain_columns;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
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

/// What each layout added to the one before it: the database is brought up to date when it is opened.
const UPGRADES: [&str; 5] = [
    TABLES,
    "
ALTER TABLE tables ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tables ADD COLUMN replicas INTEGER NOT NULL DEFAULT 1;
ALTER TABLE tables ADD COLUMN regions TEXT NOT NULL DEFAULT '[]';
CREATE TABLE draining_nodes (node_id TEXT PRIMARY KEY) WITHOUT ROWID;
",
    "
ALTER TABLE tables ADD COLUMN statistics TEXT;
ALTER TABLE files ADD COLUMN columns TEXT NOT NULL DEFAULT '[]';
UPDATE files SET columns = (
  SELECT json_group_array(json_object('min', c.min, 'max', c.max, 'null_count', c.null_count) ORDER BY c.column_index)
  FROM column_statistics c WHERE c.file_id = files.file_id);
DROP TABLE column_statistics;
",
    "
ALTER TABLE tables ADD COLUMN managed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tables ADD COLUMN details TEXT NOT NULL DEFAULT '{}';
CREATE TABLE pending_files (
  node_id TEXT NOT NULL, volume TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (node_id, volume, path)) WITHOUT ROWID;
CREATE TABLE discarded_files (
  node_id TEXT NOT NULL, volume TEXT NOT NULL, path TEXT NOT NULL, since_ms INTEGER NOT NULL,
  PRIMARY KEY (node_id, volume, path)) WITHOUT ROWID;
",
    "
CREATE TABLE volumes (
  node_id TEXT NOT NULL, volume TEXT NOT NULL, volume_id TEXT NOT NULL, PRIMARY KEY (node_id, volume)) WITHOUT ROWID;
",
];

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
    /// Copies of each file.
    pub replicas: u32,
    /// Regions it is pinned to; empty for none.
    pub regions: Vec<String>,
    /// Whether the cluster writes its files.
    pub managed: bool,
    /// What was declared beside the columns' types.
    pub details: TableDetails,
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

/// A file of a managed table on a node: (node, volume, path).
pub type PlacedFile = (String, String, String);

/// How a statement changes the files of a managed table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChange {
    /// The new ones join those that are there.
    Append,
    /// The new ones take the place of those that are there.
    Replace,
}

/// The open database.
pub struct CatalogStore {
    connection: Connection,
}

impl CatalogStore {
    /// Opens or creates `catalog.sqlite` in `folder`, which is there.
    pub fn open(folder: &Path) -> Result<Self> {
        let place = |what: &str, error: &dyn std::fmt::Display| {
            Error::user(format!(
                "the catalog folder {} {what}: {error}; point coordinator.data_dir at a folder this user may write",
                folder.display()
            ))
        };
        let path = folder.join(CATALOG_FILE);
        if !path.exists() {
            tracing::warn!(folder = %folder.display(), "there is no catalog in this folder: an empty one is made; if there should be one, look at coordinator.data_dir");
        }
        make_private(folder).map_err(|error| place("cannot hold a database", &error))?;
        let connection = Connection::open(&path).map_err(|error| place("cannot hold a database", &error))?;
        integrity::check(&connection, &path)?;
        // WAL with FULL: a committed statement survives kill -9 and power loss.
        connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=5000;")?;
        let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let known = UPGRADES.len() as i64;
        if layout > known {
            return Err(Error::user(format!(
                "the catalog in {} has layout {layout}, this release knows {known}: start the newer release again",
                folder.display()
            )));
        }
        for (from, upgrade) in UPGRADES.iter().enumerate().skip(layout.max(0) as usize) {
            connection.execute_batch(&format!("BEGIN; {upgrade} PRAGMA user_version={}; COMMIT;", from + 1))?;
        }
        connection.execute("INSERT OR IGNORE INTO schemas VALUES ('public')", [])?;
        connection.execute("INSERT INTO catalog_version SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM catalog_version)", [])?;
        let store = Self { connection };
        // What the last coordinator was writing when it ended belongs to no table.
        store.give_up_pending(None)?;
        store.sum_statistics()?;
        Ok(store)
    }

    /// Sums up the statistics of tables of older layouts. A start reads the sums: there may be millions of columns of files.
    fn sum_statistics(&self) -> Result<()> {
        let mut unknown = self.connection.prepare("SELECT table_id FROM tables WHERE statistics IS NULL")?;
        let unknown: Vec<i64> = unknown.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for table_id in unknown {
            let files: Vec<i64> = {
                let mut statement = self.connection.prepare_cached("SELECT file_id FROM files WHERE table_id = ?")?;
                statement.query_map([table_id], |row| row.get(0))?.collect::<Result<_, _>>()?
            };
            let mut sum = StatisticsSum::default();
            for file_id in files {
                sum.add(&self.file(file_id)?.facts);
            }
            self.connection.execute("UPDATE tables SET statistics = ? WHERE table_id = ?", params![sum_text(&sum)?, table_id])?;
        }
        Ok(())
    }

    /// Everything, as one immutable value. Tables that have not changed since `before` are taken from there.
    pub fn snapshot(&self, before: Option<&Snapshot>) -> Result<Snapshot> {
        let version = self.connection.query_row("SELECT version FROM catalog_version", [], |row| row.get(0))?;
        let known: HashMap<i64, &Arc<Table>> = before.into_iter().flat_map(Snapshot::tables).map(|table| (table.table_id, table)).collect();
        let mut schemas: BTreeMap<String, BTreeMap<String, Arc<Table>>> = BTreeMap::new();
        for name in self.connection.prepare("SELECT name FROM schemas")?.query_map([], |row| row.get::<_, String>(0))? {
            schemas.insert(name?, BTreeMap::new());
        }
        let mut statement = self
            .connection
            .prepare("SELECT table_id, schema_name, name, location, schema_ipc, revision, replicas, regions, statistics, managed, details FROM tables")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (table_id, revision): (i64, i64) = (row.get(0)?, row.get(5)?);
            let table = match known.get(&table_id).filter(|table| table.revision == revision) {
                Some(table) => Arc::clone(table),
                None => Arc::new(self.table(row)?),
            };
            schemas.entry(table.schema_name.clone()).or_default().insert(table.name.clone(), table);
        }
        let mut statement = self.connection.prepare("SELECT node_id FROM draining_nodes")?;
        let draining = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(Snapshot { version, schemas, draining })
    }

    fn table(&self, row: &Row) -> Result<Table> {
        let (table_id, schema_name, name): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (location_text, schema_ipc, regions): (String, String, String) = (row.get(3)?, row.get(4)?, row.get(7)?);
        let damaged = |what: &str, why: String| Error::bug(format!("the catalog's {what} of {schema_name}.{name} is damaged: {why}"));
        // Releases before this one kept large strings and other layouts.
        let stored = plain_columns(&footer::decode_schema(&schema_ipc).map_err(|why| damaged("schema", why))?);
        let details: TableDetails = serde_json::from_str(&row.get::<_, String>(10)?).map_err(|why| damaged("details", why.to_string()))?;
        let scan_schema = Arc::new(scan_schema(&stored));
        let files = self.files(table_id)?;
        let sum = StatisticsSum::decode(&row.get::<_, String>(8)?).map_err(|why| damaged("statistics", why))?;
        Ok(Table {
            table_id,
            revision: row.get(5)?,
            location: Location::parse(&location_text)?,
            location_text,
            stored_schema: Arc::new(stored),
            statistics: sum.finish(&scan_schema),
            scan_schema,
            files,
            replicas: row.get(6)?,
            managed: row.get(9)?,
            defaults: super::defaults::decode(&details.defaults)?,
            details,
            regions: serde_json::from_str(&regions).map_err(|why| damaged("list of regions", why.to_string()))?,
            schema_name,
            name,
        })
    }

    fn files(&self, table_id: i64) -> Result<Vec<Arc<CatalogFile>>> {
        // Two streams in the order of file ids, merged: a table may have a million files.
        let mut names: HashMap<String, Arc<str>> = HashMap::new();
        let mut shared = |text: String| names.entry(text).or_insert_with_key(|text| text.as_str().into()).clone();
        let mut statement = self.connection.prepare_cached(
            "SELECT p.file_id, p.node_id, p.version FROM placement p JOIN files f USING (file_id) WHERE f.table_id = ? ORDER BY p.file_id, p.node_id",
        )?;
        let mut homes = statement.query_map([table_id], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.peekable();
        let mut statement = self.connection.prepare_cached(
            "SELECT file_id, store_url, path, size_bytes, version, row_count, row_groups, checksum FROM files WHERE table_id = ? ORDER BY file_id",
        )?;
        let mut rows = statement.query([table_id])?;
        let mut files = vec![];
        while let Some(row) = rows.next()? {
            let file_id: i64 = row.get(0)?;
            let (path, row_groups): (String, String) = (row.get(2)?, row.get(6)?);
            let row_groups = row_groups_of(&path, &row_groups)?;
            let homes: Vec<(String, i64)> = of_file(&mut homes, file_id)?;
            let file = CatalogFile {
                file_id,
                store_url: shared(row.get(1)?),
                path,
                size_bytes: row.get::<_, i64>(3)? as u64,
                version: row.get(4)?,
                row_count: row.get::<_, i64>(5)? as u64,
                row_groups: row_groups.into(),
                checksum: row.get(7)?,
                homes: homes.into_iter().map(|(node, version)| (shared(node), version)).collect(),
            };
            files.push(Arc::new(file));
        }
        Ok(files)
    }

    /// All that is stored of a file.
    pub fn file(&self, file_id: i64) -> Result<NewFile> {
        let pairs = |sql: &str| -> Result<Vec<(String, i64)>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map([file_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let homes = pairs("SELECT node_id, version FROM placement WHERE file_id = ? ORDER BY node_id")?;
        let mut statement = self.connection.prepare_cached(
            "SELECT f.store_url, f.path, f.size_bytes, f.version, f.row_count, f.row_groups, f.footer_hash, f.checksum, t.schema_ipc, f.columns FROM files f JOIN tables t USING (table_id) WHERE f.file_id = ?",
        )?;
        let file = statement.query_row([file_id], |row| {
            let facts = FileFacts {
                size_bytes: row.get::<_, i64>(2)? as u64,
                version: row.get(3)?,
                row_count: row.get::<_, i64>(4)? as u64,
                row_groups: vec![],
                footer_hash: row.get(6)?,
                checksum: row.get(7)?,
                schema_ipc: row.get(8)?,
                columns: vec![],
            };
            Ok((NewFile { store_url: row.get(0)?, path: row.get(1)?, facts, homes }, row.get::<_, String>(5)?, row.get::<_, String>(9)?))
        })?;
        let (mut file, row_groups, columns) = file;
        file.facts.columns = serde_json::from_str(&columns)
            .map_err(|why| Error::bug(format!("the catalog's statistics of {} are damaged: {why}", file.path)))?;
        file.facts.row_groups = row_groups_of(&file.path, &row_groups)?;
        Ok(file)
    }

    /// Adds a schema. Returns whether it was new.
    pub fn create_schema(&mut self, name: &str) -> Result<bool> {
        self.commit(|transaction| Ok(transaction.execute("INSERT OR IGNORE INTO schemas VALUES (?)", [name])? > 0))
    }

    /// Drops a schema with its tables. Returns whether it was there.
    pub fn drop_schema(&mut self, name: &str) -> Result<bool> {
        self.commit(|transaction| {
            discard_files(transaction, "t.schema_name = ?", [name])?;
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
                discard_files(transaction, "t.table_id = ?", [table_id])?;
                transaction.execute("DELETE FROM tables WHERE table_id = ?", [table_id])?;
            }
            let mut sum = StatisticsSum::default();
            table.files.iter().for_each(|file| sum.add(&file.facts));
            let regions = regions_text(&table.regions)?;
            let details = serde_json::to_string(&table.details).map_err(|error| Error::bug(error.to_string()))?;
            transaction.execute(
                "INSERT INTO tables (schema_name, name, location, schema_ipc, replicas, regions, statistics, managed, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    table.schema_name,
                    table.name,
                    table.location,
                    table.schema_ipc,
                    table.replicas,
                    regions,
                    sum_text(&sum)?,
                    table.managed,
                    details
                ],
            )?;
            let table_id = transaction.last_insert_rowid();
            for file in &table.files {
                insert_file(transaction, table_id, file)?;
                no_longer_pending(transaction, file)?;
            }
            Ok(true)
        })
    }

    /// Changes the files of a managed table. Returns whether it is there still.
    pub fn change_files(&mut self, table_id: i64, files: &[NewFile], change: FileChange) -> Result<bool> {
        self.commit(|transaction| {
            let statement = "SELECT statistics FROM tables WHERE table_id = ? AND managed = 1";
            let known: Option<String> = transaction.query_row(statement, [table_id], |row| row.get(0)).optional()?;
            let Some(known) = known else { return Ok(false) };
            let mut sum = match change {
                FileChange::Append => {
                    StatisticsSum::decode(&known).map_err(|why| Error::bug(format!("a table's statistics are damaged: {why}")))?
                }
                FileChange::Replace => {
                    discard_files(transaction, "t.table_id = ?", [table_id])?;
                    transaction.execute("DELETE FROM files WHERE table_id = ?", [table_id])?;
                    StatisticsSum::default()
                }
            };
            for file in files {
                sum.add(&file.facts);
                insert_file(transaction, table_id, file)?;
                no_longer_pending(transaction, file)?;
            }
            transaction.execute("UPDATE tables SET statistics = ? WHERE table_id = ?", params![sum_text(&sum)?, table_id])?;
            touch(transaction, table_id)?;
            Ok(true)
        })
    }

    /// Whether a table is there as it was at this revision: no statement has changed it since.
    pub fn is_unchanged(&self, table_id: i64, revision: i64) -> Result<bool> {
        let statement = "SELECT EXISTS (SELECT 1 FROM tables WHERE table_id = ? AND revision = ?)";
        Ok(self.connection.query_row(statement, [table_id, revision], |row| row.get(0))?)
    }

    /// Notes that a file is about to be written: if nothing is heard of it again, it is garbage.
    pub fn pend(&self, (node, volume, path): &PlacedFile) -> Result<()> {
        self.connection.prepare_cached("INSERT INTO pending_files VALUES (?, ?, ?)")?.execute(params![node, volume, path])?;
        Ok(())
    }

    /// Gives up a file that was about to be written, or all of them.
    pub fn give_up_pending(&self, only: Option<&PlacedFile>) -> Result<()> {
        let now = now_ms() as i64;
        let (condition, values) = match only {
            Some((node, volume, path)) => ("WHERE node_id = ? AND volume = ? AND path = ?", vec![node, volume, path]),
            None => ("", vec![]),
        };
        let discard = format!("INSERT OR IGNORE INTO discarded_files SELECT node_id, volume, path, {now} FROM pending_files {condition}");
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute(&discard, rusqlite::params_from_iter(&values))?;
        transaction.execute(&format!("DELETE FROM pending_files {condition}"), rusqlite::params_from_iter(&values))?;
        Ok(transaction.commit()?)
    }

    /// Files that no table has any more, with the Unix milliseconds since when.
    pub fn discarded(&self) -> Result<Vec<(PlacedFile, i64)>> {
        let mut statement = self.connection.prepare_cached("SELECT node_id, volume, path, since_ms FROM discarded_files")?;
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Paths of files that are being written, or belong to no table any more.
    pub fn uncommitted_paths(&self) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare("SELECT path FROM pending_files UNION SELECT path FROM discarded_files")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets discarded files that are gone from their nodes.
    pub fn forget_discarded(&self, files: &[PlacedFile]) -> Result<()> {
        for (node, volume, path) in files {
            self.connection
                .prepare_cached("DELETE FROM discarded_files WHERE node_id = ? AND volume = ? AND path = ?")?
                .execute(params![node, volume, path])?;
        }
        Ok(())
    }

    /// Drops a table. The files of an external one stay. Returns whether it was there.
    pub fn drop_table(&mut self, schema_name: &str, name: &str) -> Result<bool> {
        self.commit(|transaction| {
            discard_files(transaction, "t.schema_name = ? AND t.name = ?", [schema_name, name])?;
            Ok(transaction.execute("DELETE FROM tables WHERE schema_name = ? AND name = ?", params![schema_name, name])? > 0)
        })
    }

    /// Sets how many copies a table's files have, and which regions it is pinned to; `None` leaves what is.
    pub fn alter_table(&mut self, table_id: i64, replicas: Option<u32>, regions: Option<&[String]>) -> Result<()> {
        self.commit(|transaction| {
            if let Some(replicas) = replicas {
                transaction.execute("UPDATE tables SET replicas = ? WHERE table_id = ?", params![replicas, table_id])?;
            }
            if let Some(regions) = regions {
                transaction.execute("UPDATE tables SET regions = ? WHERE table_id = ?", params![regions_text(regions)?, table_id])?;
            }
            touch(transaction, table_id)
        })
    }

    /// Sets what was declared of a table.
    pub fn set_details(&mut self, table_id: i64, details: &TableDetails) -> Result<()> {
        let details = serde_json::to_string(details).map_err(|error| Error::bug(error.to_string()))?;
        self.commit(|transaction| {
            transaction.execute("UPDATE tables SET details = ? WHERE table_id = ?", params![details, table_id])?;
            touch(transaction, table_id)
        })
    }

    /// Notes the hashes of files' content, as (table id, file id, hash).
    pub fn set_checksums(&mut self, checksums: &[(i64, i64, String)]) -> Result<()> {
        self.commit(|transaction| {
            for (table_id, file_id, checksum) in checksums {
                transaction
                    .prepare_cached("UPDATE files SET checksum = ? WHERE file_id = ? AND table_id = ?")?
                    .execute(params![checksum, file_id, table_id])?;
            }
            let tables: BTreeSet<i64> = checksums.iter().map(|(table_id, _, _)| *table_id).collect();
            tables.into_iter().try_for_each(|table_id| touch(transaction, table_id))
        })
    }

    /// Notes that a node is to be emptied, or no longer.
    pub fn set_draining(&mut self, node_id: &str, draining: bool) -> Result<()> {
        let sql = match draining {
            true => "INSERT OR IGNORE INTO draining_nodes VALUES (?)",
            false => "DELETE FROM draining_nodes WHERE node_id = ?",
        };
        self.commit(|transaction| Ok(transaction.execute(sql, [node_id]).map(|_| ())?))
    }

    fn commit<T>(&mut self, change: impl FnOnce(&Transaction) -> Result<T>) -> Result<T> {
        let transaction = self.connection.transaction()?;
        let value = change(&transaction)?;
        transaction.execute("UPDATE catalog_version SET version = version + 1", [])?;
        transaction.commit()?;
        Ok(value)
    }
}

/// Makes the database's file where it is missing, and takes it and those that SQLite has beside it away from other users. New ones beside it
/// get the mode of the database.
fn make_private(folder: &Path) -> std::io::Result<()> {
    let open = std::fs::OpenOptions::new().append(true).create(true).mode(CATALOG_MODE).open(folder.join(CATALOG_FILE))?;
    open.set_permissions(std::fs::Permissions::from_mode(CATALOG_MODE))?;
    for beside in ["-wal", "-shm"] {
        let path = folder.join(format!("{CATALOG_FILE}{beside}"));
        if path.exists() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(CATALOG_MODE))?;
        }
    }
    Ok(())
}

/// The next rows of a stream that belong to this file; both streams are in the order of file ids.
fn of_file<T>(rows: &mut Peekable<impl Iterator<Item = rusqlite::Result<(i64, T)>>>, file_id: i64) -> Result<Vec<T>> {
    let mut own = vec![];
    while let Some(row) = rows.next_if(|row| !matches!(row, Ok((of, _)) if *of != file_id)) {
        own.push(row?.1);
    }
    Ok(own)
}

/// Notes the files of managed tables as garbage, before their rows go.
fn discard_files(transaction: &Transaction, which: &str, values: impl rusqlite::Params) -> Result<()> {
    let now = now_ms();
    let sql = format!(
        "INSERT OR IGNORE INTO discarded_files
         SELECT p.node_id, rtrim(substr(f.store_url, length('node://') + 1), '/'), f.path, {now}
         FROM tables t JOIN files f USING (table_id) JOIN placement p USING (file_id) WHERE t.managed = 1 AND {which}"
    );
    Ok(transaction.execute(&sql, values).map(|_| ())?)
}

fn no_longer_pending(transaction: &Transaction, file: &NewFile) -> Result<()> {
    let volume = file.store_url.trim_start_matches("node://").trim_end_matches('/');
    for (node, _) in &file.homes {
        transaction
            .prepare_cached("DELETE FROM pending_files WHERE node_id = ? AND volume = ? AND path = ?")?
            .execute(params![node, volume, file.path])?;
    }
    Ok(())
}

/// The table changed: snapshots read it anew.
fn touch(transaction: &Transaction, table_id: i64) -> Result<()> {
    let sql = "UPDATE tables SET revision = 1 + (SELECT version FROM catalog_version) WHERE table_id = ?";
    Ok(transaction.execute(sql, [table_id]).map(|_| ())?)
}

/// Without them a file would read as empty: a damaged list is an error.
fn row_groups_of(path: &str, text: &str) -> Result<Vec<RowGroupFacts>> {
    serde_json::from_str(text).map_err(|why| Error::bug(format!("the catalog's row groups of {path} are damaged: {why}")))
}

fn regions_text(regions: &[String]) -> Result<String> {
    serde_json::to_string(regions).map_err(|error| Error::bug(error.to_string()))
}

fn sum_text(sum: &StatisticsSum) -> Result<String> {
    sum.encode().map_err(|why| Error::bug(format!("statistics of a table cannot be stored: {why}")))
}

fn insert_file(transaction: &Transaction, table_id: i64, file: &NewFile) -> Result<()> {
    let facts = &file.facts;
    let row_groups = serde_json::to_string(&facts.row_groups).map_err(|error| Error::bug(error.to_string()))?;
    let columns = serde_json::to_string(&facts.columns).map_err(|error| Error::bug(error.to_string()))?;
    transaction.prepare_cached(
        "INSERT INTO files (table_id, store_url, path, size_bytes, version, row_count, row_groups, footer_hash, checksum, columns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
        facts.checksum,
        columns
    ])?;
    let file_id = transaction.last_insert_rowid();
    for (node, version) in &file.homes {
        transaction.prepare_cached("INSERT INTO placement VALUES (?, ?, ?)")?.execute(params![file_id, node, version])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ColumnFacts;
    use arrow::datatypes::{DataType, Field, Schema};

    #[test]
    fn a_catalog_of_the_second_layout_keeps_its_files_and_statistics() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(folder.path().join("catalog.sqlite")).unwrap();
        old.execute_batch(&format!("{} {} PRAGMA user_version=2;", UPGRADES[0], UPGRADES[1])).unwrap();
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
        let schema_ipc = footer::encode_schema(&schema).unwrap();
        old.execute("INSERT INTO schemas VALUES ('public')", []).unwrap();
        old.execute(
            "INSERT INTO tables (table_id, schema_name, name, location, schema_ipc) VALUES (7, 'public', 't', 'node://*/data/t/', ?)",
            [schema_ipc],
        )
        .unwrap();
        for file_id in 1..=2 {
            let groups = "[{\"offset\":4,\"rows\":5,\"bytes\":90}]";
            old.execute(
                "INSERT INTO files VALUES (?1, 7, 'node://data', 't/' || ?1, 100, ?1, 5, ?2, 'hash', NULL)",
                params![file_id, groups],
            )
            .unwrap();
            // Written last to first: what counts is the index.
            old.execute("INSERT INTO column_statistics VALUES (?1, 1, NULL, NULL, NULL), (?1, 0, 'OAI=', 'OAo=', ?1)", [file_id]).unwrap();
            old.execute("INSERT INTO placement VALUES (?1, 'node-1', ?1)", [file_id]).unwrap();
        }
        drop(old);
        for _ in 0..2 {
            let store = CatalogStore::open(folder.path()).unwrap();
            let file = store.file(2).unwrap();
            let first = ColumnFacts { min: Some("OAI=".into()), max: Some("OAo=".into()), null_count: Some(2) };
            assert_eq!((file.facts.columns, file.homes), (vec![first, ColumnFacts::default()], vec![("node-1".to_string(), 2)]));
            let snapshot = store.snapshot(None).unwrap();
            let table = snapshot.table("public", "t").unwrap();
            assert_eq!((table.files.len(), table.statistics.num_rows.get_value()), (2, Some(&10)));
            let columns = &table.statistics.column_statistics;
            assert_eq!((columns[0].null_count.get_value(), columns[1].null_count.get_value()), (Some(&3), None));
            assert_eq!(columns[0].max_value.get_value(), Some(&datafusion::common::ScalarValue::Int64(Some(10))));
        }
    }
}
