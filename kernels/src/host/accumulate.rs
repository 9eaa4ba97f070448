//! Counts and measures of every slot.

use super::evaluate::{Evaluator, Numbers, Rows};
use super::few::Few;
use super::loops::*;
use super::packed::{Packed, Range};
use crate::bind::{Combine, FloatSum, Mask, MaskId, Measure, Program, Width};
use crate::exact_float::{ExactFloatSum, FixedPoint};
use crate::limits::{BLOCK_ROWS, MEASURE_ROWS};
use crate::state::Partial;
use crate::total_order::TotalOrder;

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
    /// Set where the sums lie packed: what every number counts from.
    bias: Option<i64>,
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
            (Slots::Narrow(answers), Combine::Sum) => answers[slot] = answers[slot].wrapping_add(found as i64),
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

/// Whether sums of `rows` numbers of this magnitude fit 63 bits.
fn fits_word(magnitude: u128, rows: usize) -> bool {
    magnitude.saturating_mul(rows as u128) <= i64::MAX as u128
}

/// One sum of doubles with its answers.
struct FloatTotal {
    sum: FloatSum,
    masked: bool,
    slots: FloatSlots,
}

enum FloatSlots {
    /// Every exponent is known and near the others.
    Fixed(FixedPoint, Vec<i128>),
    Exact(Vec<ExactFloatSum>),
}

impl FloatTotal {
    fn new(program: &Program<'_>, sum: FloatSum, slots: usize, masked: bool) -> Self {
        let slots = match program.exponents(sum.value).and_then(|exponents| FixedPoint::new(exponents, program.row_count)) {
            Some(fixed) => FloatSlots::Fixed(fixed, vec![0; slots]),
            None => FloatSlots::Exact(vec![ExactFloatSum::default(); slots]),
        };
        Self { sum, masked, slots }
    }

    fn grow(&mut self, slots: usize) {
        match &mut self.slots {
            FloatSlots::Fixed(_, sums) => sums.resize(slots, 0),
            FloatSlots::Exact(sums) => sums.resize(slots, ExactFloatSum::default()),
        }
    }

    /// Adds the doubles at some places to the slot of their code.
    fn scatter(&mut self, codes: &[u32], places: &[i64], mask: Option<&[u8]>) {
        for (row, (code, place)) in codes.iter().zip(places).enumerate() {
            if mask.is_none_or(|mask| mask[row] == 1) {
                let value = TotalOrder::at(*place).value();
                match &mut self.slots {
                    FloatSlots::Fixed(fixed, sums) => sums[*code as usize] += fixed.of(value),
                    FloatSlots::Exact(sums) => sums[*code as usize].add(value),
                }
            }
        }
    }

    /// Adds the doubles at some places to the one slot.
    fn add_run(&mut self, places: &[i64], mask: Option<&[u8]>, doubles: &mut Vec<f64>) {
        doubles.clear();
        match mask {
            None => doubles.extend(places.iter().map(|place| TotalOrder::at(*place).value())),
            // Zeros change no sum.
            Some(mask) => {
                doubles.extend(places.iter().zip(mask).map(|(place, keep)| if *keep == 1 { TotalOrder::at(*place).value() } else { 0.0 }))
            }
        }
        if let FloatSlots::Exact(sums) = &mut self.slots {
            sums[0].add_all(doubles);
        }
    }

    fn finish(self, slots: Option<usize>) -> Vec<ExactFloatSum> {
        let mut sums = match self.slots {
            FloatSlots::Fixed(fixed, sums) => sums.into_iter().map(|sum| fixed.sum(sum)).collect(),
            FloatSlots::Exact(sums) => sums,
        };
        sums.truncate(slots.unwrap_or(usize::MAX));
        sums
    }
}

/// Everything a row group adds up to.
pub(super) struct Totals {
    counts: Vec<Count>,
    totals: Vec<Total>,
    float_totals: Vec<FloatTotal>,
    /// Doubles of a run.
    doubles: Vec<f64>,
    packed: Packed,
    /// What each field of `packed` adds to.
    targets: Vec<Target>,
}

struct Count {
    mask: MaskId,
    settled: Option<bool>,
    slots: Vec<u64>,
}

