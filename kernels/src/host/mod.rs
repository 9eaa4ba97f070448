//! The host kernel: filter, project and aggregate a row group in blocks that stay in the nearest caches.
//!
//! ```text
//! block of lanes ─ filter, cheapest conjunct first ─> mask of bytes ─> positions that pass (by group, if few groups)
//!                                                                            │
//!         measures, run by run (or scattered by group code)  <─ values  <─ lanes gathered once a column
//! ```

mod accumulate;
mod evaluate;
mod loops;
mod partition;

use accumulate::Totals;
use evaluate::{Evaluator, Rows, Steps, with_lanes, write_valid};
use loops::{add_codes, add_nullable_codes, count_bytes, pick};
use partition::Partition;

use crate::bind::{Mask, MaskId, Program, ValueId};
use crate::chunk::Lanes;
use crate::error::KernelError;
use crate::group_index::GroupIndex;
use crate::limits::{BLOCK_ROWS, DENSE_SLOTS_MAX, PARTITION_SLOTS_MAX};
use crate::state::Partial;

/// How rows find their group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// One group.
    Single,
    /// Few slots: rows of a block are ordered by slot, and each run is added up tightly.
    Partition { slots: usize },
    /// Many slots: every row adds to its slot.
    Scatter { slots: usize },
    /// Too many possible codes to address: codes are hashed to slots.
    Hash,
}

/// Runs a program over its row group.
pub(crate) fn run(program: &Program<'_>) -> Result<Partial, KernelError> {
    let strategy = match usize::try_from(program.keys.slots) {
        _ if program.keys.columns.is_empty() => Strategy::Single,
        Ok(slots) if slots <= PARTITION_SLOTS_MAX => Strategy::Partition { slots },
        // Slots far beyond the rows would cost more to clear and to read than the rows themselves.
        Ok(slots) if slots <= DENSE_SLOTS_MAX && slots <= program.row_count.saturating_mul(4) => Strategy::Scatter { slots },
        _ => Strategy::Hash,
    };
    let mut run = Run::new(program, strategy);
    if program.masks[program.filter.0] != Mask::Constant(false) {
        for start in (0..program.row_count).step_by(BLOCK_ROWS) {
            run.block(start, BLOCK_ROWS.min(program.row_count - start))?;
        }
    }
    Ok(run.finish())
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
    pass: Vec<u8>,
    picks: Vec<u16>,
    partition: Partition,
    codes: Vec<u32>,
    valid: Vec<u8>,
    wide_codes: Vec<u128>,
}

impl<'p> Run<'p> {
    fn new(program: &'p Program<'p>, strategy: Strategy) -> Self {
        let mut conjuncts = match &program.masks[program.filter.0] {
            Mask::Constant(_) => Vec::new(),
            Mask::And(parts) => parts.clone(),
            _ => vec![program.filter],
        };
        conjuncts.sort_by_key(|mask| cost(program, *mask));
        let conjuncts = conjuncts.into_iter().map(|mask| (mask, Steps::new(program, &[mask], &[], &[]))).collect();
        let masks: Vec<MaskId> = program.counts.iter().copied().chain(program.measures.iter().map(|measure| measure.mask)).collect();
        let masks: Vec<MaskId> = masks.into_iter().filter(|mask| !matches!(program.masks[mask.0], Mask::Constant(_))).collect();
        let values: Vec<ValueId> = program.measures.iter().map(|measure| measure.value).collect();
        let key_columns: Vec<usize> = match strategy {
            Strategy::Scatter { .. } | Strategy::Hash => program.keys.columns.iter().map(|key| key.column).collect(),
            _ => Vec::new(),
        };
        let slots = match strategy {
            Strategy::Single => 1,
            Strategy::Partition { slots } | Strategy::Scatter { slots } => slots,
            Strategy::Hash => 0,
        };
        Self {
            program,
            strategy,
            evaluator: Evaluator::new(program),
            conjuncts,
            steps: Steps::new(program, &masks, &values, &key_columns),
            totals: Totals::new(program, slots),
            groups: GroupIndex::new(1),
            pass: vec![0; BLOCK_ROWS],
            picks: vec![0; BLOCK_ROWS],
            partition: Partition::new(),
            codes: vec![0; BLOCK_ROWS],
            valid: vec![0; BLOCK_ROWS],
            wide_codes: vec![0; if strategy == Strategy::Hash { BLOCK_ROWS } else { 0 }],
        }
    }

    fn block(&mut self, start: usize, count: usize) -> Result<(), KernelError> {
        let dense = Rows::Dense { start, count };
        let mut passing = count;
        for (position, (mask, steps)) in self.conjuncts.iter().enumerate() {
            let pass = &mut self.pass[..count];
            self.evaluator.filter(*mask, steps, dense, position == 0, pass);
            passing = count_bytes(pass) as usize;
            if passing == 0 {
                return Ok(());
            }
        }
        if let Strategy::Partition { slots } = self.strategy {
            self.partitioned_block(start, count, passing, slots);
            return Ok(());
        }
        let picks;
        let rows = if passing == count {
            dense
        } else {
            let picked = pick(&self.pass[..count], &mut self.picks);
            picks = &self.picks[..picked];
            Rows::Picked { start, picks }
        };
        self.evaluator.run(&self.steps, rows);
        match self.strategy {
            Strategy::Scatter { .. } => {
                write_codes(self.program, &self.evaluator, rows, &mut self.codes, &mut self.valid);
                self.totals.scatter(&self.evaluator, rows, &self.codes[..passing]);
            }
            Strategy::Hash => {
                write_wide_codes(self.program, &self.evaluator, rows, &mut self.wide_codes, &mut self.valid);
                for (code, wide) in self.codes.iter_mut().zip(&self.wide_codes[..passing]) {
                    // Codes are keys only by equality: the sign does not matter.
                    *code = self.groups.group_of(&[*wide as i128])?;
                }
                self.totals.grow(self.groups.len());
                self.totals.scatter(&self.evaluator, rows, &self.codes[..passing]);
            }
            Strategy::Single | Strategy::Partition { .. } => self.totals.add_run(&self.evaluator, rows, 0, 0, passing),
        }
        Ok(())
    }

    /// Orders the passing rows by slot, then adds up run by run.
    fn partitioned_block(&mut self, start: usize, count: usize, passing: usize, slots: usize) {
        let dense = Rows::Dense { start, count };
        write_codes(self.program, &self.evaluator, dense, &mut self.codes, &mut self.valid);
        if self.conjuncts.is_empty() {
            self.pass[..count].fill(1);
        }
        self.partition.order(&self.codes[..count], &self.pass[..count], slots);
        if let Some(slot) = (0..slots).find(|slot| self.partition.run(*slot) == (0..count)) {
            self.evaluator.run(&self.steps, dense);
            self.totals.add_run(&self.evaluator, dense, slot, 0, count);
            return;
        }
        // Rows that do not pass are the last run: left out.
        let rows = Rows::Picked { start, picks: &self.partition.picks()[..passing] };
        self.evaluator.run(&self.steps, rows);
        for slot in 0..slots {
            let run = self.partition.run(slot);
            if !run.is_empty() {
                self.totals.add_run(&self.evaluator, rows, slot, run.start, run.end);
            }
        }
    }

    fn finish(self) -> Partial {
        let combined =
            (self.strategy == Strategy::Hash).then(|| (0..self.groups.len()).map(|group| self.groups.key(group)[0] as u128).collect());
        self.totals.finish(combined)
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
