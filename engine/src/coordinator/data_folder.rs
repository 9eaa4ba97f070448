//! The coordinator's folder: its catalog, and the lock that keeps a second coordinator out of it.
//!
//! Two coordinators over one catalog would not see each other's changes, and each would delete what the other has just begun to write.

use crate::error::{Error, ErrorClass, Result};
use crate::folder_lock::{FolderLock, LockRefused};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Name of the file that is locked.
const LOCK_FILE: &str = "lock";
/// The catalog knows the least and greatest values of every column: it is its owner's alone.
const MODE: u32 = 0o700;

/// The folder, held by this process.
pub struct DataFolder {
    path: PathBuf,
    _lock: FolderLock,
}

impl DataFolder {
    /// Makes the folder where it is missing, and takes its lock.
    ///
    /// # Errors
    /// When it cannot be made, or another process has it.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = absolute(folder);
        let shown = path.display();
        make(&path).map_err(|error| {
            Error::user(format!(
                "the catalog folder {shown} cannot be created: {error}; point coordinator.data_dir at a folder this user may write"
            ))
        })?;
        let lock = FolderLock::take_at_start(&path.join(LOCK_FILE), "coordinator").map_err(|why| refused(&path, &why))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder, from the root.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Who has the folder, if anybody does, in the words that a start would be refused with.
pub fn in_use(folder: &Path) -> Option<String> {
    let path = absolute(folder);
    let holder = FolderLock::holder_of(&path.join(LOCK_FILE))?;
    Some(refused(&path, &LockRefused::Held { holder }).message())
}

fn refused(folder: &Path, why: &LockRefused) -> Error {
    Error::new(
        ErrorClass::User,
        format!(
            "the catalog folder {} {why}, or point coordinator.data_dir at another folder: one server has a folder to itself",
            folder.display()
        ),
    )
}

/// A folder as everybody can find it, whatever folder this process was started in.
pub fn absolute(folder: &Path) -> PathBuf {
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())
}

/// Folders on the way to it have the usual mode: others may have a part in them.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(MODE).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}
