//! The host kernel: filter, project and aggregate a row group in blocks that stay in the nearest caches.
//!
//! ```text
//! block of lanes ─ filter, cheapest conjunct first ─> mask of bytes ─> positions that pass, if not most do
//!                                                                            │
//!            measures (packed and added to the group's slot)  <─ values  <─ lanes, gathered once a column if need be
//! ```

mod accumulate;
mod evaluate;
mod few;
mod loops;
mod packed;

use std::ops::Range;

use accumulate::Totals;
use evaluate::{Evaluator, Rows, Steps, write_valid};
use few::{FEW_SLOTS_MAX, Few, NO_SLOT};
use loops::{add_codes, add_few_codes, add_few_nullable_codes, add_nullable_codes, count_bytes, leave_out, pick};

use crate::bind::{Mask, MaskId, Program, ValueId};
use crate::chunk::{Lanes, with_lanes};
use crate::error::KernelError;
use crate::forced::{FORCED_SLOTS_MAX, ForcedGroups};
use crate::group_index::GroupIndex;
use crate::limits::{BLOCK_ROWS, DENSE_SLOTS_MAX, MEASURE_ROWS};
use crate::simd::prefetch;
use crate::state::Partial;

/// Rows between two flushes of packed sums, for each slot: a flush is then a small part of the work.
const FLUSH_ROWS_A_SLOT: usize = 16;

/// Slots a row that direct addressing may have.
const SLOTS_A_ROW: usize = 4;

/// Slots that cost next to nothing, however few the rows.
const SMALL_SLOTS: usize = 1_024;

/// One row of so many that passes, and more: all of a block's lines are asked for, not those of each row.
const DENSE_PICKS: usize = 32;

/// One of so many blocks is filtered to see how many rows pass.
const BLOCKS_A_SAMPLE: usize = 16;

/// How rows find their group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// One group.
    Single,
    /// Every row adds to the slot that its key lanes name. One more slot takes what rows that do not pass add.
    Direct { slots: usize },
    /// The same, for so few groups that each group's rows are a mask.
    Few { slots: usize },
    /// Too many possible codes to address: codes are hashed to slots.
    Hash,
}

/// Runs a program over its row group.
pub(crate) fn run(program: &Program<'_>) -> Result<Partial, KernelError> {
    let strategy = match usize::try_from(program.keys.slots) {
        _ if program.keys.columns.is_empty() => Strategy::Single,
        Ok(slots) if program.forced.groups == Some(ForcedGroups::Direct) && slots <= FORCED_SLOTS_MAX => Strategy::Direct { slots },
        _ if program.forced.groups == Some(ForcedGroups::Hash) => Strategy::Hash,
        Ok(slots)
            if slots <= FEW_SLOTS_MAX
                && Totals::are_short(program)
                && (few::is_fast() || program.forced.groups == Some(ForcedGroups::Few)) =>
        {
            Strategy::Few { slots }
        }
        // Slots far beyond the rows would cost more to clear and to read than the rows themselves. Slots come out in the order of
        // their keys, which is worth a few more: groups are then merged in the order in which they lie in memory.
        Ok(slots) if slots <= SMALL_SLOTS || slots <= DENSE_SLOTS_MAX && slots <= worthwhile_slots(program) => Strategy::Direct { slots },
        _ => Strategy::Hash,
    };
    let mut run = Run::new(program, strategy);
    if program.masks[program.filter.0] != Mask::Constant(false) {
        let (mut picks, mut waiting) = (vec![0; BLOCK_ROWS], Waiting { start: 0, picked: 0, picks: vec![0; BLOCK_ROWS] });
        for start in (0..program.row_count).step_by(BLOCK_ROWS) {
            run.block(start, BLOCK_ROWS.min(program.row_count - start), &mut picks, &mut waiting)?;
        }
        run.measure_waiting(&mut waiting)?;
    }
    Ok(run.finish())
}

