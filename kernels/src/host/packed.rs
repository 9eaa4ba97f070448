//! Grouped sums of several measures side by side in 64-bit words, so that one addition a row serves all of them.
//!
//! ```text
//! word:  | sum of charge: 48 bits           | count: 12 |      a field's bits hold the sum of all rows until the next flush
//! word:  | sum of price: 35 bits | sum of quantity: 17 |
//! ```
//! Fields never go below zero: a value that may is counted from its least value, and the caller puts that back.

use super::loops::{LINE_WORDS, Line, Scratch, add_words_1, add_words_2, add_words_3, add_words_4, pack};
use crate::limits::MEASURE_ROWS;

/// Words that one pass over the rows adds up: a vector of them a row.
const BANK_WORDS: usize = 4;

/// Copies of the sums, taken in turn by neighbouring rows: two rows of one group would wait for each other's store.
const COPIES: usize = 4;

/// Bytes of sums up to which copies are kept: they stay in the nearest cache with the block's words.
const COPIED_BYTES_MAX: usize = 16 * 1_024;

/// What a field adds up: numbers from `least` to `greatest`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub least: i128,
    pub greatest: i128,
}

impl Range {
    /// What is taken off every number, so that none is negative.
    pub(super) fn bias(self) -> i64 {
        self.least.clamp(i128::from(i64::MIN), 0) as i64
    }

    /// Bits that hold the sum of `rows` numbers less their bias; `None` above 64, and where the bias itself does not fit.
    fn bits(self, rows: usize) -> Option<u32> {
        // The bias has 64 bits.
        i64::try_from(self.least.min(0)).ok()?;
        let greatest = self.greatest.checked_sub(self.least.min(0))?;
        let sum = u64::try_from(greatest).ok()?.checked_mul(rows as u64)?;
        Some((u64::BITS - sum.leading_zeros()).max(1))
    }
}

/// Where a field lies.
#[derive(Debug, Clone, Copy)]
struct Field {
    word: usize,
    shift: u32,
    bits: u32,
    bias: i64,
}

/// The words of one pass and the sums of every slot.
struct Bank {
    first: usize,
    words: usize,
    /// Words that a slot takes: 1, 2 or 4.
    width: usize,
    /// Word `(copy * slots + slot) * width + word` of the lines.
    sums: Vec<Line>,
}

/// The fields of a run, their words, and the sums since the last flush.
pub(super) struct Packed {
    fields: Vec<Field>,
    /// One block of each word, and whether something was written there since the last block.
    words: Vec<(Vec<u64>, bool)>,
    banks: Vec<Bank>,
    scratch: Box<Scratch>,
    slots: usize,
    copies: usize,
    flush_rows: usize,
    rows: usize,
}

impl Packed {
    /// Lays out the ranges whose sums fit a word. The second answer is the range of each field.
    pub(super) fn new(ranges: &[Range], slots: usize, flush_rows: usize) -> (Self, Vec<usize>) {
        let mut sized: Vec<(usize, u32)> =
            ranges.iter().enumerate().filter_map(|(position, range)| Some((position, range.bits(flush_rows)?))).collect();
        // The widest first: what is left of its word is filled by the narrow ones.
        sized.sort_by_key(|(_, bits)| std::cmp::Reverse(*bits));
        let (mut fields, mut used, mut taken) = (Vec::new(), Vec::<u32>::new(), Vec::new());
        for (position, bits) in sized {
            let word = used.iter().position(|used| used + bits <= u64::BITS).unwrap_or_else(|| {
                used.push(0);
                used.len() - 1
            });
            taken.push(position);
            fields.push(Field { word, shift: used[word], bits, bias: ranges[position].bias() });
            used[word] += bits;
        }
        let copies = if slots > 0 && slots * used.len().min(BANK_WORDS) * 8 * COPIES <= COPIED_BYTES_MAX { COPIES } else { 1 };
        let banks = (0..used.len()).step_by(BANK_WORDS).map(|first| {
            let words = BANK_WORDS.min(used.len() - first);
            let width = words.next_power_of_two();
            Bank { first, words, width, sums: vec![Line::default(); (slots * copies * width).div_ceil(LINE_WORDS)] }
        });
        let banks = banks.collect();
        let words = used.iter().map(|_| (vec![0; MEASURE_ROWS], false)).collect();
        (Self { fields, words, banks, scratch: Box::new([Line::default(); _]), slots, copies, flush_rows, rows: 0 }, taken)
    }

