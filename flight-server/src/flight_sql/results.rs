//! The results that clients may fetch, are fetching or have fetched, by query id.
//!
//! ```text
//! insert -> Waiting --fetch--> Running --end or cancel--> Finished -> forgotten
//!              |  (unclaimed or cancelled: the query is dropped)  ^
//!              +---------------------------------------------------+
//! insert_parts -> InParts, each part claimed once --end, error or cancel--> Finished or Failed -> forgotten
//! ```

use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bowshot_engine::{Error, ErrorClass, ResultCompression, ResultPart};
use futures::{Stream, TryStreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// Batches of a result as the engine yields them.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>;

/// A result that can be fetched.
pub struct Waiting {
    pub schema: SchemaRef,
    pub batches: BatchStream,
    /// What the session asked for when the statement was started.
    pub compression: ResultCompression,
}

/// A result handed out to be streamed.
pub struct Fetched {
    pub result: Waiting,
    /// Turns true when somebody cancels the query.
    pub cancelled: watch::Receiver<bool>,
}

/// Why a result cannot be fetched.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// Unknown, of another user, or forgotten.
    #[error("this result is not here: it was never made, belongs to somebody else, or was not fetched in time")]
    Unknown,
    /// A result is fetched once.
    #[error("this result was already fetched; run the statement again")]
    AlreadyFetched,
    /// The query was cancelled before.
    #[error("the query was cancelled")]
    Cancelled,
    /// The query failed before.
    #[error("{0}")]
    Failed(Error),
}

struct Entry {
    user: String,
    since: Instant,
    cancel: watch::Sender<bool>,
    state: State,
}

enum State {
    Waiting(Waiting),
    Running,
    InParts(InParts),
    Finished,
    Failed(Error),
}

/// A result that waits on the workers.
struct InParts {
    parts: Vec<ResultPart>,
    claimed: Vec<bool>,
    /// Waits for the query's end.
    keeper: AbortHandle,
}

impl InParts {
    fn claimed(&self) -> usize {
        self.claimed.iter().filter(|claimed| **claimed).count()
    }
}

impl Drop for InParts {
    fn drop(&mut self) {
        // The query ends with what it is polled by; one that has ended does not mind.
        self.keeper.abort();
    }
}

/// More results are known than may be.
#[derive(Debug)]
pub struct TooMany;

/// Where each result is.
#[derive(Default)]
pub struct Results {
    entries: Mutex<HashMap<Uuid, Entry>>,
}

impl Results {
    /// Notes a result that waits to be fetched by `user`.
    ///
    /// # Errors
    /// Gives the result back when too many results are known already.
    pub fn insert(&self, query_id: Uuid, user: &str, result: Waiting) -> Result<(), Waiting> {
        let mut result = Some(result);
        // What is left of it was not noted.
        let _ = self.add(query_id, user, || result.take().map_or(State::Finished, State::Waiting));
        result.map_or(Ok(()), Err)
    }

    /// Notes a result whose parts wait to be fetched by `user`; `rows` has no rows, but the end of its query, or what ended it.
    ///
    /// # Errors
    /// Nothing is noted when too many results are known already, and the query ends.
    pub fn insert_parts(self: &Arc<Self>, query_id: Uuid, user: &str, parts: Vec<ResultPart>, rows: BatchStream) -> Result<(), TooMany> {
        let mut rows = Some(rows);
        self.add(query_id, user, || {
            let (results, rows) = (Arc::clone(self), rows.take());
            // It cannot end before this is noted: until then the lock is held.
            let keeper = tokio::spawn(async move {
                let ended = rows.unwrap_or_else(|| Box::pin(futures::stream::empty())).try_for_each(|_| std::future::ready(Ok(()))).await;
                results.parts_ended(query_id, ended);
            });
            State::InParts(InParts { claimed: vec![false; parts.len()], parts, keeper: keeper.abort_handle() })
        })
    }

