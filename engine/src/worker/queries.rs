//! The queries that have tasks on this node: one memory pool each, and the session that their tasks start from.

use crate::error::{Error, Result};
use crate::query_memory::{MemoryPlace, QueryPool, runtime_with};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use http::HeaderMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use uuid::Uuid;

/// Header that names the query of a task, from the coordinator to the worker.
pub const QUERY_HEADER: &str = "x-bowshot-query";

/// The query of a call, where the coordinator names it: one of a release before does not.
pub fn query_of(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(QUERY_HEADER)?.to_str().ok()?.parse().ok()
}

/// The header for a query.
pub fn query_header(query_id: Uuid) -> Result<HeaderMap> {
    let value = query_id.to_string().parse().map_err(|_| Error::bug("a query id cannot travel in a header"))?;
    Ok(HeaderMap::from_iter([(http::HeaderName::from_static(QUERY_HEADER), value)]))
}

/// What the tasks of one query share on this node. Every task holds it; with the last one it goes.
pub struct QueryScope {
    pool: Arc<QueryPool>,
    template: OnceLock<SessionState>,
}

impl QueryScope {
    /// `template` over the query's own pool. Made once a query: hundreds of functions are registered anew.
    pub fn session(&self, template: &SessionState) -> SessionState {
        let made = self.template.get_or_init(|| {
            let runtime = runtime_with(template.runtime_env(), self.pool.clone());
            SessionStateBuilder::new_from_existing(template.clone()).with_runtime_env(runtime).build()
        });
        made.clone()
    }

    /// Settings of a task that suit the query's limit.
    pub fn suited(&self, config: SessionConfig) -> SessionConfig {
        self.pool.suited(config)
    }
}

/// The scopes of the queries that have tasks here.
pub struct Queries {
    place: MemoryPlace,
    scopes: Mutex<HashMap<Uuid, Weak<QueryScope>>>,
}

impl Queries {
    /// None yet.
    pub fn new(place: MemoryPlace) -> Self {
        Self { place, scopes: Mutex::default() }
    }

    /// The scope of a query: the first of its tasks makes it, of a session that wants at most `session_bytes` (0 for the node's limit).
    pub fn scope(&self, query_id: Uuid, template: &SessionState, session_bytes: u64) -> Arc<QueryScope> {
        let mut scopes = self.scopes.lock();
        if let Some(scope) = scopes.get(&query_id).and_then(Weak::upgrade) {
            return scope;
        }
        // Queries that ended leave an empty entry until the next one comes.
        scopes.retain(|_, scope| scope.strong_count() > 0);
        let pool = Arc::new(QueryPool::new(self.place.clone(), template.runtime_env().memory_pool.clone(), session_bytes));
        let scope = Arc::new(QueryScope { pool, template: OnceLock::new() });
        scopes.insert(query_id, Arc::downgrade(&scope));
        scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use datafusion::datasource::MemTable;
    use datafusion::execution::memory_pool::MemoryConsumer;
    use datafusion::physical_plan::execute_stream;
    use datafusion::prelude::SessionContext;
    use futures::TryStreamExt;

    fn queries(query_bytes: u64) -> Queries {
        Queries::new(MemoryPlace {
            name: "node node-1".into(),
            shared_setting: "worker.memory_bytes",
            query_bytes,
            query_setting: "worker.query_memory_bytes",
        })
    }

    #[tokio::test]
    async fn a_sort_larger_than_the_limit_spills() {
        let template = SessionStateBuilder::new().with_default_features().build();
        let scope = queries(8 << 20).scope(Uuid::now_v7(), &template, 0);
        let mut state = scope.session(&template);
        *state.config_mut() = scope.suited(SessionConfig::new().with_target_partitions(1));
        let context = SessionContext::new_with_state(state);
        let batches: Vec<RecordBatch> = (0..40_i64)
            .map(|batch| {
                let keys = (0..8_192).map(|row| (row * 40 + batch) * 7_919 % 327_680);
                let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
                let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..8_192).map(|row| format!("{row:050}"))));
                RecordBatch::try_from_iter([("key", keys), ("text", text)]).unwrap()
            })
            .collect();
        let schema = batches[0].schema();
        context.register_table("t", Arc::new(MemTable::try_new(schema, vec![batches]).unwrap())).unwrap();
        let plan = context.sql("SELECT key, text FROM t ORDER BY key").await.unwrap().create_physical_plan().await.unwrap();
        let mut sorted = execute_stream(plan, context.task_ctx()).unwrap();
        let mut next = 0;
        while let Some(batch) = sorted.try_next().await.unwrap() {
            for key in batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values() {
                assert_eq!(*key, next);
                next += 1;
            }
        }
        assert_eq!(next, 327_680);
        let peak = scope.pool.peak().load(std::sync::atomic::Ordering::Relaxed);
        assert!(peak <= 8 << 20, "{peak}");
    }

    #[test]
    fn tasks_of_a_query_share_a_pool_that_goes_with_the_last() {
        let queries = queries(100);
        let template = SessionStateBuilder::new().build();
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        assert_eq!(query_of(&query_header(one).unwrap()), Some(one));
        let first = queries.scope(one, &template, 0);
        let second = queries.scope(one, &template, 0);
        let held = MemoryConsumer::new("a join").register(&first.session(&template).runtime_env().memory_pool);
        held.try_grow(80).unwrap();
        let more = MemoryConsumer::new("a sort").register(&second.session(&template).runtime_env().memory_pool);
        assert!(more.try_grow(30).is_err(), "one limit for both tasks");
        let foreign = queries.scope(other, &template, 0);
        MemoryConsumer::new("a sort").register(&foreign.session(&template).runtime_env().memory_pool).try_grow(30).unwrap();
        drop((held, more, first, second));
        let again = queries.scope(one, &template, 0);
        MemoryConsumer::new("a join").register(&again.session(&template).runtime_env().memory_pool).try_grow(100).unwrap();
        drop((again, foreign));
        queries.scope(Uuid::now_v7(), &template, 0);
        assert_eq!(queries.scopes.lock().len(), 1, "nothing is kept of queries that ended");
    }
}
