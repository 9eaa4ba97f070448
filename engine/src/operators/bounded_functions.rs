//! DataFusion's functions that make more than they are given, such as `repeat`: each finds memory for its result before it runs.
//!
//! They travel under their own names, and every node knows them in this form. What is [foreseen](super::function_sizes) to be small runs as it is; where
//! much less may come of it than is foreseen, rows are taken in parts until each part finds memory.

use super::function_memory::{Making, find};
use super::function_sizes::{Growth, growth_of};
use super::string_concat::string_concat;
use crate::limits;
use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ExprSchema, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    StructFieldMapping,
};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::PhysicalExpr;
use std::sync::Arc;

/// Puts them in the place of DataFusion's.
pub fn register_bounded_functions(state: &mut SessionState) -> Result<()> {
    state.register_udf(string_concat())?;
    let functions: Vec<_> = state.scalar_functions().values().filter_map(bounded).collect();
    for function in functions {
        state.register_udf(function)?;
    }
    Ok(())
}

/// The function with its bound; `None` if it needs none, or has it.
fn bounded(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    let growth = growth_of(function.name())?;
    let is_bounded = function.inner().is::<Bounded>();
    (!is_bounded).then(|| Arc::new(ScalarUDF::from(Bounded { of: function.clone(), growth })))
}

/// The expression with the bound of its function, for those that the planner calls by themselves.
pub fn with_bound(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let func = bounded(&func).unwrap_or(func);
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        other => other,
    }
}

fn is_constant(args: &[ColumnarValue]) -> bool {
    args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)))
}

/// Bytes of what a call makes of constants; `None` if it is of rows, or of a function that makes no more than it is given.
pub fn bytes_of_constant_call(call: &ScalarFunctionExpr) -> Option<usize> {
    let bounded = call.fun().inner().downcast_ref::<Bounded>()?;
    if call.args().iter().any(|argument| !collect_columns(argument).is_empty()) {
        return None;
    }
    let literal = |argument: &Arc<dyn PhysicalExpr>| Some(ColumnarValue::Scalar(argument.downcast_ref::<Literal>()?.value().clone()));
    // What is made of constants that are made where it runs may be as long as there is memory for.
    let Some(args) = call.args().iter().map(literal).collect::<Option<Vec<_>>>() else { return Some(limits::FUNCTION_BYTES_MAX) };
    let arg_fields = args.iter().map(|argument| Arc::new(Field::new("", argument.data_type(), true))).collect();
    let return_field = Arc::new(Field::new("", call.return_type().clone(), true));
    let args = ScalarFunctionArgs { args, arg_fields, number_rows: 1, return_field, config_options: Arc::default() };
    Some(bounded.growth.bytes(&args).unwrap_or(limits::FUNCTION_BYTES_MAX))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    of: Arc<ScalarUDF>,
    growth: Growth,
}

impl Bounded {
    /// Runs the function for some of the rows after it has found memory for what it makes of them.
    fn make(&self, args: ScalarFunctionArgs, bytes: usize) -> Result<ColumnarValue> {
        let constant = is_constant(&args.args);
        // A constant stays one: whoever makes a column of it takes rows [in parts](super::in_parts).
        let (bytes, rows) = if constant { (bytes / args.number_rows.max(1), 1) } else { (bytes, args.number_rows) };
        let making = Making { function: self.of.name(), bytes, rows, is_list: args.return_field.data_type().is_nested() };
        let found = match find(&making, &args.config_options) {
            Ok(found) => found,
            Err(_) if rows > 1 && self.growth.may_make_less() => return self.make_in_halves(&args),
            Err(error) => return Err(error),
        };
        match self.of.invoke_with_args(args)? {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(found.for_array(array)?)),
            scalar => Ok(scalar),
        }
    }

    fn make_in_halves(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let half = args.number_rows / 2;
        let part_of = |from: usize, rows: usize| -> Result<ArrayRef> {
            let part = |argument: &ColumnarValue| match argument {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, rows)),
                scalar => scalar.clone(),
            };
            let part = ScalarFunctionArgs {
                args: args.args.iter().map(part).collect(),
                arg_fields: args.arg_fields.clone(),
                number_rows: rows,
                return_field: args.return_field.clone(),
                config_options: args.config_options.clone(),
            };
            self.invoke_with_args(part)?.into_array(rows)
        };
        // Without the first there is no need of the second.
        let first = part_of(0, half)?;
        let second = part_of(half, args.number_rows - half)?;
        let making = Making {
            function: self.of.name(),
            bytes: first.get_array_memory_size().saturating_add(second.get_array_memory_size()),
            rows: args.number_rows,
            is_list: args.return_field.data_type().is_nested(),
        };
        let found = find(&making, &args.config_options)?;
        Ok(ColumnarValue::Array(found.for_array(concat(&[&first, &second])?)?))
    }
}

// Delegates all that there is: what is left out would fall back to a default that says less than the function.
#[warn(clippy::missing_trait_methods)]
impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.of.name()
    }
    fn aliases(&self) -> &[String] {
        self.of.aliases()
    }
    #[expect(deprecated, reason = "the function may have its own")]
    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.of.inner().display_name(args)
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.of.schema_name(args)
    }
    fn signature(&self) -> &Signature {
        self.of.signature()
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.of.return_type(types)
    }
    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let of = Arc::new(self.of.inner().with_updated_config(config)?);
        Some(ScalarUDF::from(Self { of, growth: self.growth }))
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.of.return_field_from_args(args)
    }
    #[expect(deprecated, reason = "the function may have its own")]
    fn is_nullable(&self, args: &[Expr], schema: &dyn ExprSchema) -> bool {
        self.of.is_nullable(args, schema)
    }
    fn is_strict(&self) -> bool {
        self.of.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = self.growth.bytes(&args)?;
        if bytes <= limits::FUNCTION_FREE_BYTES {
            return self.of.invoke_with_args(args);
        }
        self.make(args, bytes)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.of.simplify(args, context)? {
            ExprSimplifyResult::Simplified(expr) => {
                ExprSimplifyResult::Simplified(expr.transform_up(|part| Ok(Transformed::yes(with_bound(part))))?.data)
            }
            original => original,
        })
    }
    fn preimage(&self, args: &[Expr], literal: &Expr, context: &SimplifyContext) -> Result<PreimageResult> {
        self.of.preimage(args, literal, context)
    }
    fn short_circuits(&self) -> bool {
        self.of.short_circuits()
    }
    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.of.conditional_arguments(args)
    }
    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.of.evaluate_bounds(inputs)
    }
    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.of.propagate_constraints(interval, inputs)
    }
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.of.output_ordering(inputs)
    }
    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.of.preserves_lex_ordering(inputs)
    }
    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.of.strictly_order_preserving(inputs)
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.of.coerce_types(types)
    }
    fn struct_field_mapping(&self, literals: &[Option<datafusion::common::ScalarValue>]) -> Option<StructFieldMapping> {
        self.of.struct_field_mapping(literals)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.of.documentation()
    }
    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.of.inner().placement(args)
    }
}