#[derive(Clone, Copy)]
enum Target {
    Count(usize),
    Sum(usize),
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
    /// Totals of `slots` slots. Sums that fit lie packed for up to `flush_rows` rows; with 0 rows none do, as [`Self::add_run`] wants.
    pub(super) fn new(program: &Program<'_>, slots: usize, flush_rows: usize) -> Self {
        let settled = |mask: MaskId| match program.masks[mask.0] {
            Mask::Constant(answer) => Some(answer),
            _ => None,
        };
        let counts: Vec<Count> =
            program.counts.iter().map(|mask| Count { mask: *mask, settled: settled(*mask), slots: vec![0; slots] }).collect();
        let mut totals: Vec<Total> = program
            .measures
            .iter()
            .map(|measure| {
                let value = &program.values[measure.value.0];
                let magnitude = value.low.unsigned_abs().max(value.high.unsigned_abs());
                let fits = |rows: usize| fits_word(magnitude, rows);
                let narrow = if measure.combine == Combine::Sum { fits(program.row_count) } else { fits(1) };
                let mut total = Total {
                    measure: *measure,
                    masked: settled(measure.mask).is_none(),
                    block_fits: fits(BLOCK_ROWS),
                    bias: None,
                    slots: if narrow { Slots::Narrow(Vec::new()) } else { Slots::Wide(Vec::new()) },
                };
                total.grow(slots);
                total
            })
            .collect();
        let (mut candidates, mut ranges) = (Vec::new(), Vec::new());
        if flush_rows > 0 {
            for (position, count) in counts.iter().enumerate() {
                if count.settled != Some(false) {
                    candidates.push(Target::Count(position));
                    ranges.push(Range { least: 0, greatest: 1 });
                }
            }
            for (position, total) in totals.iter().enumerate() {
                if total.measure.combine == Combine::Sum && !program.forced.unpacked {
                    let value = &program.values[total.measure.value.0];
                    candidates.push(Target::Sum(position));
                    ranges.push(Range { least: value.low, greatest: value.high });
                }
            }
        }
        // A run goes by blocks whose exponents are looked at there and then.
        let float_total = |sum: &FloatSum| {
            let masked = settled(sum.mask).is_none();
            if flush_rows > 0 {
                FloatTotal::new(program, *sum, slots, masked)
            } else {
                FloatTotal { sum: *sum, masked, slots: FloatSlots::Exact(vec![ExactFloatSum::default(); slots]) }
            }
        };
        let float_totals = program.float_sums.iter().map(float_total).collect();
        let (packed, taken) = Packed::new(&ranges, slots, flush_rows);
        for (candidate, range) in taken.iter().map(|candidate| candidates[*candidate]).zip(taken.iter().map(|taken| ranges[*taken])) {
            if let Target::Sum(position) = candidate {
                totals[position].bias = Some(range.bias());
            }
        }
        Self {
            counts,
            totals,
            float_totals,
            doubles: Vec::with_capacity(MEASURE_ROWS),
            packed,
            targets: taken.into_iter().map(|taken| candidates[taken]).collect(),
        }
    }

    /// Makes room for slots that were found by hashing.
    pub(super) fn grow(&mut self, slots: usize) {
        self.counts.iter_mut().for_each(|count| count.slots.resize(slots, 0));
        self.totals.iter_mut().for_each(|total| total.grow(slots));
        self.float_totals.iter_mut().for_each(|total| total.grow(slots));
        self.packed.grow(slots);
    }

    /// Whether there are counts of all rows alone.
    pub(super) fn are_counts_of_all(&self) -> bool {
        self.totals.is_empty() && self.float_totals.is_empty() && self.counts.iter().all(|count| count.settled.is_some())
    }

    /// Adds rows to the counts of all in the one slot.
    pub(super) fn add_passing(&mut self, rows: usize) {
        for count in self.counts.iter_mut().filter(|count| count.settled == Some(true)) {
            count.slots[0] += rows as u64;
        }
    }

    /// Adds every row of what was evaluated to the one slot.
    pub(super) fn add_run(&mut self, evaluator: &Evaluator<'_>, rows: Rows<'_>) {
        let count = rows.count();
        for Count { mask, settled, slots } in &mut self.counts {
            slots[0] += match settled {
                Some(true) => count as u64,
                Some(false) => 0,
                None => count_bytes(evaluator.mask(*mask, count)),
            };
        }
        for total in &mut self.totals {
            let mask = total.masked.then(|| evaluator.mask(total.measure.mask, count));
            let fits = total.block_fits;
            let found = with_numbers!(evaluator.numbers(total.measure.value, rows), numbers => {
                reduce(total.measure.combine, numbers, mask, fits)
            });
            total.combine_into(0, found);
        }
        for total in &mut self.float_totals {
            let mask = total.masked.then(|| evaluator.mask(total.sum.mask, count));
            total.add_run(evaluator.places(total.sum.value, count), mask, &mut self.doubles);
        }
    }

    /// Whether all that is added up are counts and sums that [`Self::add_few`] takes: those of a block fit 63 bits.
    pub(super) fn are_short(program: &Program<'_>) -> bool {
        let is_short = |measure: &Measure| {
            let value = &program.values[measure.value.0];
            let magnitude = value.low.unsigned_abs().max(value.high.unsigned_abs());
            measure.combine == Combine::Sum && value.width != Width::I128 && fits_word(magnitude, BLOCK_ROWS)
        };
        program.float_sums.is_empty() && program.measures.iter().all(is_short) && !program.forced.unpacked
    }

