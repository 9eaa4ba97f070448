//! Binding: a plan meets the chunks of one row group and becomes a [`Program`] that both executors run.
//!
//! Everything that statistics can settle is settled here: literals move onto the raw lanes, string predicates become
//! tables over dictionary codes, NULL logic becomes plain true/false masks, and every value gets an interval that
//! proves its width. What cannot be proven exact is declined.

mod arena;
mod keys;
mod mask;
mod settled;
mod text;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use arena::{Mask, MaskId, Order, Value, ValueId, ValueOp, Width};
pub(crate) use keys::GroupKeys;

use crate::chunk::Chunk;
use crate::error::{Decline, KernelError};
use crate::exact_float::{Exponents, exponent_range};
use crate::expr::Expr;
use crate::forced::Forced;
use crate::limits::SORTED_DICTIONARY_VALUES_MAX;
use crate::plan::{Aggregate, AggregateFunction, AggregatePlan, Kind, kind_of};
use crate::total_order::TotalOrder;
use arena::Arena;
use value::Form;

/// How the rows of a measure combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Combine {
    Sum,
    Min,
    Max,
}

/// One accumulated number a group: rows where `mask` is true contribute `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Measure {
    pub combine: Combine,
    pub value: ValueId,
    pub mask: MaskId,
}

/// One exact sum of doubles a group: rows where `mask` is true contribute the double at the place `value`, which is an `I64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FloatSum {
    pub value: ValueId,
    pub mask: MaskId,
}

/// How an aggregate's answer follows from counts and measures.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Output {
    /// The count at this position of [`Program::counts`].
    Count(usize),
    /// `base * count + factor * measure` for sums, `base + factor * measure` for extremes: measures run over raw lanes.
    Value { combine: Combine, count: usize, measure: Option<usize>, base: i128, factor: i128, magnitude: u128 },
    /// The sum at this position of [`Program::float_sums`].
    FloatSum { count: usize, sum: usize },
    /// The string whose code in the chunk of this column is the measure.
    Text { count: usize, measure: usize, column: usize },
}

/// A plan bound to one row group.
pub(crate) struct Program<'a> {
    pub row_count: usize,
    pub chunks: &'a [Arc<Chunk>],
    pub masks: Vec<Mask>,
    pub values: Vec<Value>,
    /// Rows that take part.
    pub filter: MaskId,
    pub keys: GroupKeys,
    /// Counted masks.
    pub counts: Vec<MaskId>,
    pub measures: Vec<Measure>,
    pub float_sums: Vec<FloatSum>,
    /// One for each aggregate of the plan.
    pub outputs: Vec<Output>,
    pub forced: Forced,
}

impl Program<'_> {
    /// Between which exponents the doubles lie whose places `value` has; `None` where one may not be finite or is computed.
    pub(crate) fn exponents(&self, value: ValueId) -> Option<(u64, u64)> {
        match self.exponents_of(value) {
            Exponents::Within(least, greatest) => Some((least, greatest)),
            // Zeros have whatever exponent.
            Exponents::Zero => Some((1, 1)),
            Exponents::Unbounded => None,
        }
    }

    fn exponents_of(&self, value: ValueId) -> Exponents {
        match self.values[value.0].op {
            ValueOp::Affine { column, .. } => match self.chunks[column].exponents() {
                Some((least, greatest)) => Exponents::Within(least, greatest),
                None => Exponents::Unbounded,
            },
            ValueOp::Constant(place) => exponent_range(&[TotalOrder::at(place as i64).value()]),
            ValueOp::Select(_, yes, no) => self.exponents_of(yes).and(self.exponents_of(no)),
            _ => Exponents::Unbounded,
        }
    }
}

/// Binds `plan` to `chunks`, which match its columns in type and have `row_count` rows each.
pub(crate) fn bind<'a>(
    plan: &AggregatePlan,
    chunks: &'a [Arc<Chunk>],
    row_count: usize,
    forced: Forced,
) -> Result<Program<'a>, KernelError> {
    let mut binder = Binder { plan, chunks, arena: Arena::default(), truths: HashMap::new(), least_width: forced.width() };
    let filter = match &plan.filter {
        Some(filter) => binder.truth(filter, true)?,
        None => binder.arena.always(),
    };
    let mut measures = Measures::default();
    if !plan.keys.is_empty() {
        // A group exists where a row passed: grouped programs always count rows.
        let always = binder.arena.always();
        measures.count(always);
    }
    let outputs = plan.aggregates.iter().map(|aggregate| binder.aggregate(aggregate, &mut measures)).collect::<Result<Vec<_>, _>>()?;
    let keys = GroupKeys::new(&plan.keys, chunks)?;
    let Arena { masks, values, .. } = binder.arena;
    Ok(Program {
        row_count,
        chunks,
        masks,
        values,
        filter,
        keys,
        counts: measures.counts,
        measures: measures.measures,
        float_sums: measures.float_sums,
        outputs,
        forced,
    })
}

