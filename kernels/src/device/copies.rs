//! What a device keeps: chunk copies within a byte budget, pipelines within a count. The least recently used leaves first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::chunk::Chunk;

/// A bounded map that forgets what was used longest ago.
pub(super) struct RecentlyUsed<K, V> {
    entries: HashMap<K, (u64, V)>,
    entries_max: usize,
    clock: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> RecentlyUsed<K, V> {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), entries_max, clock: 0 }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value.clone())
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        self.clock += 1;
        if self.entries.len() >= self.entries_max && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            oldest.map(|key| self.entries.remove(&key));
        }
        self.entries.insert(key, (self.clock, value));
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

struct Copy<B> {
    /// A copy outlives its chunk only until room is needed.
    chunk: Weak<Chunk>,
    buffer: B,
    bytes: u64,
    used: u64,
}

/// Device copies of chunks, by the chunk's identity.
pub(super) struct ChunkCopies<B> {
    copies: HashMap<u64, Copy<B>>,
    budget_bytes: u64,
    bytes: u64,
    clock: u64,
}

impl<B: Clone> ChunkCopies<B> {
    pub(super) fn new(budget_bytes: u64) -> Self {
        Self { copies: HashMap::new(), budget_bytes, bytes: 0, clock: 0 }
    }

    pub(super) fn get(&mut self, id: u64) -> Option<B> {
        self.clock += 1;
        let copy = self.copies.get_mut(&id)?;
        copy.used = self.clock;
        Some(copy.buffer.clone())
    }

    /// Bytes of all copies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is a copy; this does not count as a use.
    pub(super) fn holds(&self, id: u64) -> bool {
        self.copies.contains_key(&id)
    }

    /// Keeps a copy, dropping dead chunks' copies first, then the least recently used.
    pub(super) fn insert(&mut self, chunk: &Arc<Chunk>, buffer: B, bytes: u64) {
        self.remove(chunk.id());
        if bytes > self.budget_bytes {
            return;
        }
        if self.bytes + bytes > self.budget_bytes {
            let dead: Vec<u64> = self.copies.iter().filter(|(_, copy)| copy.chunk.strong_count() == 0).map(|(id, _)| *id).collect();
            dead.into_iter().for_each(|id| self.remove(id));
        }
        while self.bytes + bytes > self.budget_bytes {
            let Some(oldest) = self.copies.iter().min_by_key(|(_, copy)| copy.used).map(|(id, _)| *id) else {
                break;
            };
            self.remove(oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.copies.insert(chunk.id(), Copy { chunk: Arc::downgrade(chunk), buffer, bytes, used: self.clock });
    }

    fn remove(&mut self, id: u64) {
        if let Some(copy) = self.copies.remove(&id) {
            self.bytes -= copy.bytes;
        }
    }

    pub(super) fn clear(&mut self) {
        self.copies.clear();
        self.bytes = 0;
    }
}