/// Slots that the rows which pass the filter are worth, as far as some blocks tell.
fn worthwhile_slots(program: &Program<'_>) -> usize {
    let conjuncts = conjuncts_of(program);
    if conjuncts.is_empty() {
        return program.row_count * SLOTS_A_ROW;
    }
    let (mut evaluator, mut pass) = (Evaluator::new(program), vec![0; BLOCK_ROWS]);
    let (mut seen, mut passing) = (0, 0);
    for start in (0..program.row_count).step_by(BLOCK_ROWS * BLOCKS_A_SAMPLE) {
        let count = BLOCK_ROWS.min(program.row_count - start);
        let pass = &mut pass[..count];
        for (position, (mask, steps)) in conjuncts.iter().enumerate() {
            evaluator.filter(*mask, steps, Rows::Dense { start, count }, position == 0, pass);
        }
        seen += count;
        passing += count_bytes(pass) as usize;
    }
    passing * program.row_count / seen.max(1) * SLOTS_A_ROW
}

/// Parts of the filter, cheapest first, each with what it needs.
fn conjuncts_of(program: &Program<'_>) -> Vec<(MaskId, Steps)> {
    let mut conjuncts = match &program.masks[program.filter.0] {
        Mask::Constant(_) => Vec::new(),
        Mask::And(parts) => parts.clone(),
        _ => vec![program.filter],
    };
    conjuncts.sort_by_key(|mask| cost(program, *mask));
    conjuncts.into_iter().map(|mask| (mask, Steps::new(program, &[mask], &[], &[], &[]))).collect()
}

/// Rows of a block that passed the filter and whose other columns are on their way from memory while the next block is filtered.
struct Waiting {
    start: usize,
    picked: usize,
    picks: Vec<u16>,
}

struct Run<'p> {
    program: &'p Program<'p>,
    strategy: Strategy,
    evaluator: Evaluator<'p>,
    /// Parts of the filter, cheapest first, each with what it needs.
    conjuncts: Vec<(MaskId, Steps)>,
    /// What the measures need.
    steps: Steps,
    totals: Totals,
    groups: GroupIndex,
    few: Few,
    /// Whether nothing is asked of the rows that pass but how many they are.
    counts_only: bool,
    pass: Vec<u8>,
    codes: Vec<u32>,
    valid: Vec<u8>,
    wide_codes: Vec<u128>,
}

impl<'p> Run<'p> {
    fn new(program: &'p Program<'p>, strategy: Strategy) -> Self {
        let conjuncts = conjuncts_of(program);
        // Programs count the mask of every measure.
        let masks = program.counts.iter().copied().filter(|mask| !matches!(program.masks[mask.0], Mask::Constant(_)));
        let masks: Vec<MaskId> = masks.collect();
        let computed: Vec<ValueId> = program.float_sums.iter().map(|sum| sum.value).collect();
        let values: Vec<ValueId> = program.measures.iter().map(|measure| measure.value).collect();
        let key_columns: Vec<usize> = program.keys.columns.iter().map(|key| key.column).collect();
        let steps = Steps::new(program, &masks, &values, &computed, &key_columns);
        let totals = match strategy {
            Strategy::Single => Totals::new(program, 1, 0),
            Strategy::Few { slots } => Totals::new(program, slots, 0),
            // A flush visits every slot: few of them may be flushed every block, which leaves most room in the words.
            Strategy::Direct { slots } => Totals::new(program, slots + 1, (slots * FLUSH_ROWS_A_SLOT).next_multiple_of(BLOCK_ROWS)),
            Strategy::Hash => Totals::new(program, 0, program.row_count),
        };
        let counts_only = strategy == Strategy::Single && totals.are_counts_of_all();
        Self {
            program,
            strategy,
            evaluator: Evaluator::new(program),
            conjuncts,
            steps,
            totals,
            groups: GroupIndex::new(1),
            counts_only,
            few: Few::new(if let Strategy::Few { slots } = strategy { slots } else { 0 }),
            pass: vec![0; BLOCK_ROWS],
            codes: vec![0; MEASURE_ROWS],
            valid: vec![0; MEASURE_ROWS],
            wide_codes: vec![0; if strategy == Strategy::Hash { MEASURE_ROWS } else { 0 }],
        }
    }