    /// Room for slots that were found by hashing; there is one copy then.
    pub(super) fn grow(&mut self, slots: usize) {
        for bank in &mut self.banks {
            bank.sums.resize((slots * bank.width).div_ceil(LINE_WORDS), Line::default());
        }
        self.slots = slots;
    }

    /// Whether `rows` more could fill a field.
    pub(super) fn is_full(&self, rows: usize) -> bool {
        self.rows + rows > self.flush_rows
    }

    /// Writes a field's numbers for the rows of a block; `keep` has 0 where the number is left out.
    pub(super) fn write<N: super::loops::Number>(&mut self, field: usize, numbers: &[N], keep: Option<&[u8]>) {
        let Field { word, shift, bias, .. } = self.fields[field];
        let (words, written) = &mut self.words[word];
        pack(numbers, bias, shift, keep, !*written, &mut words[..numbers.len()]);
        *written = true;
    }

    /// Writes a field that is 1 in every row.
    pub(super) fn write_ones(&mut self, field: usize, count: usize) {
        let Field { word, shift, .. } = self.fields[field];
        let (words, written) = &mut self.words[word];
        if *written {
            words[..count].iter_mut().for_each(|word| *word += 1 << shift);
        } else {
            words[..count].fill(1 << shift);
        }
        *written = true;
    }

    /// Adds the written words of every row to the slot of its code.
    pub(super) fn add(&mut self, codes: &[u32]) {
        let (count, words, scratch) = (codes.len(), &self.words, &mut *self.scratch);
        let slice = |word: usize| &words[word].0[..count];
        for Bank { first, words, sums, .. } in &mut self.banks {
            let stride = if self.copies > 1 { self.slots } else { 0 };
            match words {
                1 => add_words_1(codes, [slice(*first)], scratch, sums, stride),
                2 => add_words_2(codes, [slice(*first), slice(*first + 1)], scratch, sums, stride),
                3 => add_words_3(codes, [slice(*first), slice(*first + 1), slice(*first + 2)], scratch, sums, stride),
                _ => add_words_4(codes, [slice(*first), slice(*first + 1), slice(*first + 2), slice(*first + 3)], scratch, sums, stride),
            }
        }
        self.words.iter_mut().for_each(|(_, written)| *written = false);
        self.rows += count;
    }

    /// Gives every field's sum of every slot as `(field, slot, sum)` and starts again from 0.
    pub(super) fn flush(&mut self, mut visit: impl FnMut(usize, usize, u64)) {
        if std::mem::take(&mut self.rows) == 0 {
            return;
        }
        for bank in &mut self.banks {
            let sums = &mut bytemuck::cast_slice_mut::<Line, u64>(&mut bank.sums)[..self.copies * self.slots * bank.width];
            let (first_copy, others) = sums.split_at_mut(self.slots * bank.width);
            for copy in others.chunks_mut(first_copy.len().max(1)) {
                // Fields were sized for the rows of all copies.
                for (sum, other) in first_copy.iter_mut().zip(copy) {
                    *sum += std::mem::take(other);
                }
            }
            for (position, field) in self.fields.iter().enumerate() {
                let Some(word) = field.word.checked_sub(bank.first).filter(|word| *word < bank.words) else { continue };
                let mask = u64::MAX >> (u64::BITS - field.bits);
                for (slot, words) in first_copy.chunks_exact(bank.width).enumerate() {
                    visit(position, slot, words[word] >> field.shift & mask);
                }
            }
            first_copy.fill(0);
        }
    }
}
