//! Files of managed tables: each is written from a stream of rows, whole, or is not there.
//!
//! ```text
//!   coordinator ──DoPut: where, then record batches──► <volume>/.bowshot/tables/<table>/<file>.part ──sync, rename, sync──► <file>.parquet
//!               ◄──what the file's footer says, and its hash──
//! ```
//!
//! Nobody reads a file before the coordinator's catalog names it, and names are never used twice: what a crash leaves behind is garbage, not a
//! half table. Sits behind the worker's token check, and only the coordinator's certificate may write.

use super::WorkerNode;
use super::inventory;
use super::scrub::DAMAGED_ENDING;
use super::volumes::make_folders;
use crate::control::{Orders, TABLE_FOLDER, VolumeFile, is_table_file, now_ms};
use crate::error::{Error, of_io};
use crate::limits;
use crate::residency::Reach;
use arrow::array::RecordBatch;
use arrow_flight::error::FlightError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::{Stream, StreamExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use sha2::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

/// Asks for a file with the rows that follow; the command of a DoPut's descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WriteFile {
    /// Volume of the worker.
    pub volume: String,
    /// Path below it, as [`is_table_file`] has it.
    pub path: String,
    /// Regions that the table is pinned to; empty for none.
    pub regions: Vec<String>,
}

/// Answers [`WriteFile`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileWritten {
    /// The file, as an inventory shows it, with its checksum.
    pub file: VolumeFile,
    /// When it was there, in Unix milliseconds of the worker's clock.
    pub at_ms: u64,
}

/// Writes files of managed tables. Clones share the limit on how many at once.
#[derive(Clone)]
pub struct TableFiles {
    node: Arc<WorkerNode>,
    writing: Arc<Semaphore>,
}

impl TableFiles {
    /// Into the volumes of `node`.
    pub fn new(node: Arc<WorkerNode>) -> Self {
        Self { node, writing: Arc::new(Semaphore::new(limits::TABLE_FILES_WRITTEN_MAX)) }
    }

    /// Writes the rows of a stream.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a place that no table's file may have, `RESOURCE_EXHAUSTED` for a full disk or too many files at once,
    /// `FAILED_PRECONDITION` for other failures of the disk and a volume that is not there, and whatever ended the stream.
    pub async fn write<S>(&self, asked: WriteFile, mut batches: S) -> Result<FileWritten, Status>
    where
        S: Stream<Item = Result<RecordBatch, FlightError>> + Unpin,
    {
        let _turn = self.writing.acquire().await.map_err(|_| Status::unavailable("the worker is ending"))?;
        let place = self.place(&asked)?;
        let (sender, receiver) = mpsc::channel(limits::TABLE_FILE_BATCHES_QUEUED);
        let memory = MemoryConsumer::new("table file").register(&self.node.runtime.memory_pool);
        let root = self.node.config.volumes.get(&asked.volume).cloned().unwrap_or_default();
        let name = format!("node://{}/{}/{}", self.node.config.node_id, asked.volume, asked.path);
        let (volume, path, node) = (asked.volume, asked.path, self.node.clone());
        let shown = place.display().to_string();
        let writer = tokio::task::spawn_blocking(move || {
            let partial = place.with_extension("part");
            node.volumes.writable(&volume).map_err(Failure::Volume)?;
            let written = write_file(&root, &partial, receiver, memory).and_then(|(rows, checksum)| {
                put_in_place(&partial, &place)?;
                let file = inventory::parsed(&root, &volume, &path).map_err(io::Error::other)?;
                if file.facts.row_count != rows {
                    return Err(io::Error::other(format!("it holds {} rows of {rows}", file.facts.row_count)));
                }
                Ok((file, checksum))
            });
            // What was begun and not ended is nobody's.
            if written.is_err() {
                let _ = fs::remove_file(&partial);
                let _ = fs::remove_file(&place);
            }
            written.map_err(Failure::Disk)
        });
        let sent = async {
            while let Some(batch) = batches.next().await {
                let batch = batch.map_err(|error| match error {
                    FlightError::Tonic(status) => *status,
                    other => Status::invalid_argument(format!("rows for {name} cannot be read: {other}")),
                })?;
                if sender.send(Part::Rows(batch)).await.is_err() {
                    // The writer has failed, and says why.
                    return Ok(());
                }
            }
            let _ = sender.send(Part::End).await;
            Ok::<_, Status>(())
        };
        let outcome = sent.await;
        // Without its end the writer gives the file up.
        drop(sender);
        let written = writer.await.map_err(|error| Status::internal(format!("{name}: the writer ended early: {error}")))?;
        outcome?;
        let (mut file, checksum) = written.map_err(|failure| failure.status(&shown))?;
        file.facts.checksum = Some(checksum);
        Ok(FileWritten { file, at_ms: now_ms() })
    }

