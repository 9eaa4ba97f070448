//! The results that clients may fetch, are fetching or have fetched, by query id.
//!
//! ```text
//! insert -> Waiting --fetch--> Running --end or cancel--> Finished -> forgotten
//!              |  (unclaimed or cancelled: the query is dropped)  ^
//!              +---------------------------------------------------+
//! insert_parts -> InParts, each part claimed once --end, error or cancel--> Finished or Failed -> forgotten
//! ```
//!
//! What a command answers takes no place: many clients never fetch it, and the command is done, so that no refusal is true.

use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bowshot_engine::{Error, ErrorClass, ResultCompression, ResultPart};
use futures::{Stream, TryStreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
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
    /// The statement is over, and only its few rows wait.
    pub is_over: bool,
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
    is_over: bool,
    cancel: watch::Sender<bool>,
    state: State,
}

impl Entry {
    fn of(user: &str, state: State) -> Self {
        Self { user: user.to_string(), since: Instant::now(), is_over: false, cancel: watch::Sender::new(false), state }
    }

    fn is_unclaimed(&self) -> bool {
        let claimable = match &self.state {
            State::Waiting(_) => true,
            State::InParts(known) => known.claimed() < known.parts.len(),
            State::Running | State::Finished | State::Failed(_) => false,
        };
        claimable && self.since.elapsed() > limits::RESULT_UNCLAIMED
    }
}

enum State {
    Waiting(Waiting),
    Running,
    InParts(InParts),
    Finished,
    Failed(Error),
}

impl State {
    fn is_end(&self) -> bool {
        matches!(self, Self::Finished | Self::Failed(_))
    }
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

/// More results wait or run than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    #[error("{} results of this user are waiting or running already: fetch or cancel some first", limits::RESULTS_PER_USER_MAX)]
    OfUser,
    #[error("{} results are waiting or running already: try again once some are fetched", limits::RESULTS_MAX)]
    OfAll,
}

/// Where each result is.
#[derive(Default)]
pub struct Results {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<Uuid, Entry>,
    /// Those that ended, the longest ago first. They hold figures and no place of others.
    ended: VecDeque<Uuid>,
    /// How many of each user did not, apart from those of commands.
    open: HashMap<String, usize>,
    /// Results of commands by their user, the oldest first; those that were fetched leave late.
    of_commands: HashMap<String, VecDeque<Uuid>>,
}

impl Known {
    /// Notes an end, once, and gives back what must not be dropped under the lock.
    fn end(&mut self, query_id: Uuid, state: State) -> Option<Dropped> {
        let entry = self.entries.get_mut(&query_id)?;
        if entry.state.is_end() {
            return None;
        }
        entry.since = Instant::now();
        let before = std::mem::replace(&mut entry.state, state);
        let (user, held) = (entry.user.clone(), !entry.is_over);
        if held {
            self.closed(&user);
        }
        self.ended.push_back(query_id);
        let forgotten = if self.ended.len() > limits::RESULT_SUMMARIES_MAX { self.ended.pop_front() } else { None };
        Some(Dropped { _state: before, _entry: forgotten.and_then(|oldest| self.entries.remove(&oldest)) })
    }

    fn room_for(&self, user: &str) -> Result<(), TooMany> {
        if self.open.get(user).is_some_and(|open| *open >= limits::RESULTS_PER_USER_MAX) {
            return Err(TooMany::OfUser);
        }
        if self.open.values().sum::<usize>() >= limits::RESULTS_MAX { Err(TooMany::OfAll) } else { Ok(()) }
    }

    /// Notes the result of a command, for which the oldest of the user with the most makes room.
    fn keep_of_command(&mut self, user: &str, query_id: Uuid) -> Option<Entry> {
        self.of_commands.entry(user.to_string()).or_default().push_back(query_id);
        if self.kept_of_commands() <= limits::RESULTS_MAX {
            return None;
        }
        self.forget_fetched_commands();
        if self.kept_of_commands() <= limits::RESULTS_MAX {
            return None;
        }
        let oldest = self.of_commands.values_mut().max_by_key(|waiting| waiting.len())?.pop_front()?;
        self.entries.remove(&oldest)
    }

    fn kept_of_commands(&self) -> usize {
        self.of_commands.values().map(VecDeque::len).sum()
    }

