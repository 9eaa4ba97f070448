//! Counts and measures of every slot.

use super::evaluate::{Evaluator, Numbers, Rows};
use super::loops::*;
use crate::bind::{Combine, Mask, MaskId, Measure, Program};
use crate::limits::BLOCK_ROWS;
use crate::state::Partial;

/// One measure's running answers.
enum Slots {
    /// Every partial answer fits 64 bits.
    Narrow(Vec<i64>),
    Wide(Vec<i128>),
}

/// One measure with its answers.
struct Total {
    measure: Measure,
    /// The mask is read only where it can be 0.
    masked: bool,
    /// A block's sum fits 63 bits.
    block_fits: bool,
    slots: Slots,
}

impl Total {
    fn initial(combine: Combine) -> (i64, i128) {
        match combine {
            Combine::Sum => (0, 0),
            Combine::Min => (i64::MAX, i128::MAX),
            Combine::Max => (i64::MIN, i128::MIN),
        }
    }

    fn grow(&mut self, slots: usize) {
        let (narrow, wide) = Self::initial(self.measure.combine);
        match &mut self.slots {
            Slots::Narrow(answers) => answers.resize(slots, narrow),
            Slots::Wide(answers) => answers.resize(slots, wide),
        }
    }

    fn combine_into(&mut self, slot: usize, found: i128) {
        match (&mut self.slots, self.measure.combine) {
            (Slots::Narrow(answers), Combine::Sum) => answers[slot] += found as i64,
            (Slots::Narrow(answers), Combine::Min) => answers[slot] = answers[slot].min(clamp(found)),
            (Slots::Narrow(answers), Combine::Max) => answers[slot] = answers[slot].max(clamp(found)),
            (Slots::Wide(answers), Combine::Sum) => answers[slot] = answers[slot].wrapping_add(found),
            (Slots::Wide(answers), Combine::Min) => answers[slot] = answers[slot].min(found),
            (Slots::Wide(answers), Combine::Max) => answers[slot] = answers[slot].max(found),
        }
    }
}