    fn add(&self, query_id: Uuid, user: &str, state: impl FnOnce() -> State) -> Result<(), TooMany> {
        let mut entries = self.entries.lock();
        let expired = take_expired(&mut entries);
        if entries.len() >= limits::RESULTS_MAX {
            return Err(TooMany);
        }
        let entry = Entry { user: user.to_string(), since: Instant::now(), cancel: watch::Sender::new(false), state: state() };
        entries.insert(query_id, entry);
        // Dropping a query may take a moment; nobody should wait for the lock meanwhile.
        drop(entries);
        drop(expired);
        Ok(())
    }

    fn parts_ended(&self, query_id: Uuid, ended: Result<(), Error>) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&query_id) else { return };
        if let State::InParts(_) = &entry.state {
            entry.state = ended.map_or_else(State::Failed, |()| State::Finished);
            entry.since = Instant::now();
        }
    }

    /// Gives a part of a result away, once, to be fetched from the worker `node` if one asks.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn claim(
        &self,
        query_id: Uuid,
        user: &str,
        part: u32,
        node: Option<&str>,
    ) -> Result<(ResultPart, watch::Receiver<bool>), FetchError> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&query_id).filter(|entry| entry.user == user).ok_or(FetchError::Unknown)?;
        if *entry.cancel.borrow() {
            return Err(FetchError::Cancelled);
        }
        let known = match &mut entry.state {
            State::InParts(known) => known,
            State::Failed(error) => return Err(FetchError::Failed(error.clone())),
            _ => return Err(FetchError::AlreadyFetched),
        };
        let number = part as usize;
        let part = known.parts.get(number).filter(|part| node.is_none_or(|node| part.node_id == node)).ok_or(FetchError::Unknown)?.clone();
        if std::mem::replace(&mut known.claimed[number], true) {
            return Err(FetchError::AlreadyFetched);
        }
        entry.since = Instant::now();
        Ok((part, entry.cancel.subscribe()))
    }

    /// What ended a query whose part was cut off, if it did not end well: its worker does not know, but who polls the query hears of it soon.
    pub async fn why_ended(&self, query_id: Uuid) -> Option<Error> {
        for _ in 0..limits::PART_FAILURE_LOOKS {
            if let Some(failure) = self.failure(query_id) {
                return Some(failure);
            }
            tokio::time::sleep(limits::PART_FAILURE_LOOK_INTERVAL).await;
        }
        None
    }

    fn failure(&self, query_id: Uuid) -> Option<Error> {
        let entries = self.entries.lock();
        let entry = entries.get(&query_id)?;
        match &entry.state {
            State::Failed(error) => Some(error.clone()),
            _ if *entry.cancel.borrow() => Some(Error::new(ErrorClass::Cancelled, FetchError::Cancelled.to_string())),
            _ => None,
        }
    }

    /// Takes a waiting result out, once.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch(&self, query_id: Uuid, user: &str) -> Result<Fetched, FetchError> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&query_id).filter(|entry| entry.user == user).ok_or(FetchError::Unknown)?;
        if *entry.cancel.borrow() {
            return Err(FetchError::Cancelled);
        }
        match std::mem::replace(&mut entry.state, State::Running) {
            State::Waiting(result) => Ok(Fetched { result, cancelled: entry.cancel.subscribe() }),
            other => {
                entry.state = other;
                Err(FetchError::AlreadyFetched)
            }
        }
    }

    /// Lets a result of `user` wait as long again; false when it waits no more.
    pub fn renew(&self, query_id: Uuid, user: &str) -> bool {
        let mut entries = self.entries.lock();
        let waiting =
            entries.get_mut(&query_id).filter(|entry| entry.user == user && matches!(entry.state, State::Waiting(_) | State::InParts(_)));
        waiting.map(|entry| entry.since = Instant::now()).is_some()
    }

    /// Notes that the stream of a result ended, however it did.
    pub fn finish(&self, query_id: Uuid) {
        if let Some(entry) = self.entries.lock().get_mut(&query_id) {
            entry.state = State::Finished;
            entry.since = Instant::now();
        }
    }

    /// Cancels a query of `user`; false when there is nothing left to cancel.
    pub fn cancel(&self, query_id: Uuid, user: &str) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&query_id).filter(|entry| entry.user == user) else {
            return false;
        };
        if matches!(entry.state, State::Finished | State::Failed(_)) {
            return false;
        }
        entry.cancel.send_replace(true);
        let was_waiting = match &entry.state {
            State::Waiting(_) | State::InParts(_) => Some(std::mem::replace(&mut entry.state, State::Finished)),
            _ => None,
        };
        drop(entries);
        drop(was_waiting);
        true
    }

    /// Whether a query is known here and is `user`'s.
    pub fn is_of(&self, query_id: Uuid, user: &str) -> bool {
        let entries = self.entries.lock();
        entries.get(&query_id).is_some_and(|entry| entry.user == user)
    }

    /// Drops what nobody fetched in time, and forgets what ended long ago. `parts_taken` says how many parts of a query's result were taken to their
    /// end: who still takes one will come for the next.
    pub fn sweep(&self, parts_taken: impl Fn(Uuid) -> usize) {
        let mut entries = self.entries.lock();
        for (query_id, entry) in entries.iter_mut() {
            if let State::InParts(known) = &entry.state
                && known.claimed() > parts_taken(*query_id)
            {
                entry.since = Instant::now();
            }
        }
        let expired = take_expired(&mut entries);
        drop(entries);
        drop(expired);
    }
}

