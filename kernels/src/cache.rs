//! The chunk cache of host memory: a byte budget, pins, and an eviction that one large scan does not empty (S3-FIFO).
//!
//! ```text
//!   new ──► small (a tenth) ──used again──► main ──used since──► back to its end
//!             │ not used                      │ not used
//!             ▼                               ▼
//!           dropped; its key is remembered, and goes to main at once when it comes again
//!   pinned chunks stand beside both queues and leave only when they are unpinned or their file changes
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::RwLock;

use crate::chunk::Chunk;
use crate::error::Decline;
use crate::limits::{LENT_STEP_BYTES, PINNED_SHARE, SMALL_SHARE, USES_MAX};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkColumn {
    /// The leaf column at this position in the file.
    Stored(u32),
    /// The expression over columns of the file to which the caller gave this number.
    Computed(u64),
}

/// Who lends the cache its memory, and may take it back with [`ChunkCache::shrink`].
pub trait MemoryAccount: Send + Sync {
    /// Takes `bytes` more, or none of them. Must not call the cache.
    fn try_grow(&self, bytes: u64) -> bool;
    /// Gives `bytes` back. Must not call the cache.
    fn shrink(&self, bytes: u64);
}

/// The account of a cache that is bounded by its budget alone.
#[derive(Debug)]
pub struct Unaccounted;

impl MemoryAccount for Unaccounted {
    fn try_grow(&self, _: u64) -> bool {
        true
    }
    fn shrink(&self, _: u64) {}
}

/// What the cache holds under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedChunk {
    /// Its key.
    pub key: ChunkKey,
    /// Bytes, those of the key included.
    pub bytes: u64,
    /// Whether it stays whatever comes.
    pub pinned: bool,
}

/// Chunks by key, within a budget.
pub struct ChunkCache {
    state: RwLock<State>,
    budget_bytes: u64,
    account: Arc<dyn MemoryAccount>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Main,
    Pinned,
}

struct Entry {
    chunk: Arc<Chunk>,
    bytes: u64,
    place: Place,
    /// Uses since it was put in its place, as far as they are counted.
    uses: AtomicU8,
    /// The queue position that is its own: others with its key are left-overs.
    ticket: u64,
}

#[derive(Default)]
struct State {
    entries: HashMap<ChunkKey, Entry>,
    small: VecDeque<(ChunkKey, u64)>,
    main: VecDeque<(ChunkKey, u64)>,
    /// Hashes of keys that left the small queue unused, oldest first.
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
    hasher: RandomState,
    tickets: u64,
    bytes: u64,
    small_bytes: u64,
    pinned_bytes: u64,
}

impl ChunkCache {
    /// A cache of at most `budget_bytes`; 0 keeps nothing.
    pub(crate) fn new(budget_bytes: u64, account: Arc<dyn MemoryAccount>) -> Self {
        Self { state: RwLock::default(), budget_bytes, account }
    }

    /// The budget, in bytes.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// The chunk, if cached.
    pub fn get(&self, key: &ChunkKey) -> Option<Arc<Chunk>> {
        let state = self.state.read();
        let entry = state.entries.get(key)?;
        // A lost update costs a use, nothing else.
        let uses = entry.uses.load(Ordering::Relaxed);
        entry.uses.store((uses + 1).min(USES_MAX), Ordering::Relaxed);
        Some(Arc::clone(&entry.chunk))
    }

    /// Keeps a chunk, unless there is no room for it beside what is pinned.
    pub fn insert(&self, key: ChunkKey, chunk: Chunk) -> Arc<Chunk> {
        let chunk = Arc::new(chunk);
        let state = &mut *self.state.write();
        let known = state.ghost_set.remove(&state.hasher.hash_one(&key));
        self.keep(state, key, &chunk, if known { Place::Main } else { Place::Small });
        chunk
    }

    /// Keeps a chunk until it is unpinned.
    ///
    /// # Errors
    /// Declines where pins would take more than their share of the budget, or the worker's memory is used up.
    pub fn pin(&self, key: ChunkKey, chunk: &Arc<Chunk>) -> Result<(), Decline> {
        let state = &mut *self.state.write();
        if state.entries.get(&key).is_some_and(|entry| entry.place == Place::Pinned) {
            return Ok(());
        }
        let (bytes, (part, whole)) = (bytes_of(&key, chunk), PINNED_SHARE);
        let pinned_max = self.budget_bytes / whole * part;
        if state.pinned_bytes + bytes > pinned_max {
            let pinned = state.pinned_bytes;
            return Err(Decline::new(format!(
                "{bytes} bytes more than the {pinned} that are pinned exceed {part}/{whole} of the column cache ({pinned_max} bytes)"
            )));
        }
        if self.keep(state, key, chunk, Place::Pinned) { Ok(()) } else { Err(Decline::new("the node's memory is used up")) }
    }

    /// Drops chunks of `file` (as in [`ChunkKey::file`]), pinned or not: of one column, or all. Returns their number and bytes.
    pub fn remove(&self, file: &str, column: Option<ChunkColumn>) -> (usize, u64) {
        let state = &mut *self.state.write();
        let is_meant = |key: &ChunkKey| *key.file == *file && column.is_none_or(|column| key.column == column);
        let keys: Vec<ChunkKey> = state.entries.keys().filter(|key| is_meant(key)).cloned().collect();
        let bytes = keys.iter().map(|key| self.drop_entry(state, key)).sum();
        (keys.len(), bytes)
    }

