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
use tokio::sync::{Notify, mpsc};
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
}

impl Published {
    /// Opens the part of a task with so many partitions, whose first message is the schema.
    pub fn open(self: &Arc<Self>, id: PartId, schema: FlightData, partitions: usize) -> Arc<Part> {
        let (sender, receiver) = mpsc::channel(limits::PART_MESSAGES_QUEUED);
        let delivered = Arc::new(AtomicBool::new(false));
        self.parts.lock().insert(id, Waiting { partitions, schema, delivered: delivered.clone(), pieces: Some(receiver) });
        self.opened.notify_waiters();
        Arc::new(Part { id, published: self.clone(), sender, delivered })
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
                let delivered = waiting.delivered.clone();
                return Ok(messages(Delivery { id, schema: Some(waiting.schema.clone()), pieces, left: waiting.partitions, delivered }));
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
}

impl Delivery {
    async fn next(&mut self) -> Option<Result<FlightData>> {
        if let Some(schema) = self.schema.take() {
            return Some(Ok(schema));
        }
        while self.left > 0 {
            match self.pieces.recv().await {
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
    /// Hands a message over, and waits while the client has enough of them.
    ///
    /// # Errors
    /// [`ErrorClass::Cancelled`] when the client has gone.
    pub async fn send(&self, message: FlightData) -> Result<()> {
        self.put(Piece::Message(message)).await
    }

    /// Tells the client what ended a partition.
    pub async fn fail(&self, error: Error) {
        // A client that has gone needs no error.
        let _ = self.put(Piece::Failed(error)).await;
    }

    /// One partition has given all of its rows. Waits until the client has taken those of all of them.
    ///
    /// # Errors
    /// [`ErrorClass::Cancelled`] when it goes before.
    pub async fn partition_ended(&self) -> Result<()> {
        self.put(Piece::PartitionEnded).await?;
        self.sender.closed().await;
        if self.delivered.load(Ordering::Acquire) { Ok(()) } else { Err(self.client_gone()) }
    }

    async fn put(&self, piece: Piece) -> Result<()> {
        self.sender.send(piece).await.map_err(|_| self.client_gone())
    }

    fn client_gone(&self) -> Error {
        Error::new(ErrorClass::Cancelled, format!("{CLIENT_GONE_PREFIX}{}", self.id))
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
            let part = part.clone();
            tokio::spawn(async move {
                part.send(message(body)).await?;
                part.partition_ended().await
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
        part.send(message(b"one")).await.unwrap();
        part.put(Piece::PartitionEnded).await.unwrap();
        drop(part);
        let messages: Vec<_> = fetched.collect().await;
        assert_eq!((messages.len(), messages[2].as_ref().err().unwrap().class()), (3, ErrorClass::Retry));
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_task() {
        let (published, id) = (Arc::new(Published::default()), id());
        let part = published.open(id, message(b"schema"), 1);
        let fetched = published.fetch(id, PATIENCE).await.unwrap();
        let ended = tokio::spawn({
            let part = part.clone();
            async move { part.partition_ended().await }
        });
        drop(fetched);
        let ended = tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
        assert_eq!(ended.err().unwrap().class(), ErrorClass::Cancelled);
        assert_eq!(part.send(message(b"one")).await.err().unwrap().class(), ErrorClass::Cancelled);
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
        part.fail(Error::user("no such thing")).await;
        let messages: Vec<_> = fetching.await.unwrap().unwrap().collect().await;
        assert_eq!((messages.len(), messages[1].as_ref().err().unwrap().class()), (2, ErrorClass::User));
    }
}
