//! Distinct strings in order of first sight, each with a dense code.

use arrow::array::StringArray;
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use crate::error::Decline;
use crate::limits::DICTIONARY_BYTES_MAX;

const EMPTY: u32 = u32::MAX;

/// An arena of distinct strings with an open-addressing index over it.
#[derive(Debug, Clone)]
pub(crate) struct StringTable {
    bytes: Vec<u8>,
    /// `offsets[code]..offsets[code + 1]` are the bytes of `code`. Fits i32: [`DICTIONARY_BYTES_MAX`].
    offsets: Vec<i32>,
    /// Power-of-two table of codes, at most half full.
    slots: Vec<u32>,
    values_max: usize,
}

impl StringTable {
    /// A table that declines past `values_max` distinct strings.
    pub(crate) fn new(values_max: usize) -> Self {
        Self { bytes: Vec::new(), offsets: vec![0], slots: vec![EMPTY; 64], values_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + (self.offsets.capacity() + self.slots.capacity()) * size_of::<u32>()
    }

    fn bytes_of(&self, code: u32) -> &[u8] {
        let code = code as usize;
        &self.bytes[self.offsets[code] as usize..self.offsets[code + 1] as usize]
    }

    /// The string of a code that this table gave out.
    pub(crate) fn get(&self, code: u32) -> &str {
        // Only whole strings are ever appended, so this cannot fail.
        std::str::from_utf8(self.bytes_of(code)).unwrap_or_default()
    }

    /// The code of `value`, new or known.
    #[inline]
    pub(crate) fn intern(&mut self, value: &str) -> Result<u32, Decline> {
        let mask = self.slots.len() - 1;
        let mut slot = hash_of(value.as_bytes()) as usize & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return self.insert(value, slot),
                code if self.bytes_of(code) == value.as_bytes() => return Ok(code),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// The code of `value`, if it is known.
    pub(crate) fn find(&self, value: &str) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut slot = hash_of(value.as_bytes()) as usize & mask;
        while self.slots[slot] != EMPTY && self.bytes_of(self.slots[slot]) != value.as_bytes() {
            slot = (slot + 1) & mask;
        }
        (self.slots[slot] != EMPTY).then_some(self.slots[slot])
    }

    #[cold]
    fn insert(&mut self, value: &str, slot: usize) -> Result<u32, Decline> {
        if self.len() >= self.values_max {
            return Err(Decline::new(format!("more than {} distinct strings", self.values_max)));
        }
        if self.bytes.len() + value.len() > DICTIONARY_BYTES_MAX {
            return Err(Decline::new("distinct strings over 2 GiB"));
        }
        let code = self.len() as u32;
        self.bytes.extend_from_slice(value.as_bytes());
        self.offsets.push(self.bytes.len() as i32);
        self.slots[slot] = code;
        if self.len() * 2 > self.slots.len() {
            self.grow();
        }
        Ok(code)
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let mut slots = vec![EMPTY; mask + 1];
        for code in 0..self.len() as u32 {
            let mut slot = hash_of(self.bytes_of(code)) as usize & mask;
            while slots[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            slots[slot] = code;
        }
        self.slots = slots;
    }

    /// All strings in ascending order of their bytes, and for each code its place among them.
    pub(crate) fn into_sorted_array(self) -> (StringArray, Vec<u32>) {
        let mut codes: Vec<u32> = (0..self.len() as u32).collect();
        codes.sort_unstable_by_key(|code| self.bytes_of(*code));
        let mut places = vec![0; codes.len()];
        for (place, code) in codes.iter().enumerate() {
            places[*code as usize] = place as u32;
        }
        (StringArray::from_iter_values(codes.iter().map(|code| self.get(*code))), places)
    }

    /// All strings by code.
    pub(crate) fn into_array(self) -> StringArray {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        StringArray::new(offsets, Buffer::from_vec(self.bytes), None)
    }
}

/// A multiply-fold hash, eight bytes at a time. Quality matters here, attackers do not: tables are bounded and private.
#[inline]
fn hash_of(bytes: &[u8]) -> u64 {
    let mut hash = 0x9E37_79B9_7F4A_7C15 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = fold(hash, u64::from_le_bytes(word));
    }
    let mut tail = 0u64;
    for byte in chunks.remainder() {
        tail = tail << 8 | u64::from(*byte);
    }
    fold(hash, tail)
}

/// Both halves of a 128-bit product, folded: every input bit reaches every output bit.
#[inline]
pub(crate) fn fold(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word).wrapping_mul(0xA076_1D64_78BD_642F_E703_7ED1_A0B4_28DB);
    (product >> 64) as u64 ^ product as u64
}
