//! The chunk cache of host memory: a byte budget, eviction by use, and one encoder for each missing chunk.

use std::sync::Arc;

use moka::sync::Cache;

use crate::chunk::Chunk;

/// Which column of which row group of which version of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChunkKey {
    /// Path and version (`path@version`): a changed file has another key and is never served stale.
    pub file: Arc<str>,
    /// Position of the row group in the file.
    pub row_group: u32,
    /// Position of the leaf column in the file.
    pub column: u32,
}

/// Weights are 32 bits in the cache, so they count KiB, rounded up.
const WEIGHT_UNIT_BYTES: u64 = 1_024;

/// Chunks by key, within a budget. Chunks that were used seldom leave first.
pub struct ChunkCache {
    chunks: Cache<ChunkKey, Arc<Chunk>>,
    budget_bytes: u64,
}

impl ChunkCache {
    /// A cache of at most `budget_bytes`; 0 keeps nothing.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let chunks = Cache::builder().name("bowshot chunks").max_capacity(budget_bytes / WEIGHT_UNIT_BYTES).weigher(weight_of).build();
        Self { chunks, budget_bytes }
    }

    /// The budget, in bytes.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// The chunk, if cached.
    pub fn get(&self, key: &ChunkKey) -> Option<Arc<Chunk>> {
        self.chunks.get(key)
    }

    /// The chunk, and whether it was there: callers that ask for one missing chunk at the same time share one `encode`.
    /// A chunk larger than the budget is returned and not kept.
    ///
    /// # Errors
    /// What `encode` returned; nothing is cached then, and the next caller tries again.
    pub fn get_or_encode<E: Send + Sync + 'static>(
        &self,
        key: ChunkKey,
        encode: impl FnOnce() -> Result<Chunk, E>,
    ) -> Result<(Arc<Chunk>, bool), Arc<E>> {
        let entry = self.chunks.entry(key).or_try_insert_with(|| encode().map(Arc::new))?;
        let cached = !entry.is_fresh();
        Ok((entry.into_value(), cached))
    }

    /// Bytes held, rounded up to KiB a chunk.
    pub fn bytes(&self) -> u64 {
        self.chunks.run_pending_tasks();
        self.chunks.weighted_size() * WEIGHT_UNIT_BYTES
    }

    /// Every cached chunk and its bytes, in no order.
    pub fn entries(&self) -> Vec<(ChunkKey, u64)> {
        self.chunks.run_pending_tasks();
        self.chunks.iter().map(|(key, chunk)| ((*key).clone(), chunk.bytes() as u64)).collect()
    }

    /// Drops every chunk of `file` (as in [`ChunkKey::file`]).
    pub fn invalidate_file(&self, file: &str) {
        for (key, _) in &self.chunks {
            if &*key.file == file {
                self.chunks.invalidate(&*key);
            }
        }
        self.chunks.run_pending_tasks();
    }
}

fn weight_of(key: &ChunkKey, chunk: &Arc<Chunk>) -> u32 {
    let bytes = (chunk.bytes() + key.file.len()) as u64;
    u32::try_from(bytes.div_ceil(WEIGHT_UNIT_BYTES)).unwrap_or(u32::MAX)
}
