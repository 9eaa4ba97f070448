//! `sum` and `avg` under DataFusion's names, exact over doubles: the answer is the exact sum rounded once, whatever the order of rows,
//! batches, workers or retries. Integers and decimals: see [`super::exact_integers`]; variances: see [`super::exact_variance`]. Durations
//! are DataFusion's own business.

use super::exact_integers::{self, Total, total_type};
use super::exact_variance::variances;
use super::own_accumulators::own_accumulators;
use super::sliding::SlidingDistinct;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Float64Array, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, UInt64Type};
use bowshot_kernels::ExactFloatSum;
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, Expr, GroupsAccumulator, Operator, ReversedUDAF, SetMonotonicity,
    Signature, StatisticsArgs,
};
use std::sync::Arc;

/// The aggregates to register in place of DataFusion's, on coordinators and workers alike.
pub fn exact_aggregates() -> Vec<Arc<AggregateUDF>> {
    [(sum_udaf(), Answer::Sum), (avg_udaf(), Answer::Average)]
        .map(|(builtin, answer)| Arc::new(AggregateUDF::new_from_impl(ExactAggregate { builtin, answer })))
        .into_iter()
        .chain(variances())
        .chain(own_accumulators())
        .collect()
}

/// What becomes of sum and count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Sum,
    /// The rounded sum over the count, as DataFusion divides.
    Average,
}

impl Answer {
    fn of(self, sum: &ExactFloatSum, count: u64) -> Option<f64> {
        (count > 0).then(|| match self {
            Self::Sum => sum.value(),
            Self::Average => sum.value() / count as f64,
        })
    }

    /// The sum column of a state; the averages' count column stands before it.
    fn state_sums(self, states: &[ArrayRef]) -> Result<(&BinaryArray, Option<&UInt64Array>)> {
        match (self, states) {
            (Self::Sum, [sums]) => Ok((column(sums, |sums| sums.as_binary_opt())?, None)),
            (Self::Average, [counts, sums]) => {
                Ok((column(sums, |sums| sums.as_binary_opt())?, Some(column(counts, |counts| counts.as_primitive_opt::<UInt64Type>())?)))
            }
            _ => internal_err!("a state of {} columns for {self:?}", states.len()),
        }
    }

    /// The state's columns for some sums and counts.
    fn to_state<'s>(self, sums: impl Iterator<Item = (&'s ExactFloatSum, u64)> + Clone) -> Vec<ArrayRef> {
        let bytes: BinaryArray = sums.clone().map(|(sum, count)| (count > 0).then(|| sum.to_bytes())).collect();
        match self {
            Self::Sum => vec![Arc::new(bytes)],
            Self::Average => vec![Arc::new(sums.map(|(_, count)| Some(count)).collect::<UInt64Array>()), Arc::new(bytes)],
        }
    }
}

pub(super) fn column<'a, T>(array: &'a ArrayRef, cast: impl FnOnce(&'a dyn Array) -> Option<&'a T>) -> Result<&'a T> {
    match cast(array.as_ref()) {
        Some(column) => Ok(column),
        None => internal_err!("{} among an exact aggregate's arguments", array.data_type()),
    }
}

pub(super) fn doubles(values: &[ArrayRef]) -> Result<&Float64Array> {
    match values {
        [values] => column(values, |values| values.as_primitive_opt::<Float64Type>()),
        _ => internal_err!("{} arguments for an exact aggregate", values.len()),
    }
}

/// The values between NULLs.
pub(super) fn known_runs(values: &Float64Array) -> impl Iterator<Item = &[f64]> {
    let whole = values.nulls().is_none().then(|| values.values().as_ref());
    let runs = values.nulls().into_iter().flat_map(|nulls| nulls.valid_slices()).map(|(start, end)| &values.values()[start..end]);
    whole.into_iter().chain(runs)
}

/// The rows that are not NULL and pass a filter, where these are not all.
pub(super) fn kept(values: &Float64Array, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
    let known = values.nulls().map(|nulls| nulls.inner().clone());
    // A filter that is NULL keeps nothing.
    let passing = filter.map(|filter| filter.nulls().map_or_else(|| filter.values().clone(), |nulls| filter.values() & nulls.inner()));
    match (known, passing) {
        (Some(known), Some(passing)) => Some(&known & &passing),
        (known, passing) => known.or(passing),
    }
}

