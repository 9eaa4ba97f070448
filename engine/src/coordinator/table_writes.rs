//! Rows on their way into files of a managed table.
//!
//! ```text
//!   rows ──► file on node-1 ──full──► file on node-2 ──full──► …       each closed beside the next one
//!                 │                        │
//!                 └── pending in the catalog until the one commit that makes all of them the table's, or garbage
//! ```
//!
//! The catalog knows of a file before a byte of it is written, and names it to queries only after all of it is on disk: whoever ends in between,
//! a statement has stored everything or nothing.

use super::CoordinatorInner;
use super::membership::{LiveNode, NodeState, WrittenFile};
use crate::catalog::Table;
use crate::catalog::location::Location;
use crate::catalog::store::{NewFile, PlacedFile};
use crate::catalog::text_lengths::TextLengths;
use crate::error::{Error, ErrorClass, NODE_LOST_PREFIX, Result};
use crate::fragment::transport;
use crate::limits;
use crate::residency::Reach;
use crate::worker::table_files::{FileWritten, WriteFile};
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightDescriptor;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::StreamExt;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use uuid::Uuid;

/// Where rows are to be stored.
pub(crate) struct Target {
    /// `schema.table`, for people.
    pub table: String,
    /// Where its files lie.
    pub location: Location,
    /// Regions that it is pinned to.
    pub regions: Vec<String>,
    /// Columns as they are stored.
    pub schema: SchemaRef,
    /// Lengths of their texts.
    pub lengths: TextLengths,
}

impl Target {
    /// A table that is there.
    pub fn of(table: &Table) -> Self {
        Self {
            table: table.qualified_name(),
            location: table.location.clone(),
            regions: table.regions.clone(),
            schema: table.stored_schema.clone(),
            lengths: table.details.text_lengths.clone(),
        }
    }
}

/// A statement's new files. Dropped before [`Self::committed`], they are garbage.
pub(crate) struct TableWrite {
    target: Target,
    volume: String,
    folder: String,
    nodes: Vec<LiveNode>,
    turn: usize,
    open: Option<OpenFile>,
    closing: VecDeque<Closing>,
    files: Vec<NewFile>,
    pending: Pending,
}

/// The file that takes rows.
struct OpenFile {
    sender: mpsc::Sender<RecordBatch>,
    bytes: usize,
    closing: Closing,
}

/// A file whose rows are all on their way.
struct Closing {
    node: LiveNode,
    path: String,
    rows: u64,
    writing: Writing,
}

/// The call that stores a file's rows. Dropped before its end it is cut off, and the worker gives the file up.
struct Writing(JoinHandle<Result<FileWritten>>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Files that the catalog takes for garbage unless they are committed.
struct Pending {
    inner: Arc<CoordinatorInner>,
    files: Vec<PlacedFile>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (inner, files) = (self.inner.clone(), std::mem::take(&mut self.files));
        if files.is_empty() {
            return;
        }
        tokio::task::spawn_blocking(move || {
            for file in &files {
                if let Err(error) = inner.with_store(|store| store.give_up_pending(Some(file))) {
                    tracing::warn!(path = file.2, %error, "a file that was given up stays noted as pending until the next start");
                }
            }
        });
    }
}

impl TableWrite {
    /// Nothing is written yet.
    ///
    /// # Errors
    /// [`ErrorClass::Retry`] when no live node may hold the table's files.
    pub fn begin(inner: &Arc<CoordinatorInner>, target: Target) -> Result<Self> {
        let Location::Node { volume, path, .. } = &target.location else {
            return Err(Error::user(format!("table {} lies in a bucket, where files cannot be written yet", target.table)));
        };
        let (volume, folder) = (volume.clone(), path.clone());
        let reach = Reach::within(&target.regions);
        let (draining, inventories) = (&inner.snapshot().draining, inner.membership.inventories());
        let may_hold = |node: &LiveNode| {
            inventories.get(&node.node_id).is_some_and(|held| {
                held.state == NodeState::Live
                    && !draining.contains(&node.node_id)
                    && held.volumes.contains(&volume)
                    && !held.missing_volumes.contains_key(&volume)
                    && reach.allows(Some(&held.region))
                    && reach.allows(Some(held.region_of(&volume)))
            })
        };
        let nodes: Vec<LiveNode> = inner.membership.live().into_iter().filter(may_hold).collect();
        if nodes.is_empty() {
            // Of a cluster whose disks are all away the first says what to do.
            if let Some(missing) = inventories.values().find_map(|held| held.missing_volumes.get(&volume)) {
                return Err(Error::new(ErrorClass::Storage, format!("rows of table {} cannot be stored: {missing}", target.table)));
            }
            let place = if reach.is_limited() { format!(" in {reach}") } else { String::new() };
            return Err(Error::retry(format!(
                "rows of table {} cannot be stored: no live worker{place} has the volume '{volume}'; system.nodes shows the workers",
                target.table
            )));
        }
        // Small tables spread as well: each statement begins on the next node.
        let turn = inner.write_turn.fetch_add(1, Ordering::Relaxed);
        let pending = Pending { inner: inner.clone(), files: vec![] };
        Ok(Self { target, volume, folder, nodes, turn, open: None, closing: VecDeque::new(), files: vec![], pending })
    }