#[derive(Default)]
struct Measures {
    counts: Vec<MaskId>,
    measures: Vec<Measure>,
    float_sums: Vec<FloatSum>,
}

impl Measures {
    fn count(&mut self, mask: MaskId) -> usize {
        position_or_push(&mut self.counts, mask)
    }
}

fn position_or_push<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

struct Binder<'a> {
    plan: &'a AggregatePlan,
    chunks: &'a [Arc<Chunk>],
    arena: Arena,
    /// Predicates lowered before, by address within the plan and the wanted answer.
    truths: HashMap<(*const Expr, bool), MaskId>,
    /// Of computed values.
    least_width: Width,
}

impl Binder<'_> {
    fn aggregate(&mut self, aggregate: &Aggregate, measures: &mut Measures) -> Result<Output, KernelError> {
        let filter = match &aggregate.filter {
            Some(filter) => self.truth(filter, true)?,
            None => self.arena.always(),
        };
        let combine = match (aggregate.function, &aggregate.argument) {
            (AggregateFunction::CountStar, _) | (_, None) => {
                return Ok(Output::Count(measures.count(filter)));
            }
            (AggregateFunction::Count, Some(argument)) => {
                let known = self.known(argument)?;
                let mask = self.arena.and(vec![filter, known]);
                return Ok(Output::Count(measures.count(mask)));
            }
            (AggregateFunction::Sum, Some(_)) => Combine::Sum,
            (AggregateFunction::Min, Some(_)) => Combine::Min,
            (AggregateFunction::Max, Some(_)) => Combine::Max,
        };
        let Some(argument) = &aggregate.argument else {
            return Err(KernelError::internal("aggregate without an argument"));
        };
        if let (Kind::Text, Expr::Column(column)) = (kind_of(&self.plan.columns, argument), argument) {
            if !self.chunks[*column].has_sorted_dictionary() {
                return Err(KernelError::declined(format!("MIN or MAX over more than {SORTED_DICTIONARY_VALUES_MAX} distinct strings")));
            }
            let known = self.valid(*column);
            let mask = self.arena.and(vec![filter, known]);
            let (count, value) = (measures.count(mask), self.lane(*column));
            let measure = position_or_push(&mut measures.measures, Measure { combine, value, mask });
            return Ok(Output::Text { count, measure, column: *column });
        }
        let lowered = self.value(argument)?;
        let mask = self.arena.and(vec![filter, lowered.known]);
        let count = measures.count(mask);
        if kind_of(&self.plan.columns, argument) == Kind::Float {
            if combine == Combine::Sum {
                let value = self.node(lowered, Width::I64);
                let sum = position_or_push(&mut measures.float_sums, FloatSum { value, mask });
                return Ok(Output::FloatSum { count, sum });
            }
            // DataFusion's own answer then depends on the order of rows.
            let (least, greatest) = (i128::from(TotalOrder::LEAST.place()), i128::from(TotalOrder::GREATEST.place()));
            if lowered.low < least || lowered.high > greatest {
                return Err(KernelError::declined("MIN or MAX over doubles among which are NaN"));
            }
        }
        let magnitude = lowered.low.unsigned_abs().max(lowered.high.unsigned_abs());
        // Affine arguments are accumulated over raw lanes and mapped at the end; a negative factor swaps the extremes.
        let (source, base, factor) = match lowered.form {
            Form::Constant(value) => (None, value, 0),
            Form::Affine { column, base, factor } => (Some(self.lane(column)), base, factor),
            Form::Node(node) => (Some(node), 0, 1),
        };
        let lane_combine = match combine {
            Combine::Min if factor < 0 => Combine::Max,
            Combine::Max if factor < 0 => Combine::Min,
            same => same,
        };
        let measure = source.map(|value| position_or_push(&mut measures.measures, Measure { combine: lane_combine, value, mask }));
        Ok(Output::Value { combine, count, measure, base, factor, magnitude })
    }

    /// The mask of rows where `expr` is not NULL.
    fn known(&mut self, expr: &Expr) -> Result<MaskId, Decline> {
        match kind_of(&self.plan.columns, expr) {
            Kind::Null => Ok(self.arena.never()),
            Kind::Integer | Kind::Float => Ok(self.value(expr)?.known),
            Kind::Text => match expr {
                Expr::Column(column) => Ok(self.valid(*column)),
                _ => Ok(self.arena.always()),
            },
            Kind::Boolean => {
                let (yes, no) = (self.truth(expr, true)?, self.truth(expr, false)?);
                Ok(self.arena.or(vec![yes, no]))
            }
        }
    }

    /// The mask of rows where `column` is not NULL.
    fn valid(&mut self, column: usize) -> MaskId {
        let chunk = &self.chunks[column];
        if chunk.null_count() == 0 {
            self.arena.always()
        } else if chunk.null_count() == chunk.row_count() {
            self.arena.never()
        } else {
            self.arena.mask(Mask::Valid { column })
        }
    }
}