fn read(bytes: &[u8]) -> Result<ExactFloatSum> {
    ExactFloatSum::from_bytes(bytes).or_else(|error| exec_err!("a partial aggregate: {error}"))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAggregate {
    builtin: Arc<AggregateUDF>,
    answer: Answer,
}

impl ExactAggregate {
    /// What to add up, where it is integers or decimals.
    fn total(&self, args: &AccumulatorArgs) -> Option<Total> {
        let [input] = args.expr_fields else { return None };
        total_type(input.data_type())?;
        Some(Total {
            answer: self.answer,
            name: args.name.into(),
            input: input.data_type().clone(),
            result: args.return_field.data_type().clone(),
        })
    }
}

/// Both aggregates return a double exactly where they add doubles.
fn adds_doubles(return_type: &DataType) -> bool {
    *return_type == Float64Type::DATA_TYPE
}

impl AggregateUDFImpl for ExactAggregate {
    fn name(&self) -> &str {
        self.builtin.name()
    }
    fn aliases(&self) -> &[String] {
        self.builtin.aliases()
    }
    fn signature(&self) -> &Signature {
        self.builtin.signature()
    }
    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.builtin.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (exact, distinct) = (adds_doubles(args.return_field.data_type()), args.is_distinct);
        match (exact, distinct) {
            (false, _) => match (self.total(&args), distinct) {
                (None, _) => self.builtin.accumulator(args),
                (Some(total), false) => exact_integers::accumulator(total),
                (Some(total), true) => {
                    let none = move || exact_integers::accumulator(total.clone());
                    Ok(Box::new(ExactDistinct { none: Box::new(none), distinct: self.builtin.accumulator(args)? }))
                }
            },
            (true, false) => Ok(Box::new(ExactAccumulator::new(self.answer))),
            (true, true) => {
                let answer = self.answer;
                let none = move || Ok(Box::new(ExactAccumulator::new(answer)) as Box<dyn Accumulator>);
                Ok(Box::new(ExactDistinct { none: Box::new(none), distinct: self.builtin.accumulator(args)? }))
            }
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let total = match args.input_fields {
            _ if adds_doubles(args.return_type()) => Some(DataType::Binary),
            [input] => total_type(input.data_type()),
            _ => None,
        };
        let Some(total) = total.filter(|_| !args.is_distinct) else { return self.builtin.state_fields(args) };
        let field = |name: &str, data_type| Arc::new(Field::new(format_state_name(args.name, name), data_type, true));
        let sum = field("exact sum", total);
        Ok(match self.answer {
            Answer::Sum => vec![sum],
            Answer::Average => vec![field("count", DataType::UInt64), sum],
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.builtin.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if !adds_doubles(args.return_field.data_type()) {
            return match self.total(&args) {
                Some(total) => exact_integers::groups_accumulator(total),
                None => self.builtin.create_groups_accumulator(args),
            };
        }
        Ok(Box::new(ExactGroups::new(self.answer)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let whole: Box<dyn Accumulator> = match self.total(&args) {
            _ if adds_doubles(args.return_field.data_type()) => Box::new(ExactAccumulator::new(self.answer)),
            Some(total) => exact_integers::accumulator(total)?,
            None => return self.builtin.create_sliding_accumulator(args),
        };
        Ok(if args.is_distinct { Box::new(SlidingDistinct::new(whole)) } else { whole })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.builtin.documentation()
    }
    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.builtin.inner().set_monotonicity(data_type)
    }

    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        argument: &Expr,
        op: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        // `sum(x + 0.1)` over doubles rounds every term, `sum(x) + 0.1 * count(x)` does not: not the same answer.
        if matches!(literal, Expr::Literal(value, _) if value.data_type().is_floating()) {
            return Ok(None);
        }
        self.builtin.inner().simplify_expr_op_literal(function, argument, op, literal, argument_is_left)
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        // A file's own sum of doubles was rounded by whoever wrote it.
        if adds_doubles(statistics.return_type) { None } else { self.builtin.inner().value_from_stats(statistics) }
    }
}

/// One group, or a window frame.
#[derive(Debug, Clone)]
struct ExactAccumulator {
    answer: Answer,
    sum: ExactFloatSum,
    /// Doubles that were added; after a merge of sums, parts that had any.
    count: u64,
}

impl ExactAccumulator {
    fn new(answer: Answer) -> Self {
        Self { answer, sum: ExactFloatSum::default(), count: 0 }
    }
}

impl Accumulator for ExactAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = doubles(values)?;
        known_runs(values).for_each(|run| self.sum.add_all(run));
        self.count += (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = doubles(values)?;
        known_runs(values).for_each(|run| self.sum.remove_all(run));
        self.count = self.count.saturating_sub((values.len() - values.null_count()) as u64);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.answer.of(&self.sum, self.count)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.answer.to_state(std::iter::once((&self.sum, self.count)));
        state.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (sums, counts) = self.answer.state_sums(states)?;
        for row in (0..sums.len()).filter(|row| sums.is_valid(*row)) {
            self.sum.merge(&read(sums.value(row))?);
            self.count += counts.map_or(1, |counts| counts.value(row));
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sum.heap_bytes()
    }
}

/// An exact aggregate of no values.
pub(super) type OfNone = Box<dyn Fn() -> Result<Box<dyn Accumulator>> + Send + Sync>;

/// DISTINCT: DataFusion collects the values, which it would then add in the order of its hash table.
pub(super) struct ExactDistinct {
    /// Makes what adds the values.
    pub none: OfNone,
    /// What collects the values.
    pub distinct: Box<dyn Accumulator>,
}

impl std::fmt::Debug for ExactDistinct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExactDistinct").field("distinct", &self.distinct).finish_non_exhaustive()
    }
}

impl Accumulator for ExactDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.distinct.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut whole = (self.none)()?;
        for state in self.distinct.state()? {
            let ScalarValue::List(values) = state else {
                return internal_err!("distinct values are {}", state.data_type());
            };
            whole.update_batch(&[values.value(0)])?;
        }
        whole.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.distinct.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.distinct.merge_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.distinct.size()
    }
}