    fn place(&self, asked: &WriteFile) -> Result<PathBuf, Status> {
        let config = &self.node.config;
        let Some(root) = config.volumes.get(&asked.volume) else {
            return Err(Status::not_found(format!("node {} serves no volume '{}'", config.node_id, asked.volume)));
        };
        if !is_table_file(&asked.path) {
            return Err(Status::permission_denied(format!("'{}' is no place for a file of a table", asked.path)));
        }
        let region = config.volume_regions.get(&asked.volume).unwrap_or(&config.region);
        let reach = Reach::within(&asked.regions);
        if !reach.allows(Some(region)) || !reach.allows(Some(&config.region)) {
            return Err(Status::permission_denied(format!(
                "rows that must stay in {reach} were sent to volume {} of node {} in {region}",
                asked.volume, config.node_id
            )));
        }
        Ok(root.join(&asked.path))
    }
}

/// What reaches the thread that writes.
enum Part {
    Rows(RecordBatch),
    End,
}

/// Why a file was not written.
enum Failure {
    /// Its volume is not there, or not to be written.
    Volume(Error),
    /// The disk, or who sent the rows.
    Disk(io::Error),
}

impl Failure {
    /// For the coordinator. `path` is the file on this machine's disk.
    fn status(self, path: &str) -> Status {
        match self {
            Self::Volume(error) => Status::new(error.class().code(), error.message()),
            Self::Disk(error) => match error.kind() {
                io::ErrorKind::InvalidInput => Status::invalid_argument(format!("{path} cannot be written: {error}")),
                io::ErrorKind::ConnectionAborted => Status::unavailable(format!("{path} was not written: {error}")),
                _ => {
                    let error = of_io(path, "cannot be written", &error);
                    Status::new(error.class().code(), error.message())
                }
            },
        }
    }
}

/// Writes the rows that come in. Returns how many, and the hash of the file.
fn write_file(root: &Path, partial: &Path, mut parts: mpsc::Receiver<Part>, memory: MemoryReservation) -> io::Result<(u64, String)> {
    let Some(Part::Rows(first)) = parts.blocking_recv() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no row was sent"));
    };
    make_folders(root, partial)?;
    let file = Hashing { file: io::BufWriter::new(File::create(partial)?), hasher: sha2::Sha256::new() };
    let compression = Compression::ZSTD(ZstdLevel::try_new(limits::TABLE_FILE_ZSTD_LEVEL).map_err(io::Error::other)?);
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties)).map_err(of_parquet)?;
    let mut rows = 0;
    let mut next = Some(Part::Rows(first));
    loop {
        match next {
            Some(Part::Rows(batch)) => {
                rows += batch.num_rows() as u64;
                writer.write(&batch).map_err(of_parquet)?;
                let held = writer.memory_size();
                // A row group is as large as memory allows: the node's other work does not fail for it.
                if held > limits::TABLE_FILE_GROUP_BYTES || memory.try_resize(held).is_err() {
                    writer.flush().map_err(of_parquet)?;
                    memory.free();
                }
            }
            Some(Part::End) => break,
            None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its rows ended early")),
        }
        next = parts.blocking_recv();
    }
    let Hashing { file, hasher } = writer.into_inner().map_err(of_parquet)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((rows, hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// A failure of the disk inside a failure of the writer.
fn of_parquet(error: parquet::errors::ParquetError) -> io::Error {
    match error {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    }
}

/// Gives a whole file its name. All folders on the way to it may be new, and are on disk before anyone hears of it.
fn put_in_place(partial: &Path, place: &Path) -> io::Result<()> {
    // The table's, that of tables, the hidden one and the volume.
    const FOLDERS: usize = 4;
    fs::rename(partial, place)?;
    for folder in place.ancestors().skip(1).take(FOLDERS) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Hashes what is written, which is a file from its start to its end.
struct Hashing {
    file: io::BufWriter<File>,
    hasher: sha2::Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Removes what an earlier process of this node left half written: nobody has heard of it. Blocking.
pub fn remove_torn(folders: &BTreeMap<String, PathBuf>) {
    for (volume, root) in folders {
        let tables = fs::read_dir(root.join(TABLE_FOLDER)).into_iter().flatten().flatten();
        for entry in tables.flat_map(|table| fs::read_dir(table.path()).into_iter().flatten().flatten()) {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "part") {
                match fs::remove_file(&path) {
                    Ok(()) => tracing::info!(volume, path = %path.display(), "an unfinished file of an earlier process was deleted"),
                    Err(error) => tracing::warn!(volume, path = %path.display(), %error, "an unfinished file cannot be deleted"),
                }
            }
        }
    }
}

/// Deletes files that no table has any more, and folders of tables that are left empty. Blocking.
pub fn delete(node: &WorkerNode, orders: &Orders) {
    for (volume, path) in orders.delete.iter().filter(|(_, path)| is_table_file(path)) {
        let root = match node.volumes.writable(volume) {
            Ok(root) => root,
            Err(error) => {
                tracing::warn!(volume, path, %error, "a file that no table has any more cannot be deleted");
                continue;
            }
        };
        let place = root.join(path);
        match fs::remove_file(&place) {
            Ok(()) => tracing::info!(volume, path, "a file that no table has any more was deleted"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(volume, path, %error, "a file that no table has any more cannot be deleted"),
        }
        let _ = fs::remove_file(place.with_extension("part"));
        let _ = fs::remove_file(place.with_extension(DAMAGED_ENDING));
        if let Some(folder) = place.parent() {
            // Fails while there are others in it.
            let _ = fs::remove_dir(folder);
        }
    }
}
