//! Folders that a process writes: catalog, spilled data, volumes.

use super::{Finding, Subject, mounts, problem};
use crate::config::Role;
use bowshot_engine::coordinator::data_folder;
use bowshot_engine::worker::volumes;
use rustix::fs::{Access, access};
use std::io;
use std::path::{Path, PathBuf};

/// Whether a folder can be written.
pub enum Written {
    /// It can.
    Yes,
    /// It is not there; it is made where that is possible.
    Missing,
    /// Why it cannot.
    No(io::Error),
}

impl Written {
    /// Asks the system, and writes nothing.
    pub fn of(folder: &Path) -> Self {
        match std::fs::metadata(folder) {
            Ok(found) if !found.is_dir() => Self::No(io::Error::from(io::ErrorKind::NotADirectory)),
            Ok(_) => match access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => Self::Yes,
                Err(error) => Self::No(error.into()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            Err(error) => Self::No(error),
        }
    }
}

/// Where a process spills, and the setting that says so.
pub fn spill_folder(set: Option<&PathBuf>) -> PathBuf {
    set.cloned().unwrap_or_else(std::env::temp_dir)
}

/// Folders that must be writable for a start or the first large query.
pub fn written(subject: &Subject) -> Vec<Finding> {
    let mut found = vec![];
    if subject.role == Role::Server {
        let config = &subject.config.coordinator;
        found.extend(catalog(&data_folder::absolute(&config.data_dir)));
        found.extend(spill("coordinator", config.spill_dir.as_ref(), config.spill_bytes_max));
    }
    if let Some(worker) = subject.worker() {
        found.extend(spill("worker", worker.spill_dir.as_ref(), worker.spill_bytes_max));
        if let Some(folder) = &worker.kernel_dir
            && let Written::No(error) = Written::of(folder)
        {
            found.push(Finding::Note(format!(
                "worker.kernel_dir {} cannot be written: {error}; kernels of a card are compiled again after each start",
                folder.display()
            )));
        }
    }
    found
}

fn catalog(folder: &Path) -> Option<Finding> {
    let refused = |what: &str, error: &io::Error| {
        problem(format!(
            "the catalog folder {} {what}: {error}; point coordinator.data_dir at a folder this user may write",
            folder.display()
        ))
    };
    match Written::of(folder) {
        Written::Yes => None,
        Written::No(error) => Some(refused("cannot be written", &error)),
        Written::Missing => {
            // It is made with all folders on the way.
            let there = folder.ancestors().skip(1).find(|above| above.exists())?;
            match Written::of(there) {
                Written::No(error) => Some(refused("cannot be created", &error)),
                Written::Yes | Written::Missing => None,
            }
        }
    }
}

fn spill(section: &str, set: Option<&PathBuf>, bytes_max: u64) -> Vec<Finding> {
    let folder = spill_folder(set);
    let refused = |what: &str, error: &dyn std::fmt::Display| match set {
        Some(_) => problem(format!(
            "the folder for spilled data, {}, {what}: {error}; point {section}.spill_dir at a folder this user may write",
            folder.display()
        )),
        // Only looked at by the first query that spills.
        None => Finding::Note(format!(
            "the system's temporary folder, {}, {what}: {error}; queries that spill fail, so point {section}.spill_dir at a folder this user may write",
            folder.display()
        )),
    };
    let mut found: Vec<Finding> = match Written::of(&folder) {
        Written::Yes => vec![],
        Written::No(error) => vec![refused("cannot be written", &error)],
        // One folder is made, not those above it.
        Written::Missing => match folder.parent().filter(|above| !above.as_os_str().is_empty()).map(Written::of) {
            None | Some(Written::Yes) => vec![],
            Some(Written::No(error)) => vec![refused("cannot be created", &error)],
            Some(Written::Missing) => vec![refused("cannot be created", &"the folder above it is not there")],
        },
    };
    if let Some(mount) = mounts::mount_of(&folder).filter(|mount| bytes_max > mount.total_bytes && mount.total_bytes > 0) {
        found.push(Finding::Note(format!(
            "{section}.spill_bytes_max is {}, but the disk of {} has {}: a query that spills fills it before it is refused",
            crate::figures::bytes(bytes_max),
            folder.display(),
            crate::figures::bytes(mount.total_bytes)
        )));
    }
    found
}

/// Folders that a living process has: most likely this one's own, which runs already.
pub fn in_use(subject: &Subject) -> Vec<Finding> {
    let mut found = vec![];
    if subject.role == Role::Server {
        found.extend(data_folder::in_use(&subject.config.coordinator.data_dir));
    }
    if let Some(worker) = subject.worker() {
        let of_volume = |(name, folder): (&String, &PathBuf)| volumes::in_use(&worker.node_id, name, folder);
        found.extend(worker.volumes.iter().filter_map(of_volume));
    }
    found.into_iter().map(Finding::Note).collect()
}

/// Volumes that are served as they are, because nothing can be written there.
pub fn volumes_as_they_are(subject: &Subject) -> Vec<Finding> {
    let volumes = subject.worker().into_iter().flat_map(|worker| &worker.volumes);
    let told = |(name, folder): (&String, &PathBuf)| match Written::of(folder) {
        Written::No(error) if folder.is_dir() => {
            Some(Finding::Note(format!("the volume '{name}' in {} cannot be written, and is served as it is: {error}", folder.display())))
        }
        _ => None,
    };
    volumes.filter_map(told).collect()
}
