//! The file system that a folder lies on.

use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its kind: ext4, xfs, nfs4 …
    pub kind: String,
    /// Where it is mounted.
    pub point: PathBuf,
    pub free_bytes: u64,
    pub total_bytes: u64,
}

/// What a folder lies on; nothing where the system does not say.
pub fn mount_of(folder: &Path) -> Option<Mount> {
    let folder = folder.canonicalize().ok()?;
    let disk = rustix::fs::statvfs(&folder).ok()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (point, kind) = find(&table, &folder).unwrap_or_else(|| (PathBuf::from("/"), "an unknown file system".to_string()));
    Some(Mount {
        kind,
        point,
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
    })
}

/// The mount with the longest way in common; of several on one place the last covers those before.
fn find(table: &str, folder: &Path) -> Option<(PathBuf, String)> {
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = PathBuf::from(unescaped(before.split(' ').nth(4)?));
        let kind = after.split(' ').next()?.to_string();
        folder.starts_with(&point).then_some((point, kind))
    });
    mounts.max_by_key(|(point, _)| point.components().count())
}

/// Blanks in paths are written as octal numbers there.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_is_a_folders() {
        let table = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /srv rw shared:1 - xfs /dev/b rw\n3 1 8:3 / /srv/my\\040data ro - nfs4 host:/x ro\n4 1 8:4 / /srv ro - tmpfs none rw\n";
        let found = |path: &str| find(table, Path::new(path)).unwrap().1;
        assert_eq!(
            (found("/home"), found("/srv/x"), found("/srv/my data/y"), found("/srvx")),
            ("ext4".into(), "tmpfs".into(), "nfs4".into(), "ext4".into())
        );
    }

    #[test]
    fn this_folder_lies_on_something() {
        let folder = tempfile::tempdir().unwrap();
        assert!(mount_of(folder.path()).is_some_and(|mount| mount.total_bytes > 0));
    }
}