    fn block(&mut self, start: usize, count: usize, picks: &mut Vec<u16>, waiting: &mut Waiting) -> Result<(), KernelError> {
        let next = start + count..self.program.row_count.min(start + count + BLOCK_ROWS);
        let dense = Rows::Dense { start, count };
        let mut passing = count;
        for (position, (mask, steps)) in self.conjuncts.iter().enumerate() {
            // Column by column: memory is then busy while the one before is worked on, and no queue of the processor runs full.
            ask_for(self.program, steps.columns(), &next);
            let pass = &mut self.pass[..count];
            self.evaluator.filter(*mask, steps, dense, position == 0, pass);
            passing = count_bytes(pass) as usize;
            if passing == 0 {
                return Ok(());
            }
        }
        if self.counts_only {
            self.totals.add_passing(passing);
            return Ok(());
        }
        // Rows left out of a block that mostly passes cost less than moving the others together.
        let leave_out_rows = matches!(self.strategy, Strategy::Direct { .. } | Strategy::Few { .. }) && passing * 2 > count;
        if passing < count && !leave_out_rows {
            let picked = pick(&self.pass[..count], picks);
            self.ask_for_picked(start, count, &picks[..picked]);
            self.measure_waiting(waiting)?;
            std::mem::swap(picks, &mut waiting.picks);
            (waiting.start, waiting.picked) = (start, picked);
            return Ok(());
        }
        for from in (0..count).step_by(MEASURE_ROWS) {
            let part = from..count.min(from + MEASURE_ROWS);
            // Part by part, and not all at once: the work on one part hides the wait for another.
            let ahead = next.start + from..next.end.min(next.start + from + MEASURE_ROWS);
            ask_for(self.program, self.steps.columns(), &ahead);
            let left_out = (leave_out_rows && passing < count).then(|| part.clone());
            self.measure(dense.part(part), left_out)?;
        }
        Ok(())
    }

    /// Adds up the rows of the block before.
    fn measure_waiting(&mut self, waiting: &mut Waiting) -> Result<(), KernelError> {
        let rows = Rows::Picked { start: waiting.start, picks: &waiting.picks[..waiting.picked] };
        for from in (0..waiting.picked).step_by(MEASURE_ROWS) {
            self.measure(rows.part(from..waiting.picked.min(from + MEASURE_ROWS)), None)?;
        }
        waiting.picked = 0;
        Ok(())
    }

    /// Asks for what the measures read of these rows.
    fn ask_for_picked(&self, start: usize, count: usize, picks: &[u16]) {
        if picks.len() * DENSE_PICKS > count {
            ask_for(self.program, self.steps.columns(), &(start..start + count));
            return;
        }
        for column in self.steps.columns() {
            with_lanes!(self.program.chunks[*column].lanes(), lanes => {
                for pick in picks {
                    prefetch(lanes.get(start + usize::from(*pick)..).and_then(|lanes| lanes.get(..1)).unwrap_or_default());
                }
            });
        }
    }

    /// Adds up some rows, less those of `left_out` in the block's mask that do not pass.
    fn measure(&mut self, rows: Rows<'_>, left_out: Option<Range<usize>>) -> Result<(), KernelError> {
        let count = rows.count();
        self.evaluator.run(&self.steps, rows);
        match self.strategy {
            Strategy::Single => self.totals.add_run(&self.evaluator, rows),
            Strategy::Few { .. } => {
                let codes = self.few.codes(count);
                write_few_codes(self.program, &self.evaluator, rows, codes, &mut self.valid);
                if let Some(part) = left_out {
                    leave_out(&self.pass[part], NO_SLOT, codes);
                }
                self.few.sort();
                self.totals.add_few(&self.evaluator, rows, &mut self.few);
            }
            Strategy::Direct { slots } => {
                write_codes(self.program, &self.evaluator, rows, &mut self.codes, &mut self.valid);
                if let Some(part) = left_out {
                    leave_out(&self.pass[part], slots as u32, &mut self.codes[..count]);
                }
                self.totals.scatter(&self.evaluator, rows, &self.codes[..count]);
            }
            Strategy::Hash => {
                write_wide_codes(self.program, &self.evaluator, rows, &mut self.wide_codes, &mut self.valid);
                // Codes are keys only by equality: the sign does not matter.
                self.groups.groups_of(bytemuck::cast_slice(&self.wide_codes[..count]), &mut self.codes)?;
                self.totals.grow(self.groups.len());
                self.totals.scatter(&self.evaluator, rows, &self.codes[..count]);
            }
        }
        Ok(())
    }