    fn forget_fetched_commands(&mut self) {
        let entries = &self.entries;
        let waits = |query_id: &Uuid| matches!(entries.get(query_id), Some(Entry { state: State::Waiting(_), .. }));
        self.of_commands.retain(|_, waiting| {
            waiting.retain(waits);
            !waiting.is_empty()
        });
    }

    fn closed(&mut self, user: &str) {
        if let Some(open) = self.open.get_mut(user) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(user);
            }
        }
    }

    fn take_expired(&mut self) -> Vec<Entry> {
        let unclaimed: Vec<Uuid> = self.entries.iter().filter(|(_, entry)| entry.is_unclaimed()).map(|(query_id, _)| *query_id).collect();
        let mut expired: Vec<Entry> = unclaimed.iter().filter_map(|query_id| self.entries.remove(query_id)).collect();
        for entry in expired.iter().filter(|entry| !entry.is_over) {
            self.closed(&entry.user);
        }
        self.forget_fetched_commands();
        while let Some(oldest) = self.ended.front().copied() {
            if self.entries.get(&oldest).is_some_and(|entry| entry.since.elapsed() <= limits::RESULT_SUMMARY_KEPT) {
                break;
            }
            self.ended.pop_front();
            expired.extend(self.entries.remove(&oldest));
        }
        expired
    }
}

/// Dropping a query may take a moment; nobody should wait for the lock meanwhile.
struct Dropped {
    _state: State,
    _entry: Option<Entry>,
}

impl Results {
    /// Notes a result that waits to be fetched by `user`. That of a command is always noted.
    ///
    /// # Errors
    /// Nothing is noted when too many results wait or run already, and the query ends.
    pub fn insert(&self, query_id: Uuid, user: &str, result: Waiting) -> Result<(), TooMany> {
        if !result.is_over {
            return self.add(query_id, user, || State::Waiting(result));
        }
        let mut known = self.known.lock();
        known.entries.insert(query_id, Entry { is_over: true, ..Entry::of(user, State::Waiting(result)) });
        let oldest = known.keep_of_command(user, query_id);
        drop(known);
        drop(oldest);
        Ok(())
    }

