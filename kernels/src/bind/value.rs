//! Integer expressions: intervals, affine folding, widths.

use super::Binder;
use super::arena::{MaskId, Value, ValueId, ValueOp, Width};
use crate::error::Decline;
use crate::expr::{ArithmeticOp, ColumnType, Expr, Literal};

/// What a value expression is known to be. Affine functions of one column stay symbolic as long as possible:
/// their comparisons become lane ranges and their sums run over raw lanes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Constant(i128),
    Affine { column: usize, base: i128, factor: i128 },
    Node(ValueId),
}

/// A lowered integer expression.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lowered {
    pub form: Form,
    /// The value stays within `low..=high` on every row, NULL rows included.
    pub low: i128,
    pub high: i128,
    /// Rows where the value is not NULL.
    pub known: MaskId,
}

fn overflow() -> Decline {
    Decline::new("values may exceed 127 bits")
}

impl Binder<'_> {
    /// Lowers an integer expression.
    pub(super) fn value(&mut self, expr: &Expr) -> Result<Lowered, Decline> {
        match expr {
            Expr::Column(column) => {
                let chunk = &self.chunks[*column];
                let (base, factor) = (chunk.base(), chunk.factor());
                let known = self.valid(*column);
                self.affine(*column, base, factor, known)
            }
            Expr::Literal(Literal::Int(value)) => Ok(constant(*value, self.arena.always())),
            Expr::Literal(Literal::Float64(value)) => Ok(constant(value.place().into(), self.arena.always())),
            // NULL, in whatever type: no row is known.
            Expr::Literal(_) => Ok(constant(0, self.arena.never())),
            Expr::Rescale { input, power } => {
                let input = self.value(input)?;
                let scale = constant(10i128.checked_pow(u32::from(*power)).ok_or_else(overflow)?, input.known);
                self.arithmetic(ArithmeticOp::Mul, input, scale)
            }
            Expr::Negate { input, result } => {
                let input = self.value(input)?;
                let zero = constant(0, input.known);
                let lowered = self.arithmetic(ArithmeticOp::Sub, zero, input)?;
                inside(lowered, *result)
            }
            Expr::Arithmetic { op, left, right, result } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                let lowered = self.arithmetic(*op, left, right)?;
                inside(lowered, *result)
            }
            Expr::Case { branches, otherwise } => {
                let mut answer = match otherwise {
                    Some(otherwise) => self.value(otherwise)?,
                    None => constant(0, self.arena.never()),
                };
                for (condition, value) in branches.iter().rev() {
                    let (taken, value) = (self.truth(condition, true)?, self.value(value)?);
                    answer = self.choose(taken, value, answer);
                }
                Ok(answer)
            }
            _ => Err(Decline::new("a predicate used as an integer")),
        }
    }

    /// `yes` where `taken`, else `no`.
    fn choose(&mut self, taken: MaskId, yes: Lowered, no: Lowered) -> Lowered {
        let (always, never) = (self.arena.always(), self.arena.never());
        let known = self.arena.choose(taken, yes.known, no.known);
        // A value that no row has, or that is NULL wherever it would be taken, need not be told apart.
        if taken == always || no.known == never {
            return Lowered { known, ..yes };
        }
        if taken == never || yes.known == never {
            return Lowered { known, ..no };
        }
        let (low, high) = (yes.low.min(no.low), yes.high.max(no.high));
        let width = Width::fitting(low, high).max(self.width_of(yes)).max(self.width_of(no));
        let op = ValueOp::Select(taken, self.node(yes, width), self.node(no, width));
        let node = self.arena.value(Value { op, width, low, high });
        Lowered { form: Form::Node(node), low, high, known }
    }

    fn affine(&mut self, column: usize, base: i128, factor: i128, known: MaskId) -> Result<Lowered, Decline> {
        let span = factor.checked_mul(i128::from(self.chunks[column].lane_max())).ok_or_else(overflow)?;
        let far = base.checked_add(span).ok_or_else(overflow)?;
        let form = if span == 0 { Form::Constant(base) } else { Form::Affine { column, base, factor } };
        Ok(Lowered { form, low: base.min(far), high: base.max(far), known })
    }

    fn arithmetic(&mut self, op: ArithmeticOp, left: Lowered, right: Lowered) -> Result<Lowered, Decline> {
        let known = self.arena.and(vec![left.known, right.known]);
        let (low, high) = interval(op, (left.low, left.high), (right.low, right.high)).ok_or_else(overflow)?;
        let folded = fold(op, left.form, right.form);
        match folded {
            Some(Form::Constant(value)) => return Ok(constant(value, known)),
            Some(Form::Affine { column, base, factor }) => return self.affine(column, base, factor, known),
            _ => {}
        }
        let width = Width::fitting(low, high).max(self.least_width);
        let (left_width, right_width) = (self.width_of(left), self.width_of(right));
        let is_narrow = |width| width == Width::U32 && self.least_width == Width::U32;
        let narrow_product = op == ArithmeticOp::Mul && is_narrow(left_width) && is_narrow(right_width) && width <= Width::I64;
        let width = width.max(left_width).max(right_width);
        let operand_width = if narrow_product { Width::U32 } else { width };
        let (left, right) = (self.node(left, operand_width), self.node(right, operand_width));
        let op = match op {
            ArithmeticOp::Add => ValueOp::Add(left.min(right), left.max(right)),
            ArithmeticOp::Sub => ValueOp::Sub(left, right),
            ArithmeticOp::Mul => ValueOp::Mul(left.min(right), left.max(right)),
        };
        let node = self.arena.value(Value { op, width, low, high });
        Ok(Lowered { form: Form::Node(node), low, high, known })
    }

    /// The least width the value can be had in: a node has its own, which may be wider than its interval needs.
    pub(super) fn width_of(&self, lowered: Lowered) -> Width {
        match lowered.form {
            Form::Node(node) => self.arena.values[node.0].width,
            _ => Width::fitting(lowered.low, lowered.high),
        }
    }

    /// The value as a node of `width`, at least [`Self::width_of`].
    pub(super) fn node(&mut self, lowered: Lowered, width: Width) -> ValueId {
        let Lowered { form, low, high, .. } = lowered;
        let op = match form {
            Form::Constant(value) => ValueOp::Constant(value),
            Form::Affine { column, base, factor } => ValueOp::Affine { column, base, factor },
            Form::Node(node) if self.arena.values[node.0].width == width => return node,
            Form::Node(node) => ValueOp::Widen(node),
        };
        self.arena.value(Value { op, width, low, high })
    }

    /// The raw lanes of a column as a value.
    pub(super) fn lane(&mut self, column: usize) -> ValueId {
        let high = i128::from(self.chunks[column].lane_max());
        let op = ValueOp::Affine { column, base: 0, factor: 1 };
        self.arena.value(Value { op, width: Width::fitting(0, high), low: 0, high })
    }
}

