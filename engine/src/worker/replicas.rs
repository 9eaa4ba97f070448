//! The worker's side of replication: makes the copies that the coordinator orders, deletes those it no longer wants.
//!
//! A copy is written beside its place, hashed as it arrives, synced, and renamed: a file in the replica folder is whole and has the content that
//! its name says, whatever ended in between.

use crate::control::{FailedCopy, FetchReplica, Orders, REPLICA_FOLDER, Replica};
use crate::error::{Error, Result, of_io};
use crate::fragment::transport::ClusterChannels;
use crate::limits;
use crate::worker::files;
use crate::worker::inventory::disk_version;
use crate::worker::scrub::DAMAGED_ENDING;
use crate::worker::volumes::{Volumes, make_folders};
use parking_lot::Mutex;
use sha2::Digest;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use url::Url;

/// A copy by volume and checksum.
type Key = (String, String);

/// Keeps the replicas of a node's volumes. Clones share it.
#[derive(Clone)]
pub struct Replicas {
    inner: Arc<Inner>,
}

struct Inner {
    checked: Arc<Volumes>,
    volumes: BTreeMap<String, PathBuf>,
    channels: ClusterChannels,
    /// Bytes a second over all copies; 0 for no limit.
    bytes_per_second: u64,
    at_once: Semaphore,
    /// When the bytes that were let through so far are used up.
    paid_until: Mutex<Instant>,
    running: Mutex<HashSet<Key>>,
    failed: Mutex<Vec<FailedCopy>>,
    /// Copies that are no longer shown and are deleted then: queries that were placed on them may still read them.
    condemned: Mutex<HashMap<Key, Instant>>,
}

impl Replicas {
    /// Over these volumes (name to folder), which are `checked` before they are written.
    pub fn new(checked: Arc<Volumes>, volumes: BTreeMap<String, PathBuf>, channels: ClusterChannels, bytes_per_second: u64) -> Self {
        let inner = Inner {
            checked,
            volumes,
            channels,
            bytes_per_second,
            at_once: Semaphore::new(limits::REPLICAS_AT_ONCE),
            paid_until: Mutex::new(Instant::now()),
            running: Mutex::default(),
            failed: Mutex::default(),
            condemned: Mutex::default(),
        };
        inner.remove_torn();
        Self { inner: Arc::new(inner) }
    }

    /// Whole copies that are to be shown. Blocking.
    pub fn list(&self) -> Vec<Replica> {
        let condemned = self.inner.condemned.lock();
        let mut found = vec![];
        for (volume, root) in &self.inner.volumes {
            for (checksum, path) in stored(&root.join(REPLICA_FOLDER)) {
                let (Ok(metadata), false) = (std::fs::metadata(&path), condemned.contains_key(&(volume.clone(), checksum.clone()))) else {
                    continue;
                };
                found.push(Replica { volume: volume.clone(), checksum, size_bytes: metadata.len(), version: disk_version(&metadata) });
            }
        }
        found
    }

    /// Failures since the last call.
    pub fn failures(&self) -> Vec<FailedCopy> {
        std::mem::take(&mut *self.inner.failed.lock())
    }

    /// Starts what is ordered and not on its way yet.
    pub fn follow(&self, orders: Orders) {
        let now = Instant::now();
        {
            let mut condemned = self.inner.condemned.lock();
            for key in orders.discard {
                condemned.entry(key).or_insert(now + limits::REPLICA_DISCARD_AFTER);
            }
            condemned.retain(|(volume, checksum), at| {
                if now < *at {
                    return true;
                }
                if let Some(path) = self.inner.place(volume, checksum) {
                    match std::fs::remove_file(&path) {
                        Ok(()) => tracing::info!(volume, checksum, "a copy that nobody needs was deleted"),
                        Err(error) => tracing::warn!(volume, checksum, %error, "a copy that nobody needs cannot be deleted"),
                    }
                }
                false
            });
        }
        for order in orders.fetch {
            let key = (order.volume.clone(), order.checksum.clone());
            // Wanted again before it was deleted: it is shown again.
            if self.inner.condemned.lock().remove(&key).is_some() || !self.inner.running.lock().insert(key.clone()) {
                continue;
            }
            let inner = self.inner.clone();
            tokio::spawn(async move {
                if let Err(error) = inner.fetch(&order).await {
                    tracing::warn!(volume = order.volume, checksum = order.checksum, %error, "a copy could not be made");
                    let failure = FailedCopy { volume: order.volume, checksum: order.checksum, reason: error.message() };
                    inner.failed.lock().push(failure);
                }
                inner.running.lock().remove(&key);
            });
        }
    }
}

