//! Files of a worker for other nodes: a Flight action that streams the bytes of a file of a volume, and a DoPut that
//! [writes](super::table_files) one of a managed table. And a DoGet for [parts of results](super::published) that the coordinator passes on to
//! clients.
//!
//! Only Parquet files inside a volume can be read, and of hidden ones only replicas: a stranger with the token gets no other file of the machine.
//! Pinned files go to callers in their regions alone. The caller checks the content against the hash it expects.

use super::WorkerNode;
use super::published::PartId;
use super::table_files::{TableFiles, WriteFile};
use crate::control::{REPLICA_FOLDER, is_table_file};
use crate::error::{Error, ErrorClass, NodeLost, Result};
use crate::fragment::transport::{self, ClusterChannels, node_of};
use crate::limits;
use crate::port::flight::{Answer, FlightCalls, Messages};
use crate::residency::ledger::caller_region;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, FlightData, PutResult, Ticket};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Request, Response, Status, Streaming};
use url::Url;

/// Action type of [`ReadFile`].
pub const READ_FILE: &str = "bowshot.read_file";

/// Asks for all bytes of a file; answered by messages of up to [`limits::FILE_MESSAGE_BYTES`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadFile {
    /// Volume of the worker.
    pub volume: String,
    /// Path below it.
    pub path: String,
}

/// Answers [`ReadFile`], [`WriteFile`] and tickets that are a [`PartId`]; every other Flight call is refused. Sits behind the worker's token check.
pub struct FileService {
    node: Arc<WorkerNode>,
    sending: Arc<Semaphore>,
    table_files: TableFiles,
}

impl FileService {
    /// Serves the volumes of `node`.
    pub fn new(node: Arc<WorkerNode>) -> Self {
        let table_files = TableFiles::new(node.clone());
        Self { node, sending: Arc::new(Semaphore::new(limits::FILES_SENT_MAX)), table_files }
    }

    fn find(&self, asked: &ReadFile) -> Result<PathBuf, Status> {
        let node = &self.node.config.node_id;
        let Some(root) = self.node.config.volumes.get(&asked.volume) else {
            return Err(Status::not_found(format!("node {node} serves no volume '{}'", asked.volume)));
        };
        let path = Path::new(&asked.path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let hidden = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(['.', '_']));
        let parquet = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
        let ours = path.parent() == Some(Path::new(REPLICA_FOLDER)) || is_table_file(&asked.path);
        if !plain || !parquet || (hidden && !ours) {
            return Err(Status::permission_denied(format!(
                "node {node} gives away Parquet files of its volumes only, not '{}'",
                asked.path
            )));
        }
        // A link must not lead out of the volume.
        let inside = |real: &Path| root.canonicalize().is_ok_and(|root| real.starts_with(root));
        match root.join(path).canonicalize() {
            Ok(real) if inside(&real) => Ok(real),
            Ok(_) => Err(Status::permission_denied(format!("'{}' leads out of volume '{}' of node {node}", asked.path, asked.volume))),
            Err(error) => Err(Status::not_found(format!("node://{node}/{}/{} cannot be read: {error}", asked.volume, asked.path))),
        }
    }
}

/// A file that is being sent.
struct Sending {
    file: tokio::fs::File,
    name: String,
    _turn: OwnedSemaphorePermit,
}

impl Sending {
    async fn next(mut self) -> Result<Option<(arrow_flight::Result, Self)>, Status> {
        let mut part = Vec::with_capacity(limits::FILE_MESSAGE_BYTES);
        let read = (&mut self.file).take(limits::FILE_MESSAGE_BYTES as u64).read_to_end(&mut part).await;
        match read.map_err(|error| Status::unavailable(format!("{} cannot be read: {error}", self.name)))? {
            0 => Ok(None),
            _ => Ok(Some((arrow_flight::Result { body: part.into() }, self))),
        }
    }
}

impl FileService {
    async fn send_file(self: Arc<Self>, request: Request<Action>) -> Result<Response<Messages<arrow_flight::Result>>, Status> {
        let caller = caller_region(request.metadata().as_ref(), request.extensions());
        let action = request.into_inner();
        if action.r#type != READ_FILE {
            return Err(Status::unimplemented(format!("a worker has no action '{}'", action.r#type)));
        }
        let asked: ReadFile = serde_json::from_slice(&action.body)
            .map_err(|error| Status::invalid_argument(format!("{READ_FILE} has a malformed body: {error}")))?;
        let turn = self.sending.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "node {} sends {} files already: try again",
                self.node.config.node_id,
                limits::FILES_SENT_MAX
            ))
        })?;
        let path = self.find(&asked)?;
        let reach = self.node.ledger.reach(&format!("node://{}", asked.volume), &asked.path);
        let reach = reach.map_err(|error| Status::unavailable(error.message()))?;
        if !reach.allows(caller.as_deref()) {
            return Err(Status::permission_denied(format!(
                "{}/{} must stay in {reach}; the reader is in {}",
                asked.volume,
                asked.path,
                caller.as_deref().unwrap_or("an unknown region")
            )));
        }
        let name = format!("node://{}/{}/{}", self.node.config.node_id, asked.volume, asked.path);
        let file = tokio::fs::File::open(&path).await.map_err(|error| Status::not_found(format!("{name} cannot be opened: {error}")))?;
        let parts = futures::stream::try_unfold(Sending { file, name, _turn: turn }, Sending::next);
        Ok(Response::new(Box::pin(parts)))
    }

    async fn send_part(self: Arc<Self>, request: Request<Ticket>) -> Result<Response<Messages<FlightData>>, Status> {
        let part: PartId = serde_json::from_slice(&request.get_ref().ticket)
            .map_err(|error| Status::invalid_argument(format!("the part of a result is not named: {error}")))?;
        let status = |error: Error| Status::new(error.class().code(), error.message());
        let messages = self.node.published.fetch(part, limits::PART_PATIENCE).await.map_err(status)?;
        Ok(Response::new(Box::pin(messages.map_err(status))))
    }

    async fn take_file(self: Arc<Self>, request: Request<Streaming<FlightData>>) -> Result<Response<Messages<PutResult>>, Status> {
        let mut data = request.into_inner();
        let first = data.message().await?.ok_or_else(|| Status::invalid_argument("nothing was sent"))?;
        let command = first.flight_descriptor.as_ref().map(|descriptor| descriptor.cmd.clone()).unwrap_or_default();
        let asked: WriteFile = serde_json::from_slice(&command)
            .map_err(|error| Status::invalid_argument(format!("the file to write is not named: {error}")))?;
        let data = futures::stream::once(std::future::ready(Ok(first))).chain(data).map_err(FlightError::from);
        let written = self.table_files.write(asked, FlightRecordBatchStream::new_from_flight_data(data)).await?;
        let said = serde_json::to_vec(&written).map_err(|error| Status::internal(error.to_string()))?;
        let answer = PutResult { app_metadata: said.into() };
        Ok(Response::new(Box::pin(futures::stream::once(std::future::ready(Ok(answer))))))
    }
}