fn take_expired(entries: &mut HashMap<Uuid, Entry>) -> Vec<Entry> {
    let expired: Vec<Uuid> = entries
        .iter()
        .filter(|(_, entry)| match entry.state {
            State::Waiting(_) => entry.since.elapsed() > limits::RESULT_UNCLAIMED,
            State::InParts(ref known) => known.claimed() < known.parts.len() && entry.since.elapsed() > limits::RESULT_UNCLAIMED,
            State::Running => false,
            State::Finished | State::Failed(_) => entry.since.elapsed() > limits::RESULT_SUMMARY_KEPT,
        })
        .map(|(query_id, _)| *query_id)
        .collect();
    expired.iter().filter_map(|query_id| entries.remove(query_id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;

    fn waiting(results: &Results, user: &str) -> Uuid {
        let query_id = Uuid::now_v7();
        let batches: BatchStream = Box::pin(futures::stream::empty());
        let schema = std::sync::Arc::new(Schema::empty());
        assert!(results.insert(query_id, user, Waiting { schema, batches, compression: ResultCompression::None }).is_ok());
        query_id
    }

    #[test]
    fn a_result_is_fetched_once_and_only_by_its_user() {
        let results = Results::default();
        let query_id = waiting(&results, "ana");
        assert!(matches!(results.fetch(query_id, "bob").err(), Some(FetchError::Unknown)));
        assert!(results.renew(query_id, "ana") && !results.renew(query_id, "bob"));
        assert!(results.fetch(query_id, "ana").is_ok());
        assert!(!results.renew(query_id, "ana"));
        assert!(matches!(results.fetch(query_id, "ana").err(), Some(FetchError::AlreadyFetched)));
    }

    #[test]
    fn cancelling_reaches_waiting_and_running_results() {
        let results = Results::default();
        let query_id = waiting(&results, "ana");
        assert!(!results.cancel(query_id, "bob"));
        assert!(results.cancel(query_id, "ana"));
        assert!(matches!(results.fetch(query_id, "ana").err(), Some(FetchError::Cancelled)));
        let running = waiting(&results, "ana");
        let fetched = results.fetch(running, "ana").unwrap();
        assert!(results.cancel(running, "ana"));
        assert!(*fetched.cancelled.borrow());
        results.finish(running);
        assert!(!results.cancel(running, "ana"));
    }
}
