//! Masks and values of one block, into buffers that live as long as the row group.

use std::ops::Range;

use super::loops::*;
use crate::bind::{Mask, MaskId, Program, Value, ValueId, ValueOp, Width};
use crate::chunk::{LaneWidth, Lanes, Words, with_lanes};
use crate::limits::BLOCK_ROWS;

/// Which rows of the row group are looked at.
#[derive(Clone, Copy)]
pub(super) enum Rows<'r> {
    /// `start..start + count`; `start` is a multiple of [`BLOCK_ROWS`].
    Dense { start: usize, count: usize },
    /// `start + pick` for every pick.
    Picked { start: usize, picks: &'r [u16] },
}

impl Rows<'_> {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Dense { count, .. } => *count,
            Self::Picked { picks, .. } => picks.len(),
        }
    }

    /// Some of these rows, by position among them. Parts of dense rows begin at multiples of 8, as their validity bytes do.
    pub(super) fn part(self, part: Range<usize>) -> Self {
        match self {
            Self::Dense { start, .. } => Self::Dense { start: start + part.start, count: part.len() },
            Self::Picked { start, picks } => Self::Picked { start, picks: &picks[part] },
        }
    }
}

/// One thing that is computed for the rows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Value(usize),
    Mask(usize),
}

/// What must be computed before some masks and values can be read, operands first.
#[derive(Default, Clone)]
pub(super) struct Steps {
    columns: Vec<usize>,
    steps: Vec<Step>,
}

impl Steps {
    /// The steps for these roots. Raw lanes among `values` need no step of their own: they are read in place. Those among `computed` are
    /// copied out.
    pub(super) fn new(program: &Program<'_>, masks: &[MaskId], values: &[ValueId], computed: &[ValueId], columns: &[usize]) -> Self {
        let mut steps = Self { columns: columns.to_vec(), ..Self::default() };
        for mask in masks {
            steps.add_mask(program, *mask);
        }
        for value in computed {
            steps.add_value(program, *value);
        }
        for value in values {
            match raw_lane(&program.values[value.0]) {
                Some(column) => steps.columns.push(column),
                None => steps.add_value(program, *value),
            }
        }
        steps.columns.sort_unstable();
        steps.columns.dedup();
        steps
    }

    /// Columns whose lanes are read.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    fn add_mask(&mut self, program: &Program<'_>, mask: MaskId) {
        if self.steps.contains(&Step::Mask(mask.0)) {
            return;
        }
        match &program.masks[mask.0] {
            Mask::Constant(_) | Mask::Valid { .. } => {}
            Mask::Range { column, .. } | Mask::Table { column, .. } | Mask::Member { column, .. } => self.columns.push(*column),
            Mask::Compare { left, right, .. } => {
                self.add_value(program, *left);
                self.add_value(program, *right);
            }
            Mask::And(inputs) | Mask::Or(inputs) => inputs.iter().for_each(|input| self.add_mask(program, *input)),
            Mask::Not(input) => self.add_mask(program, *input),
        }
        self.steps.push(Step::Mask(mask.0));
    }

    fn add_value(&mut self, program: &Program<'_>, value: ValueId) {
        if self.steps.contains(&Step::Value(value.0)) {
            return;
        }
        match program.values[value.0].op {
            ValueOp::Constant(_) => {}
            ValueOp::Affine { column, .. } => self.columns.push(column),
            ValueOp::Widen(input) => self.add_value(program, input),
            ValueOp::Add(left, right) | ValueOp::Sub(left, right) | ValueOp::Mul(left, right) => {
                self.add_value(program, left);
                self.add_value(program, right);
            }
            ValueOp::Select(taken, yes, no) => {
                self.add_mask(program, taken);
                self.add_value(program, yes);
                self.add_value(program, no);
            }
        }
        self.steps.push(Step::Value(value.0));
    }
}

/// The column whose lanes the value is, unchanged.
pub(super) fn raw_lane(value: &Value) -> Option<usize> {
    match value.op {
        ValueOp::Affine { column, base: 0, factor: 1 } => Some(column),
        _ => None,
    }
}

