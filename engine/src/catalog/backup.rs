//! A copy of the catalog, of a server that runs or does not: `bowshot backup`.
//!
//! SQLite copies one committed state into a file of its own, beside whoever writes meanwhile. The copy is checked before it gets its name: a file
//! that has the name of a backup is a whole one.

use super::integrity::{CATALOG_FILE, CATALOG_MODE, check};
use crate::error::{Error, Result, of_io};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
}
