//! Window functions that carry their own FILTER and IGNORE NULLS, and are computed in the order that is written.
//!
//! The encoding in which DataFusion's plans travel has a place for neither: a worker would compute the function without it, and say nothing.
//! What a function does by itself travels under its name, so a window with such an option calls another function:
//!
//! ```text
//!   count(x) FILTER (WHERE v > 1) OVER w     ──►   filtered_count(x, v > 1) OVER w
//!   lag(v, 2) IGNORE NULLS OVER w            ──►   ignoring_nulls_lag(v, 2) OVER w
//! ```

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{SortOptions, filter, interleave, prep_null_mask_filter};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, ExpressionArgs, PartitionEvaluatorArgs, StateFieldsArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, LimitEffect, PartitionEvaluator, ReversedUDAF, ReversedUDWF, Signature,
    Volatility, WindowFunctionDefinition, WindowUDF, WindowUDFImpl, lit,
};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::PhysicalExpr;
use std::sync::Arc;

/// Registers what [`with_own_options`] calls, beside every function that a state has.
pub fn register_window_options(state: &mut SessionState) -> Result<()> {
    let aggregates: Vec<_> = state.aggregate_functions().values().cloned().collect();
    for aggregate in aggregates {
        state.register_udaf(Arc::new(Filtered::over(aggregate)))?;
    }
    let functions: Vec<_> = state.window_functions().values().cloned().collect();
    for function in functions {
        let function = match function.reverse_expr() {
            ReversedUDWF::NotSupported => function,
            _ => Arc::new(InWrittenOrder::over(function)),
        };
        state.register_udwf(function.clone())?;
        state.register_udwf(Arc::new(InWrittenOrder::ignoring_nulls(function)))?;
    }
    Ok(())
}

/// The same function with its options as its own; `None` where it has none that would be lost.
pub fn with_own_options(window: &WindowFunction) -> Result<Option<WindowFunction>> {
    let mut own = window.clone();
    let WindowFunctionParams { args, filter, null_treatment, .. } = &mut own.params;
    match &window.fun {
        WindowFunctionDefinition::AggregateUDF(aggregate) => {
            // An aggregate whose answer depends on the order would be read backwards too, see [`InWrittenOrder`].
            let ordered = matches!(aggregate.reverse_udf(), ReversedUDAF::Reversed(_));
            let all = || ordered.then(|| Box::new(lit(true)));
            let Some(filter) = filter.take().or_else(all) else { return Ok(None) };
            args.push(*filter);
            own.fun = WindowFunctionDefinition::AggregateUDF(Arc::new(Filtered::over(aggregate.clone())));
        }
        WindowFunctionDefinition::WindowUDF(function) => {
            if filter.is_some() {
                return plan_err!("FILTER is for aggregates, and {} is none: filter its rows with CASE", function.name());
            }
            if null_treatment.take() != Some(NullTreatment::IgnoreNulls) {
                return Ok(None);
            }
            own.fun = WindowFunctionDefinition::WindowUDF(Arc::new(InWrittenOrder::ignoring_nulls(function.clone())));
        }
    }
    Ok(Some(own))
}

/// An aggregate whose last argument says which rows count.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Filtered {
    name: String,
    of: Arc<AggregateUDF>,
    signature: Signature,
}

impl Filtered {
    fn over(of: Arc<AggregateUDF>) -> AggregateUDF {
        let signature = Signature::user_defined(Volatility::Immutable);
        AggregateUDF::new_from_impl(Self { name: format!("filtered_{}", of.name()), of, signature })
    }

    /// What the aggregate itself is called with.
    fn inner<'a>(args: AccumulatorArgs<'a>) -> AccumulatorArgs<'a> {
        let count = args.exprs.len().saturating_sub(1);
        AccumulatorArgs { exprs: &args.exprs[..count], expr_fields: &args.expr_fields[..count], ..args }
    }
}

impl AggregateUDFImpl for Filtered {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // The arguments have the types that the aggregate asks for, and the filter was one of a FILTER clause.
        match types.last() {
            Some(DataType::Boolean) => Ok(types.to_vec()),
            _ => plan_err!("the last argument of {} says which rows count: it must be boolean", self.name),
        }
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.of.return_type(&types[..types.len().saturating_sub(1)])
    }
    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.of.return_field(&fields[..fields.len().saturating_sub(1)])
    }
    fn is_nullable(&self) -> bool {
        self.of.is_nullable()
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(FilteredRows { of: self.of.accumulator(Self::inner(args))? }))
    }
    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(FilteredRows { of: self.of.create_sliding_accumulator(Self::inner(args))? }))
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let count = args.input_fields.len().saturating_sub(1);
        self.of.state_fields(StateFieldsArgs { input_fields: &args.input_fields[..count], ..args })
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.of.order_sensitivity()
    }
    fn reverse_expr(&self) -> ReversedUDAF {
        match self.of.reverse_udf() {
            ReversedUDAF::Identical => ReversedUDAF::Identical,
            _ => ReversedUDAF::NotSupported,
        }
    }
    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.of.default_value(data_type)
    }
    fn supports_null_handling_clause(&self) -> bool {
        self.of.supports_null_handling_clause()
    }
}