/// One block of one value.
pub(super) enum Buffer {
    U32(Vec<u32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
}

/// Numbers that a measure reads: raw lanes or computed values.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'s> {
    U8(&'s [u8]),
    U16(&'s [u16]),
    U32(&'s [u32]),
    U64(&'s [u64]),
    I64(&'s [i64]),
    I128(&'s [i128]),
}

/// The buffers of one run over one row group. Nothing is allocated a block.
pub(super) struct Evaluator<'p> {
    pub program: &'p Program<'p>,
    /// Lanes of picked rows, by column.
    gathered: Vec<Words>,
    values: Vec<Buffer>,
    masks: Vec<Vec<u8>>,
}

impl<'p> Evaluator<'p> {
    pub(super) fn new(program: &'p Program<'p>) -> Self {
        let values = program.values.iter().map(|value| match value.width {
            Width::U32 => Buffer::U32(vec![0; BLOCK_ROWS]),
            Width::I64 => Buffer::I64(vec![0; BLOCK_ROWS]),
            Width::I128 => Buffer::I128(vec![0; BLOCK_ROWS]),
        });
        Self {
            program,
            gathered: program.chunks.iter().map(|chunk| Words::zeroed(BLOCK_ROWS * chunk.lane_width().bytes())).collect(),
            values: values.collect(),
            masks: program.masks.iter().map(|_| vec![0; BLOCK_ROWS]).collect(),
        }
    }

    pub(super) fn run(&mut self, steps: &Steps, rows: Rows<'_>) {
        if let Rows::Picked { start, picks } = rows {
            for column in &steps.columns {
                self.gather(*column, start, picks);
            }
        }
        for step in &steps.steps {
            match *step {
                Step::Value(value) => self.compute_value(value, rows),
                Step::Mask(mask) => self.compute_mask(mask, rows),
            }
        }
    }

    fn gather(&mut self, column: usize, start: usize, picks: &[u16]) {
        let buffer = &mut self.gathered[column];
        let end = self.program.row_count.min(start + BLOCK_ROWS);
        match self.program.chunks[column].lanes() {
            Lanes::U8(lanes) => gather(&lanes[start..end], picks, buffer.as_mut_slice()),
            Lanes::U16(lanes) => gather(&lanes[start..end], picks, buffer.as_mut_slice()),
            Lanes::U32(lanes) => gather(&lanes[start..end], picks, buffer.as_mut_slice()),
            Lanes::U64(lanes) => gather(&lanes[start..end], picks, buffer.as_mut_slice()),
        }
    }

    /// The lanes of a column for these rows. Picked rows were gathered by [`Self::run`].
    pub(super) fn lanes(&self, column: usize, rows: Rows<'_>) -> Lanes<'_> {
        lanes_of(self.program, &self.gathered, column, rows)
    }

    /// A mask that was computed by [`Self::run`].
    pub(super) fn mask(&self, mask: MaskId, count: usize) -> &[u8] {
        &self.masks[mask.0][..count]
    }

    /// A value that was computed, or lanes that were gathered, by [`Self::run`].
    pub(super) fn numbers(&self, value: ValueId, rows: Rows<'_>) -> Numbers<'_> {
        let count = rows.count();
        if let Some(column) = raw_lane(&self.program.values[value.0]) {
            return match self.lanes(column, rows) {
                Lanes::U8(lanes) => Numbers::U8(lanes),
                Lanes::U16(lanes) => Numbers::U16(lanes),
                Lanes::U32(lanes) => Numbers::U32(lanes),
                Lanes::U64(lanes) => Numbers::U64(lanes),
            };
        }
        match &self.values[value.0] {
            Buffer::U32(values) => Numbers::U32(&values[..count]),
            Buffer::I64(values) => Numbers::I64(&values[..count]),
            Buffer::I128(values) => Numbers::I128(&values[..count]),
        }
    }

    /// The places of doubles that were computed by [`Self::run`]: an `I64` value that is no raw lane.
    pub(super) fn places(&self, value: ValueId, count: usize) -> &[i64] {
        match &self.values[value.0] {
            Buffer::I64(places) => &places[..count],
            _ => unreachable!("places of doubles have 64 bits"),
        }
    }

    fn compute_value(&mut self, value: usize, rows: Rows<'_>) {
        let count = rows.count();
        let (inputs, rest) = self.values.split_at_mut(value);
        let Some(out) = rest.first_mut() else { return };
        match self.program.values[value].op {
            ValueOp::Constant(constant) => match out {
                Buffer::U32(out) => out[..count].fill(constant as u32),
                Buffer::I64(out) => out[..count].fill(constant as i64),
                Buffer::I128(out) => out[..count].fill(constant),
            },
            ValueOp::Affine { column, base, factor } => {
                let lanes = lanes_of(self.program, &self.gathered, column, rows);
                with_lanes!(lanes, lanes => match out {
                    Buffer::U32(out) => decode_u32(lanes, base as u32, factor as u32, &mut out[..count]),
                    Buffer::I64(out) => decode_i64(lanes, base as i64, factor as i64, &mut out[..count]),
                    Buffer::I128(out) => decode_i128(lanes, base, factor, &mut out[..count]),
                });
            }
            ValueOp::Add(left, right) => match (&inputs[left.0], &inputs[right.0], out) {
                (Buffer::U32(left), Buffer::U32(right), Buffer::U32(out)) => add_u32(&left[..count], &right[..count], out),
                (Buffer::I64(left), Buffer::I64(right), Buffer::I64(out)) => add_i64(&left[..count], &right[..count], out),
                (Buffer::I128(left), Buffer::I128(right), Buffer::I128(out)) => add_i128(&left[..count], &right[..count], out),
                _ => unreachable!("operands of an addition have its width"),
            },
            ValueOp::Sub(left, right) => match (&inputs[left.0], &inputs[right.0], out) {
                (Buffer::U32(left), Buffer::U32(right), Buffer::U32(out)) => sub_u32(&left[..count], &right[..count], out),
                (Buffer::I64(left), Buffer::I64(right), Buffer::I64(out)) => sub_i64(&left[..count], &right[..count], out),
                (Buffer::I128(left), Buffer::I128(right), Buffer::I128(out)) => sub_i128(&left[..count], &right[..count], out),
                _ => unreachable!("operands of a subtraction have its width"),
            },
            ValueOp::Mul(left, right) => match (&inputs[left.0], &inputs[right.0], out) {
                (Buffer::U32(left), Buffer::U32(right), Buffer::U32(out)) => mul_u32(&left[..count], &right[..count], out),
                (Buffer::U32(left), Buffer::U32(right), Buffer::I64(out)) => multiply_wide(&left[..count], &right[..count], out),
                (Buffer::I64(left), Buffer::I64(right), Buffer::I64(out)) => mul_i64(&left[..count], &right[..count], out),
                (Buffer::I128(left), Buffer::I128(right), Buffer::I128(out)) => mul_i128(&left[..count], &right[..count], out),
                _ => unreachable!("operands of a product have its width or are both 32 bits"),
            },
            ValueOp::Widen(input) => match (&inputs[input.0], out) {
                (Buffer::U32(input), Buffer::I64(out)) => widen_i64(&input[..count], out),
                (Buffer::U32(input), Buffer::I128(out)) => widen_i128(&input[..count], out),
                (Buffer::I64(input), Buffer::I128(out)) => widen_i128(&input[..count], out),
                _ => unreachable!("widening widens"),
            },
            ValueOp::Select(taken, yes, no) => {
                let taken = &self.masks[taken.0][..count];
                match (&inputs[yes.0], &inputs[no.0], out) {
                    (Buffer::U32(yes), Buffer::U32(no), Buffer::U32(out)) => select(taken, &yes[..count], &no[..count], out),
                    (Buffer::I64(yes), Buffer::I64(no), Buffer::I64(out)) => select(taken, &yes[..count], &no[..count], out),
                    (Buffer::I128(yes), Buffer::I128(no), Buffer::I128(out)) => select(taken, &yes[..count], &no[..count], out),
                    _ => unreachable!("both sides of a choice have its width"),
                }
            }
        }
    }

    fn compute_mask(&mut self, mask: usize, rows: Rows<'_>) {
        let count = rows.count();
        let (inputs, rest) = self.masks.split_at_mut(mask);
        let Some(out) = rest.first_mut() else { return };
        let out = &mut out[..count];
        match &self.program.masks[mask] {
            Mask::Constant(answer) => out.fill(u8::from(*answer)),
            Mask::Range { column, low, high } => {
                let lanes = lanes_of(self.program, &self.gathered, *column, rows);
                with_lanes!(lanes, lanes => write_range(lanes, Number::of_lane(*low), Number::of_lane(high - low), out));
            }
            Mask::Table { column, table } => {
                let lanes = lanes_of(self.program, &self.gathered, *column, rows);
                with_lanes!(lanes, lanes => write_table(lanes, table, out));
            }
            Mask::Member { column, lanes: members } => {
                let lanes = lanes_of(self.program, &self.gathered, *column, rows);
                with_lanes!(lanes, lanes => for (answer, lane) in out.iter_mut().zip(lanes) {
                    *answer = u8::from(members.binary_search(&(lane.as_i64() as u64)).is_ok());
                });
            }
            Mask::Valid { column } => write_valid(self.program, *column, rows, out),
            Mask::Compare { order, left, right } => match (&self.values[left.0], &self.values[right.0]) {
                (Buffer::U32(left), Buffer::U32(right)) => write_compare(*order, left, right, out),
                (Buffer::I64(left), Buffer::I64(right)) => write_compare(*order, left, right, out),
                (Buffer::I128(left), Buffer::I128(right)) => write_compare(*order, left, right, out),
                _ => unreachable!("compared values have one width"),
            },
            Mask::And(operands) => {
                out.fill(1);
                operands.iter().for_each(|operand| and_bytes(&inputs[operand.0], out));
            }
            Mask::Or(operands) => {
                out.fill(0);
                operands.iter().for_each(|operand| or_bytes(&inputs[operand.0], out));
            }
            Mask::Not(operand) => not_bytes(&inputs[operand.0], out),
        }
    }

    /// ANDs one conjunct of a filter into `pass`, or writes it there if it is the first. Ranges skip the detour of a buffer.
    pub(super) fn filter(&mut self, mask: MaskId, steps: &Steps, rows: Rows<'_>, first: bool, pass: &mut [u8]) {
        if let Some((column, low, span)) = self.range(mask) {
            with_lanes!(self.lanes(column, rows), lanes => {
                let (low, span) = (Number::of_lane(low), Number::of_lane(span));
                if first { write_range(lanes, low, span, pass) } else { and_range(lanes, low, span, pass) }
            });
            return;
        }
        self.run(steps, rows);
        if first { pass.copy_from_slice(self.mask(mask, pass.len())) } else { and_bytes(self.mask(mask, pass.len()), pass) }
    }

    /// The column, first lane and span of a mask that is a range of lanes, or of one that is all but a range: that is a range too, which
    /// begins behind the other's end and goes round.
    fn range(&self, mask: MaskId) -> Option<(usize, u64, u64)> {
        let program = self.program;
        match &program.masks[mask.0] {
            Mask::Range { column, low, high } => Some((*column, *low, high - low)),
            Mask::Not(inner) => {
                let Mask::Range { column, low, high } = &program.masks[inner.0] else { return None };
                let greatest = u64::MAX >> (64 - 8 * program.chunks[*column].lane_width().bytes());
                Some((*column, high.wrapping_add(1) & greatest, greatest.checked_sub(high - low)?.checked_sub(1)?))
            }
            _ => None,
        }
    }
}

fn lanes_of<'s>(program: &'s Program<'_>, gathered: &'s [Words], column: usize, rows: Rows<'_>) -> Lanes<'s> {
    let chunk = &program.chunks[column];
    match rows {
        Rows::Dense { start, count } => match chunk.lanes() {
            Lanes::U8(lanes) => Lanes::U8(&lanes[start..start + count]),
            Lanes::U16(lanes) => Lanes::U16(&lanes[start..start + count]),
            Lanes::U32(lanes) => Lanes::U32(&lanes[start..start + count]),
            Lanes::U64(lanes) => Lanes::U64(&lanes[start..start + count]),
        },
        Rows::Picked { picks, .. } => {
            let (buffer, count) = (&gathered[column], picks.len());
            match chunk.lane_width() {
                LaneWidth::U8 => Lanes::U8(&buffer.as_slice()[..count]),
                LaneWidth::U16 => Lanes::U16(&buffer.as_slice()[..count]),
                LaneWidth::U32 => Lanes::U32(&buffer.as_slice()[..count]),
                LaneWidth::U64 => Lanes::U64(&buffer.as_slice()[..count]),
            }
        }
    }
}

/// One byte a row: 1 where the column is not NULL.
pub(super) fn write_valid(program: &Program<'_>, column: usize, rows: Rows<'_>, out: &mut [u8]) {
    match (program.chunks[column].validity_bytes(), rows) {
        (None, _) => out.fill(1),
        (Some(bits), Rows::Dense { start, .. }) => unpack_bits(&bits[start / 8..], out),
        (Some(bits), Rows::Picked { start, picks }) => {
            for (answer, pick) in out.iter_mut().zip(picks) {
                let row = start + usize::from(*pick);
                *answer = bits[row / 8] >> (row % 8) & 1;
            }
        }
    }
}
