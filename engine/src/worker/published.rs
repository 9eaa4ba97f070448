//! Parts of results that wait on the node that made them, for the client that they are for.
//!
//! The last fragment of a query may keep its rows instead of sending them to the coordinator ([`publish`](crate::operators::publish)); a client
//! with a ticket fetches them here, or the coordinator for a client that cannot reach this node. One part is all that one task makes, whatever its
//! partitions, as the messages that clients read:
//!
//! ```text
//!   partitions of a task ──messages──► queue of a few ──fetch──► client
//!            └──── no rows; once all are taken, their end, or their error ────► coordinator
//! ```
//!
//! The coordinator learns of the end, and ends what is cancelled or late, as if the rows came to it. A part whose task was cut off is never taken
//! for a whole one: every partition says when it has ended.

use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use crate::residency::ledger::TaskId;
use arrow_flight::FlightData;
use futures::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

/// What one task of a query makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartId {
    /// One try of a query, as its tasks know it.
    #[serde(with = "crate::uuid_text")]
    pub query: Uuid,
    /// Number of the task among those of the query's last fragment.
    pub task: u64,
}

/// Header that names the fragment whose rows stay on their nodes, by its number.
pub const PUBLISH_HEADER: &str = "x-bowshot-publish";

/// Starts the text of the error of a task whose client has gone, which travels as text.
pub const CLIENT_GONE_PREFIX: &str = "the client went away before it had all of ";

impl PartId {
    /// The part that a task is asked to keep, from the headers of the call that sets its plan.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let kept: u64 = headers.get(PUBLISH_HEADER)?.to_str().ok()?.parse().ok()?;
        let task = TaskId::of_headers(headers).filter(|task| task.fragment() == kept)?;
        Some(Self { query: task.query(), task: task.task() })
    }
}

impl std::fmt::Display for PartId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "part {} of the result", self.task)
    }
}

/// The parts that wait on this node, or are being fetched.
#[derive(Debug, Default)]
pub struct Published {
    parts: Mutex<HashMap<PartId, Waiting>>,
    opened: Notify,
}

#[derive(Debug)]
struct Waiting {
    partitions: usize,
    /// First message: the schema.
    schema: FlightData,
    delivered: Arc<AtomicBool>,
    /// Taken by the one who fetches it.
    pieces: Option<mpsc::Receiver<Piece>>,
    cut_off: watch::Receiver<bool>,
}

/// What goes through a part's queue.
#[derive(Debug)]
enum Piece {
    Message(FlightData),
    PartitionEnded,
    Failed(Error),
}

/// Where a task puts its rows. The part is gone when the task is.
#[derive(Debug)]
pub struct Part {
    id: PartId,
    published: Arc<Published>,
    sender: mpsc::Sender<Piece>,
    delivered: Arc<AtomicBool>,
    cut_off: watch::Sender<bool>,
}

/// One partition of a part. Dropped before its end it cuts the part off, however long the plan that it belongs to is kept.
#[derive(Debug)]
pub struct Partition {
    part: Arc<Part>,
    ended: bool,
}

impl Published {
    /// Opens the part of a task with so many partitions, whose first message is the schema.
    pub fn open(self: &Arc<Self>, id: PartId, schema: FlightData, partitions: usize) -> Arc<Part> {
        let (sender, receiver) = mpsc::channel(limits::PART_MESSAGES_QUEUED);
        let (delivered, cut_off) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(false));
        let (pieces, is_cut_off) = (Some(receiver), cut_off.subscribe());
        self.parts.lock().insert(id, Waiting { partitions, schema, delivered: delivered.clone(), pieces, cut_off: is_cut_off });
        self.opened.notify_waiters();
        Arc::new(Part { id, published: self.clone(), sender, delivered, cut_off })
    }

    /// The messages of a part, to the one who asks first. Waits a while for a task that is about to begin.
    ///
    /// # Errors
    /// [`ErrorClass::NotFound`] when it is not here, was fetched before, or ended with its query.
    pub async fn fetch(&self, id: PartId, patience: Duration) -> Result<impl Stream<Item = Result<FlightData>> + Send + use<>> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            // From here on no opening goes unnoticed.
            opened.as_mut().enable();
            if let Some(waiting) = self.parts.lock().get_mut(&id) {
                let Some(pieces) = waiting.pieces.take() else {
                    return Err(Error::not_found(format!("{id} was already fetched; run the statement again")));
                };
                let (delivered, cut_off) = (waiting.delivered.clone(), waiting.cut_off.clone());
                let schema = Some(waiting.schema.clone());
                return Ok(messages(Delivery { id, schema, pieces, left: waiting.partitions, delivered, cut_off }));
            }
            if tokio::time::timeout_at(deadline, opened).await.is_err() {
                return Err(Error::not_found(format!("{id} is not here: its query has ended, or never ran on this node")));
            }
        }
    }
}