fn constant(value: i128, known: MaskId) -> Lowered {
    Lowered { form: Form::Constant(value), low: value, high: value, known }
}

/// Declines unless the interval lies inside the range of `result`.
fn inside(lowered: Lowered, result: ColumnType) -> Result<Lowered, Decline> {
    match result.arithmetic_range() {
        Some((least, greatest)) if lowered.low >= least && lowered.high <= greatest => Ok(lowered),
        _ => Err(Decline::new(format!("arithmetic may leave the range of {result:?}"))),
    }
}

/// The interval of `left op right`; `None` where it could leave `i128`.
fn interval(op: ArithmeticOp, left: (i128, i128), right: (i128, i128)) -> Option<(i128, i128)> {
    match op {
        ArithmeticOp::Add => Some((left.0.checked_add(right.0)?, left.1.checked_add(right.1)?)),
        ArithmeticOp::Sub => Some((left.0.checked_sub(right.1)?, left.1.checked_sub(right.0)?)),
        ArithmeticOp::Mul => {
            let mut corners = [0; 4];
            let pairs = [(left.0, right.0), (left.0, right.1), (left.1, right.0), (left.1, right.1)];
            for (corner, (left, right)) in corners.iter_mut().zip(pairs) {
                *corner = left.checked_mul(right)?;
            }
            Some((*corners.iter().min()?, *corners.iter().max()?))
        }
    }
}

/// Arithmetic on constants and affine functions of one column; `None` where a node is needed.
fn fold(op: ArithmeticOp, left: Form, right: Form) -> Option<Form> {
    // Both as (column, base, factor); a constant has no column.
    let parts = |form: Form| match form {
        Form::Constant(value) => Some((None, value, 0)),
        Form::Affine { column, base, factor } => Some((Some(column), base, factor)),
        Form::Node(_) => None,
    };
    let (left, right) = (parts(left)?, parts(right)?);
    if left.0.is_some() && right.0.is_some() && left.0 != right.0 {
        return None;
    }
    let (base, factor) = match op {
        ArithmeticOp::Add => (left.1.checked_add(right.1)?, left.2.checked_add(right.2)?),
        ArithmeticOp::Sub => (left.1.checked_sub(right.1)?, left.2.checked_sub(right.2)?),
        // The square of a column is no affine function of it.
        ArithmeticOp::Mul if left.0.is_some() && right.0.is_some() => return None,
        ArithmeticOp::Mul if left.0.is_some() => (left.1.checked_mul(right.1)?, left.2.checked_mul(right.1)?),
        ArithmeticOp::Mul => (left.1.checked_mul(right.1)?, left.1.checked_mul(right.2)?),
    };
    match left.0.or(right.0) {
        Some(column) => Some(Form::Affine { column, base, factor }),
        None => Some(Form::Constant(base)),
    }
}
