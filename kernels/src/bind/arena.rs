//! Masks and values of a program, each distinct one once. Among masks, as among values, operands stand before their users.

use std::collections::HashMap;
use std::sync::Arc;

/// Position of a mask in [`super::Program::masks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MaskId(pub usize);

/// Position of a value in [`super::Program::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ValueId(pub usize);

/// The orders that comparisons of values reduce to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    Equal,
    Less,
}

/// A two-valued predicate over rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Mask {
    /// Every row, or none.
    Constant(bool),
    /// `low <= lane <= high`.
    Range {
        column: usize,
        low: u64,
        high: u64,
    },
    /// `table[lane] == 1`; the table covers every lane.
    Table {
        column: usize,
        table: Arc<[u8]>,
    },
    /// The lane is one of these, ascending.
    Member {
        column: usize,
        lanes: Arc<[u64]>,
    },
    /// The row is not NULL.
    Valid {
        column: usize,
    },
    /// Two values of one width, in this order.
    Compare {
        order: Order,
        left: ValueId,
        right: ValueId,
    },
    And(Vec<MaskId>),
    Or(Vec<MaskId>),
    Not(MaskId),
}

/// How a value is represented in flight. Both executors compute modulo 2^width; intervals prove that nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Width {
    /// 0 to 2^32 - 1.
    U32,
    /// The range of `i64`.
    I64,
    /// The range of `i128`.
    I128,
}

impl Width {
    /// The narrowest width that holds `low..=high`.
    pub(crate) fn fitting(low: i128, high: i128) -> Self {
        if low >= 0 && high <= i128::from(u32::MAX) {
            Self::U32
        } else if low >= i128::from(i64::MIN) && high <= i128::from(i64::MAX) {
            Self::I64
        } else {
            Self::I128
        }
    }
}

/// An exact integer for every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ValueOp {
    Constant(i128),
    /// `base + factor * lane`.
    Affine {
        column: usize,
        base: i128,
        factor: i128,
    },
    /// Operands have the node's width.
    Add(ValueId, ValueId),
    /// Operands have the node's width.
    Sub(ValueId, ValueId),
    /// Operands have the node's width, or are both `U32` under a node of `I64`.
    Mul(ValueId, ValueId),
    /// The same value in a greater width.
    Widen(ValueId),
    /// The first value where the mask is true, else the second; both have the node's width.
    Select(MaskId, ValueId, ValueId),
}

/// A value, its width, and the interval it provably stays in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub op: ValueOp,
    pub width: Width,
    pub low: i128,
    pub high: i128,
}

/// Builds masks and values, folding constants and sharing equal nodes.
#[derive(Default)]
pub(crate) struct Arena {
    pub masks: Vec<Mask>,
    pub values: Vec<Value>,
    mask_ids: HashMap<Mask, MaskId>,
    value_ids: HashMap<(ValueOp, Width), ValueId>,
}

impl Arena {
    pub(crate) fn mask(&mut self, mask: Mask) -> MaskId {
        if let Some(id) = self.mask_ids.get(&mask) {
            return *id;
        }
        let id = MaskId(self.masks.len());
        self.masks.push(mask.clone());
        self.mask_ids.insert(mask, id);
        id
    }

    pub(crate) fn value(&mut self, value: Value) -> ValueId {
        *self.value_ids.entry((value.op, value.width)).or_insert_with(|| {
            self.values.push(value);
            ValueId(self.values.len() - 1)
        })
    }

    pub(crate) fn constant(&mut self, answer: bool) -> MaskId {
        self.mask(Mask::Constant(answer))
    }

    pub(crate) fn always(&mut self) -> MaskId {
        self.constant(true)
    }

    pub(crate) fn never(&mut self) -> MaskId {
        self.constant(false)
    }

    pub(crate) fn not(&mut self, input: MaskId) -> MaskId {
        match self.masks[input.0] {
            Mask::Constant(answer) => self.constant(!answer),
            Mask::Not(inner) => inner,
            _ => self.mask(Mask::Not(input)),
        }
    }

    /// Conjunction: flattened, constants folded, ranges of one column intersected.
    pub(crate) fn and(&mut self, inputs: Vec<MaskId>) -> MaskId {
        let mut flat: Vec<MaskId> = Vec::with_capacity(inputs.len());
        let mut ranges: Vec<(usize, u64, u64)> = Vec::new();
        let mut pending: Vec<MaskId> = inputs.into_iter().rev().collect();
        while let Some(id) = pending.pop() {
            match &self.masks[id.0] {
                Mask::Constant(true) => {}
                Mask::Constant(false) => return self.never(),
                Mask::And(inner) => pending.extend(inner.iter().rev()),
                Mask::Range { column, low, high } => match ranges.iter_mut().find(|range| range.0 == *column) {
                    Some(range) => *range = (*column, range.1.max(*low), range.2.min(*high)),
                    None => ranges.push((*column, *low, *high)),
                },
                _ => flat.push(id),
            }
        }
        for (column, low, high) in ranges {
            if low > high {
                return self.never();
            }
            flat.push(self.mask(Mask::Range { column, low, high }));
        }
        flat.sort_unstable();
        flat.dedup();
        match flat.as_slice() {
            [] => self.always(),
            [only] => *only,
            _ => self.mask(Mask::And(flat)),
        }
    }

    /// Disjunction: flattened, constants folded.
    pub(crate) fn or(&mut self, inputs: Vec<MaskId>) -> MaskId {
        let mut flat: Vec<MaskId> = Vec::with_capacity(inputs.len());
        let mut pending: Vec<MaskId> = inputs.into_iter().rev().collect();
        while let Some(id) = pending.pop() {
            match &self.masks[id.0] {
                Mask::Constant(false) => {}
                Mask::Constant(true) => return self.always(),
                Mask::Or(inner) => pending.extend(inner.iter().rev()),
                _ => flat.push(id),
            }
        }
        flat.sort_unstable();
        flat.dedup();
        match flat.as_slice() {
            [] => self.never(),
            [only] => *only,
            _ => self.mask(Mask::Or(flat)),
        }
    }

    /// `yes` where `taken`, else `no`.
    pub(crate) fn choose(&mut self, taken: MaskId, yes: MaskId, no: MaskId) -> MaskId {
        if yes == no {
            return yes;
        }
        let not_taken = self.not(taken);
        let (yes, no) = (self.and(vec![taken, yes]), self.and(vec![not_taken, no]));
        self.or(vec![yes, no])
    }

    /// Rows whose lane has 1 in `table`: a constant, a range or all but a range where the table is that simple.
    pub(crate) fn table(&mut self, column: usize, table: Vec<u8>) -> MaskId {
        let Some(first) = table.iter().position(|answer| *answer == 1) else {
            return self.never();
        };
        let last = table.iter().rposition(|answer| *answer == 1).unwrap_or(first);
        if table[first..=last].iter().all(|answer| *answer == 1) {
            if first == 0 && last + 1 == table.len() {
                return self.always();
            }
            return self.mask(Mask::Range { column, low: first as u64, high: last as u64 });
        }
        let (low, high) = (table.iter().position(|answer| *answer == 0), table.iter().rposition(|answer| *answer == 0));
        if let (Some(low), Some(high)) = (low, high)
            && table[low..=high].iter().all(|answer| *answer == 0)
        {
            let left_out = self.mask(Mask::Range { column, low: low as u64, high: high as u64 });
            return self.not(left_out);
        }
        self.mask(Mask::Table { column, table: table.into() })
    }
}