/// LAG and LEAD over NULLs: the value so many known ones before or behind. DataFusion's own loses count where NULLs lie between.
#[derive(Debug)]
struct ShiftOverNulls {
    /// Behind the row, or before it where negative.
    rows: i64,
    default: ScalarValue,
}

impl PartitionEvaluator for ShiftOverNulls {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let Some(values) = values.first() else { return internal_err!("LAG and LEAD have an argument") };
        let known: Vec<usize> = (0..num_rows).filter(|row| values.is_valid(*row)).collect();
        // How many known values lie before the row, and whether its own is one.
        let (mut before, count) = (0usize, self.rows.unsigned_abs() as usize);
        let default = self.default.to_array_of_size(1)?;
        let picks = (0..num_rows).map(|row| {
            let is_known = values.is_valid(row);
            let at = match self.rows {
                0 => return (1, row),
                ..0 => before.checked_sub(count),
                1.. => (before + usize::from(is_known)).checked_add(count - 1),
            };
            before += usize::from(is_known);
            at.and_then(|at| known.get(at)).map_or((0, 0), |row| (1, *row))
        });
        let picks: Vec<(usize, usize)> = picks.collect();
        Ok(interleave(&[default.as_ref(), values.as_ref()], &picks)?)
    }
}

/// Lets through the rows whose filter is true.
#[derive(Debug)]
struct FilteredRows {
    of: Box<dyn Accumulator>,
}

impl FilteredRows {
    fn kept(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let Some((mask, values)) = values.split_last() else { return internal_err!("a filter is missing") };
        let Some(mask) = mask.as_boolean_opt() else { return internal_err!("a filter is {}", mask.data_type()) };
        let mask: BooleanArray = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
        values.iter().map(|values| Ok(filter(values, &mask)?)).collect()
    }
}

impl Accumulator for FilteredRows {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.of.update_batch(&Self::kept(values)?)
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.of.retract_batch(&Self::kept(values)?)
    }
    fn supports_retract_batch(&self) -> bool {
        self.of.supports_retract_batch()
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.of.evaluate()
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.of.state()
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.of.merge_batch(states)
    }
    fn size(&self) -> usize {
        size_of_val(self) + self.of.size()
    }
}

/// A window function that is computed in the order that is written, and passes over NULLs if it shall. DataFusion would compute
/// `lag(v) OVER (ORDER BY k DESC)` over rows in the order of k backwards, as another function; that it does so is lost on the way to a worker, and
/// the answer was wrong without one too.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InWrittenOrder {
    name: String,
    of: Arc<WindowUDF>,
    ignores_nulls: bool,
}

impl InWrittenOrder {
    fn over(of: Arc<WindowUDF>) -> WindowUDF {
        WindowUDF::new_from_impl(Self { name: of.name().into(), of, ignores_nulls: false })
    }

    fn ignoring_nulls(of: Arc<WindowUDF>) -> WindowUDF {
        WindowUDF::new_from_impl(Self { name: format!("ignoring_nulls_{}", of.name()), of, ignores_nulls: true })
    }
}

impl WindowUDFImpl for InWrittenOrder {
    fn name(&self) -> &str {
        &self.name
    }
    fn aliases(&self) -> &[String] {
        if self.ignores_nulls { &[] } else { self.of.aliases() }
    }
    fn signature(&self) -> &Signature {
        self.of.signature()
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.of.coerce_types(types)
    }
    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        self.of.expressions(args)
    }
    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let sign = match self.of.name() {
            "lag" if self.ignores_nulls => -1,
            "lead" if self.ignores_nulls => 1,
            _ => {
                let ignores_nulls = self.ignores_nulls || args.ignore_nulls();
                let args = PartitionEvaluatorArgs::new(args.input_exprs(), args.input_fields(), args.is_reversed(), ignores_nulls);
                return self.of.partition_evaluator_factory(args);
            }
        };
        let literal = |at: usize| args.input_exprs().get(at).and_then(|expr| expr.downcast_ref::<Literal>()).map(Literal::value);
        let rows = match literal(1).map(|rows| rows.cast_to(&DataType::Int64)).transpose()? {
            None => 1,
            Some(ScalarValue::Int64(Some(rows))) => rows,
            Some(_) => return plan_err!("the second argument of {} is a number of rows", self.of.name()),
        };
        let data_type = args.input_fields()[0].data_type();
        let default = literal(2).map_or_else(|| ScalarValue::try_from(data_type), |value| value.cast_to(data_type))?;
        Ok(Box::new(ShiftOverNulls { rows: rows.saturating_mul(sign), default }))
    }
    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        self.of.field(args)
    }
    fn sort_options(&self) -> Option<SortOptions> {
        self.of.sort_options()
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.of.documentation()
    }
    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        match self.of.inner().limit_effect(args) {
            LimitEffect::None => LimitEffect::None,
            // How far the next value lies that is not NULL, nobody knows.
            _ if self.ignores_nulls => LimitEffect::Unknown,
            known => known,
        }
    }
}
