//! The way of a query's rows to its client: held back for a while, then released a batch at a time.

use super::CoordinatorInner;
use super::unread;
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use std::sync::Arc;
use tokio::sync::mpsc::{self, PermitIterator};

/// Where rows go.
pub(super) type Sender = mpsc::Sender<Result<RecordBatch>>;

/// The way of released rows to the client.
pub(super) struct Outlet<'a> {
    /// Whose queries may wait for places.
    pub(super) inner: &'a Arc<CoordinatorInner>,
    /// The client.
    pub(super) sender: &'a Sender,
    /// Places in the queue that were taken for what comes next. Taken one by one, each batch that the client reads would wake the query for one more.
    pub(super) places: Option<PermitIterator<'a, Result<RecordBatch>>>,
}

impl Outlet<'_> {
    /// Gives batches to the client as it takes them.
    pub(super) async fn release(&mut self, batches: Vec<RecordBatch>) -> Result<(), DataFusionError> {
        for batch in batches {
            let place = match self.places.as_mut().and_then(Iterator::next) {
                Some(place) => place,
                None => {
                    let places = tokio::select! {
                        places = self.sender.reserve_many(limits::RESULT_QUEUE_BATCHES / 2) => places.map_err(|_| client_gone())?,
                        error = unread::too_long(self.inner) => return Err(error.into()),
                    };
                    self.places.insert(places).next().ok_or_else(client_gone)?
                }
            };
            place.send(Ok(batch));
        }
        Ok(())
    }
}

/// A client that takes no more rows.
pub(super) fn client_gone() -> DataFusionError {
    Error::new(ErrorClass::Cancelled, "the client went away").into()
}

/// The first rows of a result, held back for as long as `bowshot.result_buffer` and the query's memory allow: until then a lost worker costs a
/// repetition and not the query.
pub(super) struct HeldRows {
    limit: u64,
    batches: Vec<RecordBatch>,
    memory: MemoryReservation,
    /// From the first release on rows go through.
    open: bool,
}

impl HeldRows {
    /// Of a query whose session holds so much back.
    pub(super) fn new(limit: u64, state: &SessionState) -> Self {
        let memory = MemoryConsumer::new("result buffer").register(&state.runtime_env().memory_pool);
        Self { limit, batches: vec![], memory, open: limit == 0 }
    }

    /// Takes a batch in. Gives what is to be released now.
    pub(super) fn hold(&mut self, batch: RecordBatch) -> Option<Vec<RecordBatch>> {
        if self.open {
            return Some(vec![batch]);
        }
        let bytes = batch.get_array_memory_size();
        self.batches.push(batch);
        let within = (self.memory.size() + bytes) as u64 <= self.limit && self.memory.try_grow(bytes).is_ok();
        (!within).then(|| self.rest())
    }

    /// What is held still; from now on nothing is.
    pub(super) fn rest(&mut self) -> Vec<RecordBatch> {
        self.open = true;
        self.memory.free();
        std::mem::take(&mut self.batches)
    }
}