    /// Notes a result whose parts wait to be fetched by `user`; `rows` has no rows, but the end of its query, or what ended it.
    ///
    /// # Errors
    /// Nothing is noted when too many results wait or run already, and the query ends.
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
        let mut known = self.known.lock();
        let mut expired = vec![];
        if known.room_for(user).is_err() {
            expired = known.take_expired();
            known.room_for(user)?;
        }
        let entry = Entry::of(user, state());
        *known.open.entry(user.to_string()).or_insert(0) += 1;
        known.entries.insert(query_id, entry);
        // Dropping a query may take a moment; nobody should wait for the lock meanwhile.
        drop(known);
        drop(expired);
        Ok(())
    }

    fn parts_ended(&self, query_id: Uuid, ended: Result<(), Error>) {
        let mut known = self.known.lock();
        if !matches!(known.entries.get(&query_id), Some(Entry { state: State::InParts(_), .. })) {
            return;
        }
        let dropped = known.end(query_id, ended.map_or_else(State::Failed, |()| State::Finished));
        drop(known);
        drop(dropped);
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
        let mut known = self.known.lock();
        let entry = known.entries.get_mut(&query_id).filter(|entry| entry.user == user).ok_or(FetchError::Unknown)?;
        if *entry.cancel.borrow() {
            return Err(FetchError::Cancelled);
        }
        let parts = match &mut entry.state {
            State::InParts(parts) => parts,
            State::Failed(error) => return Err(FetchError::Failed(error.clone())),
            _ => return Err(FetchError::AlreadyFetched),
        };
        let number = part as usize;
        let part = parts.parts.get(number).filter(|part| node.is_none_or(|node| part.node_id == node)).ok_or(FetchError::Unknown)?.clone();
        if std::mem::replace(&mut parts.claimed[number], true) {
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
        let known = self.known.lock();
        let entry = known.entries.get(&query_id)?;
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
        let mut known = self.known.lock();
        let entry = known.entries.get_mut(&query_id).filter(|entry| entry.user == user).ok_or(FetchError::Unknown)?;
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
        let mut known = self.known.lock();
        let waiting = known
            .entries
            .get_mut(&query_id)
            .filter(|entry| entry.user == user && matches!(entry.state, State::Waiting(_) | State::InParts(_)));
        waiting.map(|entry| entry.since = Instant::now()).is_some()
    }

    /// Notes that the stream of a result ended, however it did.
    pub fn finish(&self, query_id: Uuid) {
        let mut known = self.known.lock();
        let dropped = known.end(query_id, State::Finished);
        drop(known);
        drop(dropped);
    }

    /// Cancels a query of `user`; false when there is nothing left to cancel.
    pub fn cancel(&self, query_id: Uuid, user: &str) -> bool {
        let mut known = self.known.lock();
        let Some(entry) = known.entries.get_mut(&query_id).filter(|entry| entry.user == user && !entry.state.is_end()) else {
            return false;
        };
        entry.cancel.send_replace(true);
        let waits = matches!(entry.state, State::Waiting(_) | State::InParts(_));
        let dropped = if waits { known.end(query_id, State::Finished) } else { None };
        drop(known);
        drop(dropped);
        true
    }

    /// Whether a query is known here and is `user`'s.
    pub fn is_of(&self, query_id: Uuid, user: &str) -> bool {
        let known = self.known.lock();
        known.entries.get(&query_id).is_some_and(|entry| entry.user == user)
    }

    /// Drops what nobody fetched in time, and forgets what ended long ago. `parts_taken` says how many parts of a query's result were taken to their
    /// end: who still takes one will come for the next.
    pub fn sweep(&self, parts_taken: impl Fn(Uuid) -> usize) {
        let mut known = self.known.lock();
        for (query_id, entry) in known.entries.iter_mut() {
            if let State::InParts(parts) = &entry.state
                && parts.claimed() > parts_taken(*query_id)
            {
                entry.since = Instant::now();
            }
        }
        let expired = known.take_expired();
        drop(known);
        drop(expired);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;

    fn result(is_over: bool) -> Waiting {
        let batches: BatchStream = Box::pin(futures::stream::empty());
        Waiting { schema: Arc::new(Schema::empty()), batches, compression: ResultCompression::None, is_over }
    }

    fn waiting(results: &Results, user: &str) -> Uuid {
        let query_id = Uuid::now_v7();
        assert!(results.insert(query_id, user, result(false)).is_ok());
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

    #[test]
    fn results_that_ended_take_no_place() {
        let results = Results::default();
        for _ in 0..limits::RESULT_SUMMARIES_MAX + limits::RESULTS_MAX {
            let query_id = waiting(&results, "ana");
            assert!(results.fetch(query_id, "ana").is_ok());
            results.finish(query_id);
            results.finish(query_id);
        }
        let known = results.known.lock();
        assert_eq!((known.entries.len(), known.ended.len()), (limits::RESULT_SUMMARIES_MAX, limits::RESULT_SUMMARIES_MAX));
        assert!(known.open.is_empty());
    }

    #[test]
    fn one_user_does_not_hold_all_places() {
        let results = Results::default();
        let all: Vec<Uuid> = (0..limits::RESULTS_PER_USER_MAX).map(|_| waiting(&results, "ana")).collect();
        assert_eq!(results.insert(Uuid::now_v7(), "ana", result(false)), Err(TooMany::OfUser));
        assert!(results.insert(Uuid::now_v7(), "bob", result(false)).is_ok());
        // A command has run: to refuse its answer would be a lie about it.
        assert!(results.insert(Uuid::now_v7(), "ana", result(true)).is_ok());
        assert!(results.cancel(all[0], "ana"));
        assert!(results.insert(Uuid::now_v7(), "ana", result(false)).is_ok());
    }

    #[test]
    fn what_commands_answer_is_bounded_and_takes_no_place() {
        let results = Results::default();
        let of_command = |user: &str| {
            let query_id = Uuid::now_v7();
            assert!(results.insert(query_id, user, result(true)).is_ok());
            query_id
        };
        let of_bob = of_command("bob");
        let first = of_command("ana");
        for _ in 0..limits::RESULTS_MAX {
            of_command("ana");
        }
        assert_eq!(results.known.lock().entries.len(), limits::RESULTS_MAX);
        assert!(matches!(results.fetch(first, "ana").err(), Some(FetchError::Unknown)));
        assert!(results.fetch(of_bob, "bob").is_ok());
        results.finish(of_bob);
        assert!(results.known.lock().open.is_empty());
        for _ in 0..2 * limits::RESULTS_MAX {
            let query_id = of_command("eve");
            assert!(results.fetch(query_id, "eve").is_ok());
            results.finish(query_id);
        }
        let known = results.known.lock();
        assert!(known.kept_of_commands() <= limits::RESULTS_MAX && known.open.is_empty());
    }
}