    /// Drops chunks that are not pinned until `bytes` are free or none is left. Returns the bytes.
    pub fn shrink(&self, bytes: u64) -> u64 {
        let state = &mut *self.state.write();
        let mut freed = 0;
        while freed < bytes {
            match self.evict(state) {
                0 => break,
                evicted => freed += evicted,
            }
        }
        freed
    }

    /// Memory for a chunk that is being made; none yet.
    pub fn lend(&self) -> Lent<'_> {
        Lent { cache: self, bytes: 0 }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.state.read().bytes
    }

    /// Every cached chunk, in no order.
    pub fn entries(&self) -> Vec<CachedChunk> {
        let state = self.state.read();
        let entries = state.entries.iter();
        entries.map(|(key, entry)| CachedChunk { key: key.clone(), bytes: entry.bytes, pinned: entry.place == Place::Pinned }).collect()
    }

    /// Puts a chunk in its place; `false` where there is no room.
    fn keep(&self, state: &mut State, key: ChunkKey, chunk: &Arc<Chunk>, place: Place) -> bool {
        let bytes = bytes_of(&key, chunk);
        if bytes > self.budget_bytes {
            return false;
        }
        self.drop_entry(state, &key);
        while state.bytes + bytes > self.budget_bytes || !self.account.try_grow(bytes) {
            if self.evict(state) == 0 {
                return false;
            }
        }
        state.bytes += bytes;
        state.tickets += 1;
        let ticket = state.tickets;
        match place {
            Place::Small => {
                state.small_bytes += bytes;
                state.small.push_back((key.clone(), ticket));
            }
            Place::Main => state.main.push_back((key.clone(), ticket)),
            Place::Pinned => state.pinned_bytes += bytes,
        }
        state.entries.insert(key, Entry { chunk: Arc::clone(chunk), bytes, place, uses: AtomicU8::new(0), ticket });
        true
    }

    /// Drops one chunk that is not pinned. Returns its bytes, 0 where there is none.
    fn evict(&self, state: &mut State) -> u64 {
        loop {
            // A queue may hold left-overs alone, and then more of them than the bytes let expect.
            let from_small = !state.small.is_empty() && (state.main.is_empty() || state.small_bytes >= state.bytes / SMALL_SHARE);
            let queue = if from_small { &mut state.small } else { &mut state.main };
            let Some((key, ticket)) = queue.pop_front() else { return 0 };
            // A left-over of one that was pinned or dropped.
            let Some(entry) = state.entries.get_mut(&key).filter(|entry| entry.ticket == ticket && entry.place != Place::Pinned) else {
                continue;
            };
            let uses = entry.uses.get_mut();
            match (from_small, *uses) {
                (true, 1..) => {
                    *uses = 0;
                    entry.place = Place::Main;
                    state.small_bytes -= entry.bytes;
                    state.main.push_back((key, ticket));
                }
                (false, 1..) => {
                    *uses -= 1;
                    state.main.push_back((key, ticket));
                }
                (_, 0) => {
                    if from_small {
                        state.remember(&key);
                    }
                    return self.drop_entry(state, &key);
                }
            }
        }
    }

    /// Forgets a chunk and gives its bytes back; its position in a queue stays behind as a left-over.
    fn drop_entry(&self, state: &mut State, key: &ChunkKey) -> u64 {
        let Some(entry) = state.entries.remove(key) else { return 0 };
        state.bytes -= entry.bytes;
        match entry.place {
            Place::Small => state.small_bytes -= entry.bytes,
            Place::Main => {}
            Place::Pinned => state.pinned_bytes -= entry.bytes,
        }
        self.account.shrink(entry.bytes);
        state.sweep();
        entry.bytes
    }
}

/// Memory from the cache's account, given back when this is dropped.
pub struct Lent<'a> {
    cache: &'a ChunkCache,
    bytes: u64,
}

impl Lent<'_> {
    /// Takes what is missing to `bytes`; chunks that are not pinned make room.
    ///
    /// # Errors
    /// Declines where that is not enough.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), Decline> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let more = more.max(LENT_STEP_BYTES);
        while !self.cache.account.try_grow(more) {
            if self.cache.shrink(more) == 0 {
                return Err(Decline::new(format!("the node has no memory for the {bytes} bytes of a column that is encoded")));
            }
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.cache.account.shrink(self.bytes);
    }
}

impl State {
    /// Keeps the hash of a key that left unused; as many as there are chunks, and some.
    fn remember(&mut self, key: &ChunkKey) {
        let hash = self.hasher.hash_one(key);
        if self.ghost_set.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > self.entries.len().max(256) {
            self.ghosts.pop_front().map(|hash| self.ghost_set.remove(&hash));
        }
    }

    /// Clears left-overs out of the queues where they have become many.
    fn sweep(&mut self) {
        if self.small.len() + self.main.len() <= 2 * self.entries.len() + 256 {
            return;
        }
        let entries = &self.entries;
        let is_own =
            |(key, ticket): &(ChunkKey, u64)| entries.get(key).is_some_and(|entry| entry.ticket == *ticket && entry.place != Place::Pinned);
        self.small.retain(is_own);
        self.main.retain(is_own);
    }
}

fn bytes_of(key: &ChunkKey, chunk: &Chunk) -> u64 {
    (chunk.bytes() + size_of::<ChunkKey>() + size_of::<Entry>() + key.file.len()) as u64
}
