//! Partial aggregates across row groups, keyed by real values, and the final groups.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray,
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
    /// `float_sums[i][slot]` for [`Program::float_sums`]; meaningless where the mask never held.
    pub float_sums: Vec<Vec<ExactFloatSum>>,
}

/// What a running answer is beside its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    Value(Combine),
    FloatSum,
    Text(Combine),
}

/// Where a slot of a row group belongs.
#[derive(Clone, Copy)]
struct Found {
    slot: u32,
    group: u32,
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
    /// Extremes; empty unless strings are held.
    texts: Vec<Option<Box<str>>>,
    /// No sum can exceed this: the greatest magnitude a row could have, times rows, over all row groups.
    magnitude: u128,
}

impl Column {
    fn new(plan: &AggregatePlan, aggregate: &Aggregate) -> Self {
        let kind = aggregate.argument.as_ref().map_or(Kind::Null, |argument| kind_of(&plan.columns, argument));
        let extreme = |combine| if kind == Kind::Text { Holds::Text(combine) } else { Holds::Value(combine) };
        let holds = match aggregate.function {
            AggregateFunction::CountStar | AggregateFunction::Count => Holds::Nothing,
            AggregateFunction::Sum if kind == Kind::Float => Holds::FloatSum,
            AggregateFunction::Sum => Holds::Value(Combine::Sum),
            AggregateFunction::Min => extreme(Combine::Min),
            AggregateFunction::Max => extreme(Combine::Max),
        };
        Self { holds, counts: Vec::new(), values: Vec::new(), float_sums: Vec::new(), texts: Vec::new(), magnitude: 0 }
    }

    fn grow(&mut self, groups: usize) {
        if groups == self.counts.len() {
            return;
        }
        self.counts.resize(groups, 0);
        match self.holds {
            Holds::Nothing => {}
            Holds::Value(_) => self.values.resize(groups, 0),
            Holds::FloatSum => self.float_sums.resize(groups, ExactFloatSum::default()),
            Holds::Text(_) => self.texts.resize(groups, None),
        }
    }

    /// Takes a string if it is nearer the extreme that is held.
    fn offer(&mut self, group: usize, text: &str) {
        let known = &mut self.texts[group];
        let is_better = match (known.as_deref(), self.holds) {
            (None, _) => true,
            (Some(known), Holds::Text(Combine::Min)) => text < known,
            (Some(known), _) => text > known,
        };
        if is_better {
            *known = Some(text.into());
        }
    }

    #[inline]
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

    /// Adds what a row group gave.
    fn absorb(&mut self, program: &Program<'_>, output: &Output, partial: &Partial, found: &[Found]) -> Result<(), KernelError> {
        let (Output::Count(count) | Output::Value { count, .. } | Output::FloatSum { count, .. } | Output::Text { count, .. }) = *output;
        let counts = &partial.counts[count];
        match *output {
            Output::Count(_) => found.iter().for_each(|Found { slot, group }| self.counts[*group as usize] += counts[*slot as usize]),
            Output::Value { combine, measure, base, factor, .. } => {
                let measure = measure.map(|measure| &partial.measures[measure]);
                for Found { slot, group } in found {
                    let count = counts[*slot as usize];
                    if count > 0 {
                        let raw = measure.map_or(0, |measure| measure[*slot as usize]);
                        let base = if combine == Combine::Sum { base.wrapping_mul(i128::from(count)) } else { base };
                        // Steps may wrap, the outcome does not: it is inside the admitted magnitude.
                        self.add(*group as usize, count, base.wrapping_add(factor.wrapping_mul(raw)));
                    }
                }
            }
            Output::FloatSum { sum, .. } => {
                // Where nothing counted, the sum is of whatever was there.
                for Found { slot, group } in found.iter().filter(|found| counts[found.slot as usize] > 0) {
                    self.counts[*group as usize] += counts[*slot as usize];
                    self.float_sums[*group as usize].merge(&partial.float_sums[sum][*slot as usize]);
                }
            }
            Output::Text { measure, column, .. } => {
                for Found { slot, group } in found.iter().filter(|found| counts[found.slot as usize] > 0) {
                    let code = partial.measures[measure][*slot as usize];
                    let dictionary = program.chunks[column].dictionary().filter(|strings| (0..strings.len() as i128).contains(&code));
                    let strings = dictionary.ok_or_else(|| KernelError::internal(format!("a string with the code {code}")))?;
                    self.offer(*group as usize, strings.value(code as usize));
                }
            }
        }
        Ok(())
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
    pub(crate) index: GroupIndex,
    pub(crate) key_values: Vec<KeyValues>,
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

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let texts = |column: &Column| column.texts.iter().flatten().map(|text| text.len()).sum::<usize>();
        let columns = self.columns.iter().map(|column| {
            column.counts.capacity() * size_of::<u64>()
                + column.values.capacity() * size_of::<i128>()
                + column.float_sums.capacity() * size_of::<ExactFloatSum>()
                + column.texts.capacity() * size_of::<Option<Box<str>>>()
                + texts(column)
        });
        self.index.bytes() + self.key_values.iter().map(KeyValues::bytes).sum::<usize>() + columns.sum::<usize>()
    }

