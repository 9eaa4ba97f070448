//! A copy of the catalog, of a server that runs or does not: `bowshot backup`.
//!
//! SQLite copies one committed state into a file of its own, beside whoever writes meanwhile. The copy is checked before it gets its name: a file
//! that has the name of a backup is a whole one.

use super::store::CATALOG_FILE;
use crate::error::{Error, Result, of_io};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A catalog says much of what is in its tables: it is its owner's alone.
pub const CATALOG_MODE: u32 = 0o600;

/// How long a backup waits for a commit of the server.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Copies the catalog in `data_dir` to a file that is not there yet, or into a folder. Gives the file.
///
/// # Errors
/// When there is no catalog, it is damaged, or the copy cannot be written.
pub fn back_up(data_dir: &Path, to: &Path) -> Result<PathBuf> {
    let source = data_dir.join(CATALOG_FILE);
    if !source.is_file() {
        return Err(Error::not_found(format!(
            "there is no catalog in {}: name the server's folder with --data-dir or the setting coordinator.data_dir",
            data_dir.display()
        )));
    }
    let target = match to.is_dir() {
        true => to.join(format!("catalog-{}.sqlite", chrono::Utc::now().format("%Y%m%dT%H%M%S%.3fZ"))),
        false => to.to_path_buf(),
    };
    if target.exists() {
        return Err(Error::exists(format!("{} is there already: name another file, or a folder", target.display())));
    }
    let mut partial = target.clone().into_os_string();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let copied = copy(&source, &partial).and_then(|()| name(&partial, &target).map_err(|error| refused(&target, &error)));
    if copied.is_err() {
        // What was begun and not ended is no backup.
        let _ = fs::remove_file(&partial);
    }
    copied.map(|()| target)
}

fn copy(source: &Path, partial: &Path) -> Result<()> {
    // SQLite makes files for everybody to read. An empty one it fills.
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(CATALOG_MODE).open(partial);
    made.map_err(|error| refused(partial, &error))?;
    let connection = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_WAIT)?;
    let text = partial.to_str().ok_or_else(|| Error::user(format!("{} is no text: name another file", partial.display())))?;
    connection.execute("VACUUM INTO ?", [text])?;
    check(&Connection::open_with_flags(partial, OpenFlags::SQLITE_OPEN_READ_ONLY)?, partial)
}

fn name(partial: &Path, target: &Path) -> io::Result<()> {
    File::open(partial)?.sync_all()?;
    fs::rename(partial, target)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn refused(path: &Path, error: &io::Error) -> Error {
    of_io(&format!("the backup {}", path.display()), "cannot be written", error)
}

/// Reads every page of a catalog. A page that is damaged would give a part of the tables, or an error months later.
///
/// # Errors
/// [`ErrorClass::Storage`](crate::ErrorClass::Storage) with what is wrong, and how to go back to a backup.
pub fn check(connection: &Connection, path: &Path) -> Result<()> {
    let found: rusqlite::Result<String> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    let problem = match found {
        Ok(found) if found == "ok" => return Ok(()),
        Ok(found) => found,
        Err(error) => error.to_string(),
    };
    Err(damaged(path, &problem))
}

/// The error of a catalog that cannot be used.
pub fn damaged(path: &Path, problem: &str) -> Error {
    let shown = path.display();
    Error::new(
        crate::error::ErrorClass::Storage,
        format!(
            "the catalog {shown} is damaged: {problem}. Keep the file, delete {shown}-wal and {shown}-shm, put the newest copy of 'bowshot backup' in its place, and start again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::store::CatalogStore;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_backup_is_the_catalog_at_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = CatalogStore::open(folder.path()).unwrap();
        store.create_schema("before").unwrap();
        let copy = back_up(folder.path(), folder.path()).unwrap();
        store.create_schema("after").unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, CATALOG_MODE);
        assert!(back_up(folder.path(), &copy).unwrap_err().message().contains("is there already"));
        let other = tempfile::tempdir().unwrap();
        fs::copy(&copy, other.path().join(CATALOG_FILE)).unwrap();
        let restored = CatalogStore::open(other.path()).unwrap().snapshot(None).unwrap();
        assert!(restored.schemas.contains_key("before") && !restored.schemas.contains_key("after"));
    }

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
