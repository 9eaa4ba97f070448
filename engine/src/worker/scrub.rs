//! Reads what the node keeps for the cluster again, slowly and without end, to find bytes that have changed on the disk.
//!
//! ```text
//!   managed file ──SHA-256──► coordinator compares with its catalog ──► order: set aside     <file>.parquet ──► <file>.damaged
//!   replica      ──SHA-256──► compared with its name                ──► set aside at once
//! ```
//!
//! A copy that is set aside is read no more: it is missing, and the cluster makes another of those that are whole. The bytes stay for whoever
//! wants to look at them, until the file's table is dropped. Nothing is set aside before it was read twice.

use super::WorkerNode;
use super::inventory::{content_checksum, disk_version};
use super::volumes::Volumes;
use crate::control::{HashedFile, REPLICA_FOLDER, SetAside, TABLE_FOLDER, UnreadableFile, is_table_file};
use crate::limits;
use parking_lot::Mutex;
use sha2::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Ending of a copy that was set aside.
pub const DAMAGED_ENDING: &str = "damaged";
/// What is said of it.
const DAMAGED_TEXT: &str = "its bytes are not those that were stored: its SHA-256 is another";

/// What a node's scrubber has found.
pub struct Scrubber {
    checked: Arc<Volumes>,
    folders: BTreeMap<String, PathBuf>,
    /// 0 for never, unless it is asked.
    bytes_per_second: u64,
    hashed: Mutex<Vec<HashedFile>>,
    /// The last wish of the coordinator's to read everything at once, and the last that was granted.
    asked: AtomicU64,
    granted: AtomicU64,
    setting_aside: AtomicBool,
}

impl Scrubber {
    /// Over these volumes (name to folder), which are `checked` before they are written.
    pub fn new(checked: Arc<Volumes>, folders: BTreeMap<String, PathBuf>, bytes_per_second: u64) -> Self {
        Self {
            checked,
            folders,
            bytes_per_second,
            hashed: Mutex::default(),
            asked: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            setting_aside: AtomicBool::new(false),
        }
    }

    /// Files of managed tables that were read since the last call.
    pub fn hashed(&self) -> Vec<HashedFile> {
        std::mem::take(&mut *self.hashed.lock())
    }

    /// Gives back what the coordinator did not hear.
    pub fn not_told(&self, files: Vec<HashedFile>) {
        let mut hashed = self.hashed.lock();
        hashed.extend(files);
        hashed.truncate(limits::SCRUBBED_A_BEAT);
    }

    /// The coordinator's wish to read everything at once; 0 for none, and another number for another wish.
    pub fn ask(&self, wish: u64) {
        if wish != 0 {
            self.asked.store(wish, Ordering::Release);
        }
    }

    /// Files of managed tables that were set aside. Blocking.
    pub fn damaged(&self) -> Vec<UnreadableFile> {
        let mut found = vec![];
        for (volume, root) in &self.folders {
            for (path, _) in files_of(root, TABLE_FOLDER, DAMAGED_ENDING) {
                let path = format!("{}parquet", path.trim_end_matches(DAMAGED_ENDING));
                // Whoever has the right file may put it back.
                if found.len() < limits::UNREADABLE_FILES_MAX && is_table_file(&path) && !root.join(&path).exists() {
                    found.push(UnreadableFile { volume: volume.clone(), path, reason: DAMAGED_TEXT.to_string() });
                }
            }
        }
        found
    }

    /// Follows orders to set copies aside, one batch at a time. Blocking.
    pub fn set_aside(&self, orders: &[SetAside]) {
        if self.setting_aside.swap(true, Ordering::AcqRel) {
            return;
        }
        for order in orders.iter().filter(|order| is_table_file(&order.path)) {
            let Some(root) = self.folders.get(&order.volume) else { continue };
            let path = root.join(&order.path);
            let is_version = fs::metadata(&path).is_ok_and(|found| disk_version(&found) == order.version);
            if is_version {
                self.set_aside_unless(&order.volume, &path, &order.checksum);
            }
        }
        self.setting_aside.store(false, Ordering::Release);
    }

