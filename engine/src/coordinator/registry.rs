//! Queries that run, and the last thousand that ran: the source of `system.queries` and `system.tasks`.

use super::observer::{QueryObserver, QuerySummary, TaskRecord};
use crate::config::Priority;
use crate::control::now_ms;
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// Life of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryState {
    /// Waits for a place, or for places for its tasks.
    Queued,
    /// Runs.
    Running,
    /// All rows were released.
    Finished,
    /// Ended with an error.
    Failed(String),
    /// Ended by its client or by a user.
    Cancelled,
}

impl QueryState {
    /// The word in `system.queries`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A query for people.
pub struct QueryRecord {
    /// Query id.
    pub query_id: Uuid,
    /// Who runs it.
    pub user: String,
    /// Statement text.
    pub sql: String,
    /// Its share while others wait too.
    pub priority: Priority,
    /// Unix milliseconds of its arrival.
    pub started_at_ms: u64,
    /// Time that it waited for places.
    pub queued: Duration,
    /// Life.
    pub state: QueryState,
    /// Figures.
    pub summary: QuerySummary,
    /// Tasks.
    pub tasks: Vec<TaskRecord>,
    /// Who has its rows for the client, once that is known.
    pub result_from: Option<&'static str>,
    /// What was decided about its plan that its reader would not expect, with the reasons.
    pub decisions: Vec<String>,
}

struct Entry {
    query_id: Uuid,
    user: String,
    sql: String,
    priority: Priority,
    started_at_ms: u64,
    /// All that changes, under one lock: there is no order of several to keep.
    life: Mutex<Life>,
    cancel: watch::Sender<bool>,
}

struct Life {
    state: QueryState,
    waited: Waited,
    observer: Option<Arc<QueryObserver>>,
}

/// Time in queues: what is over, and since when it waits now.
struct Waited {
    before: Duration,
    since: Option<Instant>,
}

impl Waited {
    fn so_far(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
    fn stop(&mut self) {
        self.before = self.so_far();
        self.since = None;
    }
}

impl QueryState {
    fn has_ended(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// One query's line in the registry, held by its driver.
#[derive(Clone)]
pub struct QueryHandle {
    entry: Arc<Entry>,
}

/// The registry of a coordinator.
#[derive(Default)]
pub struct QueryRegistry {
    entries: Mutex<VecDeque<Arc<Entry>>>,
}

impl QueryRegistry {
    /// A new query, queued.
    pub fn add(&self, query_id: Uuid, user: &str, sql: &str, priority: Priority) -> QueryHandle {
        let entry = Arc::new(Entry {
            query_id,
            user: user.to_string(),
            sql: sql.to_string(),
            priority,
            started_at_ms: now_ms(),
            life: Mutex::new(Life {
                state: QueryState::Queued,
                waited: Waited { before: Duration::ZERO, since: Some(Instant::now()) },
                observer: None,
            }),
            cancel: watch::Sender::new(false),
        });
        let mut entries = self.entries.lock();
        entries.push_back(entry.clone());
        if entries.len() > limits::QUERIES_REMEMBERED {
            // The oldest that ended; running ones are bounded by admission.
            if let Some(oldest) = entries.iter().position(|entry| entry.life.lock().state.has_ended()) {
                entries.remove(oldest);
            }
        }
        QueryHandle { entry }
    }

    /// All queries, oldest first.
    pub fn records(&self) -> Vec<QueryRecord> {
        let entries: Vec<_> = self.entries.lock().iter().cloned().collect();
        entries
            .iter()
            .map(|entry| {
                let (state, queued, observer) = {
                    let life = entry.life.lock();
                    (life.state.clone(), life.waited.so_far(), life.observer.clone())
                };
                QueryRecord {
                    query_id: entry.query_id,
                    user: entry.user.clone(),
                    sql: entry.sql.clone(),
                    priority: entry.priority,
                    started_at_ms: entry.started_at_ms,
                    queued,
                    state,
                    summary: observer.as_ref().map(|observer| observer.summary()).unwrap_or_default(),
                    tasks: observer.as_ref().map(|observer| observer.tasks()).unwrap_or_default(),
                    result_from: observer.as_ref().and_then(|observer| observer.result_from()),
                    decisions: observer.map(|observer| observer.decisions()).unwrap_or_default(),
                }
            })
            .collect()
    }

    /// How many wait, and how many run.
    pub fn open(&self) -> (usize, usize) {
        let entries = self.entries.lock();
        entries.iter().fold((0, 0), |(queued, running), entry| match entry.life.lock().state {
            QueryState::Queued => (queued + 1, running),
            QueryState::Running => (queued, running + 1),
            _ => (queued, running),
        })
    }

    fn find(&self, query_id: Uuid) -> Option<Arc<Entry>> {
        self.entries.lock().iter().find(|entry| entry.query_id == query_id).cloned()
    }

    /// Figures of a query.
    pub fn summary(&self, query_id: Uuid) -> Option<QuerySummary> {
        Some(QueryHandle { entry: self.find(query_id)? }.summary())
    }

    /// Asks a query of `user` to end.
    ///
    /// # Errors
    /// [`ErrorClass::NotFound`] when nobody knows it, [`ErrorClass::Denied`] when it is somebody else's, [`ErrorClass::User`] when it has ended.
    pub fn cancel(&self, query_id: Uuid, user: &str) -> Result<()> {
        let Some(entry) = self.find(query_id) else {
            return Err(Error::not_found(format!("there is no query {query_id}: system.queries lists those that run or ended lately")));
        };
        if entry.user != user {
            let text = format!("query {query_id} is of user {}, and you are {user}: only who runs a query may cancel it", entry.user);
            return Err(Error::new(ErrorClass::Denied, text));
        }
        let state = entry.life.lock().state.clone();
        if state.has_ended() {
            return Err(Error::user(format!("query {query_id} has ended already: it is {}", state.word())));
        }
        entry.cancel.send_replace(true);
        Ok(())
    }
}

impl QueryHandle {
    /// Query id.
    pub fn query_id(&self) -> Uuid {
        self.entry.query_id
    }

    /// It begins, or ceases, to wait for places.
    pub fn waits(&self, waits: bool) {
        let mut life = self.entry.life.lock();
        if !life.state.has_ended() {
            life.state = if waits { QueryState::Queued } else { QueryState::Running };
        }
        life.waited.stop();
        life.waited.since = waits.then(Instant::now);
    }

    /// How long it waited for places so far.
    pub fn waited(&self) -> Duration {
        self.entry.life.lock().waited.so_far()
    }

    /// The observer of the current try.
    pub fn observe(&self, observer: Arc<QueryObserver>) {
        let mut life = self.entry.life.lock();
        life.observer = Some(observer);
        life.state = QueryState::Running;
    }

    /// The figures so far.
    pub fn summary(&self) -> QuerySummary {
        let observer = self.entry.life.lock().observer.clone();
        observer.map_or(QuerySummary { query_id: self.entry.query_id, ..Default::default() }, |observer| observer.summary())
    }

    /// Resolves when somebody asked the query to end.
    pub async fn cancelled(&self) {
        let mut asked = self.entry.cancel.subscribe();
        // The sender lives in the entry that `self` holds.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// The query ended; the first end counts.
    pub fn end(&self, state: QueryState) {
        let (queued, summary) = {
            let mut life = self.entry.life.lock();
            if life.state.has_ended() {
                return;
            }
            life.waited.stop();
            let summary = life.observer.as_ref().map(|observer| {
                observer.finish();
                observer.summary()
            });
            life.state = state.clone();
            (life.waited.so_far(), summary)
        };
        metrics::counter!("bowshot_queries_total", "state" => state.word()).increment(1);
        if let Some(summary) = summary {
            metrics::histogram!("bowshot_query_queued_seconds").record(queued.as_secs_f64());
            metrics::histogram!("bowshot_query_duration_seconds").record(summary.elapsed_ms as f64 / 1000.0);
            metrics::counter!("bowshot_bytes_scanned_total", "source" => "all").increment(summary.bytes_scanned);
            metrics::counter!("bowshot_bytes_moved_total", "scope" => "node").increment(summary.bytes_moved);
            metrics::counter!("bowshot_bytes_moved_total", "scope" => "region").increment(summary.bytes_moved_across_regions);
            for (device, tasks) in [("device", summary.tasks_on_device), ("host", summary.tasks_on_host_kernel)] {
                metrics::counter!("bowshot_tasks_total", "device" => device).increment(tasks.into());
            }
        }
    }

    /// Ends the query with an error.
    pub fn fail(&self, error: &Error) {
        self.end(match error.class() {
            ErrorClass::Cancelled => QueryState::Cancelled,
            _ => QueryState::Failed(error.message()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn queries_end_while_others_look_at_them() {
        let query = |_| {
            let registry = QueryRegistry::default();
            let handle = registry.add(Uuid::now_v7(), "ana", "SELECT 1", Priority::default());
            (registry, handle)
        };
        let queries: Vec<_> = (0..10_000).map(query).collect();
        // Both threads come to each query at the same moment: locks that are taken in different orders meet within a few of them.
        let arrived = AtomicUsize::new(0);
        let meet = |number: usize| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 * (number + 1) {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (number, (_, handle)) in queries.iter().enumerate() {
                    meet(number);
                    handle.end(QueryState::Finished);
                    handle.end(QueryState::Cancelled);
                }
            });
            for (number, (registry, _)) in queries.iter().enumerate() {
                meet(number);
                assert_eq!(registry.records().len(), 1);
            }
        });
        let first_end = |(registry, _): &(QueryRegistry, QueryHandle)| registry.records()[0].state == QueryState::Finished;
        assert!(queries.iter().all(first_end));
    }
}
