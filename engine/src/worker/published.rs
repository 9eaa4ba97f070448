//! Parts of results that wait on the node that made them, for the client that they are for.
//!
//! The last fragment of a query may keep its rows instead of sending them to the coordinator ([`publish`](crate::operators::publish)); a client
//! with a ticket fetches them here. One part is all that one task makes, whatever its partitions:
//!
//! ```text
//!   partitions of a task ──batches──► queue of a few ──fetch──► client
//!            └──── no rows, their end or their error ────► coordinator
//! ```
//!
//! The coordinator learns of the end, and ends what is cancelled or late, as if the rows came to it. A part whose task was cut off is never taken
//! for a whole one: every partition says when it has ended.

use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use crate::residency::ledger::TaskId;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// What one task of a query makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartId {
    /// The query.
    pub query: Uuid,
    /// Number of the task among those of the query's last fragment.
    pub task: u64,
}

/// Header that names the fragment whose rows stay on their nodes, by its number.
pub const PUBLISH_HEADER: &str = "x-bowshot-publish";

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
        write!(f, "part {} of query {}", self.task, self.query)
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
    schema: SchemaRef,
    ends: Arc<Ends>,
    /// Taken by the one who fetches it.
    batches: Option<mpsc::Receiver<Result<RecordBatch>>>,
}

/// How many partitions have ended, of how many.
#[derive(Debug)]
struct Ends {
    partitions: usize,
    ended: AtomicUsize,
}

/// Where a task puts its rows. The part is gone when the task is.
#[derive(Debug)]
pub struct Part {
    id: PartId,
    published: Arc<Published>,
    sender: mpsc::Sender<Result<RecordBatch>>,
    ends: Arc<Ends>,
}

impl Published {
    /// Opens the part of a task with so many partitions.
    pub fn open(self: &Arc<Self>, id: PartId, schema: SchemaRef, partitions: usize) -> Arc<Part> {
        let (sender, receiver) = mpsc::channel(limits::PART_BATCHES_QUEUED);
        let ends = Arc::new(Ends { partitions, ended: AtomicUsize::new(0) });
        self.parts.lock().insert(id, Waiting { schema, ends: ends.clone(), batches: Some(receiver) });
        self.opened.notify_waiters();
        Arc::new(Part { id, published: self.clone(), sender, ends })
    }

    /// The rows of a part, to the one who asks first. Waits a while for a task that is about to begin.
    ///
    /// # Errors
    /// [`ErrorClass::NotFound`] when it is not here, was fetched before, or ended with its query.
    pub async fn fetch(
        &self,
        id: PartId,
        patience: Duration,
    ) -> Result<(SchemaRef, impl Stream<Item = Result<RecordBatch>> + Send + use<>)> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            // From here on no opening goes unnoticed.
            opened.as_mut().enable();
            if let Some(waiting) = self.parts.lock().get_mut(&id) {
                let Some(batches) = waiting.batches.take() else {
                    return Err(Error::not_found(format!("{id} was already fetched; run the statement again")));
                };
                return Ok((waiting.schema.clone(), rows(id, batches, waiting.ends.clone())));
            }
            if tokio::time::timeout_at(deadline, opened).await.is_err() {
                return Err(Error::not_found(format!("{id} is not here: its query has ended, or never ran on this node")));
            }
        }
    }
}

/// A part's rows: all of them, or an error at their end.
fn rows(id: PartId, batches: mpsc::Receiver<Result<RecordBatch>>, ends: Arc<Ends>) -> impl Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::unfold(Some((batches, ends)), move |state| async move {
        let (mut batches, ends) = state?;
        match batches.recv().await {
            Some(Ok(batch)) => Some((Ok(batch), Some((batches, ends)))),
            Some(Err(error)) => Some((Err(error), None)),
            None if ends.ended.load(Ordering::Acquire) == ends.partitions => None,
            None => {
                let text = format!("{id} ended before all of its rows were here: the query was cancelled, or another part of it failed");
                Some((Err(Error::new(ErrorClass::Cancelled, text)), None))
            }
        }
    })
}

impl Part {
    /// Hands rows over, and waits while the client has enough of them.
    ///
    /// # Errors
    /// [`ErrorClass::Cancelled`] when the client has gone.
    pub async fn send(&self, batch: RecordBatch) -> Result<()> {
        let gone = || Error::new(ErrorClass::Cancelled, format!("the client of {} went away", self.id));
        self.sender.send(Ok(batch)).await.map_err(|_| gone())
    }

    /// Tells the client what ended a partition.
    pub async fn fail(&self, error: Error) {
        // A client that has gone needs no error.
        let _ = self.sender.send(Err(error)).await;
    }

    /// One partition has given all of its rows.
    pub fn partition_ended(&self) {
        self.ends.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What was fetched goes on until its queue is empty; what was not is of no use without its query.
        self.published.parts.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use futures::{StreamExt, TryStreamExt};

    const PATIENCE: Duration = Duration::from_millis(200);

    fn batch(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    fn id() -> PartId {
        PartId { query: Uuid::now_v7(), task: 0 }
    }

    #[tokio::test]
    async fn all_partitions_make_one_part() {
        let (published, id) = (Arc::new(Published::default()), id());
        let part = published.open(id, batch(&[]).schema(), 2);
        let (schema, rows) = published.fetch(id, PATIENCE).await.unwrap();
        assert_eq!(schema, batch(&[]).schema());
        for values in [[1, 2], [3, 4]] {
            part.send(batch(&values)).await.unwrap();
            part.partition_ended();
        }
        assert!(published.fetch(id, PATIENCE).await.err().unwrap().to_string().contains("already fetched"));
        drop(part);
        let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
        assert_eq!(published.fetch(id, PATIENCE).await.err().unwrap().class(), ErrorClass::NotFound);
    }

    #[tokio::test]
    async fn a_part_that_was_cut_off_is_not_a_short_one() {
        let (published, id) = (Arc::new(Published::default()), id());
        let part = published.open(id, batch(&[]).schema(), 2);
        let (_, rows) = published.fetch(id, PATIENCE).await.unwrap();
        part.send(batch(&[1])).await.unwrap();
        part.partition_ended();
        drop(part);
        let rows: Vec<_> = rows.collect().await;
        assert_eq!((rows.len(), rows[1].as_ref().err().unwrap().class()), (2, ErrorClass::Cancelled));
    }

    #[tokio::test]
    async fn who_asks_early_waits_and_errors_arrive() {
        let (published, id) = (Arc::new(Published::default()), id());
        let fetching = tokio::spawn({
            let published = published.clone();
            async move { published.fetch(id, Duration::from_secs(20)).await.map(|(_, rows)| rows.boxed()) }
        });
        tokio::task::yield_now().await;
        let part = published.open(id, batch(&[]).schema(), 1);
        part.fail(Error::user("no such thing")).await;
        let rows: Vec<_> = fetching.await.unwrap().unwrap().collect().await;
        assert_eq!((rows.len(), rows[0].as_ref().err().unwrap().class()), (1, ErrorClass::User));
        // Nobody listens any more: the task must end.
        assert_eq!(part.send(batch(&[1])).await.err().unwrap().class(), ErrorClass::Cancelled);
    }
}
