//! Groups by key, numbered in order of first sight: the keys flat in one vector, an open-addressing table over them.

use crate::chunk::{Chunk, StringTable};
use crate::error::Decline;
use crate::limits::GROUPS_MAX;

const EMPTY: u32 = u32::MAX;

/// The mark of NULL among key values. Chunks never hold it: the encoder declines it.
pub(crate) const NULL_KEY: i128 = i128::MIN;

/// A set of keys of `width` integers each.
#[derive(Debug, Clone)]
pub(crate) struct GroupIndex {
    width: usize,
    keys: Vec<i128>,
    len: usize,
    /// Power-of-two table of group numbers, at most half full.
    slots: Vec<u32>,
}

impl GroupIndex {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, keys: Vec::new(), len: 0, slots: vec![EMPTY; 64] }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn key(&self, group: usize) -> &[i128] {
        &self.keys[group * self.width..(group + 1) * self.width]
    }

    /// The number of the group with this key, new or known.
    #[inline]
    pub(crate) fn group_of(&mut self, key: &[i128]) -> Result<u32, Decline> {
        let mask = self.slots.len() - 1;
        let mut slot = hash_of(key) as usize & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return self.insert(key, slot),
                group if self.key(group as usize) == key => return Ok(group),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn insert(&mut self, key: &[i128], slot: usize) -> Result<u32, Decline> {
        if self.len >= GROUPS_MAX {
            return Err(Decline::new(format!("more than {GROUPS_MAX} groups")));
        }
        let group = self.len as u32;
        self.keys.extend_from_slice(key);
        self.len += 1;
        self.slots[slot] = group;
        if self.len * 2 > self.slots.len() {
            let mask = self.slots.len() * 2 - 1;
            let mut slots = vec![EMPTY; mask + 1];
            for group in 0..self.len {
                let mut slot = hash_of(self.key(group)) as usize & mask;
                while slots[slot] != EMPTY {
                    slot = (slot + 1) & mask;
                }
                slots[slot] = group as u32;
            }
            self.slots = slots;
        }
        Ok(group)
    }
}

#[inline]
fn hash_of(key: &[i128]) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15;
    for part in key {
        hash = crate::chunk::fold(hash, *part as u64);
        // Almost every key fits 64 bits; its high half then says nothing.
        if *part as i64 as i128 != *part {
            hash = crate::chunk::fold(hash, (*part >> 64) as u64);
        }
    }
    hash
}

/// Key values that are alike across chunks: integers as they are, strings by a number of their own.
#[derive(Debug, Clone)]
pub(crate) enum KeyValues {
    Integers,
    Strings(StringTable),
}

impl KeyValues {
    pub(crate) fn strings() -> Self {
        Self::Strings(StringTable::new(GROUPS_MAX))
    }

    /// The key value of every lane of a string chunk that is in `wanted`; empty for integers.
    pub(crate) fn translate(&mut self, chunk: &Chunk, wanted: impl Iterator<Item = u64>) -> Result<Vec<i128>, Decline> {
        let (Self::Strings(table), Some(dictionary)) = (self, chunk.dictionary()) else {
            return Ok(Vec::new());
        };
        let mut mapping = vec![NULL_KEY; chunk.lane_max() as usize + 1];
        for lane in wanted {
            if let Some(entry) = mapping.get_mut(lane as usize)
                && *entry == NULL_KEY
                && (lane as usize) < arrow::array::Array::len(dictionary)
            {
                *entry = i128::from(table.intern(dictionary.value(lane as usize))?);
            }
        }
        Ok(mapping)
    }
}
