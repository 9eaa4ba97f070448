//! `var`, `var_pop`, `stddev` and `stddev_pop` under DataFusion's names and aliases: the variance of the doubles themselves, rounded once,
//! and its root, rounded once. DataFusion's own depend on the order of rows and on how they are spread over workers.
//!
//! Beside DataFusion's: one NaN or infinity gives NaN in a population of one too, grouped or not, and standard deviations know DISTINCT.

use super::exact_aggregates::{ExactDistinct, column, doubles, kept, known_runs};
use arrow::array::{ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use bowshot_kernels::{Divisor, ExactVariance};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::functions_aggregate::stddev::{stddev_pop_udaf, stddev_udaf};
use datafusion::functions_aggregate::variance::{var_pop_udaf, var_samp_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};
use std::sync::Arc;

/// The four aggregates.
pub(super) fn variances() -> impl Iterator<Item = Arc<AggregateUDF>> {
    let answer = |root, divisor| Answer { root, divisor };
    [
        (var_samp_udaf(), answer(false, Divisor::Sample)),
        (var_pop_udaf(), answer(false, Divisor::Population)),
        (stddev_udaf(), answer(true, Divisor::Sample)),
        (stddev_pop_udaf(), answer(true, Divisor::Population)),
    ]
    .into_iter()
    .map(|(builtin, answer)| Arc::new(AggregateUDF::new_from_impl(VarianceAggregate { builtin, answer })))
}

/// What is asked of a variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Answer {
    /// Whether the standard deviation is.
    root: bool,
    divisor: Divisor,
}

impl Answer {
    fn of(self, variance: &ExactVariance) -> Option<f64> {
        if self.root { variance.standard_deviation(self.divisor) } else { variance.variance(self.divisor) }
    }
}

/// The state's one column: NULL where nothing was added.
fn to_state<'v>(variances: impl Iterator<Item = &'v ExactVariance>) -> ArrayRef {
    Arc::new(variances.map(|variance| (variance.count() > 0).then(|| variance.to_bytes())).collect::<BinaryArray>())
}

fn state_column(states: &[ArrayRef]) -> Result<&BinaryArray> {
    match states {
        [state] => column(state, |state| state.as_binary_opt()),
        _ => internal_err!("a state of {} columns for a variance", states.len()),
    }
}

fn read(bytes: &[u8]) -> Result<ExactVariance> {
    ExactVariance::from_bytes(bytes).or_else(|error| exec_err!("a partial aggregate: {error}"))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct VarianceAggregate {
    builtin: Arc<AggregateUDF>,
    answer: Answer,
}

impl AggregateUDFImpl for VarianceAggregate {
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
        let answer = self.answer;
        let none = move || Ok(Box::new(VarianceAccumulator { answer, variance: ExactVariance::default() }) as Box<dyn Accumulator>);
        if args.is_distinct {
            // The one that collects values: standard deviations have none of their own.
            return Ok(Box::new(ExactDistinct { none: Box::new(none), distinct: var_samp_udaf().accumulator(args)? }));
        }
        none()
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            return var_samp_udaf().state_fields(args);
        }
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "exact variance"), DataType::Binary, true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.builtin.groups_accumulator_supported(args)
    }
    fn create_groups_accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(VarianceGroups::new(self.answer)))
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
}

/// One group, or a window frame.
#[derive(Debug, Clone)]
struct VarianceAccumulator {
    answer: Answer,
    variance: ExactVariance,
}

impl Accumulator for VarianceAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        known_runs(doubles(values)?).for_each(|run| self.variance.add_all(run));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        known_runs(doubles(values)?).for_each(|run| self.variance.remove_all(run));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.answer.of(&self.variance)))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(&to_state(std::iter::once(&self.variance)), 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in state_column(states)?.iter().flatten() {
            self.variance.merge(&read(state)?);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.variance.heap_bytes()
    }
}

/// Many groups.
struct VarianceGroups {
    answer: Answer,
    variances: Vec<ExactVariance>,
    /// Bytes that variances hold beyond `variances`.
    heap_bytes: usize,
}

impl VarianceGroups {
    fn new(answer: Answer) -> Self {
        Self { answer, variances: Vec::new(), heap_bytes: 0 }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<ExactVariance> {
        let variances = emit_to.take_needed(&mut self.variances);
        self.heap_bytes -= variances.iter().map(ExactVariance::heap_bytes).sum::<usize>();
        variances
    }
}

impl GroupsAccumulator for VarianceGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = doubles(values)?;
        self.variances.resize_with(total_num_groups, Default::default);
        let keep = kept(values, filter);
        self.heap_bytes += ExactVariance::add_by_group(values.values(), group_indices, keep.as_ref(), &mut self.variances);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.variances.resize_with(total_num_groups, Default::default);
        for (state, group) in state_column(states)?.iter().zip(group_indices) {
            let Some(state) = state else { continue };
            let variance = &mut self.variances[*group];
            let before = variance.heap_bytes();
            variance.merge(&read(state)?);
            self.heap_bytes += variance.heap_bytes() - before;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(self.take(emit_to).iter().map(|variance| self.answer.of(variance)).collect::<Float64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![to_state(self.take(emit_to).iter())])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut rows = Self::new(self.answer);
        let count = doubles(values)?.len();
        rows.update_batch(values, &(0..count).collect::<Vec<_>>(), filter, count)?;
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.variances.capacity() * size_of::<ExactVariance>() + self.heap_bytes
    }
}
