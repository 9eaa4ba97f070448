//! Sums of a few groups without a store a row: each group's rows are a mask, and one vector addition under a mask serves eight to sixty-four
//! rows.
//!
//! ```text
//! codes   0 1 1 0 2 1 0 0
//! mask 0  1 0 0 1 0 0 1 1 ─┐
//! mask 1  0 1 1 0 0 1 0 0 ─┼─ under each mask: sum += values
//! mask 2  0 0 0 0 1 0 0 0 ─┘
//! ```

use super::evaluate::Numbers;
use super::loops::Number;
use crate::limits::MEASURE_ROWS;

/// Groups up to which this pays: each costs a pass of additions.
pub(super) const FEW_SLOTS_MAX: usize = 16;

/// The code of a row that belongs to no group.
pub(super) const NO_SLOT: u8 = u8::MAX;

/// Groups whose sums are built at a time: their registers and those of the values fit the processor.
#[cfg(target_arch = "x86_64")]
const BUNDLE: usize = 4;

/// Numbers up to which sums of a part fit 32 bits: a lane adds up one of sixteen rows.
#[cfg(target_arch = "x86_64")]
const NARROW_MAX: i128 = u32::MAX as i128 / (MEASURE_ROWS as i128 / 16);

/// Words of a mask of all rows of a part.
const MASK_WORDS: usize = MEASURE_ROWS / 64;

/// One bit for each row of a part.
type RowMask = [u64; MASK_WORDS];

/// The rows of a part by their group.
pub(super) struct Few {
    slots: usize,
    codes: Vec<u8>,
    /// Groups that rows of this part have.
    present: Vec<u8>,
    /// Rows of each of these, as far as whole vectors go: a multiple of 64. The others are added one by one.
    masks: Vec<RowMask>,
    /// The same under the mask of a measure.
    kept: Vec<RowMask>,
    vector_rows: usize,
    count: usize,
}

impl Few {
    pub(super) fn new(slots: usize) -> Self {
        let masks = vec![RowMask::default(); slots.next_multiple_of(4)];
        Self { slots, codes: vec![0; MEASURE_ROWS], present: vec![], kept: masks.clone(), masks, vector_rows: 0, count: 0 }
    }

    /// The codes of the next part, for the caller to write, all 0.
    pub(super) fn codes(&mut self, count: usize) -> &mut [u8] {
        self.count = count;
        let codes = &mut self.codes[..count];
        codes.fill(0);
        codes
    }

    /// Sorts the rows of the part by the codes that were written.
    pub(super) fn sort(&mut self) {
        self.present.clear();
        self.vector_rows = 0;
        #[cfg(target_arch = "x86_64")]
        if is_fast() {
            self.vector_rows = self.count / 64 * 64;
            for slot in 0..self.slots as u8 {
                let mask = &mut self.masks[self.present.len()];
                // SAFETY: the processor has what `is_fast` asked for.
                unsafe { x86::rows_of(&self.codes[..self.vector_rows], slot, mask) };
                if mask[..self.vector_rows / 64].iter().any(|rows| *rows != 0) {
                    self.present.push(slot);
                }
            }
            let end = self.present.len().next_multiple_of(BUNDLE);
            self.masks[self.present.len()..end].fill(RowMask::default());
        }
    }

    /// Each group's rows of this part, those alone where `keep` is 1.
    pub(super) fn counts(&mut self, keep: Option<&[u8]>) -> [u64; FEW_SLOTS_MAX] {
        self.keep(keep);
        let mut counts = [0u64; FEW_SLOTS_MAX];
        #[cfg(target_arch = "x86_64")]
        if self.vector_rows > 0 {
            let masks = if keep.is_some() { &self.kept } else { &self.masks };
            for (slot, mask) in self.present.iter().zip(masks) {
                // SAFETY: there are rows for vectors only where the processor has what `is_fast` asked for.
                counts[usize::from(*slot)] = unsafe { x86::count(&mask[..self.vector_rows / 64]) };
            }
        }
        for (row, code) in self.codes[..self.count].iter().enumerate().skip(self.vector_rows) {
            if let Some(count) = counts.get_mut(usize::from(*code)) {
                *count += keep.map_or(1, |keep| u64::from(keep[row]));
            }
        }
        counts
    }