    /// Takes rows in the columns of the target.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.check_nulls(&batch)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().iter().zip(self.target.schema.fields());
        let columns = columns.map(|(column, field)| match self.target.lengths.get(field.name()) {
            Some(length) => length.stored(field.name(), column),
            None => Ok(column.clone()),
        });
        let batch = RecordBatch::try_new_with_options(self.target.schema.clone(), columns.collect::<Result<_>>()?, &options)
            .map_err(|error| Error::bug(error.to_string()))?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        open.bytes += own_bytes(&batch);
        open.closing.rows += batch.num_rows() as u64;
        if open.sender.send(batch).await.is_err() {
            // The receiver is gone because the call has ended: with an error.
            let failed = self.closed(open.closing).await;
            return Err(failed.err().unwrap_or_else(|| Error::bug("a worker took a file for whole that was not")));
        }
        if open.bytes < limits::TABLE_FILE_ROWS_BYTES {
            self.open = Some(open);
            return Ok(());
        }
        self.closing.push_back(open.closing);
        if self.closing.len() >= limits::TABLE_FILES_A_STATEMENT
            && let Some(oldest) = self.closing.pop_front()
        {
            self.closed(oldest).await?;
        }
        Ok(())
    }

    /// Waits until all files are on disk.
    ///
    /// # Errors
    /// When one cannot be stored: nothing is stored then.
    pub async fn finish(&mut self) -> Result<Vec<NewFile>> {
        self.closing.extend(self.open.take().map(|open| open.closing));
        while let Some(oldest) = self.closing.pop_front() {
            self.closed(oldest).await?;
        }
        Ok(std::mem::take(&mut self.files))
    }

    /// The catalog has the files.
    pub fn committed(mut self) {
        self.pending.files.clear();
    }

    fn check_nulls(&self, batch: &RecordBatch) -> Result<()> {
        let columns = self.target.schema.fields().iter().zip(batch.columns());
        match columns.into_iter().find(|(field, column)| !field.is_nullable() && column.logical_null_count() > 0) {
            Some((field, _)) => Err(Error::user(format!(
                "column {} of table {} is NOT NULL, and a row has no value for it: nothing was stored",
                field.name(),
                self.target.table
            ))),
            None => Ok(()),
        }
    }

    async fn open(&mut self) -> Result<OpenFile> {
        let node = self.nodes[self.turn % self.nodes.len()].clone();
        self.turn = self.turn.wrapping_add(1);
        let path = format!("{}{}.parquet", self.folder, Uuid::new_v4());
        let place = (node.node_id.clone(), self.volume.clone(), path.clone());
        let (inner, noted) = (self.pending.inner.clone(), place.clone());
        super::blocking(move || inner.with_store(|store| store.pend(&noted))).await?;
        self.pending.files.push(place);
        let asked = WriteFile { volume: self.volume.clone(), path: path.clone(), regions: self.target.regions.clone() };
        let command = serde_json::to_vec(&asked).map_err(|error| Error::bug(error.to_string()))?;
        let channel = self.pending.inner.channels.channel(&node.url).await;
        let channel = channel.map_err(|gone| self.lost(&node, &gone.reason))?;
        let (sender, receiver) = mpsc::channel(limits::TABLE_FILE_BATCHES_QUEUED);
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(self.target.schema.clone())
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command)))
            .with_max_flight_data_size(limits::DATA_MESSAGE_BYTES_MAX / 8)
            .build(ReceiverStream::new(receiver).map(Ok));
        // A message that cannot be made ends the stream: the file has too few rows then, which is found out when it is closed.
        let messages = messages.scan((), |(), message| {
            std::future::ready(message.inspect_err(|error| tracing::error!(%error, "rows cannot be sent to be stored")).ok())
        });
        let mut client = FlightServiceClient::new(channel).max_encoding_message_size(limits::DATA_MESSAGE_BYTES_MAX);
        let (failing, table) = (node.clone(), self.target.table.clone());
        let inner = self.pending.inner.clone();
        let writing = tokio::spawn(async move {
            let answer = async { client.do_put(messages).await?.into_inner().message().await }.await;
            let answer = answer.map_err(|status| failed(&inner, &table, &failing, &status))?;
            let said = answer.map(|answer| answer.app_metadata).unwrap_or_default();
            serde_json::from_slice(&said)
                .map_err(|error| Error::bug(format!("node {} says nothing of a file that it stored: {error}", failing.node_id)))
        });
        Ok(OpenFile { sender, bytes: 0, closing: Closing { node, path, rows: 0, writing: Writing(writing) } })
    }

    async fn closed(&mut self, mut closing: Closing) -> Result<()> {
        let node = &closing.node;
        let written = match tokio::time::timeout(limits::TABLE_FILE_CLOSE_WAIT, &mut closing.writing.0).await {
            Ok(ended) => ended.unwrap_or_else(|error| Err(Error::bug(format!("storing rows ended early: {error}"))))?,
            Err(_) => return Err(self.lost(node, "it does not say that it has stored them")),
        };
        let mut facts = written.file.facts;
        if facts.row_count != closing.rows {
            return Err(Error::bug(format!("node {} stored {} of {} rows", node.node_id, facts.row_count, closing.rows)));
        }
        let (version, size_bytes) = (facts.version, facts.size_bytes);
        facts.schema_ipc = String::new();
        let key = format!("{}/{}", self.volume, closing.path);
        self.pending.inner.membership.wrote(&node.node_id, WrittenFile { key, size_bytes, version, at_ms: written.at_ms });
        self.files.push(NewFile {
            store_url: self.target.location.store_url()?.to_string(),
            path: closing.path,
            facts,
            homes: vec![(node.node_id.clone(), version)],
        });
        Ok(())
    }

    fn lost(&self, node: &LiveNode, reason: &str) -> Error {
        lost(&self.pending.inner, &self.target.table, node, reason)
    }
}