/// Extremes of no rows are the ends of their own type; inside 64 bits they stay ends.
fn clamp(found: i128) -> i64 {
    found.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Everything a row group adds up to.
pub(super) struct Totals {
    counts: Vec<(MaskId, Option<bool>, Vec<u64>)>,
    totals: Vec<Total>,
}

/// Runs `$body` with `$numbers` as a typed slice.
macro_rules! with_numbers {
    ($source:expr, $numbers:ident => $body:expr) => {
        match $source {
            Numbers::U8($numbers) => $body,
            Numbers::U16($numbers) => $body,
            Numbers::U32($numbers) => $body,
            Numbers::U64($numbers) => $body,
            Numbers::I64($numbers) => $body,
            Numbers::I128($numbers) => $body,
        }
    };
}

impl Totals {
    pub(super) fn new(program: &Program<'_>, slots: usize) -> Self {
        let settled = |mask: MaskId| match program.masks[mask.0] {
            Mask::Constant(answer) => Some(answer),
            _ => None,
        };
        let counts = program.counts.iter().map(|mask| (*mask, settled(*mask), vec![0; slots])).collect();
        let totals = program.measures.iter().map(|measure| {
            let value = &program.values[measure.value.0];
            let magnitude = value.low.unsigned_abs().max(value.high.unsigned_abs());
            let fits = |rows: usize| magnitude.saturating_mul(rows as u128) <= i64::MAX as u128;
            let narrow = if measure.combine == Combine::Sum { fits(program.row_count) } else { fits(1) };
            let mut total = Total {
                measure: *measure,
                masked: settled(measure.mask).is_none(),
                block_fits: fits(BLOCK_ROWS),
                slots: if narrow { Slots::Narrow(Vec::new()) } else { Slots::Wide(Vec::new()) },
            };
            total.grow(slots);
            total
        });
        Self { counts, totals: totals.collect() }
    }

    /// Makes room for slots that were found by hashing.
    pub(super) fn grow(&mut self, slots: usize) {
        self.counts.iter_mut().for_each(|(_, _, counts)| counts.resize(slots, 0));
        self.totals.iter_mut().for_each(|total| total.grow(slots));
    }

    /// Adds rows `from..to` of what was evaluated to one slot.
    pub(super) fn add_run(&mut self, evaluator: &Evaluator<'_>, rows: Rows<'_>, slot: usize, from: usize, to: usize) {
        let count = rows.count();
        for (mask, settled, counts) in &mut self.counts {
            counts[slot] += match settled {
                Some(true) => (to - from) as u64,
                Some(false) => 0,
                None => count_bytes(&evaluator.mask(*mask, count)[from..to]),
            };
        }
        for total in &mut self.totals {
            let mask = total.masked.then(|| &evaluator.mask(total.measure.mask, count)[from..to]);
            let fits = total.block_fits;
            let found = with_numbers!(evaluator.numbers(total.measure.value, rows), numbers => {
                reduce(total.measure.combine, &numbers[from..to], mask, fits)
            });
            total.combine_into(slot, found);
        }
    }

    /// Adds every row of what was evaluated to the slot of its code.
    pub(super) fn scatter(&mut self, evaluator: &Evaluator<'_>, rows: Rows<'_>, codes: &[u32]) {
        let count = rows.count();
        for (mask, settled, counts) in &mut self.counts {
            match settled {
                Some(true) => codes.iter().for_each(|code| counts[*code as usize] += 1),
                Some(false) => {}
                None => {
                    for (code, keep) in codes.iter().zip(evaluator.mask(*mask, count)) {
                        counts[*code as usize] += u64::from(*keep);
                    }
                }
            }
        }
        for total in &mut self.totals {
            let combine = total.measure.combine;
            let mask = total.masked.then(|| evaluator.mask(total.measure.mask, count));
            with_numbers!(evaluator.numbers(total.measure.value, rows), numbers => match &mut total.slots {
                Slots::Narrow(answers) => scatter(combine, codes, numbers, mask, answers),
                Slots::Wide(answers) => scatter(combine, codes, numbers, mask, answers),
            });
        }
    }

    pub(super) fn finish(self, combined: Option<Vec<u128>>) -> Partial {
        let measures = self.totals.into_iter().map(|total| match total.slots {
            Slots::Narrow(answers) => answers.into_iter().map(i128::from).collect(),
            Slots::Wide(answers) => answers,
        });
        Partial { combined, counts: self.counts.into_iter().map(|(_, _, counts)| counts).collect(), measures: measures.collect() }
    }
}

/// One run's answer; the neutral element of the number's type where no row counts.
fn reduce<N: Number>(combine: Combine, numbers: &[N], mask: Option<&[u8]>, fits: bool) -> i128 {
    match (combine, mask) {
        (Combine::Sum, None) if fits => i128::from(sum_i64(numbers)),
        (Combine::Sum, None) => sum_i128(numbers),
        (Combine::Sum, Some(mask)) if fits => i128::from(sum_i64_masked(numbers, mask)),
        (Combine::Sum, Some(mask)) => sum_i128_masked(numbers, mask),
        (Combine::Min, None) => least(numbers).as_i128(),
        (Combine::Min, Some(mask)) => least_masked(numbers, mask).as_i128(),
        (Combine::Max, None) => greatest(numbers).as_i128(),
        (Combine::Max, Some(mask)) => greatest_masked(numbers, mask).as_i128(),
    }
}

fn scatter<N: Number, A: Accumulator>(combine: Combine, codes: &[u32], numbers: &[N], mask: Option<&[u8]>, answers: &mut [A]) {
    let fold = |known: A, value: A| match combine {
        Combine::Sum => known.plus(value),
        Combine::Min => known.min(value),
        Combine::Max => known.max(value),
    };
    match mask {
        None => {
            for (code, number) in codes.iter().zip(numbers) {
                let answer = &mut answers[*code as usize];
                *answer = fold(*answer, A::of(*number));
            }
        }
        Some(mask) => {
            for ((code, number), keep) in codes.iter().zip(numbers).zip(mask) {
                if *keep == 1 {
                    let answer = &mut answers[*code as usize];
                    *answer = fold(*answer, A::of(*number));
                }
            }
        }
    }
}
