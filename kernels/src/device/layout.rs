//! Where a device kernel keeps its answers: the same words for every slot.

use crate::bind::{Combine, Program};
use crate::error::KernelError;
use crate::limits::{DEVICE_SLOTS_MAX, WORKGROUP_ACCUMULATOR_BYTES_MAX};
use crate::state::Partial;

/// One number of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Rows where the count's mask held, one word: chunks have fewer than 2^32 rows.
    Count { at: u32 },
    /// Sum of `value - low`, which is never negative, in `limbs` words.
    Sum { at: u32, limbs: u32 },
    /// Greatest of `value - low` in one word.
    Max { at: u32 },
    /// Greatest of `!(value - low)` in one word, so that all answers start at 0.
    Min { at: u32 },
}

impl Entry {
    pub(super) fn at(self) -> u32 {
        match self {
            Self::Count { at } | Self::Sum { at, .. } | Self::Max { at } | Self::Min { at } => at,
        }
    }
}

/// The layout of one program's answers.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub slots: u32,
    /// Words of one slot.
    pub slot_words: u32,
    pub counts: Vec<Entry>,
    pub measures: Vec<Entry>,
    /// Workgroups have no totals of their own.
    global: bool,
}

impl Layout {
    pub(super) fn new(program: &Program<'_>) -> Result<Self, KernelError> {
        let slots = match u32::try_from(program.keys.slots) {
            Ok(slots) if slots as usize <= DEVICE_SLOTS_MAX => slots,
            _ => {
                return Err(KernelError::declined(format!("device: {} group slots exceed {DEVICE_SLOTS_MAX}", program.keys.slots)));
            }
        };
        if !program.float_sums.is_empty() {
            return Err(KernelError::declined("device: sums of doubles"));
        }
        let mut words = 0;
        let mut take = |count: u32| {
            let at = words;
            words += count;
            at
        };
        let counts = program.counts.iter().map(|_| Entry::Count { at: take(1) }).collect();
        let mut measures = Vec::with_capacity(program.measures.len());
        for measure in &program.measures {
            let value = &program.values[measure.value.0];
            let spread = value.high.wrapping_sub(value.low) as u128;
            measures.push(match measure.combine {
                Combine::Sum => {
                    // More than four limbs cannot be: sums stay inside 127 bits, and so does their distance from `low`.
                    let total = spread.saturating_mul(program.row_count as u128);
                    let limbs = (u128::BITS - total.leading_zeros()).div_ceil(32).clamp(if program.forced.all_limbs { 4 } else { 1 }, 4);
                    Entry::Sum { at: take(limbs), limbs }
                }
                _ if spread > u128::from(u32::MAX) => {
                    return Err(KernelError::declined("device: MIN or MAX over values that spread over more than 32 bits"));
                }
                Combine::Max => Entry::Max { at: take(1) },
                Combine::Min => Entry::Min { at: take(1) },
            });
        }
        Ok(Self { slots, slot_words: words.max(1), counts, measures, global: program.forced.global_totals })
    }

    pub(super) fn words(&self) -> u32 {
        self.slots * self.slot_words
    }

    /// Whether a workgroup can add up in its own memory first.
    pub(super) fn is_local(&self) -> bool {
        !self.global && self.words() as usize * 4 <= WORKGROUP_ACCUMULATOR_BYTES_MAX
    }

    /// The words that came back, in the form of the host kernel.
    pub(super) fn decode(&self, program: &Program<'_>, words: &[u32]) -> Result<Partial, KernelError> {
        if words.len() < self.words() as usize {
            return Err(KernelError::device("a short answer"));
        }
        let slots = words.chunks_exact(self.slot_words as usize).take(self.slots as usize);
        let counts: Vec<Vec<u64>> =
            self.counts.iter().map(|entry| slots.clone().map(|slot| u64::from(slot[entry.at() as usize])).collect()).collect();
        let mut measures = Vec::with_capacity(self.measures.len());
        for (entry, measure) in self.measures.iter().zip(&program.measures) {
            let low = program.values[measure.value.0].low;
            let Some(count) = program.counts.iter().position(|mask| *mask == measure.mask) else {
                return Err(KernelError::internal("a measure without its count"));
            };
            let decode = |(slot, count): (&[u32], &u64)| {
                let at = entry.at() as usize;
                match entry {
                    Entry::Sum { limbs, .. } => {
                        let limbs = &slot[at..at + *limbs as usize];
                        let total = limbs.iter().rev().fold(0u128, |total, limb| total << 32 | u128::from(*limb));
                        (total as i128).wrapping_add(low.wrapping_mul(i128::from(*count)))
                    }
                    Entry::Min { .. } => low.wrapping_add(i128::from(!slot[at])),
                    Entry::Max { .. } | Entry::Count { .. } => low.wrapping_add(i128::from(slot[at])),
                }
            };
            measures.push(slots.clone().zip(&counts[count]).map(decode).collect());
        }
        Ok(Partial { combined: None, counts, measures, float_sums: Vec::new() })
    }
}