/// A part on its way to the client.
struct Delivery {
    id: PartId,
    schema: Option<FlightData>,
    pieces: mpsc::Receiver<Piece>,
    /// Partitions that have not ended.
    left: usize,
    delivered: Arc<AtomicBool>,
    cut_off: watch::Receiver<bool>,
}

impl Delivery {
    async fn next(&mut self) -> Option<Result<FlightData>> {
        if let Some(schema) = self.schema.take() {
            return Some(Ok(schema));
        }
        while self.left > 0 {
            let piece = tokio::select! {
                // What is there may say more than that it was cut off.
                biased;
                piece = self.pieces.recv() => piece,
                () = is_true(&mut self.cut_off) => None,
            };
            match piece {
                Some(Piece::Message(message)) => return Some(Ok(message)),
                Some(Piece::PartitionEnded) => self.left -= 1,
                Some(Piece::Failed(error)) => return Some(Err(error)),
                None => {
                    // The coordinator knows more, and is asked before a client hears this.
                    let text = format!("{} ended before all of its rows were here, with its query: run the statement again", self.id);
                    return Some(Err(Error::retry(text)));
                }
            }
        }
        self.delivered.store(true, Ordering::Release);
        None
    }
}

/// Waits until the value is true; for ever when its sender is gone.
async fn is_true(value: &mut watch::Receiver<bool>) {
    if value.wait_for(|value| *value).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A part's messages: all of them, or an error at their end.
fn messages(delivery: Delivery) -> impl Stream<Item = Result<FlightData>> + Send {
    futures::stream::unfold(Some(delivery), |state| async move {
        let mut delivery = state?;
        let next = delivery.next().await?;
        let more = next.is_ok().then_some(delivery);
        Some((next, more))
    })
}

impl Part {
    /// A partition that begins.
    pub fn partition(self: &Arc<Self>) -> Partition {
        Partition { part: self.clone(), ended: false }
    }

    async fn put(&self, piece: Piece) -> Result<()> {
        self.sender.send(piece).await.map_err(|_| self.client_gone())
    }

    fn client_gone(&self) -> Error {
        Error::new(ErrorClass::Cancelled, format!("{CLIENT_GONE_PREFIX}{}", self.id))
    }
}

impl Partition {
    /// Hands a message over, and waits while the client has enough of them.
    ///
    /// # Errors
    /// [`ErrorClass::Cancelled`] when the client has gone.
    pub async fn send(&self, message: FlightData) -> Result<()> {
        self.part.put(Piece::Message(message)).await
    }

    /// Tells the client what ended the partition.
    pub async fn fail(mut self, error: Error) {
        // A client that has gone needs no error.
        let _ = self.part.put(Piece::Failed(error)).await;
        self.ended = true;
    }

    /// All rows are given. Waits until the client has taken those of all partitions.
    ///
    /// # Errors
    /// [`ErrorClass::Cancelled`] when it goes before.
    pub async fn end(mut self) -> Result<()> {
        self.part.put(Piece::PartitionEnded).await?;
        self.part.sender.closed().await;
        self.ended = true;
        if self.part.delivered.load(Ordering::Acquire) { Ok(()) } else { Err(self.part.client_gone()) }
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if !self.ended {
            self.part.cut_off.send_replace(true);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.published.parts.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, TryStreamExt};

    const PATIENCE: Duration = Duration::from_millis(200);
    const SOON: Duration = Duration::from_secs(20);

    fn message(body: &'static [u8]) -> FlightData {
        FlightData { data_body: body.into(), ..Default::default() }
    }

    fn id() -> PartId {
        PartId { query: Uuid::now_v7(), task: 0 }
    }

    #[tokio::test]
    async fn all_partitions_make_one_part_which_is_over_when_the_client_has_it() {
        let (published, id) = (Arc::new(Published::default()), id());
        let part = published.open(id, message(b"schema"), 2);
        let partitions = [b"one", b"two"].map(|body| {
            let partition = part.partition();
            tokio::spawn(async move {
                partition.send(message(body)).await?;
                partition.end().await
            })
        });
        // Nobody has fetched it: the task goes on.
        tokio::time::sleep(PATIENCE).await;
        assert!(partitions.iter().all(|partition| !partition.is_finished()));
        let fetched = published.fetch(id, PATIENCE).await.unwrap();
        assert!(published.fetch(id, PATIENCE).await.err().unwrap().to_string().contains("already fetched"));
        let mut bodies: Vec<_> = fetched.map_ok(|message| message.data_body).try_collect().await.unwrap();
        assert_eq!(bodies.remove(0), "schema");
        bodies.sort();
        assert_eq!(bodies, ["one", "two"]);
        for partition in partitions {
            tokio::time::timeout(SOON, partition).await.unwrap().unwrap().unwrap();
        }
        drop(part);
        assert_eq!(published.fetch(id, PATIENCE).await.err().unwrap().class(), ErrorClass::NotFound);
    }

    #[tokio::test]
    async fn a_part_that_was_cut_off_is_not_a_short_one() {
        let (published, id) = (Arc::new(Published::default()), id());
        let part = published.open(id, message(b"schema"), 2);
        let fetched = published.fetch(id, PATIENCE).await.unwrap();
        let partition = part.partition();
        partition.send(message(b"one")).await.unwrap();
        part.put(Piece::PartitionEnded).await.unwrap();
        // Whoever keeps the plan keeps the part: the partition that was dropped is enough.
        drop(partition);
        let messages: Vec<_> = tokio::time::timeout(SOON, fetched.collect()).await.unwrap();
        assert_eq!((messages.len(), messages[2].as_ref().err().unwrap().class()), (3, ErrorClass::Retry));
        drop(part);
    }

    #[tokio::test]
    async fn a_part_whose_partitions_never_began_ends_with_its_task() {
        let (published, id) = (Arc::new(Published::default()), id());
        let part = published.open(id, message(b"schema"), 2);
        let fetched = published.fetch(id, PATIENCE).await.unwrap();
        drop(part);
        let messages: Vec<_> = tokio::time::timeout(SOON, fetched.collect()).await.unwrap();
        assert_eq!((messages.len(), messages[1].as_ref().err().unwrap().class()), (2, ErrorClass::Retry));
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_task() {
        let (published, id) = (Arc::new(Published::default()), id());
        let part = published.open(id, message(b"schema"), 1);
        let fetched = published.fetch(id, PATIENCE).await.unwrap();
        let ended = tokio::spawn({
            let partition = part.partition();
            async move { partition.end().await }
        });
        drop(fetched);
        let ended = tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
        assert_eq!(ended.err().unwrap().class(), ErrorClass::Cancelled);
        assert_eq!(part.partition().send(message(b"one")).await.err().unwrap().class(), ErrorClass::Cancelled);
    }

    #[tokio::test]
    async fn who_asks_early_waits_and_errors_arrive() {
        let (published, id) = (Arc::new(Published::default()), id());
        let fetching = tokio::spawn({
            let published = published.clone();
            async move { published.fetch(id, SOON).await.map(|messages| messages.boxed()) }
        });
        tokio::task::yield_now().await;
        let part = published.open(id, message(b"schema"), 1);
        part.partition().fail(Error::user("no such thing")).await;
        let messages: Vec<_> = fetching.await.unwrap().unwrap().collect().await;
        assert_eq!((messages.len(), messages[1].as_ref().err().unwrap().class()), (2, ErrorClass::User));
    }
}
