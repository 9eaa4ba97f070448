//! Predicates: three-valued logic becomes two masks, "is true" and "is false", and literals move onto lanes.

use super::arena::{Mask, MaskId, Order, Width};
use super::value::{Form, Lowered};
use super::{Binder, text};
use crate::error::Decline;
use crate::expr::{CompareOp, Expr, Literal};
use crate::limits::MEMBER_TABLE_LANES_MAX;
use crate::plan::{Kind, kind_of};
use crate::total_order::TotalOrder;

/// The places of 0 and -0 in the total order of doubles.
const ZERO: i128 = TotalOrder::of(0.0).place() as i128;
const MINUS_ZERO: i128 = TotalOrder::of(-0.0).place() as i128;

/// Equalities up to which a membership test stays a disjunction of ranges.
const RANGES_MAX: usize = 4;

impl Binder<'_> {
    /// The rows where `expr` is true (`wanted`) or false (`!wanted`). Rows where it is NULL are in neither mask.
    pub(super) fn truth(&mut self, expr: &Expr, wanted: bool) -> Result<MaskId, Decline> {
        let memo = (std::ptr::from_ref(expr), wanted);
        if let Some(mask) = self.truths.get(&memo) {
            return Ok(*mask);
        }
        let mask = match expr {
            Expr::Column(column) => {
                let (chunk, known) = (&self.chunks[*column], self.valid(*column));
                let form = Form::Affine { column: *column, base: chunk.base(), factor: chunk.factor() };
                let lowered = Lowered { form, low: 0, high: 1, known };
                let matched = self.compare_constant(lowered, CompareOp::Eq, i128::from(wanted));
                self.arena.and(vec![known, matched])
            }
            Expr::Literal(Literal::Boolean(answer)) => self.arena.constant(*answer == wanted),
            Expr::Literal(_) => self.arena.never(),
            Expr::Not(input) => self.truth(input, !wanted)?,
            Expr::And(inputs) | Expr::Or(inputs) => {
                let masks = inputs.iter().map(|input| self.truth(input, wanted)).collect::<Result<Vec<_>, _>>()?;
                // A conjunction is false where any part is; a disjunction is true where any part is.
                if matches!(expr, Expr::And(_)) == wanted { self.arena.and(masks) } else { self.arena.or(masks) }
            }
            Expr::IsNull(input) | Expr::IsNotNull(input) => {
                let known = self.known(input)?;
                if matches!(expr, Expr::IsNotNull(_)) == wanted { known } else { self.arena.not(known) }
            }
            Expr::Compare { op, left, right } => self.compare(*op, left, right, wanted)?,
            Expr::Case { branches, otherwise } => {
                let mut answer = match otherwise {
                    Some(otherwise) => self.truth(otherwise, wanted)?,
                    None => self.arena.never(),
                };
                for (condition, value) in branches.iter().rev() {
                    let (taken, value) = (self.truth(condition, true)?, self.truth(value, wanted)?);
                    answer = self.arena.choose(taken, value, answer);
                }
                answer
            }
            Expr::InList { input, list, negated } => self.in_list(input, list, wanted != *negated)?,
            Expr::Like { input, pattern, negated, case_insensitive } => {
                let predicate = text::Predicate::Like { pattern, case_insensitive: *case_insensitive };
                self.text(input, &predicate, wanted != *negated)?
            }
            _ => return Err(Decline::new("an integer used as a predicate")),
        };
        self.truths.insert(memo, mask);
        Ok(mask)
    }

    fn compare(&mut self, op: CompareOp, left: &Expr, right: &Expr, wanted: bool) -> Result<MaskId, Decline> {
        let kinds = (kind_of(&self.plan.columns, left), kind_of(&self.plan.columns, right));
        match kinds {
            (Kind::Null, _) | (_, Kind::Null) => Ok(self.arena.never()),
            (Kind::Text, _) => match (left, right) {
                (_, Expr::Literal(Literal::Utf8(value))) => self.text(left, &text::Predicate::Compare { op, value }, wanted),
                (Expr::Literal(Literal::Utf8(value)), _) => self.text(right, &text::Predicate::Compare { op: op.swapped(), value }, wanted),
                _ => Err(Decline::new("comparison of two string columns")),
            },
            (Kind::Boolean, _) => {
                let mut cases = Vec::new();
                for (left_answer, right_answer) in [(false, false), (false, true), (true, false), (true, true)] {
                    if op.holds(left_answer, right_answer) == wanted {
                        let case = vec![self.truth(left, left_answer)?, self.truth(right, right_answer)?];
                        cases.push(self.arena.and(case));
                    }
                }
                Ok(self.arena.or(cases))
            }
            (Kind::Integer | Kind::Float, _) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                let op = if wanted { op } else { op.inverted() };
                let matched = match (kinds.0, right.form, left.form) {
                    (Kind::Float, Form::Constant(ZERO | MINUS_ZERO), _) => self.compare_zero(op, left),
                    (Kind::Float, _, Form::Constant(ZERO | MINUS_ZERO)) => self.compare_zero(op.swapped(), right),
                    _ => self.compare_values(op, left, right),
                };
                Ok(self.arena.and(vec![left.known, right.known, matched]))
            }
        }
    }

    /// A double beside 0 of either sign: they are equal, though they have a place each.
    fn compare_zero(&mut self, op: CompareOp, input: Lowered) -> MaskId {
        match op {
            CompareOp::Eq => {
                let bounds = vec![self.compare_zero(CompareOp::GtEq, input), self.compare_zero(CompareOp::LtEq, input)];
                self.arena.and(bounds)
            }
            CompareOp::NotEq => {
                let equal = self.compare_zero(CompareOp::Eq, input);
                self.arena.not(equal)
            }
            CompareOp::Lt | CompareOp::GtEq => self.compare_constant(input, op, MINUS_ZERO),
            CompareOp::LtEq | CompareOp::Gt => self.compare_constant(input, op, ZERO),
        }
    }

    /// `left op right` where both are known.
    fn compare_values(&mut self, op: CompareOp, left: Lowered, right: Lowered) -> MaskId {
        match (left.form, right.form) {
            (_, Form::Constant(value)) => return self.compare_constant(left, op, value),
            (Form::Constant(value), _) => return self.compare_constant(right, op.swapped(), value),
            _ => {}
        }
        if let Some(answer) = settled(op, (left.low, left.high), (right.low, right.high)) {
            return self.arena.constant(answer);
        }
        let width = Width::fitting(left.low.min(right.low), left.high.max(right.high)).max(self.least_width);
        let width = width.max(self.width_of(left)).max(self.width_of(right));
        let (left, right) = (self.node(left, width), self.node(right, width));
        let (order, left, right, inverted) = match op {
            CompareOp::Eq => (Order::Equal, left.min(right), left.max(right), false),
            CompareOp::NotEq => (Order::Equal, left.min(right), left.max(right), true),
            CompareOp::Lt => (Order::Less, left, right, false),
            CompareOp::GtEq => (Order::Less, left, right, true),
            CompareOp::Gt => (Order::Less, right, left, false),
            CompareOp::LtEq => (Order::Less, right, left, true),
        };
        let mask = self.arena.mask(Mask::Compare { order, left, right });
        if inverted { self.arena.not(mask) } else { mask }
    }

    fn compare_constant(&mut self, input: Lowered, op: CompareOp, value: i128) -> MaskId {
        match input.form {
            Form::Constant(known) => self.arena.constant(op.holds(known, value)),
            Form::Affine { column, base, factor } => self.lane_range(column, base, factor, op, value),
            Form::Node(_) => {
                if let Some(answer) = settled(op, (input.low, input.high), (value, value)) {
                    return self.arena.constant(answer);
                }
                // The value lies inside the input's interval now, so the input's width holds it.
                let constant = Lowered { form: Form::Constant(value), low: value, high: value, known: input.known };
                let Form::Node(node) = input.form else {
                    return self.arena.never();
                };
                let width = self.arena.values[node.0].width;
                let right = self.node(constant, width);
                let (order, left, right, inverted) = match op {
                    CompareOp::Eq => (Order::Equal, node, right, false),
                    CompareOp::NotEq => (Order::Equal, node, right, true),
                    CompareOp::Lt => (Order::Less, node, right, false),
                    CompareOp::GtEq => (Order::Less, node, right, true),
                    CompareOp::Gt => (Order::Less, right, node, false),
                    CompareOp::LtEq => (Order::Less, right, node, true),
                };
                let mask = self.arena.mask(Mask::Compare { order, left, right });
                if inverted { self.arena.not(mask) } else { mask }
            }
        }
    }

    /// `base + factor * lane op value` as a range of lanes: constants and whole-chunk answers fold away.
    fn lane_range(&mut self, column: usize, base: i128, factor: i128, op: CompareOp, value: i128) -> MaskId {
        let lane_max = self.chunks[column].lane_max();
        // First lane in lane order for which the affine function reaches `value` from its side.
        match op {
            CompareOp::Eq => match lane_of(base, factor, value, lane_max) {
                Some(lane) => self.range(column, lane, lane, lane_max),
                None => self.arena.never(),
            },
            CompareOp::NotEq => match lane_of(base, factor, value, lane_max) {
                Some(lane) => {
                    let equal = self.range(column, lane, lane, lane_max);
                    self.arena.not(equal)
                }
                None => self.arena.always(),
            },
            _ => {
                // The predicate is monotone in the lane: search for the border.
                let holds = |lane: u64| op.holds(base + factor * i128::from(lane), value);
                let (first, last) = (holds(0), holds(lane_max));
                if first == last {
                    return self.arena.constant(first);
                }
                // Invariant: holds(below) == first, holds(above) == last, below < above.
                let (mut below, mut above) = (0, lane_max);
                while above - below > 1 {
                    let middle = below + (above - below) / 2;
                    if holds(middle) == first { below = middle } else { above = middle }
                }
                if first { self.range(column, 0, below, lane_max) } else { self.range(column, above, lane_max, lane_max) }
            }
        }
    }

    fn range(&mut self, column: usize, low: u64, high: u64, lane_max: u64) -> MaskId {
        if low == 0 && high >= lane_max {
            return self.arena.always();
        }
        self.arena.mask(Mask::Range { column, low, high })
    }

    /// True (`wanted`) or false rows of `input IN (list)`.
    fn in_list(&mut self, input: &Expr, list: &[Literal], wanted: bool) -> Result<MaskId, Decline> {
        // `x IN (.., NULL)` is never false: it is true or unknown.
        if !wanted && list.contains(&Literal::Null) {
            return Ok(self.arena.never());
        }
        match kind_of(&self.plan.columns, input) {
            Kind::Null => Ok(self.arena.never()),
            Kind::Text => self.text(input, &text::Predicate::In { list }, wanted),
            Kind::Boolean => {
                let mut matched = Vec::new();
                for answer in [false, true] {
                    if list.contains(&Literal::Boolean(answer)) == wanted {
                        matched.push(self.truth(input, answer)?);
                    }
                }
                Ok(self.arena.or(matched))
            }
            Kind::Integer | Kind::Float => {
                let lowered = self.value(input)?;
                let mut values: Vec<i128> =
                    list.iter().filter_map(|item| if let Literal::Int(value) = item { Some(*value) } else { None }).collect();
                values.sort_unstable();
                values.dedup();
                let member = self.member(lowered, &values);
                let matched = if wanted { member } else { self.arena.not(member) };
                Ok(self.arena.and(vec![lowered.known, matched]))
            }
        }
    }

    fn member(&mut self, input: Lowered, values: &[i128]) -> MaskId {
        let Form::Affine { column, base, factor } = input.form else {
            let equal: Vec<_> = values.iter().map(|value| self.compare_constant(input, CompareOp::Eq, *value)).collect();
            return self.arena.or(equal);
        };
        let lane_max = self.chunks[column].lane_max();
        let mut lanes: Vec<u64> = values.iter().filter_map(|value| lane_of(base, factor, *value, lane_max)).collect();
        lanes.sort_unstable();
        if lanes.len() <= RANGES_MAX {
            let equal: Vec<_> = lanes.iter().map(|lane| self.range(column, *lane, *lane, lane_max)).collect();
            return self.arena.or(equal);
        }
        if lane_max < MEMBER_TABLE_LANES_MAX {
            let mut table = vec![0; lane_max as usize + 1];
            for lane in lanes {
                table[lane as usize] = 1;
            }
            return self.arena.table(column, table);
        }
        self.arena.mask(Mask::Member { column, lanes: lanes.into() })
    }

    /// True (`wanted`) or false rows of a predicate over a string column.
    fn text(&mut self, input: &Expr, predicate: &text::Predicate<'_>, wanted: bool) -> Result<MaskId, Decline> {
        let Expr::Column(column) = input else {
            return Err(Decline::new("a predicate over a string expression"));
        };
        let known = self.valid(*column);
        let Some(dictionary) = self.chunks[*column].dictionary() else {
            return Err(Decline::new("a string predicate over integers"));
        };
        let table = predicate.evaluate(dictionary, wanted)?;
        let matched = self.arena.table(*column, table);
        Ok(self.arena.and(vec![known, matched]))
    }
}

/// The lane whose value is exactly `value`; `factor` is not 0.
fn lane_of(base: i128, factor: i128, value: i128, lane_max: u64) -> Option<u64> {
    let offset = value.checked_sub(base)?;
    if factor == 0 || offset % factor != 0 {
        return None;
    }
    u64::try_from(offset / factor).ok().filter(|lane| *lane <= lane_max)
}

/// The answer that two intervals settle for every row, if they do.
fn settled(op: CompareOp, left: (i128, i128), right: (i128, i128)) -> Option<bool> {
    match op {
        CompareOp::Lt if left.1 < right.0 => Some(true),
        CompareOp::Lt if left.0 >= right.1 => Some(false),
        CompareOp::Eq if left.1 < right.0 || right.1 < left.0 => Some(false),
        CompareOp::Eq if left.0 == left.1 && left == right => Some(true),
        CompareOp::Gt => settled(CompareOp::Lt, right, left),
        CompareOp::LtEq => settled(CompareOp::Lt, right, left).map(|answer| !answer),
        CompareOp::GtEq => settled(CompareOp::Lt, left, right).map(|answer| !answer),
        CompareOp::NotEq => settled(CompareOp::Eq, left, right).map(|answer| !answer),
        _ => None,
    }
}
