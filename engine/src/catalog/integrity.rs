//! The catalog's file: its name, who may read it, and whether it is whole.

use crate::error::{Error, ErrorClass, Result};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// The catalog's name within its folder.
pub const CATALOG_FILE: &str = "catalog.sqlite";
/// A catalog says much of what is in its tables: it is its owner's alone.
pub const CATALOG_MODE: u32 = 0o600;

/// Reads every page of a catalog. A page that is damaged would give a part of the tables, or an error months later.
///
/// # Errors
/// [`ErrorClass::Storage`] with what is wrong, and how to go back to a backup.
pub fn check(connection: &Connection, path: &Path) -> Result<()> {
    let found: rusqlite::Result<String> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    let problem = match found {
        Ok(found) if found == "ok" => return Ok(()),
        Ok(found) => found,
        Err(error) => error.to_string(),
    };
    Err(damaged(path, &problem))
}

/// Reads every page of the catalog in `folder` and writes nothing; `false` where there is none.
///
/// # Errors
/// As [`check`], and when the file cannot be read.
pub fn look(folder: &Path) -> Result<bool> {
    let path = folder.join(CATALOG_FILE);
    if !path.exists() {
        return Ok(false);
    }
    let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(LOOK_WAIT)?;
    check(&connection, &path)?;
    Ok(true)
}

/// How long a look waits for a commit of the server.
const LOOK_WAIT: Duration = Duration::from_secs(2);

/// The error of a catalog that cannot be used.
pub fn damaged(path: &Path, problem: &str) -> Error {
    let shown = path.display();
    Error::new(
        ErrorClass::Storage,
        format!(
            "the catalog {shown} is damaged: {problem}. Keep the file, delete {shown}-wal and {shown}-shm, put the newest copy of 'bowshot backup' in its place, and start again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::store::CatalogStore;
    use std::fs;

    #[test]
    fn a_damaged_catalog_is_refused_with_the_way_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CATALOG_FILE);
        {
            let store = CatalogStore::open(folder.path()).unwrap();
            for table in 0..2000 {
                store.pend(&("node-1".into(), "data".into(), format!("file {table}"))).unwrap();
            }
        }
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4000..].fill(0xAB);
        fs::write(&path, bytes).unwrap();
        let said = CatalogStore::open(folder.path()).err().unwrap().message();
        assert!(said.contains("is damaged") && said.contains("bowshot backup"), "{said}");
        fs::write(&path, "this is no database, and long enough to be told from an empty one".repeat(20)).unwrap();
        let said = CatalogStore::open(folder.path()).err().unwrap().message();
        assert!(said.contains("is damaged"), "{said}");
    }
}