    /// Reads a file once more and sets it aside, unless it is what it should be.
    fn set_aside_unless(&self, volume: &str, path: &Path, checksum: &str) {
        let shown = path.display();
        match content_checksum(path) {
            Ok(found) if found == checksum => {
                tracing::warn!(path = %shown, "a file was read wrongly once, and rightly now: look after this machine's memory and disk");
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::error!(path = %shown, %error, "a file cannot be read"),
        }
        let moved = self.checked.writable(volume).map_err(io::Error::other).and_then(|_| {
            fs::rename(path, path.with_extension(DAMAGED_ENDING))?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        });
        match moved {
            Ok(()) => tracing::error!(path = %shown, checksum, "{DAMAGED_TEXT}; it is kept as .{DAMAGED_ENDING}, and read no more"),
            Err(error) => tracing::error!(path = %shown, %error, "a damaged file cannot be set aside"),
        }
    }

    /// Reads everything once. Returns whether the node is there still.
    fn pass(&self, node: &Weak<WorkerNode>) -> bool {
        let wish = self.asked.load(Ordering::Acquire);
        let in_haste = self.granted.swap(wish, Ordering::AcqRel) != wish;
        for (volume, root) in &self.folders {
            let tables = files_of(root, TABLE_FOLDER, "parquet").into_iter().filter(|(path, _)| is_table_file(path));
            for (path, place) in tables.chain(files_of(root, REPLICA_FOLDER, "parquet")) {
                if node.strong_count() == 0 {
                    return false;
                }
                let Ok(before) = fs::metadata(&place) else { continue };
                let Ok(Some(checksum)) = self.checksum(&place, in_haste, node) else { continue };
                // What changed meanwhile is another file.
                let is_same =
                    fs::metadata(&place).is_ok_and(|now| (now.len(), disk_version(&now)) == (before.len(), disk_version(&before)));
                if !is_same {
                    continue;
                }
                match place.file_stem().and_then(|stem| stem.to_str()).filter(|_| path.starts_with(REPLICA_FOLDER)) {
                    Some(name) if name == checksum => {}
                    Some(name) => self.set_aside_unless(volume, &place, name),
                    None => {
                        let (size_bytes, version) = (before.len(), disk_version(&before));
                        self.tell(HashedFile { volume: volume.clone(), path, size_bytes, version, checksum }, node);
                    }
                }
            }
        }
        true
    }

    /// Notes a file for the next heartbeat; waits while there is no room.
    fn tell(&self, file: HashedFile, node: &Weak<WorkerNode>) {
        while self.hashed.lock().len() >= limits::SCRUBBED_A_BEAT && node.strong_count() > 0 {
            thread::sleep(limits::SCRUB_STEP);
        }
        self.hashed.lock().push(file);
    }

    /// SHA-256 of a file, read at the allowed rate, or at once if it is `in_haste` or somebody asks for it meanwhile; nothing if the node ends.
    fn checksum(&self, path: &Path, in_haste: bool, node: &Weak<WorkerNode>) -> io::Result<Option<String>> {
        let mut file = File::open(path)?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0u8; limits::SCRUB_READ_BYTES];
        loop {
            let began = Instant::now();
            let read = match file.read(&mut buffer)? {
                0 => return Ok(Some(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())),
                read => read,
            };
            hasher.update(&buffer[..read]);
            let due = match self.bytes_per_second {
                _ if in_haste => began,
                0 => began,
                rate => began + Duration::from_secs_f64(read as f64 / rate as f64),
            };
            while Instant::now() < due && !self.is_asked() {
                if node.strong_count() == 0 {
                    return Ok(None);
                }
                thread::sleep(due.saturating_duration_since(Instant::now()).min(limits::SCRUB_STEP));
            }
        }
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire) != self.granted.load(Ordering::Acquire)
    }
}

/// Starts a node's scrubber on a thread of its own, which ends with the node.
pub fn start(node: &Arc<WorkerNode>) {
    let (scrubber, node) = (node.scrubber.clone(), Arc::downgrade(node));
    let run = move || {
        let mut next = Instant::now() + limits::SCRUB_FIRST_WAIT;
        while node.strong_count() > 0 {
            let is_due = scrubber.bytes_per_second > 0 && Instant::now() >= next;
            if (is_due || scrubber.is_asked()) && !scrubber.pass(&node) {
                return;
            }
            if is_due {
                next = Instant::now() + limits::SCRUB_PAUSE;
            }
            thread::sleep(limits::SCRUB_STEP);
        }
    };
    if let Err(error) = thread::Builder::new().name("scrubber".into()).spawn(run) {
        tracing::error!(%error, "no thread for the scrubber: changed bytes on this node's disks are not looked for");
    }
}

/// Files with an ending in a hidden folder of a volume and in the folders below it, as (path below the volume, place).
fn files_of(root: &Path, folder: &str, ending: &str) -> Vec<(String, PathBuf)> {
    let mut found = vec![];
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (kind, path) = (entry.file_type(), entry.path());
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                folders.push(path);
            } else if kind.is_ok_and(|kind| kind.is_file()) && path.extension().is_some_and(|of| of == ending) {
                let below = path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_string);
                found.extend(below.map(|below| (below, path)));
            }
        }
    }
    found.sort();
    found
}
