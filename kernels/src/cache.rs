//! The chunk cache of host memory: a byte budget, and eviction by use.

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
    /// Which column.
    pub column: ChunkColumn,
}

/// A column of a file, or a function of some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkColumn {
    /// The leaf column at this position in the file.
    Stored(u32),
    /// The expression over columns of the file to which the caller gave this number.
    Computed(u64),
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

    /// Keeps a chunk, unless it is larger than the budget or has been asked for less often than those it would drive out.
    pub fn insert(&self, key: ChunkKey, chunk: Chunk) -> Arc<Chunk> {
        let chunk = Arc::new(chunk);
        self.chunks.insert(key, Arc::clone(&chunk));
        chunk
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
