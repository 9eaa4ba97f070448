//! Partial aggregates across row groups, keyed by real values, and the final groups.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};

use crate::bind::{Combine, Output, Program};
use crate::error::KernelError;
use crate::exact_float::ExactFloatSum;
use crate::expr::ColumnType;
use crate::group_index::{GroupIndex, KeyValues, NULL_KEY};
use crate::plan::{Aggregate, AggregateFunction, AggregatePlan, Kind, kind_of};
use crate::total_order::TotalOrder;

/// What one executor found in one row group: per slot, counts and raw measures.
pub(crate) struct Partial {
    /// The combined code of each slot; `None` where the slot number is the code.
    pub combined: Option<Vec<u128>>,
    /// `counts[i][slot]` for [`Program::counts`].
    pub counts: Vec<Vec<u64>>,
    /// `measures[i][slot]` for [`Program::measures`]; meaningless where the mask never held.
    pub measures: Vec<Vec<i128>>,
    /// `float_sums[i][slot]` for [`Program::float_sums`].
    pub float_sums: Vec<Vec<ExactFloatSum>>,
}

/// What a running answer is beside its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    Value(Combine),
    FloatSum,
}

/// One aggregate's running answer for every group.
#[derive(Debug, Clone)]
struct Column {
    holds: Holds,
    /// Rows that counted.
    counts: Vec<u64>,
    /// Sum or extreme; meaningless where the count is 0. Empty unless such a value is held.
    values: Vec<i128>,
    /// Empty unless sums of doubles are held.
    float_sums: Vec<ExactFloatSum>,
    /// No sum can exceed this: the greatest magnitude a row could have, times rows, over all row groups.
    magnitude: u128,
}

impl Column {
    fn new(plan: &AggregatePlan, aggregate: &Aggregate) -> Self {
        let is_float = aggregate.argument.as_ref().is_some_and(|argument| kind_of(&plan.columns, argument) == Kind::Float);
        let holds = match aggregate.function {
            AggregateFunction::CountStar | AggregateFunction::Count => Holds::Nothing,
            AggregateFunction::Sum if is_float => Holds::FloatSum,
            AggregateFunction::Sum => Holds::Value(Combine::Sum),
            AggregateFunction::Min => Holds::Value(Combine::Min),
            AggregateFunction::Max => Holds::Value(Combine::Max),
        };
        Self { holds, counts: Vec::new(), values: Vec::new(), float_sums: Vec::new(), magnitude: 0 }
    }

    fn grow(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
        match self.holds {
            Holds::Nothing => {}
            Holds::Value(_) => self.values.resize(groups, 0),
            Holds::FloatSum => self.float_sums.resize(groups, ExactFloatSum::default()),
        }
    }

    fn add(&mut self, group: usize, count: u64, value: i128) {
        let first = self.counts[group] == 0;
        self.counts[group] += count;
        let Holds::Value(combine) = self.holds else {
            return;
        };
        if count == 0 {
            return;
        }
        let known = self.values[group];
        self.values[group] = match combine {
            _ if first => value,
            // Proven by `magnitude`.
            Combine::Sum => known.wrapping_add(value),
            Combine::Min => known.min(value),
            Combine::Max => known.max(value),
        };
    }

    fn raise(&mut self, magnitude: u128) -> Result<(), KernelError> {
        self.magnitude = self.magnitude.saturating_add(magnitude);
        if self.magnitude > i128::MAX as u128 {
            return Err(KernelError::declined("SUM may exceed 127 bits"));
        }
        Ok(())
    }
}

/// The partial aggregate of any number of row groups. Order does not matter: all answers are exact.
#[derive(Debug, Clone)]
pub struct PartialState {
    plan: Arc<AggregatePlan>,
    index: GroupIndex,
    key_values: Vec<KeyValues>,
    columns: Vec<Column>,
}

impl PartialState {
    pub(crate) fn new(plan: Arc<AggregatePlan>) -> Self {
        let key_values = plan
            .keys
            .iter()
            .map(|key| if plan.columns[*key] == ColumnType::Utf8 { KeyValues::strings() } else { KeyValues::Integers })
            .collect();
        let columns = plan.aggregates.iter().map(|aggregate| Column::new(&plan, aggregate)).collect();
        let mut state = Self { index: GroupIndex::new(plan.keys.len()), plan, key_values, columns };
        if state.plan.keys.is_empty() {
            // The one group of an aggregate without keys exists over no rows too. An empty index has room for it.
            let _ = state.group(&[]);
        }
        state
    }

    pub(crate) fn plan(&self) -> &Arc<AggregatePlan> {
        &self.plan
    }

    /// Groups so far.
    pub fn group_count(&self) -> usize {
        self.index.len()
    }

    fn group(&mut self, key: &[i128]) -> Result<usize, KernelError> {
        let group = self.index.group_of(key)? as usize;
        for column in &mut self.columns {
            if column.counts.len() <= group {
                column.grow(group + 1);
            }
        }
        Ok(group)
    }

