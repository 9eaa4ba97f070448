//! Groups by key, numbered in order of first sight: the keys flat in one vector, and over them an array that single keys near each
//! other address directly, or an open-addressing table.

use crate::chunk::{Chunk, StringTable};
use crate::error::Decline;
use crate::limits::GROUPS_MAX;

const EMPTY: u32 = u32::MAX;

/// Keys that are addressed directly, however few there are among them: 16 MiB.
const DIRECT_KEYS_FREE: usize = 1 << 22;

/// Positions a group that direct addressing may take beyond that.
const DIRECT_SPREAD_MAX: usize = 16;

/// The mark of NULL among key values. Chunks never hold it: the encoder declines it.
pub(crate) const NULL_KEY: i128 = i128::MIN;

/// A set of keys of `width` integers each.
#[derive(Debug, Clone)]
pub(crate) struct GroupIndex {
    width: usize,
    keys: Vec<i128>,
    len: usize,
    finder: Finder,
}

/// How a key finds its group.
#[derive(Debug, Clone)]
enum Finder {
    /// Single keys near each other: the group of key `first + position`, and that of NULL.
    Direct { first: i128, groups: Vec<u32>, null: u32 },
    /// Any keys: a power-of-two table of group numbers, at most half full.
    Hashed { slots: Vec<u32> },
}

impl Finder {
    fn hashed() -> Self {
        Self::Hashed { slots: vec![EMPTY; 64] }
    }
}

impl GroupIndex {
    pub(crate) fn new(width: usize) -> Self {
        let finder = if width == 1 { Finder::Direct { first: 0, groups: Vec::new(), null: EMPTY } } else { Finder::hashed() };
        Self { width, keys: Vec::new(), len: 0, finder }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn key(&self, group: usize) -> &[i128] {
        &self.keys[group * self.width..(group + 1) * self.width]
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let finder = match &self.finder {
            Finder::Direct { groups, .. } => groups.capacity(),
            Finder::Hashed { slots } => slots.capacity(),
        };
        self.keys.capacity() * size_of::<i128>() + finder * size_of::<u32>()
    }

    /// The number of the group with this key, new or known.
    #[inline]
    pub(crate) fn group_of(&mut self, key: &[i128]) -> Result<u32, Decline> {
        match &mut self.finder {
            Finder::Direct { first, groups, null } => {
                let position = usize::try_from(key[0].wrapping_sub(*first)).unwrap_or(usize::MAX);
                match if key[0] == NULL_KEY { Some(&*null) } else { groups.get(position) } {
                    Some(group) if *group != EMPTY => Ok(*group),
                    _ => self.insert_direct(key[0]),
                }
            }
            Finder::Hashed { slots } => {
                let mask = slots.len() - 1;
                let mut slot = hash_of(key) as usize & mask;
                loop {
                    match slots[slot] {
                        EMPTY => return self.insert_hashed(key, slot),
                        group if self.keys[group as usize * self.width..][..self.width] == *key => return Ok(group),
                        _ => slot = (slot + 1) & mask,
                    }
                }
            }
        }
    }

    /// The number of the group with this key, if it is known.
    pub(crate) fn find(&self, key: &[i128]) -> Option<u32> {
        let group = match &self.finder {
            Finder::Direct { null, .. } if key[0] == NULL_KEY => *null,
            Finder::Direct { first, groups, .. } => *groups.get(usize::try_from(key[0].wrapping_sub(*first)).ok()?)?,
            Finder::Hashed { slots } => {
                let mask = slots.len() - 1;
                let mut slot = hash_of(key) as usize & mask;
                while slots[slot] != EMPTY && self.key(slots[slot] as usize) != key {
                    slot = (slot + 1) & mask;
                }
                slots[slot]
            }
        };
        (group != EMPTY).then_some(group)
    }

    fn push(&mut self, key: &[i128]) -> Result<u32, Decline> {
        if self.len >= GROUPS_MAX {
            return Err(Decline::new(format!("more than {GROUPS_MAX} groups")));
        }
        self.keys.extend_from_slice(key);
        self.len += 1;
        Ok(self.len as u32 - 1)
    }

    #[cold]
    fn insert_direct(&mut self, key: i128) -> Result<u32, Decline> {
        let span_max = (self.len * DIRECT_SPREAD_MAX).max(DIRECT_KEYS_FREE) as i128;
        let Finder::Direct { first, groups, null } = &mut self.finder else { return self.group_of(&[key]) };
        if key == NULL_KEY {
            *null = self.len as u32;
            return self.push(&[key]);
        }
        if groups.is_empty() {
            *first = key;
        }
        let (low, high) = (key.min(*first), key.max(first.saturating_add(groups.len() as i128 - 1)));
        match high.checked_sub(low) {
            Some(span) if span < span_max => {
                if low < *first {
                    // Keys that come in descending order would move everything each time.
                    let room = ((*first - low) as usize).max(groups.len()).min((span_max - 1 - (high - *first)) as usize);
                    groups.splice(0..0, std::iter::repeat_n(EMPTY, room));
                    *first -= room as i128;
                }
                let position = (key - *first) as usize;
                if position >= groups.len() {
                    groups.resize(position + 1, EMPTY);
                }
                groups[position] = self.len as u32;
                self.push(&[key])
            }
            _ => {
                self.rehash(self.len.max(32) * 4);
                self.group_of(&[key])
            }
        }
    }

    fn insert_hashed(&mut self, key: &[i128], slot: usize) -> Result<u32, Decline> {
        let group = self.push(key)?;
        if let Finder::Hashed { slots } = &mut self.finder {
            slots[slot] = group;
            if self.len * 2 > slots.len() {
                let doubled = slots.len() * 2;
                self.rehash(doubled);
            }
        }
        Ok(group)
    }

    /// A table of at least `size` slots for the keys so far.
    fn rehash(&mut self, size: usize) {
        let mask = size.next_power_of_two() - 1;
        let mut slots = vec![EMPTY; mask + 1];
        for group in 0..self.len {
            let mut slot = hash_of(self.key(group)) as usize & mask;
            while slots[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            slots[slot] = group as u32;
        }
        self.finder = Finder::Hashed { slots };
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

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Integers => 0,
            Self::Strings(table) => table.memory_bytes(),
        }
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
