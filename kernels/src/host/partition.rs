//! A counting sort of one block's rows by group slot.

use std::ops::Range;

use super::loops::{count_equal, narrow_codes};
use crate::limits::{BLOCK_ROWS, PARTITION_SLOTS_MAX};

/// Parts of a block with cursors of their own: placing rows of one slot waits on that slot's last cursor, so four
/// independent cursors keep four rows in flight.
const QUARTERS: usize = 4;

/// Slots, and one more for rows that do not pass.
const CURSORS: usize = PARTITION_SLOTS_MAX + 1;

/// Slots up to which each is counted by a vector loop of its own; above, one scalar pass counts all.
const COUNTED_SLOTS_MAX: usize = 8;

/// The rows of a block in slot order.
pub(super) struct Partition {
    picks: Vec<u16>,
    codes: Vec<u8>,
    runs: [Range<usize>; CURSORS],
}

impl Partition {
    pub(super) fn new() -> Self {
        Self { picks: vec![0; BLOCK_ROWS], codes: vec![0; BLOCK_ROWS], runs: std::array::from_fn(|_| 0..0) }
    }

    /// Row positions, slot by slot; rows that do not pass come last.
    pub(super) fn picks(&self) -> &[u16] {
        &self.picks
    }

    /// The part of [`Self::picks`] that belongs to a slot.
    pub(super) fn run(&self, slot: usize) -> Range<usize> {
        self.runs[slot].clone()
    }

    /// Orders rows by `codes`, which are below `slots`, at most [`PARTITION_SLOTS_MAX`].
    pub(super) fn order(&mut self, codes: &[u32], pass: &[u8], slots: usize) {
        let count = codes.len();
        narrow_codes(codes, pass, slots as u8, &mut self.codes[..count]);
        let codes = &self.codes[..count];
        // Rows q * quarter.. belong to quarter q; the few rows that do not divide belong to the last.
        let quarter = count / QUARTERS;
        let parts = [&codes[..quarter], &codes[quarter..2 * quarter], &codes[2 * quarter..3 * quarter], &codes[3 * quarter..]];
        let mut cursors = [[0u32; CURSORS]; QUARTERS];
        for (part, cursors) in parts.iter().zip(&mut cursors) {
            if slots <= COUNTED_SLOTS_MAX {
                (0..=slots).for_each(|slot| cursors[slot] = count_equal(part, slot as u8));
            } else {
                part.iter().for_each(|code| cursors[bounded(*code)] += 1);
            }
        }
        let mut position = 0;
        for slot in 0..=slots {
            let start = position as usize;
            for quarter_cursors in &mut cursors {
                position += std::mem::replace(&mut quarter_cursors[slot], position);
            }
            self.runs[slot] = start..position as usize;
        }
        // One run holds every row: its order is the block's.
        if self.runs[..=slots].iter().any(|run| run.len() == count) {
            self.picks.iter_mut().zip(0u16..).take(count).for_each(|(pick, row)| *pick = row);
            return;
        }
        let picks = &mut self.picks[..count];
        let mut place = |cursors: &mut [u32; CURSORS], code: u8, row: usize| {
            let cursor = &mut cursors[bounded(code)];
            if let Some(pick) = picks.get_mut(*cursor as usize) {
                *pick = row as u16;
            }
            *cursor += 1;
        };
        let [first, second, third, fourth] = &mut cursors;
        let rows = parts[0].iter().zip(parts[1]).zip(parts[2]).zip(parts[3]);
        for (row, (((code_first, code_second), code_third), code_fourth)) in rows.enumerate() {
            place(first, *code_first, row);
            place(second, *code_second, row + quarter);
            place(third, *code_third, row + 2 * quarter);
            place(fourth, *code_fourth, row + 3 * quarter);
        }
        for (row, code) in parts[3].iter().enumerate().skip(quarter) {
            place(fourth, *code, row + 3 * quarter);
        }
    }
}

/// A code as a cursor's position; codes are in bounds, and the compiler sees it.
#[inline(always)]
fn bounded(code: u8) -> usize {
    usize::from(code).min(CURSORS - 1)
}
