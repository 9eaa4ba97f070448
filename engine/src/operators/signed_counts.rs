//! Numbers of rows and of elements as BIGINT, as in Postgres and DuckDB: DataFusion's are unsigned, so that `-row_number() OVER ()` is refused and
//! clients get a type that SQL does not have.

use arrow::array::ArrayRef;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, LimitEffect, PartitionEvaluator, ReturnFieldArgs, ReversedUDWF, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_plan::PhysicalExpr;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

const WINDOW_FUNCTIONS: [&str; 4] = ["row_number", "rank", "dense_rank", "ntile"];
const SCALAR_FUNCTIONS: [&str; 6] = ["array_length", "array_ndims", "array_dims", "array_position", "array_positions", "cardinality"];

/// Puts the functions in the place of DataFusion's, on coordinators and workers.
pub fn register_signed_counts(state: &mut SessionState) -> Result<()> {
    for name in WINDOW_FUNCTIONS {
        let of = state.udwf(name)?;
        state.register_udwf(Arc::new(WindowUDF::new_from_impl(Numbered { of })))?;
    }
    for name in SCALAR_FUNCTIONS {
        let of = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Counted { of })))?;
    }
    Ok(())
}

/// `row_number()`, to be put into a plan: by that name the others know it.
pub fn row_number() -> Expr {
    static FUNCTION: LazyLock<Arc<WindowUDF>> = LazyLock::new(|| Arc::new(WindowUDF::new_from_impl(Numbered { of: row_number_udwf() })));
    Expr::from(WindowFunction::new(FUNCTION.clone(), vec![]))
}

/// The type with a sign: no count reaches 2^63.
fn signed(of: &DataType) -> DataType {
    match of {
        DataType::UInt64 => DataType::Int64,
        DataType::List(items) => DataType::List(Arc::new(signed_field(items))),
        other => other.clone(),
    }
}

fn signed_field(of: &Field) -> Field {
    of.clone().with_data_type(signed(of.data_type()))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Counted {
    of: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Counted {
    fn name(&self) -> &str {
        self.of.name()
    }
    fn aliases(&self) -> &[String] {
        self.of.aliases()
    }
    fn signature(&self) -> &Signature {
        self.of.signature()
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.of.coerce_types(types)
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(signed(&self.of.return_type(types)?))
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(signed_field(self.of.return_field_from_args(args)?.as_ref())))
    }
    fn is_strict(&self) -> bool {
        self.of.inner().is_strict()
    }
    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.of.inner().output_ordering(input)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.of.documentation()
    }
    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type().clone();
        let scalars = args.args.iter().map(|argument| match argument {
            ColumnarValue::Scalar(value) => Some(value),
            ColumnarValue::Array(_) => None,
        });
        let scalars = scalars.collect::<Vec<_>>();
        args.return_field = self.of.return_field_from_args(ReturnFieldArgs { arg_fields: &args.arg_fields, scalar_arguments: &scalars })?;
        self.of.invoke_with_args(args)?.cast_to(&result, None)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Numbered {
    of: Arc<WindowUDF>,
}

impl WindowUDFImpl for Numbered {
    fn name(&self) -> &str {
        self.of.name()
    }
    fn aliases(&self) -> &[String] {
        self.of.aliases()
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
        Ok(Box::new(SignedNumbers { of: self.of.partition_evaluator_factory(args)? }))
    }
    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(signed_field(self.of.field(args)?.as_ref())))
    }
    fn sort_options(&self) -> Option<SortOptions> {
        self.of.sort_options()
    }
    fn reverse_expr(&self) -> ReversedUDWF {
        // None of them has a reverse.
        ReversedUDWF::NotSupported
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.of.documentation()
    }
    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.of.inner().limit_effect(args)
    }
}

#[derive(Debug)]
struct SignedNumbers {
    of: Box<dyn PartitionEvaluator>,
}

impl PartitionEvaluator for SignedNumbers {
    fn get_range(&self, index: usize, rows: usize) -> Result<Range<usize>> {
        self.of.get_range(index, rows)
    }
    fn is_causal(&self) -> bool {
        self.of.is_causal()
    }
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        Ok(cast(&self.of.evaluate_all(values, rows)?, &DataType::Int64)?)
    }
    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        self.of.evaluate(values, range)?.cast_to(&DataType::Int64)
    }
    fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef> {
        Ok(cast(&self.of.evaluate_all_with_rank(rows, ranks)?, &DataType::Int64)?)
    }
    fn supports_bounded_execution(&self) -> bool {
        self.of.supports_bounded_execution()
    }
    fn uses_window_frame(&self) -> bool {
        self.of.uses_window_frame()
    }
    fn include_rank(&self) -> bool {
        self.of.include_rank()
    }
}
