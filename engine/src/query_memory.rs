//! Memory of one query on one node: a pool of its own in front of the node's, shared by all of its tasks there.
//!
//! ```text
//!   HashJoin ─┐                                          ┌─ column cache
//!   Sort     ─┼──► QueryPool (limit, peak) ──► NodeMemory ┤
//!   …        ─┘    fair within the query       fair within the node
//! ```
//!
//! Both pools must agree to every byte. Each is [shared fairly](crate::fair_pool).

use crate::fair_pool::FairPool;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Consumers that an error about exhausted memory names.
pub const CONSUMERS_NAMED: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// What a query's limit is divided by for the merge of one sort: as many as a node's cores, and a few of them, with room for their rows.
const SORTS_EXPECTED: u64 = 32;

/// Session setting that lowers the limit of a query.
const SESSION_SETTING: &str = "SET bowshot.memory_limit_bytes";

/// Where a query runs, and what bounds it there.
#[derive(Debug, Clone)]
pub struct MemoryPlace {
    /// `node node-1`, or `the coordinator`.
    pub name: String,
    /// Setting of the memory that all queries share there.
    pub shared_setting: &'static str,
    /// Most bytes of one query; 0 for none.
    pub query_bytes: u64,
    /// Setting of that.
    pub query_setting: &'static str,
}

/// Most bytes of a query, and which setting says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    bytes: u64,
    setting: &'static str,
}

impl MemoryPlace {
    /// A session may lower the limit, not raise it.
    fn limit(&self, session_bytes: u64) -> Option<Limit> {
        let of_place = (self.query_bytes > 0).then_some(Limit { bytes: self.query_bytes, setting: self.query_setting });
        let of_session = (session_bytes > 0).then_some(Limit { bytes: session_bytes, setting: SESSION_SETTING });
        [of_place, of_session].into_iter().flatten().min_by_key(|limit| limit.bytes)
    }
}

/// The pool of one query. It lives as long as a task of the query does.
#[derive(Debug)]
pub struct QueryPool {
    place: MemoryPlace,
    own: Option<(Limit, TrackConsumersPool<FairPool>)>,
    shared: Arc<dyn MemoryPool>,
    reserved: AtomicUsize,
    peak: Arc<AtomicUsize>,
}

impl QueryPool {
    /// A pool in front of `shared`, for a query whose session wants at most `session_bytes` (0 for what the place gives).
    pub fn new(place: MemoryPlace, shared: Arc<dyn MemoryPool>, session_bytes: u64) -> Self {
        let own = place.limit(session_bytes).map(|limit| (limit, TrackConsumersPool::new(FairPool::new(limit.bytes), CONSUMERS_NAMED)));
        Self { place, own, shared, reserved: AtomicUsize::new(0), peak: Arc::default() }
    }

    /// The most that it held at once; goes on counting for as long as the query runs.
    pub fn peak(&self) -> Arc<AtomicUsize> {
        self.peak.clone()
    }

    /// Settings that suit the limit. A sort sets memory aside for its merge before it takes a row: 10 MB, more than some queries may hold in all.
    pub fn suited(&self, mut config: SessionConfig) -> SessionConfig {
        if let Some((limit, _)) = &self.own {
            let execution = &mut config.options_mut().execution;
            let share = usize::try_from(limit.bytes / SORTS_EXPECTED).unwrap_or(usize::MAX);
            execution.sort_spill_reservation_bytes = execution.sort_spill_reservation_bytes.min(share);
        }
        config
    }

    fn grown(&self, bytes: usize) {
        let now = self.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }
}

/// `runtime` with another pool: stores, caches and the spill folder with its bound stay shared.
pub fn runtime_with(runtime: &RuntimeEnv, pool: Arc<QueryPool>) -> Arc<RuntimeEnv> {
    Arc::new(RuntimeEnv { memory_pool: pool, ..runtime.clone() })
}