    /// Each group's sum over this part, of the rows alone where `keep` is 1. No number is above `high`; sums of a part must fit 63 bits.
    pub(super) fn sums(&mut self, numbers: Numbers<'_>, high: i128, keep: Option<&[u8]>) -> [i64; FEW_SLOTS_MAX] {
        self.keep(keep);
        let mut sums = [0i64; FEW_SLOTS_MAX];
        #[cfg(target_arch = "x86_64")]
        if self.vector_rows > 0 {
            let masks = if keep.is_some() { &self.kept } else { &self.masks };
            for (slots, masks) in self.present.chunks(BUNDLE).zip(masks.as_chunks::<BUNDLE>().0) {
                let rows = self.vector_rows;
                // SAFETY: there are rows for vectors only where the processor has what `is_fast` asked for.
                let found = unsafe {
                    match numbers {
                        Numbers::U8(numbers) => x86::sums_u8(&numbers[..rows], masks),
                        Numbers::U16(numbers) => x86::sums_u16(&numbers[..rows], masks),
                        Numbers::U32(numbers) if high <= NARROW_MAX => x86::sums_narrow(&numbers[..rows], masks),
                        Numbers::U32(numbers) => x86::sums_u32(&numbers[..rows], masks),
                        Numbers::U64(numbers) => x86::sums_i64(bytemuck::cast_slice(&numbers[..rows]), masks),
                        Numbers::I64(numbers) => x86::sums_i64(&numbers[..rows], masks),
                        Numbers::I128(_) => unreachable!("sums of a few groups are those of numbers of 64 bits"),
                    }
                };
                for (slot, found) in slots.iter().zip(found) {
                    sums[usize::from(*slot)] = found;
                }
            }
        }
        match numbers {
            Numbers::U8(numbers) => self.add_rest(numbers, keep, &mut sums),
            Numbers::U16(numbers) => self.add_rest(numbers, keep, &mut sums),
            Numbers::U32(numbers) => self.add_rest(numbers, keep, &mut sums),
            Numbers::U64(numbers) => self.add_rest(numbers, keep, &mut sums),
            Numbers::I64(numbers) => self.add_rest(numbers, keep, &mut sums),
            Numbers::I128(numbers) => self.add_rest(numbers, keep, &mut sums),
        }
        sums
    }

    /// Adds the rows that fill no vector.
    fn add_rest<N: Number>(&self, numbers: &[N], keep: Option<&[u8]>, sums: &mut [i64; FEW_SLOTS_MAX]) {
        for row in self.vector_rows..self.count {
            if let Some(sum) = sums.get_mut(usize::from(self.codes[row])).filter(|_| keep.is_none_or(|keep| keep[row] == 1)) {
                *sum = sum.wrapping_add(numbers[row].as_i64());
            }
        }
    }

    /// The groups' masks less the rows where `keep` is 0.
    fn keep(&mut self, keep: Option<&[u8]>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(keep) = keep.filter(|_| self.vector_rows > 0) {
            let mut of_all = RowMask::default();
            // SAFETY: there are rows for vectors only where the processor has what `is_fast` asked for.
            unsafe { x86::rows_of(&keep[..self.vector_rows], 1, &mut of_all) };
            for (kept, mask) in self.kept.iter_mut().zip(&self.masks) {
                for ((kept, mask), of_all) in kept.iter_mut().zip(mask).zip(of_all) {
                    *kept = mask & of_all;
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = keep;
    }
}

/// Whether this processor adds under masks.
pub(super) fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::simd::level() == crate::simd::Level::Avx512 && std::arch::is_x86_feature_detected!("popcnt");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What compilers do not find: additions whose mask is a word of memory.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BUNDLE, RowMask};

    type Masks = [RowMask; BUNDLE];

    /// The rows where `codes`, a multiple of 64 of them, is `code`; others are left as they were.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn rows_of(codes: &[u8], code: u8, rows: &mut RowMask) {
        let wanted = _mm512_set1_epi8(code as i8);
        for (codes, rows) in codes.as_chunks::<64>().0.iter().zip(rows) {
            // SAFETY: 64 bytes are read, and as many are there.
            let codes = unsafe { _mm512_loadu_epi8(codes.as_ptr().cast()) };
            *rows = _mm512_cmpeq_epi8_mask(codes, wanted);
        }
    }

