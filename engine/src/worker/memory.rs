//! The node's memory: query operators and the column cache share one pool, in which the cache gives way.

use crate::fair_pool::FairPool;
use crate::query_memory::CONSUMERS_NAMED;
use bowshot_kernels::{Kernels, MemoryAccount};
use datafusion::common::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A pool of operators' memory and of what the cache may take. What the cache does not use is the operators'; what they need more, it gives up,
/// all but its pins, before an operator spills or fails.
#[derive(Debug)]
pub struct NodeMemory {
    pool: Arc<dyn MemoryPool>,
    cache: OnceLock<CacheOf>,
    cache_account: Arc<CacheAccount>,
}

struct CacheOf(Kernels);

impl fmt::Debug for CacheOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a cache of {} bytes", self.0.cache().bytes())
    }
}

impl NodeMemory {
    /// A pool of `operator_bytes` and `cache_bytes`.
    pub fn new(operator_bytes: u64, cache_bytes: u64) -> Self {
        let pool = FairPool::new(operator_bytes.saturating_add(cache_bytes));
        let pool: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(pool, CONSUMERS_NAMED));
        let cache_account = Arc::new(CacheAccount(MemoryConsumer::new("column cache").register(&pool)));
        Self { pool, cache: OnceLock::new(), cache_account }
    }

    /// The account for the cache's memory.
    pub fn cache_account(&self) -> Arc<dyn MemoryAccount> {
        self.cache_account.clone()
    }

    /// Bytes that operators hold now.
    pub fn operator_bytes(&self) -> u64 {
        self.pool.reserved().saturating_sub(self.cache_account.0.size()) as u64
    }

    /// Lets operators take the memory of the cache of `kernels`, whose account is [`Self::cache_account`].
    pub fn share_with(&self, kernels: Kernels) {
        // The first cache stays the one: a node has no other.
        let _ = self.cache.set(CacheOf(kernels));
    }
}

/// Takes from the pool itself, not from [`NodeMemory`], which would ask the cache for its own memory.
#[derive(Debug)]
struct CacheAccount(MemoryReservation);

impl MemoryAccount for CacheAccount {
    fn try_grow(&self, bytes: u64) -> bool {
        self.0.try_grow(bytes as usize).is_ok()
    }
    fn shrink(&self, bytes: u64) {
        self.0.shrink(bytes as usize);
    }
}

impl fmt::Display for NodeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pool.fmt(f)
    }
}

impl MemoryPool for NodeMemory {
    fn name(&self) -> &str {
        self.pool.name()
    }
    fn register(&self, consumer: &MemoryConsumer) {
        self.pool.register(consumer);
    }
    fn unregister(&self, consumer: &MemoryConsumer) {
        self.pool.unregister(consumer);
    }
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
    }
    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        loop {
            let Err(refused) = self.pool.try_grow(reservation, additional) else { return Ok(()) };
            // Operators that can spill get equal shares of what the cache leaves, so one round may not be enough.
            match self.cache.get() {
                Some(CacheOf(kernels)) if kernels.cache().shrink(additional as u64) > 0 => {}
                _ => return Err(refused),
            }
        }
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }
    fn memory_limit(&self) -> MemoryLimit {
        self.pool.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use bowshot_kernels::{ChunkColumn, ChunkEncoder, ChunkKey, ColumnType, DevicePolicy, KernelsConfig};

    const MIB: u64 = 1 << 20;

    /// A cache of 8 MiB beside 4 MiB for operators, full of chunks of half a MiB.
    fn full() -> (Arc<NodeMemory>, Kernels) {
        let memory = Arc::new(NodeMemory::new(4 * MIB, 8 * MIB));
        let host_memory = memory.cache_account();
        let kernels =
            Kernels::open(KernelsConfig { host_cache_bytes: 8 * MIB, host_memory, device: DevicePolicy::Off, ..Default::default() });
        memory.share_with(kernels.clone());
        for row_group in 0..20 {
            let mut encoder = ChunkEncoder::new(ColumnType::Int { bits: 64, signed: true });
            encoder.push(&Int64Array::from_iter_values((0..(MIB / 2) as i64).map(|row| row % 251))).unwrap();
            let key = ChunkKey { file: "a@1".into(), row_group, column: ChunkColumn::Stored(0) };
            let chunk = kernels.cache().insert(key.clone(), encoder.finish().unwrap());
            if row_group < 2 {
                kernels.cache().pin(key, &chunk).unwrap();
            }
        }
        assert!(kernels.cache().bytes() > 7 * MIB);
        (memory, kernels)
    }

    #[test]
    fn operators_take_what_the_cache_holds_but_its_pins() {
        let (memory, kernels) = full();
        let pool: Arc<dyn MemoryPool> = memory.clone();
        let operator = MemoryConsumer::new("a join").register(&pool);
        assert_eq!(memory.operator_bytes(), 0);
        operator.try_grow(4 * MIB as usize).unwrap();
        assert_eq!(memory.operator_bytes(), 4 * MIB);
        assert!(kernels.cache().bytes() > 7 * MIB, "its own memory takes none of the cache's");
        operator.try_grow(6 * MIB as usize).unwrap();
        assert!((MIB..=2 * MIB).contains(&kernels.cache().bytes()), "{}", kernels.cache().bytes());
        let refused = operator.try_grow(2 * MIB as usize).unwrap_err().to_string();
        assert!(refused.contains("column cache"), "names who holds the memory: {refused}");
        assert_eq!(kernels.cache().entries().iter().filter(|chunk| chunk.pinned).count(), 2);
    }

    #[test]
    fn a_cache_whose_memory_is_in_use_grows_again_when_it_is_free() {
        let (memory, kernels) = full();
        let pool: Arc<dyn MemoryPool> = memory;
        let operator = MemoryConsumer::new("a join").with_can_spill(true).register(&pool);
        operator.try_grow(9 * MIB as usize).unwrap();
        let held = kernels.cache().bytes();
        let key = ChunkKey { file: "b@1".into(), row_group: 0, column: ChunkColumn::Stored(0) };
        let chunk = || {
            let mut encoder = ChunkEncoder::new(ColumnType::Int { bits: 64, signed: true });
            encoder.push(&Int64Array::from_iter_values((0..4 * MIB as i64).map(|row| row % 251))).unwrap();
            encoder.finish().unwrap()
        };
        kernels.cache().insert(key.clone(), chunk());
        assert!(kernels.cache().bytes() <= held);
        drop(operator);
        kernels.cache().insert(key.clone(), chunk());
        assert!(kernels.cache().get(&key).is_some());
    }
}