    /// Declines where the row group could push a sum over 127 bits. Call before running it.
    pub(crate) fn admit(&mut self, program: &Program<'_>) -> Result<(), KernelError> {
        for (column, output) in self.columns.iter_mut().zip(&program.outputs) {
            if let Output::Value { combine: Combine::Sum, magnitude, .. } = output {
                column.raise(magnitude.saturating_mul(program.row_count as u128))?;
            }
        }
        Ok(())
    }

    /// Adds what a row group gave.
    pub(crate) fn absorb(&mut self, program: &Program<'_>, partial: &Partial) -> Result<(), KernelError> {
        let slots: Vec<(usize, u128)> = match (&partial.combined, program.keys.columns.is_empty()) {
            (_, true) => vec![(0, 0)],
            (Some(combined), _) => combined.iter().copied().enumerate().collect(),
            // Count 0 of a grouped program counts every passing row.
            (None, _) => {
                let occupied = partial.counts[0].iter().enumerate().filter(|(_, count)| **count > 0);
                occupied.map(|(slot, _)| (slot, slot as u128)).collect()
            }
        };
        let mut translations = Vec::with_capacity(program.keys.columns.len());
        for (key, values) in program.keys.columns.iter().zip(&mut self.key_values) {
            let wanted = slots.iter().map(|(_, combined)| key.code_of(*combined)).filter(|code| Some(*code) != key.null_code);
            translations.push(values.translate(&program.chunks[key.column], wanted)?);
        }
        let mut key_values = vec![0; program.keys.columns.len()];
        for (slot, combined) in slots {
            for ((key, translation), value) in program.keys.columns.iter().zip(&translations).zip(&mut key_values) {
                let code = key.code_of(combined);
                let chunk = &program.chunks[key.column];
                *value = if Some(code) == key.null_code {
                    NULL_KEY
                } else if translation.is_empty() {
                    chunk.base().wrapping_add(chunk.factor().wrapping_mul(i128::from(code)))
                } else {
                    translation[code as usize]
                };
            }
            let group = self.group(&key_values)?;
            for (column, output) in self.columns.iter_mut().zip(&program.outputs) {
                let (count, value) = resolve(output, partial, slot);
                column.add(group, count, value);
                if let Output::FloatSum { sum, .. } = output {
                    column.float_sums[group].merge(&partial.float_sums[*sum][slot]);
                }
            }
        }
        Ok(())
    }

    /// Adds another state of the same kernel.
    ///
    /// # Errors
    /// Declines over the limit of groups or where a sum could exceed 127 bits; a state of another plan is a bug.
    pub fn merge(&mut self, other: PartialState) -> Result<(), KernelError> {
        if !Arc::ptr_eq(&self.plan, &other.plan) && self.plan != other.plan {
            return Err(KernelError::internal("merge of states of two plans"));
        }
        for (column, theirs) in self.columns.iter_mut().zip(&other.columns) {
            if column.holds == Holds::Value(Combine::Sum) {
                column.raise(theirs.magnitude)?;
            }
        }
        let mut key = vec![0; self.plan.keys.len()];
        for theirs in 0..other.index.len() {
            key.copy_from_slice(other.index.key(theirs));
            for ((value, ours), values) in key.iter_mut().zip(&mut self.key_values).zip(&other.key_values) {
                if let (KeyValues::Strings(ours), KeyValues::Strings(table)) = (ours, values)
                    && *value != NULL_KEY
                {
                    *value = i128::from(ours.intern(table.get(*value as u32))?);
                }
            }
            let group = self.group(&key)?;
            for (column, their_column) in self.columns.iter_mut().zip(&other.columns) {
                let value = their_column.values.get(theirs).copied().unwrap_or(0);
                column.add(group, their_column.counts[theirs], value);
                if let (Some(ours), Some(theirs)) = (column.float_sums.get_mut(group), their_column.float_sums.get(theirs)) {
                    ours.merge(theirs);
                }
            }
        }
        Ok(())
    }

    /// The groups, in order of first sight.
    ///
    /// # Errors
    /// [`KernelError::Internal`] where a key does not fit its own column's type, which encoding rules out.
    pub fn finish(self) -> Result<GroupedResult, KernelError> {
        let group_count = self.index.len();
        let mut keys = Vec::with_capacity(self.plan.keys.len());
        for (position, column) in self.plan.keys.iter().enumerate() {
            let values = (0..group_count).map(|group| self.index.key(group)[position]).map(|key| (key != NULL_KEY).then_some(key));
            keys.push(key_array(self.plan.columns[*column], values, &self.key_values[position])?);
        }
        let aggregates = self
            .columns
            .into_iter()
            .map(|column| match column.holds {
                Holds::Nothing => AggregateColumn::Count(column.counts),
                Holds::Value(_) => AggregateColumn::Value { values: column.values, counts: column.counts },
                Holds::FloatSum => AggregateColumn::FloatSum { sums: column.float_sums, counts: column.counts },
            })
            .collect();
        Ok(GroupedResult { group_count, keys, aggregates })
    }
}

