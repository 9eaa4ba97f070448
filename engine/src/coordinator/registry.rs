//! Queries that run, and the last thousand that ran: the source of `system.queries` and `system.tasks`.

use super::observer::{QueryObserver, QuerySummary, TaskRecord};
use crate::control::now_ms;
use crate::error::{Error, ErrorClass};
use crate::limits;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

/// Life of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryState {
    /// Waits for admission.
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
    /// Unix milliseconds of its start.
    pub started_at_ms: u64,
    /// Life.
    pub state: QueryState,
    /// Figures.
    pub summary: QuerySummary,
    /// Tasks.
    pub tasks: Vec<TaskRecord>,
}

struct Entry {
    query_id: Uuid,
    user: String,
    sql: String,
    started_at_ms: u64,
    state: Mutex<QueryState>,
    observer: Mutex<Option<Arc<QueryObserver>>>,
    cancel: watch::Sender<bool>,
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
    pub fn add(&self, query_id: Uuid, user: &str, sql: &str) -> QueryHandle {
        let entry = Arc::new(Entry {
            query_id,
            user: user.to_string(),
            sql: sql.to_string(),
            started_at_ms: now_ms(),
            state: Mutex::new(QueryState::Queued),
            observer: Mutex::new(None),
            cancel: watch::Sender::new(false),
        });
        let mut entries = self.entries.lock();
        entries.push_back(entry.clone());
        if entries.len() > limits::QUERIES_REMEMBERED {
            // The oldest that ended; running ones are bounded by admission.
            if let Some(oldest) = entries.iter().position(|entry| !matches!(*entry.state.lock(), QueryState::Queued | QueryState::Running))
            {
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
                let observer = entry.observer.lock().clone();
                QueryRecord {
                    query_id: entry.query_id,
                    user: entry.user.clone(),
                    sql: entry.sql.clone(),
                    started_at_ms: entry.started_at_ms,
                    state: entry.state.lock().clone(),
                    summary: observer.as_ref().map(|observer| observer.summary()).unwrap_or_default(),
                    tasks: observer.map(|observer| observer.tasks()).unwrap_or_default(),
                }
            })
            .collect()
    }

    fn find(&self, query_id: Uuid) -> Option<Arc<Entry>> {
        self.entries.lock().iter().find(|entry| entry.query_id == query_id).cloned()
    }

    /// Figures of a query.
    pub fn summary(&self, query_id: Uuid) -> Option<QuerySummary> {
        let entry = self.find(query_id)?;
        let observer = entry.observer.lock().clone();
        Some(observer.map_or(QuerySummary { query_id, ..Default::default() }, |observer| observer.summary()))
    }

    /// Asks a query to end. Returns whether `user` has such a query.
    pub fn cancel(&self, query_id: Uuid, user: &str) -> bool {
        self.find(query_id).filter(|entry| entry.user == user).is_some_and(|entry| {
            entry.cancel.send_replace(true);
            true
        })
    }
}

impl QueryHandle {
    /// Query id.
    pub fn query_id(&self) -> Uuid {
        self.entry.query_id
    }

    /// The observer of the current try.
    pub fn observe(&self, observer: Arc<QueryObserver>) {
        *self.entry.observer.lock() = Some(observer);
        *self.entry.state.lock() = QueryState::Running;
    }

    /// The figures so far.
    pub fn summary(&self) -> QuerySummary {
        let observer = self.entry.observer.lock().clone();
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
        let mut current = self.entry.state.lock();
        if !matches!(*current, QueryState::Queued | QueryState::Running) {
            return;
        }
        let summary = {
            let observer = self.entry.observer.lock().clone();
            observer.map(|observer| {
                observer.finish();
                observer.summary()
            })
        };
        metrics::counter!("bowshot_queries_total", "state" => state.word()).increment(1);
        if let Some(summary) = summary {
            metrics::histogram!("bowshot_query_duration_seconds").record(summary.elapsed_ms as f64 / 1000.0);
            metrics::counter!("bowshot_bytes_scanned_total", "source" => "all").increment(summary.bytes_scanned);
            metrics::counter!("bowshot_bytes_moved_total", "scope" => "node").increment(summary.bytes_moved);
            metrics::counter!("bowshot_bytes_moved_total", "scope" => "region").increment(summary.bytes_moved_across_regions);
            for (device, tasks) in [("device", summary.tasks_on_device), ("host", summary.tasks_on_host_kernel)] {
                metrics::counter!("bowshot_tasks_total", "device" => device).increment(tasks.into());
            }
        }
        *current = state;
    }

    /// Ends the query with an error.
    pub fn fail(&self, error: &Error) {
        self.end(match error.class() {
            ErrorClass::Cancelled => QueryState::Cancelled,
            _ => QueryState::Failed(error.message()),
        });
    }
}
