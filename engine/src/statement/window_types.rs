//! Types within window functions: of a frame's bounds, and of the default of LAG and LEAD.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, cast, lit};

/// A window whose frame is a range around an integer, which may be the least or greatest of its type: a bound beyond it would be NULL.
pub(super) fn with_wide_range(expr: Expr, schema: &DFSchema) -> Expr {
    let Expr::WindowFunction(mut window) = expr else { return expr };
    let frame = &window.params.window_frame;
    let is_value = |bound: &WindowFrameBound| matches!(bound, WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) if !offset.is_null());
    if frame.units == WindowFrameUnits::Range
        && (is_value(&frame.start_bound) || is_value(&frame.end_bound))
        && let [key] = window.params.order_by.as_mut_slice()
        && key.expr.get_type(schema).is_ok_and(|data_type| data_type.is_integer())
    {
        key.expr = cast(std::mem::take(&mut key.expr), DataType::Decimal128(20, 0));
    }
    Expr::WindowFunction(window)
}

/// A `lag` or `lead` whose values and default have one type: the default would be rounded to the values' type.
pub(super) fn with_default_of_one_type(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let Expr::WindowFunction(mut window) = expr else { return Ok(expr) };
    if let WindowFunctionDefinition::WindowUDF(function) = &window.fun
        && ["lag", "lead"].contains(&function.name())
        && let [value, _, default] = window.params.args.as_mut_slice()
        && let Expr::Literal(constant, _) = &*default
        && let (of, given) = (value.get_type(schema)?, constant.data_type())
        && of != given
        && let Some(both) = type_union_coercion(&of, &given)
    {
        *default = lit(constant.cast_to(&both)?);
        if of != both {
            *value = cast(std::mem::take(value), both);
        }
    }
    Ok(Expr::WindowFunction(window))
}