    fn finish(self) -> Partial {
        let combined =
            (self.strategy == Strategy::Hash).then(|| (0..self.groups.len()).map(|group| self.groups.key(group)[0] as u128).collect());
        let slots = if let Strategy::Direct { slots } | Strategy::Few { slots } = self.strategy { Some(slots) } else { None };
        self.totals.finish(slots, combined)
    }
}

/// Asks for these rows, those of the next block.
fn ask_for(program: &Program<'_>, columns: &[usize], rows: &Range<usize>) {
    for column in columns {
        with_lanes!(program.chunks[*column].lanes(), lanes => prefetch(lanes.get(rows.clone()).unwrap_or_default()));
    }
}

/// The combined codes of these rows; they fit `u32` where slots are addressed directly.
fn write_codes(program: &Program<'_>, evaluator: &Evaluator<'_>, rows: Rows<'_>, codes: &mut [u32], valid: &mut [u8]) {
    let count = rows.count();
    let codes = &mut codes[..count];
    codes.fill(0);
    for key in &program.keys.columns {
        let lanes = evaluator.lanes(key.column, rows);
        match key.null_code {
            None => with_lanes!(lanes, lanes => add_codes(lanes, key.stride as u32, codes)),
            Some(null_code) => {
                write_valid(program, key.column, rows, &mut valid[..count]);
                with_lanes!(lanes, lanes => add_nullable_codes(lanes, &valid[..count], null_code as u32, key.stride as u32, codes));
            }
        }
    }
}

/// The combined codes of these rows where there are a few: bytes.
fn write_few_codes(program: &Program<'_>, evaluator: &Evaluator<'_>, rows: Rows<'_>, codes: &mut [u8], valid: &mut [u8]) {
    let valid = &mut valid[..codes.len()];
    for key in &program.keys.columns {
        let lanes = evaluator.lanes(key.column, rows);
        match key.null_code {
            None => with_lanes!(lanes, lanes => add_few_codes(lanes, key.stride as u8, codes)),
            Some(null_code) => {
                write_valid(program, key.column, rows, valid);
                with_lanes!(lanes, lanes => add_few_nullable_codes(lanes, valid, null_code as u8, key.stride as u8, codes));
            }
        }
    }
}

fn write_wide_codes(program: &Program<'_>, evaluator: &Evaluator<'_>, rows: Rows<'_>, codes: &mut [u128], valid: &mut [u8]) {
    let count = rows.count();
    let (codes, valid) = (&mut codes[..count], &mut valid[..count]);
    codes.fill(0);
    for key in &program.keys.columns {
        write_valid(program, key.column, rows, valid);
        let null_code = u128::from(key.null_code.unwrap_or(0));
        with_lanes!(evaluator.lanes(key.column, rows), lanes => {
            for ((code, lane), valid) in codes.iter_mut().zip(lanes).zip(&*valid) {
                let lane = if *valid == 1 { u128::from(*lane) } else { null_code };
                *code = code.wrapping_add(lane.wrapping_mul(key.stride));
            }
        });
    }
}

/// Roughly, bytes read and instructions a row: the order in which conjuncts are tried.
fn cost(program: &Program<'_>, mask: MaskId) -> usize {
    match &program.masks[mask.0] {
        Mask::Constant(_) => 0,
        Mask::Range { column, .. } => program.chunks[*column].lane_width().bytes(),
        Mask::Valid { .. } => 2,
        Mask::Table { .. } => 12,
        Mask::Member { .. } => 80,
        Mask::Compare { .. } => 30,
        Mask::And(inputs) | Mask::Or(inputs) => 1 + inputs.iter().map(|input| cost(program, *input)).sum::<usize>(),
        Mask::Not(input) => 1 + cost(program, *input),
    }
}