/// Says what ran out, where, and the way out. Operators look for this variant: those that can, spill.
fn exhausted(what: String, cause: DataFusionError) -> DataFusionError {
    match cause {
        DataFusionError::ResourcesExhausted(cause) => DataFusionError::ResourcesExhausted(format!("{what}; {cause}")),
        other => other,
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.own {
            Some((limit, _)) => write!(f, "query({} bytes)", limit.bytes),
            None => self.shared.fmt(f),
        }
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }
    fn register(&self, consumer: &MemoryConsumer) {
        if let Some((_, own)) = &self.own {
            own.register(consumer);
        }
        self.shared.register(consumer);
    }
    fn unregister(&self, consumer: &MemoryConsumer) {
        if let Some((_, own)) = &self.own {
            own.unregister(consumer);
        }
        self.shared.unregister(consumer);
    }
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if let Some((_, own)) = &self.own {
            own.grow(reservation, additional);
        }
        self.shared.grow(reservation, additional);
        self.grown(additional);
    }
    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if let Some((_, own)) = &self.own {
            own.shrink(reservation, shrink);
        }
        self.shared.shrink(reservation, shrink);
        self.reserved.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if let Some((limit, own)) = &self.own {
            own.try_grow(reservation, additional).map_err(|cause| {
                let what = format!(
                    "the query needs more memory than the {} bytes that it may hold on {} ({}): raise the limit, or ask for less at once",
                    limit.bytes, self.place.name, limit.setting
                );
                exhausted(what, cause)
            })?;
        }
        if let Err(cause) = self.shared.try_grow(reservation, additional) {
            if let Some((_, own)) = &self.own {
                own.shrink(reservation, additional);
            }
            let what = format!(
                "the memory that queries share on {} ({}) has no more for this one: run fewer at once, raise it, or ask for less",
                self.place.name, self.place.shared_setting
            );
            return Err(exhausted(what, cause));
        }
        self.grown(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
    fn memory_limit(&self) -> MemoryLimit {
        match &self.own {
            Some((_, own)) => own.memory_limit(),
            None => self.shared.memory_limit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn place(query_bytes: usize) -> MemoryPlace {
        MemoryPlace {
            name: "node node-1".into(),
            shared_setting: "worker.memory_bytes",
            query_bytes: query_bytes as u64,
            query_setting: "worker.query_memory_bytes",
        }
    }

    fn node(bytes: usize) -> Arc<dyn MemoryPool> {
        Arc::new(FairPool::new(bytes as u64))
    }

    fn pool(place: MemoryPlace, node: &Arc<dyn MemoryPool>, session_bytes: usize) -> (Arc<dyn MemoryPool>, Arc<AtomicUsize>) {
        let pool = QueryPool::new(place, node.clone(), session_bytes as u64);
        let peak = pool.peak();
        (Arc::new(pool), peak)
    }

    #[test]
    fn a_query_has_its_limit_and_leaves_the_rest_to_others() {
        let node = node(16 * MIB);
        let (first, peak) = pool(place(4 * MIB), &node, 0);
        let join = MemoryConsumer::new("a join").register(&first);
        join.try_grow(3 * MIB).unwrap();
        let refused = join.try_grow(2 * MIB).unwrap_err();
        assert!(matches!(refused, DataFusionError::ResourcesExhausted(_)), "operators spill on this one alone: {refused}");
        let text = refused.to_string();
        assert!(text.contains("4194304 bytes that it may hold on node node-1 (worker.query_memory_bytes)"), "{text}");
        assert!(text.contains("a join"), "names who holds the memory: {text}");
        let (second, _) = pool(place(4 * MIB), &node, 0);
        let other = MemoryConsumer::new("another").register(&second);
        other.try_grow(4 * MIB).unwrap();
        assert_eq!(node.reserved(), 7 * MIB);
        drop((join, other));
        assert_eq!((first.reserved(), second.reserved(), node.reserved()), (0, 0, 0));
        assert_eq!(peak.load(Ordering::Relaxed), 3 * MIB);
    }

    #[test]
    fn a_session_lowers_the_limit_and_does_not_raise_it() {
        let node = node(16 * MIB);
        let (lowered, _) = pool(place(4 * MIB), &node, MIB);
        let text = MemoryConsumer::new("a join").register(&lowered).try_grow(2 * MIB).unwrap_err().to_string();
        assert!(text.contains("1048576 bytes") && text.contains("SET bowshot.memory_limit_bytes"), "{text}");
        let (raised, _) = pool(place(4 * MIB), &node, 8 * MIB);
        let text = MemoryConsumer::new("a join").register(&raised).try_grow(5 * MIB).unwrap_err().to_string();
        assert!(text.contains("worker.query_memory_bytes"), "{text}");
        let (unbounded, _) = pool(place(0), &node, 0);
        MemoryConsumer::new("a join").register(&unbounded).try_grow(10 * MIB).unwrap();
    }

    #[test]
    fn what_the_node_refuses_is_not_booked_on_the_query() {
        let node = node(4 * MIB);
        let (query, peak) = pool(place(8 * MIB), &node, 0);
        let join = MemoryConsumer::new("a join").register(&query);
        join.try_grow(MIB).unwrap();
        let text = join.try_grow(6 * MIB).unwrap_err().to_string();
        assert!(text.contains("node node-1 (worker.memory_bytes)"), "{text}");
        join.try_grow(3 * MIB).unwrap();
        assert_eq!((query.reserved(), peak.load(Ordering::Relaxed)), (4 * MIB, 4 * MIB));
    }

    #[test]
    fn operators_that_spill_share_the_limit() {
        let node = node(64 * MIB);
        let (query, _) = pool(place(8 * MIB), &node, 0);
        let sorts: Vec<_> = (0..4).map(|_| MemoryConsumer::new("a sort").with_can_spill(true).register(&query)).collect();
        for sort in &sorts {
            sort.try_grow(MIB).unwrap();
        }
        for sort in &sorts {
            sort.try_grow(MIB / 2).unwrap();
            assert!(sort.try_grow(MIB / 2).is_err(), "an equal share each, however much the node has");
        }
    }
}