/// Bytes of a batch's rows alone: pieces of one batch share what they lie in.
fn own_bytes(batch: &RecordBatch) -> usize {
    let of_column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    batch.columns().iter().map(of_column).sum()
}

/// What went wrong on a node, or with it. A node that says what is wrong is there: its disk may be full, and others' work on it goes on.
fn failed(inner: &CoordinatorInner, table: &str, node: &LiveNode, status: &Status) -> Error {
    if let Some(reason) = transport::lost(status) {
        return lost(inner, table, node, &reason);
    }
    match status.code() {
        // Of these a worker says none itself.
        Code::Unknown | Code::Cancelled | Code::DataLoss => lost(inner, table, node, status.message()),
        code => {
            let text = format!("rows of table {table} cannot be stored on node {}: {}; nothing was stored", node.node_id, status.message());
            Error::new(ErrorClass::of_code(code), text)
        }
    }
}

/// A node that is gone, or cannot be reached: for a while it gets nothing.
fn lost(inner: &CoordinatorInner, table: &str, node: &LiveNode, reason: &str) -> Error {
    inner.membership.trip(&node.node_id);
    Error::retry(format!("{NODE_LOST_PREFIX}{} while it stored rows of table {table}: {reason}; nothing was stored", node.node_id))
}

/// The volume that new managed tables lie in: the one that is set, else the one that most live workers have.
pub(crate) fn volume_of_tables(inner: &CoordinatorInner) -> Result<String> {
    if let Some(volume) = &inner.config.tables_volume {
        return Ok(volume.clone());
    }
    let mut holders: BTreeMap<String, usize> = BTreeMap::new();
    for held in inner.membership.inventories().values().filter(|held| held.state == NodeState::Live) {
        for volume in held.volumes.iter() {
            *holders.entry(volume.clone()).or_default() += 1;
        }
    }
    // Of several the first by name, on every call.
    let most = holders.values().copied().max();
    holders.into_iter().find(|(_, count)| Some(*count) == most).map(|(volume, _)| volume).ok_or_else(|| {
        Error::retry("no live worker has a volume that a table could be kept in: give one worker.volumes, or wait until it has registered")
    })
}
