//! A folder that one process at a time may use, held by a lock on a file in it.
//!
//! The operating system gives the lock up with its process, `kill -9` included: a lock that is held has a holder who lives. The file stays, and
//! says in words who holds it.

use crate::limits;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Only the owner reads who holds the lock.
const MODE: u32 = 0o600;

/// A lock that this process holds until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    path: PathBuf,
}

/// Why a lock could not be taken. Each text goes on after the name of the folder.
#[derive(Debug, thiserror::Error)]
pub enum LockRefused {
    /// Another process has it.
    #[error("is in use by {holder}: stop that process")]
    Held {
        /// Who, as far as the file says.
        holder: String,
    },
    /// The file system has no locks, as some network file systems.
    #[error("lies on a file system without file locks ({0}), where two processes could change it at once: mount it with locks")]
    Unsupported(io::Error),
    /// The file cannot be made or opened.
    #[error("cannot be locked: {0}")]
    File(io::Error),
}

impl FolderLock {
    /// Takes the lock of the file at `path`, which is made where it is missing; its folder is not. Waits for nobody. `name` says who this is.
    ///
    /// # Errors
    /// [`LockRefused`].
    pub fn take(path: &Path, name: &str) -> Result<Self, LockRefused> {
        let mut options = OpenOptions::new();
        let open = options.read(true).write(true).create(true).truncate(false).mode(MODE).open(path);
        let mut file = open.map_err(LockRefused::File)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockRefused::Held { holder: holder(&mut file) }),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => return Err(LockRefused::Unsupported(error)),
            Err(TryLockError::Error(error)) => return Err(LockRefused::File(error)),
        }
        let text = format!("{name}, process {}", std::process::id());
        // For people alone: a full disk does not keep anybody from the lock.
        let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// The same at the start of a process: one that is about to end has the lock for a moment more.
    ///
    /// # Errors
    /// [`LockRefused`].
    pub fn take_at_start(path: &Path, name: &str) -> Result<Self, LockRefused> {
        let until = Instant::now() + limits::FOLDER_LOCK_WAIT;
        loop {
            match Self::take(path, name) {
                Err(LockRefused::Held { .. }) if Instant::now() < until => std::thread::sleep(limits::FOLDER_LOCK_STEP),
                taken => return taken,
            }
        }
    }

    /// Who holds the lock of the file at `path`, if anybody does. Takes and writes nothing: for who only looks.
    pub fn holder_of(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(holder(&mut file)),
            _ => None,
        }
    }

    /// Whether the locked file is still the one at its path: a folder that was replaced has another.
    pub fn is_in_place(&self) -> bool {
        let identity = |found: io::Result<std::fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
        let own = identity(self.file.metadata());
        own.is_some() && own == identity(std::fs::metadata(&self.path))
    }
}

/// Bytes that are read of who holds a lock.
const HOLDER_BYTES_MAX: u64 = 200;

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // Its holder may be about to write who it is.
    let read = file.rewind().and_then(|()| file.take(HOLDER_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_string(),
        _ => "another process".to_string(),
    }
}

/// Network file systems without a lock service say one of these.
fn has_no_locks(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    error.kind() == io::ErrorKind::Unsupported || matches!(code, Some(rustix::io::Errno::NOLCK | rustix::io::Errno::NOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FolderLock::take(&path, "coordinator").unwrap();
        let refused = FolderLock::take(&path, "coordinator").unwrap_err().to_string();
        assert!(refused.contains(&format!("coordinator, process {}", std::process::id())), "{refused}");
        assert!(held.is_in_place());
        let seen = FolderLock::holder_of(&path).unwrap();
        assert!(seen.starts_with("coordinator, process"), "{seen}");
        std::fs::remove_file(&path).unwrap();
        assert!(!held.is_in_place());
        drop(held);
        FolderLock::take(&path, "worker").unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("worker, process "));
    }

    #[test]
    fn a_start_waits_for_one_that_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FolderLock::take(&path, "worker").unwrap();
        let ending = std::thread::spawn(move || {
            std::thread::sleep(limits::FOLDER_LOCK_STEP);
            drop(held);
        });
        FolderLock::take_at_start(&path, "worker").unwrap();
        ending.join().unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(matches!(FolderLock::take(&missing.join("lock"), "worker"), Err(LockRefused::File(_))));
        assert!(!missing.exists());
    }
}