/// What the operating system says while a file is written.
fn disk_of(path: &Path) -> impl Fn(std::io::Error) -> Error + Copy + '_ {
    move |error| of_io(&path.display().to_string(), "cannot be written", &error)
}

/// Whole copies below a replica folder, as (checksum, path).
fn stored(folder: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let whole = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let checksum = name.to_str()?.strip_suffix(".parquet")?.to_string();
        is_checksum(&checksum).then(|| (checksum, entry.path()))
    });
    whole.collect()
}

/// Whether a text is a SHA-256 in hexadecimal: it becomes part of a path.
fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl Inner {
    fn place(&self, volume: &str, checksum: &str) -> Option<PathBuf> {
        let root = self.volumes.get(volume)?;
        is_checksum(checksum).then(|| root.join(crate::control::replica_path(checksum)))
    }

    /// Removes what an earlier process left half written.
    fn remove_torn(&self) {
        for root in self.volumes.values() {
            let Ok(entries) = std::fs::read_dir(root.join(REPLICA_FOLDER)) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")) {
                if let Err(error) = std::fs::remove_file(entry.path()) {
                    tracing::warn!(path = %entry.path().display(), %error, "an unfinished copy cannot be removed");
                }
            }
        }
    }

    async fn fetch(&self, order: &FetchReplica) -> Result<()> {
        let Some(place) = self.place(&order.volume, &order.checksum) else {
            return Err(Error::user(format!("there is no volume '{}' for {}", order.volume, order.checksum)));
        };
        let _turn = self.at_once.acquire().await.map_err(|_| Error::retry("the worker is ending"))?;
        if tokio::fs::metadata(&place).await.is_ok_and(|found| found.len() == order.size_bytes) {
            return Ok(());
        }
        let mut last = Error::retry("nobody was named who has the file");
        for (address, path) in &order.sources {
            match self.fetch_from(address, path, order, &place).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn fetch_from(&self, address: &str, path: &str, order: &FetchReplica, place: &Path) -> Result<()> {
        let url = Url::parse(address).map_err(|error| Error::user(format!("'{address}' is no address of a worker: {error}")))?;
        let partial = place.with_extension("part");
        let written = self.write(&url, path, order, &partial).await;
        if let Err(error) = written {
            // It may not be there at all.
            let _ = tokio::fs::remove_file(&partial).await;
            return Err(error);
        }
        let disk = |error: std::io::Error| Error::retry(format!("{} cannot be put in its place: {error}", place.display()));
        tokio::fs::rename(&partial, place).await.map_err(disk)?;
        // Of the one before, if it was damaged.
        let _ = tokio::fs::remove_file(place.with_extension(DAMAGED_ENDING)).await;
        if let Some(folder) = place.parent() {
            // The new name is on disk only once its folder is.
            tokio::fs::File::open(folder).await.map_err(disk)?.sync_all().await.map_err(disk)?;
        }
        tracing::info!(volume = order.volume, checksum = order.checksum, from = address, bytes = order.size_bytes, "copy made");
        Ok(())
    }

    async fn write(&self, url: &Url, path: &str, order: &FetchReplica, partial: &Path) -> Result<()> {
        let disk = disk_of(partial);
        let (checked, volume, target) = (self.checked.clone(), order.volume.clone(), partial.to_path_buf());
        let folder_there = tokio::task::spawn_blocking(move || {
            let root = checked.writable(&volume)?;
            make_folders(root, &target).map_err(disk_of(&target))
        });
        folder_there.await.map_err(|error| Error::bug(error.to_string()))??;
        let mut file = tokio::fs::File::create(partial).await.map_err(disk)?;
        let mut hasher = sha2::Sha256::new();
        let mut received = 0u64;
        let mut parts = files::read(&self.channels, url, &order.volume, path).await?;
        while let Some(part) = parts.next().await? {
            received += part.len() as u64;
            if received > order.size_bytes {
                break;
            }
            self.pay(part.len() as u64).await;
            hasher.update(&part);
            file.write_all(&part).await.map_err(disk)?;
        }
        file.sync_all().await.map_err(disk)?;
        let checksum: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if received != order.size_bytes || checksum != order.checksum {
            return Err(Error::retry(format!(
                "what {url} sent for {path} is not the file that was asked for: {received} bytes with SHA-256 {checksum} instead of {} bytes with {}",
                order.size_bytes, order.checksum
            )));
        }
        Ok(())
    }

    /// Waits for the share of these bytes in the allowed rate.
    async fn pay(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let until = {
            let mut paid_until = self.paid_until.lock();
            *paid_until = (*paid_until).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            *paid_until
        };
        tokio::time::sleep_until(until.into()).await;
    }
}