    /// Rows of a mask.
    #[target_feature(enable = "popcnt")]
    pub(super) fn count(rows: &[u64]) -> u64 {
        rows.iter().map(|rows| u64::from(rows.count_ones())).sum()
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn sums_u8(numbers: &[u8], masks: &Masks) -> [i64; BUNDLE] {
        let mut sums = [_mm512_setzero_si512(); BUNDLE];
        for (word, numbers) in numbers.as_chunks::<64>().0.iter().enumerate() {
            // SAFETY: 64 bytes are read, and as many are there.
            let numbers = unsafe { _mm512_loadu_epi8(numbers.as_ptr().cast()) };
            for (sum, mask) in sums.iter_mut().zip(masks) {
                let kept = _mm512_maskz_mov_epi8(mask[word], numbers);
                *sum = _mm512_add_epi64(*sum, _mm512_sad_epu8(kept, _mm512_setzero_si512()));
            }
        }
        sums.map(|sum| _mm512_reduce_add_epi64(sum))
    }

    /// Numbers of 16 bits stay below [`super::NARROW_MAX`].
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn sums_u16(numbers: &[u16], masks: &Masks) -> [i64; BUNDLE] {
        let mut sums = [_mm512_setzero_si512(); BUNDLE];
        for (vector, numbers) in numbers.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: 32 bytes are read, and as many are there.
            let numbers = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_epi16(numbers.as_ptr().cast()) });
            add_narrow(&mut sums, masks, vector, numbers);
        }
        sums.map(|sum| total_of_narrow(sum))
    }

    /// Numbers up to [`super::NARROW_MAX`].
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn sums_narrow(numbers: &[u32], masks: &Masks) -> [i64; BUNDLE] {
        let mut sums = [_mm512_setzero_si512(); BUNDLE];
        for (vector, numbers) in numbers.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: 64 bytes are read, and as many are there.
            let numbers = unsafe { _mm512_loadu_epi32(numbers.as_ptr().cast()) };
            add_narrow(&mut sums, masks, vector, numbers);
        }
        sums.map(|sum| total_of_narrow(sum))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn add_narrow(sums: &mut [__m512i; BUNDLE], masks: &Masks, vector: usize, numbers: __m512i) {
        for (sum, mask) in sums.iter_mut().zip(masks) {
            let mask = (mask[vector / 4] >> (vector % 4 * 16)) as u16;
            *sum = _mm512_mask_add_epi32(*sum, mask, *sum, numbers);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn total_of_narrow(sum: __m512i) -> i64 {
        let (low, high) = (_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
        _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtepu32_epi64(low), _mm512_cvtepu32_epi64(high)))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn sums_u32(numbers: &[u32], masks: &Masks) -> [i64; BUNDLE] {
        let mut sums = [_mm512_setzero_si512(); BUNDLE];
        for (vector, numbers) in numbers.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: 32 bytes are read, and as many are there.
            let numbers = _mm512_cvtepu32_epi64(unsafe { _mm256_loadu_epi32(numbers.as_ptr().cast()) });
            add(&mut sums, masks, vector, numbers);
        }
        sums.map(|sum| _mm512_reduce_add_epi64(sum))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn sums_i64(numbers: &[i64], masks: &Masks) -> [i64; BUNDLE] {
        let mut sums = [_mm512_setzero_si512(); BUNDLE];
        for (vector, numbers) in numbers.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: 64 bytes are read, and as many are there.
            let numbers = unsafe { _mm512_loadu_epi64(numbers.as_ptr()) };
            add(&mut sums, masks, vector, numbers);
        }
        sums.map(|sum| _mm512_reduce_add_epi64(sum))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn add(sums: &mut [__m512i; BUNDLE], masks: &Masks, vector: usize, numbers: __m512i) {
        for (sum, mask) in sums.iter_mut().zip(masks) {
            let mask = (mask[vector / 8] >> (vector % 8 * 8)) as u8;
            *sum = _mm512_mask_add_epi64(*sum, mask, *sum, numbers);
        }
    }
}
