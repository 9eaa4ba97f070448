//! Groups by key, numbered in order of first sight: the keys flat in one vector, and over them an array that single keys near each
//! other address directly, or an open-addressing table.

use crate::chunk::{Chunk, StringTable};
use crate::error::Decline;
use crate::limits::GROUPS_MAX;
use crate::simd::prefetch_place;

const EMPTY: u32 = u32::MAX;

/// Keys that are looked up together.
const BATCH: usize = 32;

/// The least slots of a table.
const SLOTS_MIN: usize = 64;

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
    /// Nothing was looked for yet. Keys of several parts that came all at once are not told apart before others come.
    Unasked,
    /// Any keys: a power-of-two table of groups, at most half full.
    Hashed { slots: Vec<Slot> },
}

/// A place of the table.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Of its key, so that keys are only looked at where they are most likely the same, and not at all when the table grows.
    hash: u32,
    /// [`EMPTY`] where there is none.
    group: u32,
}

impl Slot {
    const NONE: Self = Self { hash: 0, group: EMPTY };
}

impl GroupIndex {
    pub(crate) fn new(width: usize) -> Self {
        let finder = if width == 1 { Finder::Direct { first: 0, groups: Vec::new(), null: EMPTY } } else { Finder::Unasked };
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
            Finder::Direct { groups, .. } => groups.capacity() * size_of::<u32>(),
            Finder::Unasked => 0,
            Finder::Hashed { slots } => slots.capacity() * size_of::<Slot>(),
        };
        self.keys.capacity() * size_of::<i128>() + finder
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
            Finder::Unasked => {
                self.index();
                self.group_of(key)
            }
            Finder::Hashed { slots } => {
                let (mask, hash) = (slots.len() - 1, hash_of(key));
                let mut place = hash as usize & mask;
                loop {
                    let slot = slots[place];
                    if slot.group == EMPTY {
                        return self.insert_hashed(key, hash, place);
                    }
                    if slot.hash == hash && is_key(&self.keys, slot.group, key) {
                        return Ok(slot.group);
                    }
                    place = (place + 1) & mask;
                }
            }
        }
    }

    /// The groups of many keys, one behind the other. Keys and their places lie anywhere in memory, and all else is far shorter than a
    /// miss: those of a batch are asked for before the first is looked at.
    pub(crate) fn groups_of(&mut self, keys: &[i128], groups: &mut [u32]) -> Result<(), Decline> {
        // A key without parts is one key, however often.
        let width = self.width.max(1);
        for (keys, groups) in keys.chunks(BATCH * width).zip(groups.chunks_mut(BATCH)) {
            if let Finder::Hashed { slots } = &self.finder {
                let mask = slots.len() - 1;
                let mut places = [0; BATCH];
                for (place, key) in places.iter_mut().zip(keys.chunks(width)) {
                    *place = hash_of(key) as usize & mask;
                    prefetch_place(&slots[*place]);
                }
                let likely = places.iter().filter_map(|place| self.keys.get(slots[*place].group as usize * width));
                likely.for_each(prefetch_place);
            }
            for (group, key) in groups.iter_mut().zip(keys.chunks(width)) {
                *group = self.group_of(key)?;
            }
        }
        Ok(())
    }

    /// The groups of `count` keys that all differ, one behind the other. The first ones are taken as they are.
    pub(crate) fn groups_of_distinct(&mut self, keys: Vec<i128>, count: usize) -> Result<Vec<u32>, Decline> {
        if self.len == 0 && count <= GROUPS_MAX && matches!(self.finder, Finder::Unasked) {
            (self.keys, self.len) = (keys, count);
            return Ok((0..count as u32).collect());
        }
        let mut groups = vec![0; count];
        self.groups_of(&keys, &mut groups)?;
        Ok(groups)
    }

    /// Makes a table of keys that came unasked.
    pub(crate) fn index(&mut self) {
        if matches!(self.finder, Finder::Unasked) {
            self.rehash(self.len * 2);
        }
    }

    /// The number of the group with this key, if it is known.
    pub(crate) fn find(&self, key: &[i128]) -> Option<u32> {
        let group = match &self.finder {
            Finder::Direct { null, .. } if key[0] == NULL_KEY => *null,
            Finder::Direct { first, groups, .. } => *groups.get(usize::try_from(key[0].wrapping_sub(*first)).ok()?)?,
            Finder::Unasked => return (0..self.len as u32).find(|group| is_key(&self.keys, *group, key)),
            Finder::Hashed { slots } => {
                let (mask, hash) = (slots.len() - 1, hash_of(key));
                let mut place = hash as usize & mask;
                while slots[place].group != EMPTY && (slots[place].hash != hash || !is_key(&self.keys, slots[place].group, key)) {
                    place = (place + 1) & mask;
                }
                slots[place].group
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

    fn insert_hashed(&mut self, key: &[i128], hash: u32, place: usize) -> Result<u32, Decline> {
        let group = self.push(key)?;
        if let Finder::Hashed { slots } = &mut self.finder {
            slots[place] = Slot { hash, group };
            if self.len * 2 > slots.len() {
                let doubled = vec![Slot::NONE; slots.len() * 2];
                let before = std::mem::replace(slots, doubled);
                before.into_iter().filter(|slot| slot.group != EMPTY).for_each(|slot| put(slots, slot));
            }
        }
        Ok(group)
    }

    /// A table of at least `size` slots for the keys so far.
    fn rehash(&mut self, size: usize) {
        let mut slots = vec![Slot::NONE; size.next_power_of_two().max(SLOTS_MIN)];
        (0..self.len).for_each(|group| put(&mut slots, Slot { hash: hash_of(self.key(group)), group: group as u32 }));
        self.finder = Finder::Hashed { slots };
    }
}

/// Puts a group that is not there into a table that has room.
fn put(slots: &mut [Slot], slot: Slot) {
    let mask = slots.len() - 1;
    let mut place = slot.hash as usize & mask;
    while slots[place].group != EMPTY {
        place = (place + 1) & mask;
    }
    slots[place] = slot;
}

/// Whether `key` is that of the group. Keys have few parts: a call to compare memory would take longer.
#[inline]
fn is_key(keys: &[i128], group: u32, key: &[i128]) -> bool {
    keys[group as usize * key.len()..].iter().zip(key).all(|(ours, theirs)| ours == theirs)
}

/// All bits that a table of [`GROUPS_MAX`] groups is addressed by, and some more.
#[inline]
fn hash_of(key: &[i128]) -> u32 {
    let mut hash = 0x9E37_79B9_7F4A_7C15;
    for part in key {
        hash = crate::chunk::fold(hash, *part as u64);
        // Almost every key fits 64 bits; its high half then says nothing.
        if *part as i64 as i128 != *part {
            hash = crate::chunk::fold(hash, (*part >> 64) as u64);
        }
    }
    (hash >> 32) as u32
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_came_unasked_are_found_and_come_no_second_time() {
        let key = |number: i128| [number % 7, number << 70];
        let mut index = GroupIndex::new(2);
        let first = index.groups_of_distinct((0..1_000).flat_map(key).collect(), 1_000).unwrap();
        assert!(first.iter().copied().eq(0..1_000));
        assert_eq!((index.find(&key(999)), index.find(&key(1_000))), (Some(999), None));
        let second = index.groups_of_distinct((500..1_500).flat_map(key).collect(), 1_000).unwrap();
        assert!(second.iter().copied().eq(500..1_500));
        for number in 0..2_000 {
            assert_eq!(index.group_of(&key(number)).unwrap(), number as u32);
        }
        assert_eq!((index.find(&key(1_999)), index.find(&key(2_000)), index.len()), (Some(1_999), None, 2_000));
    }
}