impl FlightCalls for FileService {
    fn refusal(&self) -> Status {
        Status::unimplemented("this is a Bowshot worker: clients talk to the server's Flight SQL port")
    }
    fn do_action(self: Arc<Self>, request: Request<Action>) -> Answer<Messages<arrow_flight::Result>> {
        Box::pin(self.send_file(request))
    }
    fn do_get(self: Arc<Self>, request: Request<Ticket>) -> Answer<Messages<FlightData>> {
        Box::pin(self.send_part(request))
    }
    fn do_put(self: Arc<Self>, request: Request<Streaming<FlightData>>) -> Answer<Messages<PutResult>> {
        Box::pin(self.take_file(request))
    }
}

/// The bytes of a file as they arrive.
pub struct FileParts {
    parts: Streaming<arrow_flight::Result>,
    from: String,
}

impl FileParts {
    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// When the sender or the way to it fails, or is silent for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = tokio::time::timeout(limits::KEEPALIVE_INTERVAL + limits::KEEPALIVE_TIMEOUT, self.parts.message()).await;
        match next {
            Ok(message) => Ok(message.map_err(|status| failed(&self.from, &status))?.map(|part| part.body)),
            Err(_) => Err(Error::retry(format!("{} has stopped sending", self.from))),
        }
    }
}

/// Reads a file of another node's volume.
///
/// # Errors
/// When the node cannot be reached or refuses.
pub async fn read(channels: &ClusterChannels, url: &Url, volume: &str, path: &str) -> Result<FileParts> {
    let from = format!("{url}: {volume}/{path}");
    let channel = channels.channel(url).await.map_err(|lost| Error::retry(lost.to_string()))?;
    let asked = ReadFile { volume: volume.into(), path: path.into() };
    let body = serde_json::to_vec(&asked).map_err(|error| Error::bug(error.to_string()))?;
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(limits::DATA_MESSAGE_BYTES_MAX);
    let call = client.do_action(Request::new(Action { r#type: READ_FILE.into(), body: body.into() }));
    let parts = match tokio::time::timeout(limits::CONTROL_CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|status| failed(&from, &status))?.into_inner(),
        Err(_) => return Err(Error::retry(format!("{from}: no answer"))),
    };
    Ok(FileParts { parts, from })
}

/// Takes a part of a result from the worker that keeps it, for its client.
///
/// # Errors
/// When the node cannot be reached, or has no such part any more; afterwards what ended the part.
pub async fn read_part(
    channels: &ClusterChannels,
    url: &Url,
    part: PartId,
) -> Result<impl Stream<Item = Result<FlightData>> + Send + use<>> {
    let channel = channels.channel(url).await.map_err(|lost| Error::retry(lost.to_string()))?;
    let ticket = serde_json::to_vec(&part).map_err(|error| Error::bug(error.to_string()))?;
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(limits::DATA_MESSAGE_BYTES_MAX);
    let of_worker = {
        let url = url.clone();
        move |status: Status| of_worker(&url, &status)
    };
    let answer =
        tokio::time::timeout(limits::PART_PATIENCE + limits::CONTROL_CALL_TIMEOUT, client.do_get(Request::new(Ticket::new(ticket))));
    let answer = answer.await.map_err(|_| Error::retry(format!("{}: no answer", node_of(url))))?;
    Ok(answer.map_err(&of_worker)?.into_inner().map_err(of_worker))
}

/// What a worker said of a part, or what became of the worker.
fn of_worker(url: &Url, status: &Status) -> Error {
    match transport::lost(status) {
        Some(reason) => Error::retry(NodeLost { node: node_of(url), fragment: None, reason }.to_string()),
        None => Error::new(ErrorClass::of_code(status.code()), status.message()),
    }
}

fn failed(from: &str, status: &Status) -> Error {
    let class = match status.code() {
        Code::PermissionDenied => ErrorClass::Denied,
        Code::NotFound => ErrorClass::NotFound,
        _ => ErrorClass::Retry,
    };
    Error::new(class, format!("{from}: {}", status.message()))
}
