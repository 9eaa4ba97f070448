//! Where a device kernel keeps its answers: the same words for every slot.

use crate::bind::{Combine, Program};
use crate::error::KernelError;
use crate::exact_float::FixedPoint;
use crate::limits::{DEVICE_SLOTS_A_ROW, DEVICE_SLOTS_FREE, DEVICE_SLOTS_MAX, DEVICE_TOTALS_BYTES_MAX, WORKGROUP_ACCUMULATOR_BYTES_MAX};
use crate::state::Partial;

/// One number of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Rows where the count's mask held, one word: chunks have fewer than 2^32 rows.
    Count { at: u32 },
    /// Sum of `value - low`, which is never negative, or of doubles in fixed point, in two's complement: `limbs` words.
    Sum { at: u32, limbs: u32 },
    /// Greatest of `value - low` in one word.
    Max { at: u32 },
    /// Greatest of `!(value - low)` in one word, so that all answers start at 0.
    Min { at: u32 },
    /// Greatest of `value - low`, or of its complement for a minimum, in two words: the upper one, and the greatest lower one of the rows
    /// that have that upper one, which a second pass finds.
    Wide { at: u32, is_min: bool },
}

impl Entry {
    pub(super) fn at(self) -> u32 {
        match self {
            Self::Count { at } | Self::Sum { at, .. } | Self::Max { at } | Self::Min { at } | Self::Wide { at, .. } => at,
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
    /// Sums of doubles, each with its fixed point.
    pub float_sums: Vec<(Entry, FixedPoint)>,
    /// Workgroups have no totals of their own.
    global: bool,
}

impl Layout {
    pub(super) fn new(program: &Program<'_>) -> Result<Self, KernelError> {
        let slots = slots(program)?;
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
                _ if spread > u128::from(u64::MAX) => {
                    return Err(KernelError::declined("device: MIN or MAX over values that spread over more than 64 bits"));
                }
                combine if spread > u128::from(u32::MAX) => Entry::Wide { at: take(2), is_min: combine == Combine::Min },
                Combine::Max => Entry::Max { at: take(1) },
                Combine::Min => Entry::Min { at: take(1) },
            });
        }
        let mut float_sums = Vec::with_capacity(program.float_sums.len());
        for sum in &program.float_sums {
            let fixed = program.exponents(sum.value).and_then(|exponents| FixedPoint::new(exponents, program.row_count));
            let fixed = fixed.ok_or_else(|| KernelError::declined("device: sums of doubles that are computed, not finite or far apart"))?;
            let limbs = if program.forced.all_limbs { 4 } else { fixed.bits().div_ceil(32) };
            float_sums.push((Entry::Sum { at: take(limbs), limbs }, fixed));
        }
        let layout = Self { slots, slot_words: words.max(1), counts, measures, float_sums, global: program.forced.global_totals };
        if layout.bytes() > DEVICE_TOTALS_BYTES_MAX {
            return Err(KernelError::declined(format!("device: totals of {slots} group slots take {} bytes", layout.bytes())));
        }
        Ok(layout)
    }

    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.counts.iter().chain(&self.measures).copied().chain(self.float_sums.iter().map(|(entry, _)| *entry))
    }

    /// Bytes of the answers.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.slots) * u64::from(self.slot_words) * 4
    }

    /// Words of the answers.
    pub(super) fn words(&self) -> u32 {
        self.slots * self.slot_words
    }

    /// Whether a workgroup can add up in its own memory first.
    pub(super) fn is_local(&self) -> bool {
        !self.global && self.bytes() <= WORKGROUP_ACCUMULATOR_BYTES_MAX
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
                    Entry::Wide { is_min, .. } => {
                        let found = u64::from(slot[at]) << 32 | u64::from(slot[at + 1]);
                        low.wrapping_add(i128::from(if *is_min { !found } else { found }))
                    }
                    Entry::Max { .. } | Entry::Count { .. } => low.wrapping_add(i128::from(slot[at])),
                }
            };
            measures.push(slots.clone().zip(&counts[count]).map(decode).collect());
        }
        let float_sums = self.float_sums.iter().map(|(entry, fixed)| {
            let Entry::Sum { at, limbs } = *entry else { return Vec::new() };
            slots.clone().map(|slot| fixed.sum(signed(&slot[at as usize..][..limbs as usize]))).collect()
        });
        Ok(Partial { combined: None, counts, measures, float_sums: float_sums.collect() })
    }
}

/// Limbs in two's complement.
fn signed(limbs: &[u32]) -> i128 {
    let total = limbs.iter().rev().fold(0u128, |total, limb| total << 32 | u128::from(*limb));
    let unused = u128::BITS - 32 * limbs.len() as u32;
    (total as i128) << unused >> unused
}

/// Slots of the groups; each is cleared, read back and looked at, so that they must be worth the rows.
fn slots(program: &Program<'_>) -> Result<u32, KernelError> {
    let slots = program.keys.slots;
    if slots > DEVICE_SLOTS_MAX as u128 {
        return Err(KernelError::declined(format!("device: {slots} group slots exceed {DEVICE_SLOTS_MAX}")));
    }
    if slots > DEVICE_SLOTS_FREE as u128 && slots > program.row_count as u128 * DEVICE_SLOTS_A_ROW {
        return Err(KernelError::declined(format!("device: {slots} group slots for {} rows", program.row_count)));
    }
    Ok(slots as u32)
}
