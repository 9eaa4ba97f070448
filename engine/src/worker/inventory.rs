//! Inventory of a worker's volumes: which Parquet files are there, and what their footers say.
//!
//! Listing is cheap and happens before each heartbeat; a footer is parsed once per file version.

use crate::catalog::footer;
use crate::control::{HIDDEN_FOLDER, Replica, TABLE_FOLDER, UnreadableFile, VolumeFile, now_ms};
use crate::files::footer_bytes;
use crate::limits;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Identity of one version of a file on disk: volume, path, size in bytes, modification time in nanoseconds.
type FileVersion = (String, String, u64, i64);

/// What the last listing found.
#[derive(Default)]
pub struct Inventory {
    volumes: BTreeMap<String, PathBuf>,
    parsed: HashMap<FileVersion, Result<VolumeFile, String>>,
    checksums: HashMap<FileVersion, String>,
    files: Vec<VolumeFile>,
    unreadable: Vec<UnreadableFile>,
    replicas: Vec<Replica>,
    epoch: u64,
    listed_at_ms: u64,
}

impl Inventory {
    /// An inventory of `volumes` (name to folder), empty until the first [`refresh`](Self::refresh).
    pub fn new(volumes: BTreeMap<String, PathBuf>) -> Self {
        Self { volumes, ..Default::default() }
    }

    /// Counts the changes seen so far.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Readable files of the last listing.
    pub fn files(&self) -> &[VolumeFile] {
        &self.files
    }
    /// Copies of other nodes' files, as of the last listing.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }
    /// Files of the last listing that are no Parquet files; one without a path stands for those of an overfull volume that were not listed.
    pub fn unreadable(&self) -> &[UnreadableFile] {
        &self.unreadable
    }
    /// When the last listing began, in Unix milliseconds.
    pub fn listed_at_ms(&self) -> u64 {
        self.listed_at_ms
    }

    /// Lists the volumes again, parses footers of new versions and hashes the content of `wanted` files (`volume/path`), at most
    /// [`limits::HASHED_BYTES_A_BEAT`] and one file more in one call. `replicas` are the copies that the node keeps.
    /// Blocking: call it off the async threads.
    pub fn refresh(&mut self, wanted: &HashSet<String>, mut replicas: Vec<Replica>) {
        let listed_at_ms = now_ms();
        replicas.sort_by(|a, b| (&a.volume, &a.checksum).cmp(&(&b.volume, &b.checksum)));
        let mut hashed_bytes = 0;
        let (mut versions, mut overfull) = (vec![], vec![]);
        for (volume, root) in &self.volumes {
            let mut found = vec![];
            list_folder(root, root, 0, &mut found);
            if found.len() == limits::VOLUME_FILES_MAX {
                tracing::warn!(
                    volume,
                    limit = limits::VOLUME_FILES_MAX,
                    "the volume holds more files than the limit; the rest is not seen"
                );
                let reason = format!("it holds {} Parquet files or more, and no others are seen", limits::VOLUME_FILES_MAX);
                overfull.push(UnreadableFile { volume: volume.clone(), path: String::new(), reason });
            }
            versions.extend(found.into_iter().map(|(path, size, version)| (volume.clone(), path, size, version)));
        }
        versions.sort();
        let (mut files, mut unreadable) = (vec![], overfull);
        let mut parsed = HashMap::with_capacity(versions.len());
        for version in versions {
            let known = self.parsed.remove(&version).unwrap_or_else(|| parse(&self.volumes[&version.0], &version));
            match &known {
                Ok(file) => {
                    let mut file = file.clone();
                    let asked = !wanted.is_empty() && wanted.contains(&format!("{}/{}", file.volume, file.path));
                    if asked && hashed_bytes < limits::HASHED_BYTES_A_BEAT && !self.checksums.contains_key(&version) {
                        hashed_bytes += file.facts.size_bytes;
                        match content_checksum(&self.volumes[&version.0].join(&version.1)) {
                            Ok(checksum) => drop(self.checksums.insert(version.clone(), checksum)),
                            Err(error) => tracing::warn!(path = file.path, %error, "content could not be hashed"),
                        }
                    }
                    file.facts.checksum = self.checksums.get(&version).cloned();
                    files.push(file);
                }
                // One more than the limit says that there are others.
                Err(reason) if unreadable.len() <= limits::UNREADABLE_FILES_MAX => {
                    unreadable.push(UnreadableFile { volume: version.0.clone(), path: version.1.clone(), reason: reason.clone() })
                }
                Err(_) => {}
            }
            parsed.insert(version, known);
        }
        self.checksums.retain(|version, _| parsed.contains_key(version));
        self.parsed = parsed;
        if self.epoch == 0 || files != self.files || unreadable != self.unreadable || replicas != self.replicas {
            self.epoch += 1;
            self.replicas = replicas;
            self.files = files;
            self.unreadable = unreadable;
        }
        self.listed_at_ms = listed_at_ms;
    }
}

/// Version of a file on disk: its modification time in nanoseconds.
pub fn disk_version(metadata: &fs::Metadata) -> i64 {
    metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos() as i64)
}

fn list_folder(root: &Path, folder: &Path, depth: usize, found: &mut Vec<(String, u64, i64)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if found.len() >= limits::VOLUME_FILES_MAX {
            return;
        }
        let path = entry.path();
        // Links are followed only inside the volume: a link must not widen what the node serves.
        let Ok(real) = path.canonicalize() else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) && !root.canonicalize().is_ok_and(|root| real.starts_with(root)) {
            continue;
        }
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
        // Of what is hidden only the files of managed tables are shown.
        let way_to_tables = || path.strip_prefix(root).is_ok_and(|relative| Path::new(TABLE_FOLDER).starts_with(relative));
        if hidden && !way_to_tables() {
            continue;
        }
        if folder == root.join(HIDDEN_FOLDER) && !way_to_tables() {
            continue;
        }
        if metadata.is_dir() && depth < limits::VOLUME_DEPTH_MAX {
            list_folder(root, &path, depth + 1, found);
        } else if metadata.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
            let Ok(relative) = path.strip_prefix(root) else { continue };
            let Some(text) = relative.to_str() else { continue };
            found.push((text.replace('\\', "/"), metadata.len(), disk_version(&metadata)));
        }
    }
}

/// The file at a path of a volume as it is now.
pub fn parsed(root: &Path, volume: &str, path: &str) -> Result<VolumeFile, String> {
    let metadata = fs::metadata(root.join(path)).map_err(|error| error.to_string())?;
    parse(root, &(volume.to_string(), path.to_string(), metadata.len(), disk_version(&metadata)))
}

fn parse(root: &Path, (volume, path, size, version): &FileVersion) -> Result<VolumeFile, String> {
    let mut file = File::open(root.join(path)).map_err(|error| error.to_string())?;
    let facts = footer::file_facts(&footer_bytes::of_file(&mut file, *size)?, *size, *version)?;
    Ok(VolumeFile { volume: volume.clone(), path: path.clone(), facts })
}

/// SHA-256 of the whole file: decides whether two files of one name are copies.
pub fn content_checksum(path: &Path) -> std::io::Result<String> {
    use sha2::Digest;
    let mut file = File::open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Version of an object in a bucket: a hash of its entity tag, or its modification time where the server gives none.
pub fn object_version(meta: &object_store::ObjectMeta) -> i64 {
    match &meta.e_tag {
        Some(tag) => {
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write(tag.as_bytes());
            hasher.finish() as i64
        }
        None => meta.last_modified.timestamp_nanos_opt().unwrap_or(0),
    }
}