    fn group(&mut self, key: &[i128]) -> Result<usize, KernelError> {
        let group = self.index.group_of(key)? as usize;
        self.columns.iter_mut().for_each(|column| column.grow(self.index.len()));
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
        let mut keys = Vec::with_capacity(slots.len() * program.keys.columns.len());
        for (_, combined) in &slots {
            let mut rest = *combined;
            for (key, translation) in program.keys.columns.iter().zip(&translations) {
                let (others, code) = divide(rest, key.radix);
                rest = others;
                let chunk = &program.chunks[key.column];
                keys.push(if Some(code) == key.null_code {
                    NULL_KEY
                } else if translation.is_empty() {
                    chunk.base().wrapping_add(chunk.factor().wrapping_mul(i128::from(code)))
                } else {
                    translation[code as usize]
                });
            }
        }
        // Slots of one row group are groups of their own. Without keys there is one, and its number is 0.
        let groups = self.index.groups_of_distinct(keys, slots.len())?;
        let found: Vec<Found> = slots.iter().zip(groups).map(|((slot, _), group)| Found { slot: *slot as u32, group }).collect();
        // Column by column: each is one plain loop.
        for (column, output) in self.columns.iter_mut().zip(&program.outputs) {
            column.grow(self.index.len());
            column.absorb(program, output, partial, &found)?;
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
                if let Some(Some(text)) = their_column.texts.get(theirs) {
                    column.offer(group, text);
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
                Holds::Text(_) => AggregateColumn::Text(StringArray::from_iter(column.texts)),
            })
            .collect();
        Ok(GroupedResult { group_count, keys, aggregates })
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
#[derive(Debug, Clone, PartialEq)]
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
    /// MIN or MAX of strings; NULL where there was none.
    Text(StringArray),
    /// SUM of doubles.
    FloatSum {
        /// The sums, not rounded yet.
        sums: Vec<ExactFloatSum>,
        /// Inputs that were not NULL; 0 means the answer is SQL NULL.
        counts: Vec<u64>,
    },
}

/// Quotient and remainder. A division of 128 bits costs more than all else that is done for a group, and the last key needs none.
#[inline]
fn divide(number: u128, by: u128) -> (u128, u64) {
    if number < by {
        return (0, number as u64);
    }
    match (u64::try_from(number), u64::try_from(by)) {
        (Ok(number), Ok(by)) => ((number / by).into(), number % by),
        _ => {
            let quotient = number / by;
            (quotient, (number - quotient * by) as u64)
        }
    }
}

/// Key values as an array of their column's Arrow type.
pub(crate) fn key_array(
    column_type: ColumnType,
    values: impl Iterator<Item = Option<i128>>,
    key_values: &KeyValues,
) -> Result<ArrayRef, KernelError> {
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