/// Count and value of one aggregate in one slot.
fn resolve(output: &Output, partial: &Partial, slot: usize) -> (u64, i128) {
    match *output {
        Output::Count(count) | Output::FloatSum { count, .. } => (partial.counts[count][slot], 0),
        Output::Value { combine, count, measure, base, factor, .. } => {
            let count = partial.counts[count][slot];
            let raw = measure.map_or(0, |measure| partial.measures[measure][slot]);
            let base = if combine == Combine::Sum { base.wrapping_mul(i128::from(count)) } else { base };
            // Steps may wrap, the outcome does not: it is inside the admitted magnitude.
            (count, if count == 0 { 0 } else { base.wrapping_add(factor.wrapping_mul(raw)) })
        }
    }
}

/// The answer: one row a group.
#[derive(Debug, Clone)]
pub struct GroupedResult {
    /// Groups; 1 without keys, even over no rows.
    pub group_count: usize,
    /// One array a key, in the plan's order and the Arrow type of its column. Timestamps come as `Int64Array`.
    pub keys: Vec<ArrayRef>,
    /// One a aggregate, in the plan's order.
    pub aggregates: Vec<AggregateColumn>,
}

/// One aggregate's answers, one a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AggregateColumn {
    /// COUNT.
    Count(Vec<u64>),
    /// SUM of integers, MIN or MAX.
    Value {
        /// The exact answers, doubles as their [`crate::TotalOrder::place`]; 0 where the count is 0.
        values: Vec<i128>,
        /// Inputs that were not NULL; 0 means the answer is SQL NULL.
        counts: Vec<u64>,
    },
    /// SUM of doubles.
    FloatSum {
        /// The sums, not rounded yet.
        sums: Vec<ExactFloatSum>,
        /// Inputs that were not NULL; 0 means the answer is SQL NULL.
        counts: Vec<u64>,
    },
}

fn key_array(column_type: ColumnType, values: impl Iterator<Item = Option<i128>>, key_values: &KeyValues) -> Result<ArrayRef, KernelError> {
    if let KeyValues::Strings(table) = key_values {
        return Ok(Arc::new(StringArray::from_iter(values.map(|key| key.map(|key| table.get(key as u32))))));
    }
    array_of(column_type, values)
}

/// Values as an array of the column's own Arrow type; timestamps come as `Int64Array`.
pub(crate) fn array_of(column_type: ColumnType, values: impl Iterator<Item = Option<i128>>) -> Result<ArrayRef, KernelError> {
    let unfit = |_| KernelError::internal(format!("a value outside {column_type:?}"));
    macro_rules! collect {
        ($array:ty, $native:ty) => {{
            let values = values.map(|key| key.map(<$native>::try_from).transpose()).collect::<Result<Vec<_>, _>>().map_err(unfit)?;
            Arc::new(<$array>::from_iter(values)) as ArrayRef
        }};
    }
    Ok(match column_type {
        ColumnType::Boolean => Arc::new(BooleanArray::from_iter(values.map(|key| key.map(|key| key != 0)))),
        ColumnType::Int { bits: 8, signed: true } => collect!(Int8Array, i8),
        ColumnType::Int { bits: 16, signed: true } => collect!(Int16Array, i16),
        ColumnType::Int { bits: 32, signed: true } => collect!(Int32Array, i32),
        ColumnType::Int { signed: true, .. } => collect!(Int64Array, i64),
        ColumnType::Int { bits: 8, signed: false } => collect!(UInt8Array, u8),
        ColumnType::Int { bits: 16, signed: false } => collect!(UInt16Array, u16),
        ColumnType::Int { bits: 32, signed: false } => collect!(UInt32Array, u32),
        ColumnType::Int { signed: false, .. } => collect!(UInt64Array, u64),
        ColumnType::Date32 => collect!(Date32Array, i32),
        ColumnType::Timestamp => collect!(Int64Array, i64),
        ColumnType::Decimal128 { precision, scale } => {
            let array = Decimal128Array::from_iter(values).with_precision_and_scale(precision, scale);
            Arc::new(array.map_err(|error| KernelError::internal(error.to_string()))?)
        }
        ColumnType::Float64 => {
            let values = values.map(|place| place.map(i64::try_from).transpose()).collect::<Result<Vec<_>, _>>().map_err(unfit)?;
            Arc::new(values.into_iter().map(|place| place.map(|place| TotalOrder::at(place).value())).collect::<Float64Array>())
        }
        ColumnType::Utf8 => return Err(KernelError::internal("strings without a dictionary")),
    })
}