    /// Adds every row of what was evaluated to its group, of which there are a few.
    pub(super) fn add_few(&mut self, evaluator: &Evaluator<'_>, rows: Rows<'_>, few: &mut Few) {
        let count = rows.count();
        for Count { mask, settled, slots } in self.counts.iter_mut().filter(|count| count.settled != Some(false)) {
            let keep = settled.is_none().then(|| evaluator.mask(*mask, count));
            slots.iter_mut().zip(few.counts(keep)).for_each(|(rows, found)| *rows += found);
        }
        for total in &mut self.totals {
            let keep = total.masked.then(|| evaluator.mask(total.measure.mask, count));
            let numbers = evaluator.numbers(total.measure.value, rows);
            let found = few.sums(numbers, evaluator.program.values[total.measure.value.0].high, keep);
            match &mut total.slots {
                Slots::Narrow(sums) => sums.iter_mut().zip(found).for_each(|(sum, found)| *sum = sum.wrapping_add(found)),
                Slots::Wide(sums) => sums.iter_mut().zip(found).for_each(|(sum, found)| *sum = sum.wrapping_add(i128::from(found))),
            }
        }
    }

    /// Adds every row of what was evaluated to the slot of its code.
    pub(super) fn scatter(&mut self, evaluator: &Evaluator<'_>, rows: Rows<'_>, codes: &[u32]) {
        let count = rows.count();
        if self.packed.is_full(count) {
            self.flush();
        }
        for (field, target) in self.targets.iter().enumerate() {
            match *target {
                Target::Count(position) => match &self.counts[position] {
                    Count { settled: Some(_), .. } => self.packed.write_ones(field, count),
                    Count { mask, .. } => self.packed.write(field, evaluator.mask(*mask, count), None),
                },
                Target::Sum(position) => {
                    let Total { measure, masked, .. } = &self.totals[position];
                    let keep = masked.then(|| evaluator.mask(measure.mask, count));
                    with_numbers!(evaluator.numbers(measure.value, rows), numbers => self.packed.write(field, numbers, keep));
                }
            }
        }
        self.packed.add(codes);
        for total in self.totals.iter_mut().filter(|total| total.bias.is_none()) {
            let combine = total.measure.combine;
            let mask = total.masked.then(|| evaluator.mask(total.measure.mask, count));
            with_numbers!(evaluator.numbers(total.measure.value, rows), numbers => match &mut total.slots {
                Slots::Narrow(answers) => scatter(combine, codes, numbers, mask, answers),
                Slots::Wide(answers) => scatter(combine, codes, numbers, mask, answers),
            });
        }
        for total in &mut self.float_totals {
            let mask = total.masked.then(|| evaluator.mask(total.sum.mask, count));
            total.scatter(codes, evaluator.places(total.sum.value, count), mask);
        }
    }

    /// Moves the packed sums to the totals.
    fn flush(&mut self) {
        let Self { counts, totals, packed, targets, .. } = self;
        packed.flush(|field, slot, sum| match targets[field] {
            Target::Count(position) => counts[position].slots[slot] += sum,
            Target::Sum(position) => totals[position].combine_into(slot, i128::from(sum)),
        });
    }

    /// The answers of the first `slots` slots, all where there is no bound.
    pub(super) fn finish(mut self, slots: Option<usize>, combined: Option<Vec<u128>>) -> Partial {
        self.flush();
        for total in &mut self.totals {
            // Bound programs count the mask of every measure.
            let Some(bias) = total.bias.filter(|bias| *bias != 0) else { continue };
            let Some(counted) = self.counts.iter().find(|count| count.mask == total.measure.mask) else { continue };
            for (slot, count) in counted.slots.iter().enumerate() {
                total.combine_into(slot, i128::from(bias).wrapping_mul(i128::from(*count)));
            }
        }
        let measures = self.totals.into_iter().map(|total| {
            let mut answers: Vec<i128> = match total.slots {
                Slots::Narrow(answers) => answers.into_iter().map(i128::from).collect(),
                Slots::Wide(answers) => answers,
            };
            answers.truncate(slots.unwrap_or(usize::MAX));
            answers
        });
        let measures = measures.collect();
        let counts = self.counts.into_iter().map(|mut count| {
            count.slots.truncate(slots.unwrap_or(usize::MAX));
            count.slots
        });
        let float_sums = self.float_totals.into_iter().map(|total| total.finish(slots)).collect();
        Partial { combined, counts: counts.collect(), measures, float_sums }
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