/// Many groups.
struct ExactGroups {
    answer: Answer,
    sums: Vec<ExactFloatSum>,
    counts: Vec<u64>,
    /// Bytes that sums hold beyond `sums`.
    heap_bytes: usize,
}

impl ExactGroups {
    fn new(answer: Answer) -> Self {
        Self { answer, sums: Vec::new(), counts: Vec::new(), heap_bytes: 0 }
    }

    fn grow(&mut self, groups: usize) {
        self.sums.resize_with(groups, Default::default);
        self.counts.resize(groups, 0);
    }

    fn take(&mut self, emit_to: EmitTo) -> (Vec<ExactFloatSum>, Vec<u64>) {
        let (sums, counts) = (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts));
        self.heap_bytes -= sums.iter().map(ExactFloatSum::heap_bytes).sum::<usize>();
        (sums, counts)
    }
}

impl GroupsAccumulator for ExactGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = doubles(values)?;
        self.grow(total_num_groups);
        let keep = kept(values, filter);
        self.heap_bytes += ExactFloatSum::add_by_group(values.values(), group_indices, keep.as_ref(), &mut self.sums, &mut self.counts);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let (sums, counts) = self.answer.state_sums(states)?;
        self.grow(total_num_groups);
        for (row, group) in group_indices.iter().enumerate() {
            if sums.is_valid(row) {
                let sum = &mut self.sums[*group];
                let before = sum.heap_bytes();
                sum.merge(&read(sums.value(row))?);
                self.heap_bytes += sum.heap_bytes() - before;
                self.counts[*group] += counts.map_or(1, |counts| counts.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, counts) = self.take(emit_to);
        Ok(Arc::new(sums.iter().zip(counts).map(|(sum, count)| self.answer.of(sum, count)).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, counts) = self.take(emit_to);
        Ok(self.answer.to_state(sums.iter().zip(counts.iter().copied())))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut rows = Self::new(self.answer);
        let count = doubles(values)?.len();
        rows.update_batch(values, &(0..count).collect::<Vec<_>>(), filter, count)?;
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.capacity() * (size_of::<ExactFloatSum>() + size_of::<u64>()) + self.heap_bytes
    }
}
