//! The results that clients may fetch, are fetching or have fetched, by query id.
//!
//! ```text
//! insert -> Waiting --fetch--> Running --end or cancel--> Finished -> forgotten
//!              |  (unclaimed or cancelled: the query is dropped)  ^
//!              +---------------------------------------------------+
//! ```

use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bowshot_engine::{Error, ResultCompression};
use futures::Stream;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::time::Instant;
use tokio::sync::watch;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
    Finished,
}

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
        let mut entries = self.entries.lock();
        let expired = take_expired(&mut entries);
        if entries.len() >= limits::RESULTS_MAX {
            return Err(result);
        }
        entries.insert(
            query_id,
            Entry { user: user.to_string(), since: Instant::now(), cancel: watch::Sender::new(false), state: State::Waiting(result) },
        );
        // Dropping a query may take a moment; nobody should wait for the lock meanwhile.
        drop(entries);
        drop(expired);
        Ok(())
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
        let waiting = entries.get_mut(&query_id).filter(|entry| entry.user == user && matches!(entry.state, State::Waiting(_)));
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
        if matches!(entry.state, State::Finished) {
            return false;
        }
        entry.cancel.send_replace(true);
        let was_waiting = match &entry.state {
            State::Waiting(_) => Some(std::mem::replace(&mut entry.state, State::Finished)),
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

    /// Drops what nobody fetched in time, and forgets what ended long ago.
    pub fn sweep(&self) {
        let expired = take_expired(&mut self.entries.lock());
        drop(expired);
    }
}

fn take_expired(entries: &mut HashMap<Uuid, Entry>) -> Vec<Entry> {
    let expired: Vec<Uuid> = entries
        .iter()
        .filter(|(_, entry)| match entry.state {
            State::Waiting(_) => entry.since.elapsed() > limits::RESULT_UNCLAIMED,
            State::Running => false,
            State::Finished => entry.since.elapsed() > limits::RESULT_SUMMARY_KEPT,
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
        assert_eq!(results.fetch(query_id, "bob").err(), Some(FetchError::Unknown));
        assert!(results.renew(query_id, "ana") && !results.renew(query_id, "bob"));
        assert!(results.fetch(query_id, "ana").is_ok());
        assert!(!results.renew(query_id, "ana"));
        assert_eq!(results.fetch(query_id, "ana").err(), Some(FetchError::AlreadyFetched));
    }

    #[test]
    fn cancelling_reaches_waiting_and_running_results() {
        let results = Results::default();
        let query_id = waiting(&results, "ana");
        assert!(!results.cancel(query_id, "bob"));
        assert!(results.cancel(query_id, "ana"));
        assert_eq!(results.fetch(query_id, "ana").err(), Some(FetchError::Cancelled));
        let running = waiting(&results, "ana");
        let fetched = results.fetch(running, "ana").unwrap();
        assert!(results.cancel(running, "ana"));
        assert!(*fetched.cancelled.borrow());
        results.finish(running);
        assert!(!results.cancel(running, "ana"));
    }
}
